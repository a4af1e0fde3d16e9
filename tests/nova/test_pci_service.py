# SPDX-License-Identifier: Apache-2.0
"""A whole compute service on a host with devices that cannot be read.

API, scheduler, conductor, placement and nova-compute run in this process, over
Nova's fake libvirt.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # noqa: F401  isort: skip

import json
from typing import Any

from nova import context
from nova import exception
from nova import objects
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import base as nova_base
from nova.virt.libvirt import host as libvirt_host

# here, as libvirt may not be imported while Nova's fixtures are in place
from nova_arm_ext.compute import driver
from tests.support import paste
from tests.support import pci_tree

ARM = f'arm_ext.{driver.ArmLibvirtDriver.__name__}'
ALIAS = {'vendor_id': fakelibvirt.PCI_VEND_ID,
         'product_id': fakelibvirt.PCI_PROD_ID, 'name': 'mine',
         'device_type': 'type-PCI'}
SPEC = {'vendor_id': fakelibvirt.PCI_VEND_ID,
        'product_id': fakelibvirt.PCI_PROD_ID}


class PciServiceTest(nova_base.ServersTestBase):

    microversion = 'latest'
    ADDITIONAL_FILTERS = ['PciPassthroughFilter']

    def setUp(self) -> None:
        self.tree = pci_tree.Tree()
        self.flags(group='pci', device_spec=[json.dumps(SPEC)],
                   alias=[json.dumps(ALIAS)])
        with paste.InstalledPaste():
            super().setUp()

    def _get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """One device of Nova's fixture, and those of the tree."""
        connection = super()._get_connection(*args, **kwargs)
        own = connection.listAllDevices
        pci_devices = fakelibvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
        connection.listAllDevices = lambda flags: [
            *own(flags),
            *(self.tree.listAllDevices(flags) if flags & pci_devices else ())]
        return connection

    def start(self, name: str) -> None:
        self.flags(compute_driver=name)
        self.start_compute('compute1', pci_info=(
            fakelibvirt.HostPCIDevicesInfo(
                num_pci=1, num_pfs=0, num_vfs=0)))

    def thunderx(self) -> None:
        """Its physical function has no network interface."""
        pci_tree.thunderx(self.tree)
        self.libvirt.mock_get_ifname_by_pci_address.side_effect = (
            exception.PciDeviceNotFoundById(id='x'))

    def vanishing(self) -> None:
        """A device that is listed, and gone when it is read."""
        self.tree.pci((0, 0x90, 0, 0))
        gone = fakelibvirt.make_libvirtError(
            libvirt_host.libvirt.libvirtError, 'no such device',
            error_code=libvirt_host.libvirt.VIR_ERR_NO_NODE_DEVICE)

        def fault(number: int, name: str, method: str) -> None:
            if method in ('XMLDesc', 'parent'):
                raise gone

        self.tree.fault = fault

    def assert_placement_knows_the_host(self) -> None:
        place = f'/resource_providers/{self.compute_rp_uuids["compute1"]}'
        inventories = self.placement.get(f'{place}/inventories').body
        self.assertLessEqual({'VCPU', 'MEMORY_MB', 'DISK_GB'},
                             set(inventories['inventories']))

    def assert_a_guest_gets_its_device(self) -> None:
        flavor = self._create_flavor(
            extra_spec={'pci_passthrough:alias': 'mine:1'})

        server = self._create_server(flavor_id=flavor, networks='none')

        self.assertEqual('ACTIVE', server['status'])
        [device] = objects.PciDeviceList.get_by_instance_uuid(
            context.get_admin_context(), server['id'])
        self.assertEqual(('0000:81:00.0', 'allocated'),
                         (device.address, device.status))

    def test_a_host_with_thunderx_starts_and_boots_a_guest(self) -> None:
        self.thunderx()

        self.start(ARM)

        self.assert_placement_knows_the_host()
        self.assert_a_guest_gets_its_device()
        self.assertIn('PCI inventory: 1 devices, 9 skipped: 1 by 177d:a01e, '
                      '8 by 177d:a034', self.stdlog.logger.output)

    def test_a_device_that_vanishes_stops_nothing(self) -> None:
        self.vanishing()

        self.start(ARM)

        self.assert_placement_knows_the_host()
        self.assert_a_guest_gets_its_device()

    def test_with_stock_nova_there_is_no_host_at_all(self) -> None:
        # the reason for our own inventory; each release does this
        self.vanishing()

        # Nova's test base finds no compute node (34), or no provider of
        # resources (29)
        self.assertRaises((exception.NotFound, IndexError), self.start,
                          'libvirt.LibvirtDriver')

        self.assertEqual([], self.placement.get(
            '/resource_providers?name=compute1').body['resource_providers'])
        self.assertIn('Error updating resources for node',
                      self.stdlog.logger.output)
