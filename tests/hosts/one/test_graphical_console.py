# SPDX-License-Identifier: Apache-2.0
"""The graphical console shows the guest's screen and takes key presses."""

import time

from tests.hosts.one import base
from tests.support import screen

#: linux/input-event-codes.h
KEYS = {character: first + place
        for first, row in ((16, 'qwertyuiop'), (30, 'asdfghjkl'),
                           (44, 'zxcvbnm'), (57, ' '))
        for place, character in enumerate(row)}
KEY_ENTER = 28
#: Milliseconds; a key that is held for 250 repeats.
HOLD = 20

#: Only letters that are on the screen already.
WORDS = 'typed words'


class GraphicalConsoleTest(base.GuestTestCase):

    def awaited(self, see, timeout=30.0):
        """The text on the screen, as soon as there is some."""
        deadline = time.monotonic() + timeout
        while True:
            picture = screen.take(self.bed.connection, self.server.domain)
            seen = see(screen.Screen(picture))
            if seen or time.monotonic() > deadline:
                return seen
            time.sleep(0.5)

    def type(self, text):
        import libvirt
        for key in (*(KEYS[character] for character in text), KEY_ENTER):
            self.server.domain.sendKey(
                libvirt.VIR_KEYCODE_SET_LINUX, HOLD, [key], 1, 0)

    def test_the_screen_shows_the_guest_and_keys_reach_it(self):
        self.server = self.bed.boot()
        report = self.server.report()
        # the guest writes its report to the screen too
        known = report.text.splitlines()[-15:]

        alphabet = self.awaited(lambda seen: seen.alphabet(known))

        self.assertIsNotNone(alphabet, 'the report is not on the screen')
        self.assertGreater(len(alphabet), 30)

        self.type(WORDS)

        self.assertLess(set(WORDS), set(alphabet.values()))
        answer = f'=== probe input {WORDS} ==='
        lines = self.awaited(lambda seen: [
            line for line in seen.read(alphabet)
            if answer in seen.read(alphabet) and WORDS in line])
        # the typed text, and the guest's answer
        self.assertEqual([WORDS, answer], lines)
