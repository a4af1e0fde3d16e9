# SPDX-License-Identifier: Apache-2.0
"""Which devices use a root port, as libvirt counts them."""

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import view
from tests.support import base


def domain(inside: str) -> view.Domain:
    return view.Domain.parse(
        '<domain><os><type arch="aarch64" machine="virt">hvm</type></os>'
        f'<devices>{inside}</devices></domain>')


ROOT = '<controller type="pci" index="0" model="pcie-root"/>'


def ports(*numbers: int) -> str:
    return ROOT + ''.join(
        f'<controller type="pci" index="{n}" model="pcie-root-port"/>'
        for n in numbers)


NEW_PORT = '<controller type="pci" model="pcie-root-port"/>'


def at(bus: int) -> str:
    return (f'<address type="pci" domain="0x0000" bus="{bus:#04x}" '
            f'slot="0x00" function="0x0"/>')


class PlaceTest(base.TestCase):

    def place(self, xml: str) -> pcie.Place:
        document = domain(xml)
        [device] = devices.addressed(document)
        return pcie.place(device)

    def test_pcie_endpoints_have_a_port_of_their_own(self):
        for xml in (
                '<disk><target dev="vda" bus="virtio"/></disk>',
                '<interface><model type="virtio"/></interface>',
                '<interface/>',
                '<interface><model type="e1000e"/></interface>',
                '<controller type="scsi" model="virtio-scsi"/>',
                '<controller type="usb" model="qemu-xhci"/>',
                '<controller type="usb" model="nec-xhci"/>',
                '<controller type="virtio-serial"/>',
                '<controller type="pci" model="pcie-to-pci-bridge"/>',
                '<hostdev type="pci"/>', '<hostdev type="mdev"/>',
                '<hostdev type="scsi_host"/>',
                '<video><model type="virtio"/></video>',
                '<video><model type="bochs"/></video>',
                '<input type="tablet" bus="virtio"/>',
                '<memballoon model="virtio"/>', '<rng model="virtio"/>',
                '<memory model="virtio-mem"/>', '<sound model="virtio"/>',
                '<vsock/>', '<filesystem/>'):
            self.assertIs(pcie.Place.ROOT_PORT, self.place(xml), xml)

    def test_legacy_devices_share_a_bridge(self):
        for xml in (
                '<interface><model type="e1000"/></interface>',
                '<interface><model type="rtl8139"/></interface>',
                '<interface><model type="vmxnet3"/></interface>',
                '<interface><model type="virtio-transitional"/></interface>',
                '<disk model="virtio-transitional">'
                '<target dev="vda" bus="virtio"/></disk>',
                '<rng model="virtio-transitional"/>',
                '<controller type="scsi" model="lsilogic"/>',
                '<controller type="sata"/>',
                '<controller type="usb" model="piix3-uhci"/>',
                '<controller type="usb" model="ehci"/>',
                '<video><model type="vga"/></video>',
                '<video><model type="cirrus"/></video>',
                '<sound model="ich9"/>', '<watchdog model="i6300esb"/>',
                '<shmem name="s"/>',
                '<serial type="pty"><target type="pci-serial"/></serial>'):
            self.assertIs(pcie.Place.BRIDGE, self.place(xml), xml)

    def test_others_take_none(self):
        for xml in (
                '<disk><target dev="sda" bus="scsi"/></disk>',
                '<controller type="usb" model="none"/>',
                '<controller type="pci" model="pcie-root-port"/>',
                '<input type="tablet" bus="usb"/>',
                '<memballoon model="none"/>', '<sound model="usb"/>',
                '<video><model type="none"/></video>',
                '<video><model type="ramfb"/></video>',
                '<iommu model="smmuv3"/>', '<tpm model="tpm-tis"/>',
                '<serial type="pty"/>', '<hostdev type="usb"/>',
                '<memory model="dimm"/>', '<redirdev bus="usb"/>'):
            self.assertIs(pcie.Place.ELSEWHERE, self.place(xml), xml)
        self.assertIs(pcie.Place.ROOT, self.place('<iommu model="virtio"/>'))


class FreeRootPortsTest(base.TestCase):

    def test_a_port_with_nothing_behind_it_is_free(self):
        self.assertEqual(2, pcie.slots(domain(
            ports(1, 2, 3) + f'<rng model="virtio">{at(1)}</rng>')).free)

    def test_a_device_without_an_address_will_take_one(self):
        self.assertEqual(1, pcie.slots(domain(
            ports(1, 2) + '<rng model="virtio"/>')).free)

    def test_too_few_ports_count_below_zero(self):
        self.assertEqual(-1, pcie.slots(domain(
            ports(1) + '<rng model="virtio"/><memballoon model="virtio"/>'
        )).free)

    def test_ports_without_numbers_are_free(self):
        self.assertEqual(2, pcie.slots(domain(
            ROOT + '<controller type="pci" model="pcie-root-port"/>' * 2
        )).free)

    def test_a_bridge_takes_a_port(self):
        self.assertEqual(1, pcie.slots(domain(
            ports(1, 2) + '<controller type="pci" index="3" '
            f'model="pcie-to-pci-bridge">{at(1)}</controller>'
            f'<watchdog model="i6300esb">{at(3)}</watchdog>')).free)

    def test_two_functions_of_one_device_take_one_port(self):
        self.assertEqual(0, pcie.slots(domain(
            ports(1) + f'<rng model="virtio">{at(1)}</rng><rng model="virtio">'
            '<address type="pci" domain="0x0000" bus="0x01" slot="0x00" '
            'function="0x1"/></rng>')).free)

    def test_legacy_devices_wait_for_one_bridge(self):
        legacy = '<watchdog model="i6300esb"/><controller type="sata"/>'

        self.assertEqual(1, pcie.slots(domain(
            ports(1, 2) + legacy)).free)
        self.assertEqual(1, pcie.slots(domain(
            ports(1, 2) + legacy
            + '<controller type="pci" model="pcie-to-pci-bridge"/>')).free)

    def test_what_libvirt_adds_itself_counts(self):
        for xml in (
                '<disk><target dev="sda" bus="scsi"/></disk>',
                '<disk><target dev="sda" bus="sata"/></disk>',
                '<channel type="unix"><target type="virtio" name="a"/>'
                '</channel>',
                '<graphics type="vnc"/>'):
            self.assertEqual(1, pcie.slots(domain(
                ports(1, 2) + xml)).free, xml)
        self.assertEqual(1, pcie.slots(domain(
            ports(1, 2) + '<disk><target dev="sda" bus="scsi"/></disk>'
            '<controller type="scsi" model="virtio-scsi"/>')).free)

    def test_one_device_on_mmio_draws_the_other_virtio_ones_there(self):
        mmio = '<rng model="virtio"><address type="virtio-mmio"/></rng>'
        followers = (
            '<disk><target dev="vda" bus="virtio"/></disk>'
            '<interface><model type="virtio"/></interface>'
            '<controller type="scsi" model="virtio-scsi"/>'
            '<controller type="scsi" index="1" model="lsilogic"/>'
            '<video><model type="virtio"/></video>'
            '<memballoon model="virtio"/>')

        self.assertEqual(2, pcie.slots(domain(
            ports(1, 2) + mmio + followers)).free)
        self.assertEqual(0, pcie.slots(domain(
            ports(1, 2) + mmio + '<vsock/><filesystem/>')).free)


    def test_an_address_implies_the_ports_up_to_its_bus(self):
        disk = '<disk><target dev="vda" bus="virtio"/>{}</disk>'
        balloon = '<memballoon model="virtio"/>'
        for inside, ports_, implied, free in (
                (disk.format(at(9)) + balloon, 9, 9, 7),
                (disk.format(at(3)) + ports(1, 2), 3, 1, 2),
                (disk.format(at(3)) + ports(3), 3, 2, 2),
                (disk.format(at(0)), 0, 0, 0),
                # libvirt gives the first two numbers to these
                (disk.format(at(3)) + ROOT + NEW_PORT * 2, 3, 1, 2),
                (disk.format(at(2)) + ROOT + NEW_PORT * 3, 3, 0, 2)):
            found = pcie.slots(domain(inside))

            self.assertEqual((ports_, implied, free), (
                found.ports, found.implied, found.free), inside)


class AddRootPortsTest(base.TestCase):

    def models(self, document: view.Domain) -> list[tuple[object, object]]:
        return [(c.index, c.model)
                for c in document.all(devices.Controller)]

    def test_the_root_comes_first(self):
        document = domain('<controller type="usb" model="qemu-xhci"/>')

        pcie.add_root_ports(document, 2, pcie.slots(document))

        self.assertEqual([
            (None, 'qemu-xhci'), (0, 'pcie-root'), (None, 'pcie-root-port'),
            (None, 'pcie-root-port')], self.models(document))

    def test_the_root_comes_before_ports_that_somebody_wrote(self):
        document = domain(
            '<controller type="pci" model="pcie-root-port"/>')

        pcie.add_root_ports(document, 1, pcie.slots(document))

        self.assertEqual([
            (0, 'pcie-root'), (None, 'pcie-root-port'),
            (None, 'pcie-root-port')], self.models(document))

    def test_those_that_are_there_stay_in_front(self):
        document = domain(ports(1, 2))

        pcie.add_root_ports(document, 1, pcie.slots(document))

        self.assertEqual([0, 1, 2, None], [
            index for index, _ in self.models(document)])

    def test_a_bridge_comes_along_where_a_device_needs_it(self):
        document = domain('<watchdog model="i6300esb"/>')

        pcie.add_root_ports(document, 3, pcie.slots(document))

        self.assertEqual((None, 'pcie-to-pci-bridge'),
                         self.models(document)[-1])
        self.assertEqual(2, pcie.slots(document).free)

    def test_ports_that_addresses_imply_are_named_too(self):
        document = domain(
            f'<disk><target dev="vda" bus="virtio"/>{at(3)}</disk>')

        pcie.add_root_ports(document, 1, pcie.slots(document))

        self.assertEqual([(0, 'pcie-root')] + [(None, 'pcie-root-port')] * 4,
                         self.models(document))
        self.assertEqual(3, pcie.slots(document).free)

    def test_none_is_none(self):
        for count in (0, -1):
            document = domain('<watchdog model="i6300esb"/>')

            pcie.add_root_ports(document, count, pcie.slots(document))

            self.assertEqual([], self.models(document))


class MaxRootPortsTest(base.TestCase):

    def test_slots_of_pcie_0_are_what_there_is(self):
        for inside, most in (
                ('', 248), (ports(1, 2), 248),
                ('<iommu model="virtio"/>', 240),
                ('<iommu model="virtio"><address type="pci" domain="0" '
                 'bus="0x00" slot="0x01" function="0"/></iommu>', 240),
                ('<iommu model="smmuv3"/>', 248),
                ('<panic model="pvpanic"/>', 240)):
            self.assertEqual(most, pcie.slots(domain(inside)).limit)

    def test_32_bit_machines_with_uefi_have_16_buses(self):
        text = ('<domain><os{}><type arch="armv7l" machine="virt">hvm</type>'
                '</os><devices>{}</devices></domain>')
        uefi = ' firmware="efi"'
        bridge = '<controller type="pci" model="pcie-to-pci-bridge"/>'

        for os, inside, most in (
                (uefi, '', 15), (uefi, bridge, 14),
                (uefi, '<watchdog model="i6300esb"/>', 14),
                (uefi, bridge + '<watchdog model="i6300esb"/>', 14),
                ('', '', 248)):
            self.assertEqual(most, pcie.slots(view.Domain.parse(
                text.format(os, inside))).limit)
