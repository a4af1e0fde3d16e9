# SPDX-License-Identifier: Apache-2.0
"""The supported releases of Nova are the same in all places."""

import csv
import re

from nova_arm_ext.compute import seams
from tests.support import base
from tests.support import pages
from tools import suites

FIRST, LAST = seams.TESTED
RELEASES = [str(number) for number in range(FIRST, LAST + 1)]


def text(path: str) -> str:
    return (pages.TREE / path).read_text()


class SupportedReleasesTest(base.TestCase):

    def test_each_has_its_pins(self) -> None:
        self.assertEqual(
            [f'nova{number}.txt' for number in RELEASES],
            sorted(path.name for path in
                   (pages.TREE / 'tests/data/constraints').glob('nova*')))

    def test_ci_runs_each(self) -> None:
        run = [suite.name for suite in suites.SUITES if suite.by_default]

        self.assertEqual([f'nova{number}' for number in RELEASES],
                         [name for name in run if name.startswith('nova')])

    def test_tox_knows_each(self) -> None:
        self.assertEqual(
            [(number, number) for number in RELEASES],
            re.findall(r'nova(\d+): NOVA_RELEASE=(\d+)', text('tox.ini')))

    def test_the_table_has_a_column_for_each(self) -> None:
        [head, *_] = csv.reader(
            text('doc/source/admin/releases.csv').splitlines())

        self.assertEqual(RELEASES, head[1:-1])

    def test_the_pages_name_first_and_last(self) -> None:
        for page in ('README.rst', 'doc/source/admin/releases.rst'):
            self.assertRegex(
                text(page), rf'Nova {FIRST} \([\d.]+\) to {LAST} \([\d.]+\)')
