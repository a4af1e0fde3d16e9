# SPDX-License-Identifier: Apache-2.0
"""Every kind of guest with the libvirt and QEMU of Debian 13."""

from tests.starts import contract
from tests.support import base


class Debian13Test(contract.SuiteContract, base.TestCase):

    suite = 'trixie'
