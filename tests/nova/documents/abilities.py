# SPDX-License-Identifier: Apache-2.0
"""What the installed Nova does by itself, found out by experiments.

``python -m tests.nova.documents.abilities`` prints it as JSON. It needs a
separate process, because Nova's test base patches threads and forbids the real
libvirt.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import inspect
import json
import logging
import sys
from unittest import mock

from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest
from nova.virt.libvirt import host

from tests.support import pci_tree


class Abilities(nova.test.NoDBTestCase):
    """Nova's fixtures for the experiments; not a test."""

    def runTest(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.useFixture(nova_fixtures.LibvirtFixture())
        driver = libvirt_driver.LibvirtDriver
        inventory = driver._get_pci_passthrough_devices
        # nova.test.TestCase deletes all other names when it ends
        self._found = {
            'keeps_firmware': hasattr(driver, '_copy_guest_firmware_elements'),
            'keeps_variables': 'keep_nvram' in inspect.signature(
                guest.Guest.delete_configuration).parameters,
            'inventory_survives_a_broken_device': self.survives(),
            'inventory_is_taken_again': not hasattr(inventory, 'cache_clear'),
        }

    def survives(self) -> bool:
        tree = pci_tree.Tree()
        tree.pci((0, 0, 1, 0))
        gone = fakelibvirt.make_libvirtError(
            host.libvirt.libvirtError, 'no such device',
            error_code=host.libvirt.VIR_ERR_NO_NODE_DEVICE)

        def fault(number: int, name: str, method: str) -> None:
            if method == 'XMLDesc':
                raise gone

        tree.fault = fault
        stock = libvirt_driver.LibvirtDriver(fake.FakeVirtAPI(), False)
        with mock.patch.object(stock._host, 'list_all_devices',
                               tree.list_all_devices):
            try:
                stock._get_pci_passthrough_devices()
            except host.libvirt.libvirtError:
                return False
        return True


def main() -> int:
    abilities = Abilities()
    result = abilities.defaultTestResult()
    abilities.run(result)
    for _, text in result.errors + result.failures:
        print(text, file=sys.stderr)
    if not result.wasSuccessful():
        return 1
    print(json.dumps(abilities._found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
