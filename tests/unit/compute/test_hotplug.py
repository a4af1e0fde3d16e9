# SPDX-License-Identifier: Apache-2.0
"""Devices are plugged in and out, and the user is told why they are not."""

import types
from unittest import mock

from nova import exception

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import hotplug
from nova_arm_ext.domain import view
from tests.support import base

INSTANCE = types.SimpleNamespace(uuid='one')
MMIO = '<address type="virtio-mmio"/>'
PCI = '<address type="pci" bus="0x05" slot="0x00" function="0x0"/>'
NO_SLOTS = 'internal error: No more available PCI slots'
MAC = '52:54:00:00:00:0a'


def document(disk: str = MMIO, *, first: str = MMIO) -> str:
    return (f'<domain id="1"><os><type arch="aarch64" machine="virt">hvm'
            f'</type></os><devices>'
            f'<controller type="pci" index="1" model="pcie-root-port"/>'
            f'<disk><target dev="vda" bus="virtio"/>{first}</disk>'
            f'<disk><target dev="vdb" bus="virtio"/>{disk}</disk>'
            f'<disk><target dev="sda" bus="scsi"/></disk>'
            f'<interface type="bridge"><mac address="{MAC}"/>'
            f'<model type="virtio"/>{first}</interface></devices></domain>')


class HotplugTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.host = mock.Mock()
        self.definitions = mock.Mock(spec=definition.Definitions)
        self.hotplug = hotplug.Hotplug(self.host, self.definitions)
        self.libvirt_has(document())

    def libvirt_has(self, live: str | None, stored: str = '') -> None:
        guest = None if live is None else view.Domain.parse(live)
        self.definitions.guest.return_value = guest
        self.definitions.running.return_value = guest
        self.host.get_guest.return_value.get_xml_desc.return_value = stored


class PluggingTest(HotplugTest):

    def plug(self, error: Exception | None = None) -> None:
        with self.hotplug.plugging(INSTANCE):
            if error:
                raise error

    def test_without_a_slot_the_user_is_told_how_to_get_one(self) -> None:
        error = self.assertRaises(hotplug.NoFreeRootPort, self.plug,
                                  ValueError(NO_SLOTS))

        self.assertEqual(
            'All 1 PCIe root ports of the instance are in use. After a hard '
            'reboot one is free; a new instance gets more with the extra '
            'spec arm:free_pcie_root_ports, the image property '
            'arm_free_pcie_root_ports or [arm_pcie_root_ports] free',
            error.format_message())
        self.assertEqual(NO_SLOTS, str(error.__cause__))

    def test_it_is_found_behind_other_errors(self) -> None:
        cause, context = ValueError('Nova'), ValueError('Nova')
        cause.__cause__ = context.__context__ = ValueError(NO_SLOTS)
        outer = ValueError('more of Nova')
        outer.__context__ = cause

        for error in (cause, context, outer):
            self.assertRaises(hotplug.NoFreeRootPort, self.plug, error)

    def test_other_errors_stay_as_they_are(self) -> None:
        error = ValueError('no such file')

        self.assertIs(error, self.assertRaises(ValueError, self.plug, error))
        self.assertFalse(self.definitions.guest.called)

    def test_guests_of_others_get_libvirts_own(self) -> None:
        self.libvirt_has(None)
        error = ValueError(NO_SLOTS)

        self.assertIs(error, self.assertRaises(ValueError, self.plug, error))

    def test_nothing_is_stored_when_it_fails(self) -> None:
        self.libvirt_has(document(PCI), document(MMIO))

        self.assertRaises(ValueError, self.plug, ValueError('no'))

        self.assertFalse(self.host.write_instance_config.called)

    def test_a_device_is_stored_where_the_guest_sees_it(self) -> None:
        self.libvirt_has(document(PCI), document(MMIO))

        self.plug()

        [stored] = self.host.write_instance_config.mock_calls
        self.assertEqual(document(PCI), base.compact(
            view.Domain.parse(stored.args[0])))
        # with its passwords, or they would be gone
        self.host.get_guest.return_value.get_xml_desc.assert_called_with(
            dump_inactive=True, dump_sensitive=True)

    def test_nothing_is_stored_where_nothing_moves(self) -> None:
        for place in (PCI, MMIO):
            self.libvirt_has(document(place), document(place))
            self.plug()

        self.assertFalse(self.host.write_instance_config.called)

    def test_libvirt_is_not_asked_without_virtio_mmio(self) -> None:
        for live in (document(PCI, first=PCI), None):
            self.libvirt_has(live)
            self.plug()

        self.assertFalse(self.host.get_guest.called)

    def test_the_device_is_there_even_if_it_cannot_be_stored(self) -> None:
        self.libvirt_has(document(PCI), document(MMIO))
        self.host.write_instance_config.side_effect = OSError('libvirt')

        self.plug()

        self.assertIn('ERROR Keeping the address of a device for the next '
                      'start has failed', self.log.output)


class ChangingTest(HotplugTest):

    def locks(self, work: object, is_arm: bool = True) -> list[str]:
        self.definitions.is_arm.return_value = is_arm
        with mock.patch.object(hotplug.lockutils, 'lock') as lock, \
                work(INSTANCE):
            self.within = len(lock.return_value.__exit__.mock_calls)
        self.assertEqual(len(lock.mock_calls) > 0,
                         lock.return_value.__exit__.called)
        return [call.args[0] for call in lock.call_args_list]

    def test_one_change_of_an_arm_guest_at_a_time(self) -> None:
        for work in (self.hotplug.changing, self.hotplug.plugging):
            self.assertEqual(['nova_arm_ext_devices_one'], self.locks(work))
            self.assertEqual(0, self.within)

    def test_guests_of_others_do_not_wait(self) -> None:
        self.assertEqual([], self.locks(self.hotplug.changing, False))

    def test_a_guest_of_unknown_architecture_does_not_wait(self) -> None:
        self.definitions.is_arm.side_effect = OSError('no')

        self.assertEqual([], self.locks(self.hotplug.changing))
        self.assertIn('Asking for the architecture has failed',
                      self.log.output)


class UnpluggingTest(HotplugTest):

    def refused(self, check: str, what: object) -> str:
        error = self.assertRaises(
            exception.DeviceDetachFailed, getattr(self.hotplug, check),
            INSTANCE, what)
        return error.format_message()

    def test_a_device_on_virtio_mmio_cannot_leave(self) -> None:
        for check, what, name in (
                ('check_disk', '/dev/vda', 'vda'),
                ('check_disk', 'vdb', 'vdb'),
                ('check_interface', {'address': MAC.upper()}, MAC)):
            message = self.refused(check, what)

            self.assertIn(name, message)
            self.assertIn('it is on virtio-mmio, and cannot be detached from '
                          'a running instance; stop the instance first',
                          message)

    def test_others_can(self) -> None:
        self.libvirt_has(document(PCI))

        for name in ('vdb', 'sda', 'vdz', MAC):
            self.assertIsNone(self.hotplug.check_disk(
                INSTANCE, f'/dev/{name}'))
        for name in ('52:54:00:00:00:0b', 'vda'):
            self.assertIsNone(self.hotplug.check_interface(
                INSTANCE, {'address': name}))

    def test_so_can_all_of_a_guest_that_does_not_run(self) -> None:
        self.libvirt_has(None)

        self.assertIsNone(self.hotplug.check_disk(INSTANCE, '/dev/vda'))
        self.definitions.running.assert_called_once_with(INSTANCE)
