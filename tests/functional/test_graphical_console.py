# SPDX-License-Identifier: Apache-2.0
"""Who looks at the screen sees the guest, and keys that are typed reach it."""

import time

from tests.functional import base
from tests.functional import screen

#: linux/input-event-codes.h
KEY_LEFTALT, KEY_SYSRQ, KEY_H = 56, 99, 35


class GraphicalConsoleTest(base.GuestTestCase):

    def awaited(self, see, timeout=30.0):
        """What is seen on the screen, as soon as it is something."""
        deadline = time.monotonic() + timeout
        while True:
            picture = screen.take(self.bed.connection, self.server.domain)
            seen = see(screen.Screen(picture))
            if seen or time.monotonic() > deadline:
                return seen
            time.sleep(0.5)

    def test_the_screen_shows_the_guest_and_keys_reach_it(self):
        import libvirt
        self.server = self.bed.boot()
        report = self.server.report()
        # the guest writes its report to the screen too
        known = report.text.splitlines()[-15:]

        alphabet = self.awaited(lambda seen: seen.alphabet(known))

        self.assertIsNotNone(alphabet, 'the report is not on the screen')
        self.assertGreater(len(alphabet), 30)

        # the kernel answers to these with a line on every console
        self.server.domain.sendKey(
            libvirt.VIR_KEYCODE_SET_LINUX, 100,
            [KEY_LEFTALT, KEY_SYSRQ, KEY_H], 3, 0)

        answer = self.awaited(lambda seen: [
            line for line in seen.read(alphabet) if 'sysr' in line])
        self.assertNotEqual([], answer)
        self.assertIn('HELP', self.server.console)
