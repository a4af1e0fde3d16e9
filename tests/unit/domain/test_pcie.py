# SPDX-License-Identifier: Apache-2.0
"""Which devices take a root port, as libvirt counts them."""

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import view
from tests import base


def domain(inside: str) -> view.Domain:
    return view.Domain.parse(
        '<domain><os><type arch="aarch64" machine="virt">hvm</type></os>'
        f'<devices>{inside}</devices></domain>')


ROOT = '<controller type="pci" index="0" model="pcie-root"/>'


def ports(*numbers: int) -> str:
    return ROOT + ''.join(
        f'<controller type="pci" index="{n}" model="pcie-root-port"/>'
        for n in numbers)


def at(bus: int) -> str:
    return (f'<address type="pci" domain="0x0000" bus="{bus:#04x}" '
            f'slot="0x00" function="0x0"/>')


class NeedsRootPortTest(base.TestCase):

    def needs(self, kind: type[devices.Device], xml: str) -> bool:
        return pcie.needs_root_port(domain(xml).all(kind)[0])

    def test_pcie_endpoints_do(self):
        for kind, xml in (
                (devices.Disk, '<disk><target bus="virtio"/></disk>'),
                (devices.Interface,
                 '<interface><model type="virtio"/></interface>'),
                (devices.Controller,
                 '<controller type="scsi" model="virtio-scsi"/>'),
                (devices.Controller,
                 '<controller type="usb" model="qemu-xhci"/>'),
                (devices.Controller, '<controller type="virtio-serial"/>'),
                (devices.Hostdev, '<hostdev type="pci"/>'),
                (devices.Video, '<video><model type="virtio"/></video>'),
                (devices.Input, '<input type="tablet" bus="virtio"/>'),
                (devices.Memballoon, '<memballoon model="virtio"/>'),
                (devices.Rng, '<rng model="virtio"/>'),
                (devices.Filesystem, '<filesystem/>')):
            self.assertTrue(self.needs(kind, xml), xml)

    def test_what_sits_elsewhere_does_not(self):
        for kind, xml in (
                (devices.Disk, '<disk><target dev="sda" bus="scsi"/></disk>'),
                (devices.Controller, '<controller type="usb" model="none"/>'),
                (devices.Controller,
                 '<controller type="scsi" model="lsilogic"/>'),
                (devices.Controller, '<controller type="pci"/>'),
                (devices.Input, '<input type="tablet" bus="usb"/>'),
                (devices.Memballoon, '<memballoon model="none"/>'),
                (devices.Video, '<video><model type="none"/></video>'),
                (devices.Iommu, '<iommu model="virtio"/>'),
                (devices.Tpm, '<tpm model="tpm-tis"/>'),
                (devices.Serial, '<serial type="pty"/>'),
                (devices.Hostdev, '<hostdev type="usb"/>')):
            self.assertFalse(self.needs(kind, xml), xml)


class FreeRootPortsTest(base.TestCase):

    def test_a_port_with_nothing_behind_it_is_free(self):
        self.assertEqual(2, pcie.free_root_ports(domain(
            ports(1, 2, 3) + f'<rng model="virtio">{at(1)}</rng>')))

    def test_a_device_without_an_address_will_take_one(self):
        self.assertEqual(1, pcie.free_root_ports(domain(
            ports(1, 2) + '<rng model="virtio"/>')))

    def test_too_few_ports_count_below_zero(self):
        self.assertEqual(-1, pcie.free_root_ports(domain(
            ports(1) + '<rng model="virtio"/><memballoon model="virtio"/>')))

    def test_ports_without_numbers_are_free(self):
        self.assertEqual(2, pcie.free_root_ports(domain(
            ROOT + '<controller type="pci" model="pcie-root-port"/>' * 2)))

    def test_a_bridge_takes_a_port(self):
        self.assertEqual(1, pcie.free_root_ports(domain(
            ports(1, 2) + '<controller type="pci" index="3" '
            f'model="pcie-to-pci-bridge">{at(1)}</controller>'
            f'<watchdog model="i6300esb">{at(3)}</watchdog>')))

    def test_two_functions_of_one_device_take_one_port(self):
        self.assertEqual(0, pcie.free_root_ports(domain(
            ports(1) + f'<rng model="virtio">{at(1)}</rng><rng model="virtio">'
            '<address type="pci" domain="0x0000" bus="0x01" slot="0x00" '
            'function="0x1"/></rng>')))
