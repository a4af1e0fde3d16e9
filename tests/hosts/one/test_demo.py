# SPDX-License-Identifier: Apache-2.0
"""The README's demonstration, as a new user runs it."""

import pathlib
import subprocess

from tests.support import base
from tests.support import sandbox

TREE = pathlib.Path(__file__).parents[3]


class DemoTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        reason = sandbox.why_not()
        if reason:
            self.skipTest(reason)

    def run_it(self, *arguments: str) -> str:
        done = subprocess.run(
            ['tools/demo', *arguments], cwd=TREE, capture_output=True,
            text=True, check=False, stdin=subprocess.DEVNULL, timeout=600)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def test_a_guest_boots_and_reports(self) -> None:
        shown = self.run_it()

        self.assertIn('libvirt_compat  (changed)', shown)
        self.assertIn('uefi  (changed)', shown)
        self.assertEqual('{"arch": "aarch64", "efi": true}',
                         shown.splitlines()[-1])

    def test_the_hooks_are_shown_without_a_guest(self) -> None:
        shown = self.run_it('--no-guest')

        self.assertIn('libvirt_compat  (changed)', shown)
        self.assertIn('/usr/share/AAVMF/AAVMF_CODE.fd', shown)
