# SPDX-License-Identifier: Apache-2.0
"""What all tests stand on."""

import logging

import fixtures
import testtools


class TestCase(testtools.TestCase):
    """A test that shows what was logged if it fails.

    ``self.log.output`` is what has been logged so far.
    """

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger(
            level=logging.DEBUG, format='%(levelname)s %(message)s'))
