# SPDX-License-Identifier: Apache-2.0
"""A guest keeps its hardware whenever Nova redefines it."""

from lxml import etree

from nova_arm_ext import provenance
from nova_arm_ext.domain import view
from tests.hosts.one import base


class SameMachineTestCase(base.GuestTestCase):

    def assert_same_machine(self, before, after):
        self.assertEqual(before.pci, after.pci)
        self.assertEqual(before.virtio, after.virtio)
        self.assertEqual(before.disks, after.disks)
        self.assertEqual(before.interfaces, after.interfaces)

    @staticmethod
    def redefined(server):
        """The reports after a hard reboot, and after a stop and a start."""
        server.hard_reboot()
        rebooted = server.report()
        server.stop()
        server.start()
        return rebooted, server.report()


class RedefinedGuestTest(SameMachineTestCase):

    # Free ports for disks; Nova's default leaves one.
    bed_options = {'num_pcie_ports': 12}

    def test_plugged_disks_stay_where_they_were(self):
        server = self.bed.boot(config_drive=True)
        first = server.report()
        for _ in range(3):
            server.attach_volume()
        server.attach_interface()
        plugged = server.report_with(disks=len(first.disks) + 3,
                                     interfaces=1)

        server.stop()
        server.start()
        started = server.report()
        server.hard_reboot()
        rebooted = server.report()

        self.assert_same_machine(plugged, started)
        self.assert_same_machine(plugged, rebooted)
        self.assertEqual([1, 2, 3], [
            report.boots for report in (plugged, started, rebooted)])
        for report in (plugged, started, rebooted):
            self.assertEqual(server.uuid, report.config_drive_uuid)


class AdoptedGuestTest(SameMachineTestCase):

    bed_options = {'num_pcie_ports': 12, 'driver': 'libvirt.StockDriver'}

    def test_guest_made_before_the_extension_keeps_its_machine(self):
        # Nova without the extension cannot give an emulated guest the
        # cdrom of a config drive, unless the image says SCSI.
        server = self.bed.boot(
            config_drive=True, image_properties={'hw_cdrom_bus': 'scsi'})
        first = server.report()
        for _ in range(2):
            server.attach_volume()
        plugged = server.report_with(disks=len(first.disks) + 2)
        live = server.live_xml()

        self.bed.restart_compute('arm_ext.ArmLibvirtDriver')
        untouched = server.live_xml()
        rebooted, started = self.redefined(server)

        self.assertEqual(live, untouched)
        self.assert_same_machine(plugged, rebooted)
        self.assert_same_machine(plugged, started)
        self.assertEqual([1, 2, 3], [
            report.boots for report in (plugged, rebooted, started)])
        for report in (plugged, rebooted, started):
            self.assertEqual(server.uuid, report.config_drive_uuid)


class ReturnedGuestTest(SameMachineTestCase):
    """nova-arm-ext is installed, and removed again."""

    bed_options = {'driver': 'libvirt.StockDriver'}

    def test_guest_that_is_given_back_keeps_its_machine_and_variables(self):
        server = self.bed.boot(
            config_drive=True, image_properties={'hw_cdrom_bus': 'scsi'})
        first = server.report()
        store = etree.fromstring(server.live_xml()).findtext('os/nvram')

        self.bed.restart_compute('arm_ext.ArmLibvirtDriver')
        server.hard_reboot()
        adopted = server.report()
        live = server.live_xml()
        self.bed.restart_compute('libvirt.StockDriver')
        untouched = server.live_xml()
        reports = (first, adopted, *self.redefined(server))

        self.assertEqual(live, untouched)
        for report in reports:
            self.assert_same_machine(first, report)
            self.assertEqual(server.uuid, report.config_drive_uuid)
        # counted in a UEFI variable
        self.assertEqual([1, 2, 3, 4], [report.boots for report in reports])
        live = server.live_xml()
        self.assertEqual(store, etree.fromstring(live).findtext('os/nvram'))
        self.assertIsNone(provenance.read(view.Domain.parse(live)))
