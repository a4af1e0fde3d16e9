# SPDX-License-Identifier: Apache-2.0
"""A guest without a virtio device on PCI."""

import collections

from tests.functional import base


class MmioGuestTest(base.GuestTestCase):

    def test_all_its_virtio_devices_are_on_mmio_and_stay_there(self):
        server = self.bed.boot(network=True, image_properties={
            'arm_virtio_transport': 'mmio', 'hw_input_bus': 'virtio'})
        first = server.report()
        server.hard_reboot()
        rebooted = server.report()

        for report in (first, rebooted):
            self.assertTrue(report.efi)
            self.assertEqual({'mmio'},
                             {one.transport for one in report.virtio})
            # those that take input are keyboard and tablet
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
