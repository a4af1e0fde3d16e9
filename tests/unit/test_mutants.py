# SPDX-License-Identifier: Apache-2.0
"""The lists of mutants fit the source, and the tool tells who survives."""

import contextlib
import io
import os
import pathlib
import sys
import unittest

import fixtures

from tests.support import base
from tests.support import tools

if sys.version_info < (3, 11):
    raise unittest.SkipTest('tools/mutants reads TOML, as Python 3.11 can')

mutants = tools.load('mutants')


class ListsTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.lists = sorted(mutants.LISTS.glob('*.toml'))
        self.mutants = [one for path in self.lists
                        for one in mutants.read(path)]

    def test_no_mutant_is_stale(self) -> None:
        self.assertLess(5, len(self.lists))
        for one in self.mutants:
            self.assertNotEqual(one.source(), one.mutated(), str(one))

    def test_each_is_there_once(self) -> None:
        places = [(one.file, one.within, one.before, one.after)
                  for one in self.mutants]

        self.assertEqual([], [one for one in set(places)
                              if places.count(one) > 1])

    def test_what_survives_is_explained(self) -> None:
        for one in self.mutants:
            self.assertIsInstance(one.survives, str)
            self.assertNotIn(one.survives.strip().lower(),
                             ('?', 'todo', 'equivalent'))

    def test_their_tests_exist(self) -> None:
        for name in {name for one in self.mutants for name in one.tests}:
            parts = name.split('.')
            # a module, and perhaps a class in it and one of its tests
            number = next((number for number, part in enumerate(parts)
                           if part[0].isupper()), len(parts))
            text = self.path('.'.join(parts[:number])).read_text()
            for part, kind in zip(parts[number:], ('class', '    def'),
                                  strict=False):
                self.assertIn(f'\n{kind} {part}(', text, name)

    @staticmethod
    def path(module: str) -> pathlib.Path:
        return mutants.TREE.joinpath(*module.split('.')).with_suffix('.py')


SOURCE = '''\
"""A shop."""


def price(pieces, each):
    if pieces < 0:
        raise ValueError
    if pieces > 10:
        each = each - 1
    return pieces * each


def forever(pieces):
    while pieces > 10:
        pieces -= 1
    return pieces
'''
TESTS = '''\
import unittest
import shop

class ShopTest(unittest.TestCase):
    def test_few(self):
        self.assertEqual(6, shop.price(2, 3))
    def test_negative(self):
        self.assertRaises(ValueError, shop.price, -1, 3)
    def test_forever(self):
        self.assertEqual(10, shop.forever(12))
'''


class ToolTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.file = self.root / 'shop.py'
        self.file.write_text(SOURCE)
        self.tests = self.root / 'test_shop.py'
        self.tests.write_text(TESTS)
        self.useFixture(fixtures.MonkeyPatch(
            'sys.path', [str(self.root), *sys.path]))
        # Nova is of no use here
        self.useFixture(fixtures.MockPatchObject(mutants, 'import_once'))
        self.useFixture(fixtures.MockPatchObject(
            mutants, 'LISTS', self.root))

    def mutant(self, before: str, after: str, within: str = 'price',
               survives: str = '') -> object:
        return mutants.Mutant(
            subject='shop', file=self.file, tests=('test_shop',),
            within=within, before=before, after=after, survives=survives)

    def run_list(self, *rows: str) -> tuple[int, str]:
        """The exit status of a list with these mutants, and what it says."""
        (self.root / 'shop.toml').write_text(
            f"file = '{self.file}'\ntests = ['test_shop']\n"
            + ''.join(f'\n[[mutants]]\n{row}\n' for row in rows))
        said = io.StringIO()
        with contextlib.redirect_stdout(said), \
                contextlib.redirect_stderr(said):
            status = mutants.main(['shop'])
        return status, said.getvalue()

    KILLED = "in = 'price'\nbefore = 'pieces < 0'\nafter = 'pieces > 0'"
    SURVIVES = ("in = 'price'\nbefore = 'each = each - 1'\n"
                "after = 'each = each - 2'")

    def test_one_that_the_tests_notice_is_killed(self) -> None:
        status, said = self.run_list(self.KILLED)

        self.assertEqual(0, status, said)
        self.assertIn('shop: 1 mutants, 1 killed, 0 explained, 100.0 percent',
                      said)
        # nothing of it is on the disk
        self.assertEqual(SOURCE, self.file.read_text())

    def test_one_that_they_do_not_is_printed(self) -> None:
        status, said = self.run_list(self.KILLED, self.SURVIVES)

        self.assertEqual(1, status)
        self.assertIn('shop.py:8: each = each - 1  ->  each = each - 2\n',
                      said)
        self.assertIn('shop: 2 mutants, 1 killed, 0 explained, 50.0 percent',
                      said)

    def test_one_that_is_explained_is_not(self) -> None:
        status, said = self.run_list(
            self.KILLED, f"{self.SURVIVES}\nsurvives = 'nobody buys so many'")

        self.assertEqual(0, status)
        self.assertNotIn('each - 2', said)
        self.assertIn('shop: 2 mutants, 1 killed, 1 explained, 100.0 percent',
                      said)

    def test_an_explanation_that_is_wrong_is_told(self) -> None:
        _, said = self.run_list(f"{self.KILLED}\nsurvives = 'nobody sees it'")

        self.assertIn('killed, though its list says that it survives', said)

    def test_one_that_does_not_end_is_killed(self) -> None:
        endless = self.mutant('pieces -= 1', 'pass', 'forever').mutated()

        [(number, passed, took)] = mutants.run([mutants.Job(
            self.file, endless, ('test_shop',), seconds=1)])

        self.assertEqual((0, False), (number, passed))
        self.assertLess(took, 30)

    def test_a_stale_one_is_an_error_that_names_it(self) -> None:
        for row in (self.KILLED.replace('< 0', '<< 0'),
                    self.KILLED.replace("'price'", "'cost'"),
                    # not once
                    self.KILLED.replace('pieces < 0', 'pieces')):
            status, said = self.run_list(row)

            self.assertEqual(1, status)
            self.assertIn('tools/mutants: shop: stale mutant: ', said)

    def test_one_that_is_not_python_is_an_error(self) -> None:
        status, said = self.run_list(self.KILLED.replace('> 0', '> > 0'))

        self.assertEqual(1, status)
        self.assertIn('the source is not Python', said)

    def test_tests_that_fail_anyway_say_nothing(self) -> None:
        other = TESTS.replace('import shop', 'import os as shop')
        for text in (TESTS.replace('(6,', '(7,'), 'import nosuch', '',
                     # the file is not imported
                     other[:other.index('    def')]
                     + '    def test_other(self):\n        pass\n'):
            self.tests.write_text(text)

            status, said = self.run_list(self.KILLED)

            self.assertEqual(1, status)
            self.assertIn('the tests fail without a mutant', said)

    def test_a_list_that_is_not_there(self) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(1, mutants.main(['nosuch']))

        self.assertIn('nosuch.toml', said.getvalue())

    def test_what_it_proposes_is_a_list(self) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            mutants.main(['--record', str(self.file)])
        path = self.root / 'proposed.toml'
        path.write_text(said.getvalue())

        found = mutants.read(path)

        self.assertEqual([], [one for one in found
                              if one.mutated() == SOURCE])
        for before, after in (('if pieces < 0:', 'if pieces <= 0:'),
                              ('raise ValueError', 'pass'),
                              ('return pieces * each', 'return None'),
                              ('if pieces > 10:', 'if pieces > 11:'),
                              ('if pieces > 10:', 'if not (pieces > 10):')):
            self.assertIn(('price', before, after), [
                (one.within, one.before, one.after) for one in found])

    def test_it_can_be_run(self) -> None:
        self.assertTrue(os.access(tools.TOOLS / 'mutants', os.X_OK))
