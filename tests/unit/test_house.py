# SPDX-License-Identifier: Apache-2.0
"""The modules stay small enough to read."""

import os
import pathlib
import subprocess
import sys

import fixtures

from tests.support import base
from tests.support import tools

house = tools.load('house')

PICTURE = tools.TOOLS.parent / 'doc/source/contributor/house.svg'


class FiguresTest(base.TestCase):
    """Loose limits: a few lines more do not matter."""

    def test_no_modules_import_each_other(self) -> None:
        self.assertEqual([], house.circles())

    def test_files_end_where_a_reader_still_knows_the_beginning(self) -> None:
        self.assertEqual([], [
            (lines, name) for lines, name in house.files() if lines > 520])

    def test_long_classes_are_the_exception(self) -> None:
        long = [(lines, name) for lines, _, name in house.classes()
                if lines > 250]

        self.assertLessEqual(len(long), 3, long)

    def test_few_names_stand_among_nova_s_own(self) -> None:
        found = sorted(house.prefixed())

        self.assertLessEqual(len(found), 20, found)


class ToolTest(base.TestCase):

    def test_it_finds_a_circle_and_who_is_in_it(self) -> None:
        graph = {'a': {'b'}, 'b': {'c'}, 'c': {'b'}, 'd': {'a'}}

        self.assertEqual([['b', 'c']], house.circles(graph))

    def test_arrows_that_others_imply_are_left_out(self) -> None:
        graph = {'a': {'b', 'c'}, 'b': {'c'}, 'c': set()}

        self.assertEqual([('a', 'b'), ('b', 'c')], list(house.direct(graph)))

    def test_the_figures_are_printed(self) -> None:
        done = subprocess.run([sys.executable, tools.TOOLS / 'house'],
                              text=True, capture_output=True, check=True)

        self.assertIn('Circles of imports: 0\n', done.stdout)
        self.assertIn(' nova_arm_ext/', done.stdout)

    def test_it_can_be_run(self) -> None:
        self.assertTrue(os.access(tools.TOOLS / 'house', os.X_OK))

    def test_a_picture_without_graphviz(self) -> None:
        file = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'a.dot')

        house.main(['--picture', str(file)])

        self.assertEqual(house.dot(), file.read_text())


class PictureTest(base.TestCase):
    """The picture in the contributors' pages; to draw it again:

    tools/house --picture doc/source/contributor/house.svg
    """

    def test_it_is_current(self) -> None:
        self.assertEqual(house.dot(),
                         PICTURE.with_suffix('.dot').read_text())

    def test_it_was_drawn_from_this_text(self) -> None:
        last = PICTURE.read_text().splitlines()[-1]

        self.assertEqual(
            f'<!-- {house.digest(PICTURE.with_suffix(".dot").read_text())} '
            f'-->', last)
