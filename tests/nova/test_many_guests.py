# SPDX-License-Identifier: Apache-2.0
"""Guests that start at the same time do not affect each other."""

import json
import os
import pathlib
import subprocess
import sys

from tests.nova.documents import guests
from tests.support import base

_TREE = pathlib.Path(__file__).parents[2]


class ManyGuestsTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        reason = guests.why_not()
        if reason:
            self.skipTest(reason)

    def assert_each_gets_its_own(self, threads: str, disabled: str) -> None:
        done = subprocess.run(
            (sys.executable, '-W', 'ignore', '-m',
             'tests.nova.documents.many_guests'),
            cwd=_TREE, check=False, capture_output=True, text=True,
            env=os.environ | {'OS_NOVA_DISABLE_EVENTLET_PATCHING': disabled})

        self.assertEqual(0, done.returncode, done.stderr[-4000:])
        self.assertEqual(
            {'threads': threads, 'guests': 64, 'starts': 128, 'others': []},
            json.loads(done.stdout))

    def test_in_green_threads(self) -> None:
        self.assert_each_gets_its_own('eventlet', 'no')

    def test_in_native_threads(self) -> None:
        self.assert_each_gets_its_own('native', 'yes')
