# SPDX-License-Identifier: Apache-2.0
"""The table of suites is complete, and what it names exists."""

import re

from tests.support import base
from tests.support import pages
from tools import suites

TESTS = pages.TREE / 'tests'


def named(name: str) -> suites.Suite:
    [found] = [suite for suite in suites.SUITES if suite.name == name]
    return found


class TableTest(base.TestCase):

    def test_each_name_is_there_once(self) -> None:
        names = [suite.name for suite in suites.SUITES]

        self.assertEqual(sorted(set(names)), sorted(names))

    def test_each_run_has_results_of_its_own(self) -> None:
        names = [run.name for suite in suites.SUITES for run in suite.runs]

        self.assertEqual(sorted(set(names)), sorted(names))

    def test_each_runs_tests_or_a_command(self) -> None:
        self.assertEqual([], [
            suite.name for suite in suites.SUITES
            if bool(suite.runs) == bool(suite.command)])

    def test_each_directory_has_tests(self) -> None:
        for suite in suites.SUITES:
            for run in suite.runs:
                found = list((TESTS / run.directory).rglob('test_*.py'))
                self.assertNotEqual([], found, run.name)

    def test_each_directory_of_tests_belongs_to_a_suite(self) -> None:
        run = {TESTS / run.directory for suite in suites.SUITES
               for run in suite.runs}

        self.assertEqual([], [
            str(path) for path in TESTS.rglob('test_*.py')
            if run.isdisjoint(path.parents)])

    def test_each_command_exists(self) -> None:
        commands = {word for suite in suites.SUITES for word in suite.command
                    if word.startswith('tools/')}

        self.assertEqual({'tools/style', 'tools/mutants'}, commands)
        for command in commands:
            self.assertTrue((pages.TREE / command).exists(), command)

    def test_each_environment_has_pins(self) -> None:
        for suite in suites.SUITES:
            if suite.environment:
                self.assertTrue(
                    (TESTS / f'data/constraints/{suite.environment}.txt')
                    .exists(), suite.name)

    def test_each_profile_of_packages_exists(self) -> None:
        profiles = set(re.findall(
            r'\w+', ' '.join(re.findall(
                r'platform:dpkg ([^]]*)]',
                (pages.TREE / 'bindep.txt').read_text()))))

        self.assertEqual(
            set(), set(suites.packages(list(suites.SUITES))) - profiles)

    def test_only_guests_are_in_need_of_what_boots_them(self) -> None:
        self.assertEqual(
            {'hosts/kvm', 'hosts/one', 'hosts/two'},
            {run.directory for suite in suites.SUITES for run in suite.runs
             if 'guest' in suite.packages})

    def test_what_ci_runs(self) -> None:
        self.assertEqual(
            ['style', 'unit', 'packaging', 'hosts-one', 'conformance',
             'conformance-nova29', 'conformance-nova31', 'conformance-nova33',
             *suites.RELEASES, 'mutants-sample'],
            [suite.name for suite in suites.SUITES if suite.by_default])

    def test_unit_tests_that_meet_nova_run_with_each_release(self) -> None:
        for release in suites.RELEASES:
            directories = [run.directory for run in named(release).runs]

            self.assertEqual(
                ['nova'] if release == suites.NEWEST
                else ['nova', 'unit/compute'], directories)

    def test_slow_tests_run_with_three_releases(self) -> None:
        slow = ['test_migration', *(
            f'nvram.{path.stem}'
            for path in (TESTS / 'nova/nvram').glob('test_*.py'))]

        self.assertGreater(len(slow), 5)
        for module in slow:
            self.assertEqual(['nova29', 'nova31', 'nova34'],
                             self.releases_that_run(module), module)

    def test_benchmarks_run_with_the_newest_release(self) -> None:
        self.assertEqual([suites.NEWEST],
                         self.releases_that_run('test_benchmarks'))

    def test_the_driver_s_tests_run_with_each_release(self) -> None:
        self.assertEqual([*suites.RELEASES],
                         self.releases_that_run('test_driver'))

    def releases_that_run(self, module: str) -> list[str]:
        """Those that leave out no test of a module in tests/nova."""
        test = f'tests.nova.{module}.SomeTest.test_it'
        return [release for release in suites.RELEASES
                if not any(re.search(option, test) for option in
                           named(release).runs[0].options)]

    def test_options_choose_tests_that_exist(self) -> None:
        modules = [
            '.'.join(path.relative_to(pages.TREE).with_suffix('').parts) + '.'
            for path in TESTS.rglob('test_*.py')]

        for suite in suites.SUITES:
            for run in suite.runs:
                below = f'tests.{run.directory.replace("/", ".")}.'
                for option in run.options:
                    self.assertTrue(
                        option.startswith('--') or any(
                            re.search(option, module) for module in modules
                            if module.startswith(below)),
                        f'{run.name}: {option}')


class AskedTest(base.TestCase):

    def test_lanes_keep_the_order_that_was_asked_for(self) -> None:
        asked = [named(name) for name in (
            'unit', 'conformance-nova29', 'style', 'hosts-one')]

        guests, others = suites.lanes(asked)

        self.assertEqual(['conformance-nova29', 'hosts-one'],
                         [suite.name for suite in guests])
        self.assertEqual(['unit', 'style'], [suite.name for suite in others])

    def test_each_suite_is_in_one_lane(self) -> None:
        lanes = suites.lanes(list(suites.SUITES))

        self.assertEqual(
            sorted(suite.name for suite in suites.SUITES),
            sorted(suite.name for lane in lanes for suite in lane))

    def test_packages_of_several_are_asked_for_once(self) -> None:
        asked = [named(name) for name in ('unit', 'hosts-one', 'hosts-two')]

        self.assertEqual(['test', 'guest', 'hosts_two'],
                         suites.packages(asked))


class ShownTest(base.TestCase):

    def test_the_listing_names_each(self) -> None:
        shown = re.findall(
            r'^  ([\w-]+) \(.+ min\)\n(?: {6}.+\n)+ {6}Needs: \S',
            suites.listing(), re.M)

        self.assertEqual(sorted(suite.name for suite in suites.SUITES),
                         sorted(shown))

    def test_the_listing_fits_a_terminal(self) -> None:
        self.assertEqual([], [line for line in suites.listing().splitlines()
                              if len(line) > 79])

    def test_the_table_of_the_pages_names_each(self) -> None:
        rows = re.findall(r'^   \* - ``([\w-]+)``\n     - \S.*\n     - \S.*\n'
                          r'     - \S.*$', suites.table(), re.M)

        self.assertEqual(sorted(suite.name for suite in suites.SUITES),
                         sorted(rows))

    def test_the_page_includes_the_table(self) -> None:
        page = pages.TREE / 'doc/source/contributor/testing.rst'

        self.assertIn('.. include:: ../_generated/suites.rst\n',
                      page.read_text())
