# SPDX-License-Identifier: Apache-2.0
"""32-bit guests, which boot a kernel from Glance or with UEFI."""

from lxml import etree

from nova_arm_ext.domain import pcie
from tests.hosts.one import base

#: Disk, balloon, rng, GPU and USB take the other five.
FREE = pcie.MAX_ROOT_PORTS_ARMV7_UEFI - 5


class Armv7GuestTest(base.GuestTestCase):

    arches = ('aarch64', 'armv7l')

    def test_it_boots_its_kernel_and_stays_what_it_is(self):
        server = self.bed.boot(arch='armv7l', config_drive=True)
        first = server.report()
        server.hard_reboot()
        rebooted = server.report()

        for report in (first, rebooted):
            self.assertEqual('armv7l', report.arch)
            self.assertFalse(report.efi)
            self.assertTrue(report.kernel.endswith('-lpae'), report.kernel)
            self.assertIn('vda', [disk.name for disk in report.disks])
            self.assertEqual(server.uuid, report.config_drive_uuid)
        self.assertEqual(first.hardware, rebooted.hardware)
        domain = etree.fromstring(server.live_xml())
        self.assertEqual('armv7l', domain.find('os/type').get('arch'))
        self.assertEqual('cortex-a15', domain.findtext('cpu/model'))
        self.assertIsNone(domain.find('features/acpi'))

    def test_it_does_without_pci(self):
        server = self.bed.boot(
            arch='armv7l', network=True,
            image_properties={'arm_virtio_transport': 'mmio'})
        report = server.report()

        self.assertEqual({'mmio'}, {one.transport for one in report.virtio})
        self.assertLessEqual({'virtio_blk', 'virtio_net', 'virtio_gpu'},
                             {one.driver for one in report.virtio})
        self.assertEqual(('fb0',), report.framebuffers)

    def test_it_boots_by_uefi_with_all_the_ports_that_it_can_have(self):
        server = self.bed.boot(
            arch='armv7l',
            image_properties={'hw_firmware_type': 'uefi'},
            extra_specs={'arm:free_pcie_root_ports': str(FREE)})
        first = server.report()
        server.hard_reboot()
        rebooted = server.report()

        for report in (first, rebooted):
            self.assertEqual('armv7l', report.arch)
            self.assertTrue(report.efi)
            self.assertEqual(pcie.MAX_ROOT_PORTS_ARMV7_UEFI,
                             report.root_ports)
        self.assertEqual(first.hardware, rebooted.hardware)
        self.assertEqual([1, 2], [first.boots, rebooted.boots])
        domain = etree.fromstring(server.live_xml())
        self.assertIn('AAVMF32', domain.findtext('os/loader'))
