# SPDX-License-Identifier: Apache-2.0
"""tools/test, with small suites in a tree of their own."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import fixtures

from tests.support import base
from tests.support import tools
from tools import suites

#: A table for the small tree; {suites} is the rest of it.
TABLE = '''
from tools.suites import *
SUITES = (
    Suite(name='good', what='It passes.', lane=GUESTS, minutes='1',
          packages=('test', 'guest'), runs=(
              Run(name='good', directory='good'),
              Run(name='good-unit', directory='good',
                  options=('test_it',)))),
    Suite(name='bad', what='It fails.', minutes='1',
          runs=(Run(name='bad', directory='bad'),)),
    Suite(name='none', what='It has no test.', minutes='1',
          runs=(Run(name='none', directory='good',
                    options=('no_such_test',)),)),
    Suite(name='glance', what='It needs Glance.', glance=True, minutes='1',
          command=('{python}', '-c', 'print("with Glance")')),
    Suite(name='broken', what='It breaks.', environment=None, minutes='1',
          command=('tools/broken',)),
    Suite(name='silent', what='It has no tests.', environment=None,
          minutes='1', by_default=False, command=('true',)),
    Suite(name='missing', what='It cannot be run.', environment=None,
          minutes='1', by_default=False, command=('tools/missing',)),
    Suite(name='long', what='It does not end.', environment=None,
          minutes='1', by_default=False, command=('tools/long',)),
)
'''

PASSES = '''
import unittest
class PassingTest(unittest.TestCase):
    def test_it(self):
        pass
    def test_that(self):
        self.skipTest('not today')
'''
FAILS = '''
import unittest
class FailingTest(unittest.TestCase):
    def test_it(self):
        self.fail('as it is meant to')
'''
#: Programs that are small here, and what they are instead.
PROGRAMS = {
    'packages': 'echo "packages $*" >> asked',
    'environment': 'echo "environment $*" >> asked; '
                   '[[ ! -e "no $1" ]] || exit 1; '
                   'echo making it >&2; echo "$PREFIX"',
    'broken': 'echo it breaks; exit 3',
    'long': 'echo $$ > running; sleep 600',
}


def is_running(pid: int) -> bool:
    try:
        stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(') ')[2][0] not in 'ZX'


def written(path: pathlib.Path) -> str:
    """What another process writes to a file, as soon as it has done so."""
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text().endswith('\n')):
        assert time.monotonic() < end, f'nothing writes {path}'
        time.sleep(0.1)
    return path.read_text()


class Tree(fixtures.Fixture):
    """A tree with tools/test, in a directory with a space."""

    def _setUp(self) -> None:
        top = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.temporary = top / 'temporary'
        self.temporary.mkdir()
        self.path = top / 'a tree'
        place = self.path / 'tools'
        place.mkdir(parents=True)
        for name in ('__init__.py', 'progress.py', 'test', 'totals.py'):
            shutil.copy(tools.TOOLS / name, place / name)
        shutil.copy(tools.TOOLS / 'suites.py', place / 'suites.py')
        with open(place / 'suites.py', 'a') as table:
            table.write(TABLE.replace('from tools.suites import *\n', ''))
        for name, text in PROGRAMS.items():
            (place / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
            (place / name).chmod(0o755)
        for name, text in (('good', PASSES), ('bad', FAILS)):
            tests = self.path / 'tests' / name
            tests.mkdir(parents=True)
            (tests / '__init__.py').touch()
            (tests / 'test_small.py').write_text(text)
        (self.path / 'tests/__init__.py').touch()

    def start(self, *arguments: str) -> subprocess.Popen:
        """tools/test with a Python that has no package installed."""
        environment = {name: value for name, value in os.environ.items()
                       if name not in ('PYTHONPATH', 'PYTHON')}
        environment |= {'TMPDIR': str(self.temporary), 'PREFIX': sys.prefix}
        return subprocess.Popen(
            (sys.executable, '-I', '-S', self.path / 'tools/test',
             *arguments), env=environment, stdin=subprocess.DEVNULL, cwd='/',
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        child = self.start(*arguments)
        stdout, stderr = child.communicate(timeout=120)
        return subprocess.CompletedProcess(
            child.args, child.returncode, stdout, stderr)

    @property
    def asked(self) -> list[str]:
        return (self.path / 'asked').read_text().splitlines()


class CommandTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.tree = self.useFixture(Tree())

    def assert_nothing_is_left(self) -> None:
        self.assertEqual([], os.listdir(self.tree.temporary))

    def test_one_that_fails_does_not_stop_the_others(self) -> None:
        done = self.tree.run()

        self.assertEqual(1, done.returncode)
        self.assertEqual('', done.stderr)
        lines = done.stdout.splitlines()
        for name in ('good', 'bad', 'none', 'glance', 'broken'):
            self.assertIn(f'== {name}: begins', lines)
        self.assertIn('failed suites: bad none broken', lines)
        self.assertIn('tools/broken ended with 3', lines)
        self.assertIn('bad: 1 run, 1 failed, 0 skipped', lines)
        self.assertIn('none: 0 run, 0 failed, 0 skipped', lines)
        self.assertIn('good: 2 run, 0 failed, 1 skipped', lines)
        self.assertIn('good-unit: 1 run, 0 failed, 0 skipped', lines)
        self.assertEqual('2 passed, 1 failed, 1 skipped', lines[-1])
        self.assert_nothing_is_left()

    def test_what_each_printed_is_shown_whole(self) -> None:
        lines = self.tree.run('broken', 'glance').stdout.splitlines()

        start = lines.index('== broken: begins')
        self.assertEqual(['it breaks', '', 'tools/broken ended with 3'],
                         lines[start + 1:start + 4])

    def test_what_is_installed_for_all(self) -> None:
        self.tree.run('good', 'glance')

        packages, newest, *rest = self.tree.asked
        self.assertEqual('packages test guest', packages)
        self.assertEqual('environment nova34', newest)
        self.assertIn('environment glance', rest)

    def test_one_that_passes(self) -> None:
        done = self.tree.run('good')

        self.assertEqual(0, done.returncode, done.stdout)
        self.assertIn('... ok\n', done.stdout)
        self.assertEqual('2 passed, 0 failed, 1 skipped',
                         done.stdout.splitlines()[-1])
        self.assert_nothing_is_left()

    def test_one_without_tests_fails(self) -> None:
        done = self.tree.run('none')

        self.assertEqual(1, done.returncode)
        self.assertEqual(['  no test ran', '0 passed, 0 failed, 0 skipped'],
                         done.stdout.splitlines()[-2:])

    def test_one_without_tests_to_count(self) -> None:
        done = self.tree.run('silent')

        self.assertEqual(0, done.returncode, done.stdout)
        self.assertEqual(['packages test'], self.tree.asked)

    def test_one_that_cannot_be_started(self) -> None:
        done = self.tree.run('missing')

        self.assertEqual(1, done.returncode)
        self.assertIn('tools/missing cannot be started', done.stdout)

    def test_an_environment_that_cannot_be_made(self) -> None:
        (self.tree.path / 'no glance').touch()

        done = self.tree.run('glance', 'silent')

        self.assertEqual(1, done.returncode)
        self.assertIn('tools/environment ended with 1\n', done.stdout)
        self.assertIn('\n== silent: took', done.stdout)
        self.assertEqual('failed suites: glance',
                         done.stdout.splitlines()[-1])

    def test_packages_that_cannot_be_installed(self) -> None:
        (self.tree.path / 'tools/packages').write_text(
            '#!/bin/sh\necho no root\nexit 1\n')

        done = self.tree.run('silent')

        self.assertEqual(1, done.returncode)
        self.assertIn('no root\ntools/packages ended with 1\n', done.stdout)
        self.assertNotIn('silent', done.stdout)

    def test_an_unknown_suite(self) -> None:
        done = self.tree.run('good', 'units')

        self.assertEqual(2, done.returncode)
        self.assertEqual('', done.stdout)
        self.assertEqual('There is no suite units: tools/test --help lists '
                         'all of them.\n', done.stderr)

    def test_help_names_each_suite(self) -> None:
        done = subprocess.run(
            (sys.executable, '-I', '-S', tools.TOOLS / 'test', '--help'),
            capture_output=True, text=True, check=True)

        self.assertIn(suites.listing(), done.stdout)

    def test_ctrl_c_ends_what_runs(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            child = self.tree.start('long', 'silent')
            self.addCleanup(child.kill)
            running = self.tree.path / 'running'
            pid = int(written(running))

            child.send_signal(number)
            stdout, stderr = child.communicate(timeout=30)

            self.assertEqual(130, child.returncode, stdout)
            self.assertEqual('', stderr)
            self.assertNotIn('== silent: begins', stdout)
            self.assertFalse(is_running(pid))
            self.assert_nothing_is_left()
            running.unlink()

    def test_it_can_be_run(self) -> None:
        self.assertTrue(os.access(tools.TOOLS / 'test', os.X_OK))


class CommandsTest(base.TestCase):

    def test_what_ignores_ctrl_c_is_killed(self) -> None:
        test = tools.load('test')
        place = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        commands = test.Commands()
        with (open(place / 'log', 'w') as log,
              test.concurrent.futures.ThreadPoolExecutor() as pool):
            work = pool.submit(
                commands.run, ('bash', '-c', 'trap "" INT; sleep 600 & '
                               'echo $! > "$0"; wait', place / 'pid'), log)
            pid = int(written(place / 'pid'))

            with mock.patch.object(test, 'PATIENCE', 0.5):
                commands.stop()

            self.assertRaises(test.Stopped, work.result)
            self.assertRaises(test.Stopped, commands.run, ('true',), log)
        self.assertFalse(is_running(pid))
