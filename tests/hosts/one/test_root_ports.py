# SPDX-License-Identifier: Apache-2.0
"""A guest has as many free root ports as requested, and can use them all."""

from tests.hosts.one import base

FREE = 12
#: Each attachment takes the guest five seconds.
PLUGGED = 120.0


class RootPortsTest(base.GuestTestCase):

    timeout = 600.0

    def asking_for(self, free: int) -> None:
        self.bed.restart_compute(
            options={'arm_pcie_root_ports': {'free': free}})

    def test_as_many_disks_as_ports_are_plugged_in_and_stay(self):
        from tests.hosts.one import bed
        self.asking_for(FREE)
        server = self.bed.boot()
        first = server.report()

        # each device except ports and host bridge is behind its own port
        endpoints = len(first.pci) - first.root_ports - 1
        self.assertEqual(endpoints + FREE, first.root_ports)

        for _ in range(FREE):
            server.attach_volume()
        plugged = server.report_with(
            disks=len(first.disks) + FREE, timeout=PLUGGED)
        error = self.assertRaises(bed.ActionFailed, server.attach_volume)

        for words in (f'All {first.root_ports} PCIe root ports',
                      'arm:free_pcie_root_ports',
                      'arm_free_pcie_root_ports',
                      '[arm_pcie_root_ports] free'):
            self.assertIn(words, str(error))

        self.asking_for(1)
        server.hard_reboot()
        rebooted = server.report()

        self.assertEqual(plugged.disks, rebooted.disks)
        self.assertEqual(plugged.virtio, rebooted.virtio)
        # existing devices have not moved, and one port is free again
        self.assertEqual(first.root_ports + 1, rebooted.root_ports)
        self.assertLess(set(plugged.pci), set(rebooted.pci))
        server.attach_volume()
        server.report_with(
            disks=len(first.disks) + FREE + 1, timeout=PLUGGED)
