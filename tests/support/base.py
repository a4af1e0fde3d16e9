# SPDX-License-Identifier: Apache-2.0
"""The base of all tests."""

import logging

import fixtures
import testtools
from lxml import etree

from nova_arm_ext.domain.view import View


class TestCase(testtools.TestCase):
    """A test that shows what was logged if it fails.

    ``self.log.output`` is what has been logged so far.
    """

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger(
            level=logging.DEBUG, format='%(levelname)s %(message)s'))


def compact(view: View) -> str:
    """The XML of a view on one line, as tests of single elements write it."""
    return etree.tostring(view.element, encoding='unicode')
