# SPDX-License-Identifier: Apache-2.0
"""The main job: Nova builds a guest, the hooks adjust it, it boots."""

from unittest import mock

from tests.hosts.one import base


class DefaultGuestTest(base.GuestTestCase):

    def places(self, report):
        return {disk.place.rpartition('/')[0]: (disk.serial, disk.size)
                for disk in report.disks}

    def test_what_libvirt_refuses_as_generated_boots_adjusted(self):
        import libvirt
        from nova import version as nova
        from nova.virt.libvirt import driver
        generated = []
        make = driver.LibvirtDriver._get_guest_xml

        def listen(*args, **kwargs):
            generated.append(make(*args, **kwargs))
            return generated[-1]

        with mock.patch.object(
                driver.LibvirtDriver, '_get_guest_xml', listen):
            server = self.bed.boot()
        report = server.report()

        self.assertEqual('aarch64', report.arch)
        self.assertTrue(report.efi)
        self.assertEqual(1, report.boots)
        # cloud-init knows its cloud by it, as in Nova's x86 guests
        self.assertEqual(nova.product_string(), report.product)
        self.assertIn('QEMU QEMU USB Keyboard', report.inputs)
        self.assertEqual(('fb0',), report.framebuffers)

        version = self.bed.connection.getLibVersion()
        if not 8006000 <= version < 9002000:
            self.skipTest(f'the guest booted; libvirt {version} takes what '
                          f'Nova generates, too')
        error = self.assertRaises(
            libvirt.libvirtError, self.bed.connection.defineXML, generated[0])
        self.assertIn("loader attribute 'secure'", str(error))

    def test_an_image_with_the_properties_of_arm_clouds_boots(self):
        server = self.bed.boot(
            config_drive=True, network=True,
            image_properties={'hw_disk_bus': 'scsi',
                              'hw_scsi_model': 'virtio-scsi',
                              'hw_firmware_type': 'uefi'})
        first = server.report()

        self.assertTrue(first.efi)
        self.assertEqual([('sda', 'disk'), ('sr0', 'cdrom')],
                         sorted((disk.name, disk.kind)
                                for disk in first.disks))
        drivers = {device.driver for device in first.virtio}
        self.assertIn('virtio_scsi', drivers)
        self.assertNotIn('virtio_blk', drivers)
        # the guest has mounted the drive and read the instance from it
        self.assertEqual('sr0', first.config_drive)
        self.assertEqual(server.uuid, first.config_drive_uuid)

        server.attach_volume()
        plugged = server.report_with(disks=3, interfaces=1)
        server.hard_reboot()
        rebooted = server.report()

        self.assertEqual(plugged.pci, rebooted.pci)
        # Linux names SCSI disks in the order in which they answer
        self.assertEqual(self.places(plugged), self.places(rebooted))
        self.assertEqual(server.uuid, rebooted.config_drive_uuid)
