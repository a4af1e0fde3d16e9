# SPDX-License-Identifier: Apache-2.0
"""Every kind of guest with the libvirt and QEMU of Debian 12."""

from tests.starts import contract
from tests.support import base


class Debian12Test(contract.SuiteContract, base.TestCase):

    suite = 'bookworm'
