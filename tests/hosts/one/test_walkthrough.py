# SPDX-License-Identifier: Apache-2.0
"""The first steps of the installation guide, repeated."""

from tests.support import base
from tests.support import sandbox
from tools import walkthrough


class WalkthroughTest(base.TestCase):

    def test_each_step_prints_what_the_page_shows(self):
        reason = sandbox.why_not()
        if reason:
            self.skipTest(reason)

        said = walkthrough.walk()

        shown = walkthrough.shown()
        self.assertEqual(set(shown), set(said))
        for name, text in said.items():
            self.assertEqual(walkthrough.masked(shown[name]),
                             walkthrough.masked(text),
                             f'{name}: python -m tools.walkthrough writes it')
