# SPDX-License-Identifier: Apache-2.0
"""The measurements run, and give the rows in the documentation."""

import csv
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from tests.nova.documents import guests
from tests.support import base

_TREE = pathlib.Path(__file__).parents[2]
_TABLE = _TREE / 'doc/source/admin/speed.csv'


def subjects(table: pathlib.Path) -> list[str]:
    """The names of the measurements, without numbers of devices and bytes."""
    with table.open(newline='') as file:
        return [re.sub(r'\d[\d,]*', 'N', row['What'])
                for row in csv.DictReader(file)][:-1]


class BenchmarksTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        reason = guests.why_not()
        if reason:
            self.skipTest(reason)

    def test_one_command_measures_what_the_table_has(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            table = pathlib.Path(folder, 'speed.csv')

            done = subprocess.run(
                (sys.executable, '-W', 'ignore', '-m', 'benchmarks',
                 '--brief', '--table', str(table)),
                cwd=_TREE, check=False, capture_output=True, text=True)

            self.assertEqual(0, done.returncode, done.stderr[-4000:])
            self.assertEqual(subjects(_TABLE), subjects(table))

    def test_copies_are_made_once_and_no_claim_waits_for_them(self) -> None:
        done = subprocess.run(
            (sys.executable, '-W', 'ignore', '-m', 'benchmarks.copies',
             '--sizes', '2', '--json'),
            cwd=_TREE, check=False, capture_output=True, text=True)

        self.assertEqual(0, done.returncode, done.stderr[-4000:])
        [guests] = json.loads(done.stdout)
        self.assertEqual(
            [(2, 0), (0, 0)],
            [(guests[one]['read'], guests[one]['held'])
             for one in ('written', 'unwritten')])
