# SPDX-License-Identifier: Apache-2.0
"""A guest without a virtio device on PCI."""

import collections

from tests.hosts.one import base


class MmioGuestTest(base.GuestTestCase):

    def boot(self):
        return self.bed.boot(network=True, image_properties={
            'arm_virtio_transport': 'mmio', 'hw_input_bus': 'virtio'})

    def test_all_its_virtio_devices_are_on_mmio_and_stay_there(self):
        server = self.boot()
        first = server.report()
        server.hard_reboot()
        rebooted = server.report()

        for report in (first, rebooted):
            self.assertTrue(report.efi)
            self.assertEqual({'mmio'},
                             {one.transport for one in report.virtio})
            # the input devices are keyboard and tablet
            self.assertEqual(
                collections.Counter(
                    virtio_blk=1, virtio_net=1, virtio_rng=1,
                    virtio_balloon=1, virtio_gpu=1, virtio_input=2),
                collections.Counter(one.driver for one in report.virtio))
            self.assertEqual(('fb0',), report.framebuffers)
            self.assertIn('QEMU Virtio Keyboard', report.inputs)
            self.assertEqual(1, len(report.disks))
            self.assertEqual(1, len(report.interfaces))
        self.assertEqual(first.hardware, rebooted.hardware)
        self.assertEqual([1, 2], [first.boots, rebooted.boots])

    def test_a_disk_that_is_plugged_in_stays_where_it_is(self):
        server = self.boot()
        server.report()
        volume = server.attach_volume()
        plugged = server.report_with(disks=2, interfaces=1)

        # a stopped guest starts with the XML that libvirt has stored
        server.stop()
        server.start()
        started = server.report()

        self.assertEqual(1, len(on_pci(plugged)))
        self.assertEqual(on_pci(plugged), on_pci(started))
        self.assertEqual(plugged.pci, started.pci)

        server.detach_volume(volume)
        server.report_with(disks=1, interfaces=1)

    def test_what_cannot_be_unplugged_is_told_and_stays(self):
        from tests.hosts.one import bed
        server = self.boot()
        server.stop()
        volume = server.attach_volume()
        server.start()
        before = server.report()
        self.assertEqual(set(), on_pci(before))
        self.assertEqual(2, len(before.disks))
        stored = server.inactive_xml()

        error = self.assertRaises(
            bed.ActionFailed, server.detach_volume, volume)
        self.assertIn('virtio-mmio', str(error))
        self.assertIn('stop the instance first', str(error))
        self.assertRaises(bed.ActionFailed, server.detach_interface)

        self.assertEqual(stored, server.inactive_xml())
        # Nova shows the user its own message for an interface
        self.assertRegex(self.bed.log(), 'Device detach failed for '
                                         '[0-9a-f:]*: it is on virtio-mmio')
        server.stop()
        server.detach_volume(volume)
        server.start()
        self.assertEqual(1, len(server.report().disks))


def on_pci(report):
    """The slots of the disks that are on PCI."""
    return {disk.place.partition('/virtio')[0] for disk in report.disks
            if disk.place.startswith('pci')}
