# SPDX-License-Identifier: Apache-2.0
"""Every kind of guest with the libvirt and QEMU of Debian testing."""

from tests.starts import contract
from tests.support import base


class TestingTest(contract.SuiteContract, base.TestCase):

    suite = 'forky'
