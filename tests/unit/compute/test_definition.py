# SPDX-License-Identifier: Apache-2.0
"""The domain XML of guests, while Nova takes them away and defines them."""

import pathlib
import types
from unittest import mock

import fixtures
import nova.conf
from nova import exception
from nova.compute import task_states
from oslo_config import fixture as config_fixture

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import operation
from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.nvram import Event
from tests.support import base

UUID = 'b7e2f3c4-1c2d-4a5b-8e6f-0123456789ab'
INSTANCE = types.SimpleNamespace(uuid=UUID, image_meta=None)


def document(name: str = 'now', *, arch: str = 'aarch64',
             number: str = '') -> str:
    return (f'<domain{number}><name>{name}</name><os><type arch="{arch}" '
            f'machine="virt-7.2">hvm</type></os></domain>')


class DefinitionsTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        root = self.useFixture(fixtures.TempDir()).path
        self.useFixture(config_fixture.Config(nova.conf.CONF)).config(
            instances_path=root)
        self.folder = pathlib.Path(root, UUID)
        self.left = pathlib.Path(root, f'{UUID}_resize')
        self.arch = 'aarch64'
        self.xml: str | None = document()
        self.is_defined = True
        self.host = mock.Mock()
        self.host.get_guest = self.get_guest
        self.luggage = mock.Mock(spec=luggage.Luggage)
        self.luggage.has_arrived.return_value = False
        self.saved: dict[str, str] = {}
        self.luggage.document.side_effect = self.saved.get
        self.task_state: str | None = None
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.definition.objects',
            types.SimpleNamespace(Instance=types.SimpleNamespace(
                get_by_uuid=self.get_by_uuid))))
        self.definitions = definition.Definitions(
            self.host, self.luggage, lambda image_meta: self.arch)

    def get_guest(self, instance: object) -> mock.Mock:
        if self.xml is None:
            raise exception.InstanceNotFound(instance_id=UUID)
        found = mock.Mock()
        found.get_xml_desc.return_value = self.xml
        found.has_persistent_configuration.return_value = self.is_defined
        return found

    def get_by_uuid(self, context: object, uuid: str,
                    expected_attrs: list[str]) -> types.SimpleNamespace:
        self.assertEqual(UUID, uuid)
        if self.task_state == 'gone':
            raise exception.InstanceNotFound(instance_id=uuid)
        if self.task_state == 'unknown':
            raise OSError('no database')
        return types.SimpleNamespace(task_state=self.task_state)

    def keep(self, event: Event = Event.HARD_REBOOT,
             fails: bool = False) -> operation.Operation:
        """What is known within; Nova undefines the guest and may fail."""
        with self.definitions.keeping(INSTANCE, event):
            doing = operation.on(INSTANCE)
            if fails:
                self.is_defined, self.xml = False, None
                raise ValueError('Nova failed')
        return doing

    def fail(self, event: Event = Event.HARD_REBOOT) -> None:
        self.assertRaises(ValueError, self.keep, event, True)


class LookTest(DefinitionsTest):

    def test_a_guest_that_libvirt_does_not_know(self) -> None:
        self.xml = None

        self.assertIsNone(self.definitions.of(INSTANCE))
        self.assertIsNone(self.definitions.guest(INSTANCE))
        self.assertIsNone(self.definitions.running(INSTANCE))
        self.assertIs(False, self.definitions.is_here(INSTANCE))

    def test_one_that_it_knows(self) -> None:
        self.assertEqual(document(), self.definitions.of(INSTANCE))
        self.assertEqual('now', self.definitions.guest(INSTANCE).name)
        self.assertIs(True, self.definitions.is_here(INSTANCE))

    def test_a_libvirt_that_fails_does_not_know(self) -> None:
        self.host.get_guest = mock.Mock(
            side_effect=exception.InternalError('no libvirt'))

        self.assertRaises(exception.InternalError, self.definitions.is_here,
                          INSTANCE)

    def test_guests_of_other_architectures_are_not_seen(self) -> None:
        self.xml = document(arch='x86_64')

        self.assertIsNone(self.definitions.guest(INSTANCE))

    def test_architecture_of_the_image_decides_who_is_asked_for(self) -> None:
        for arch, is_arm in (('aarch64', True), ('armv7l', True),
                             ('x86_64', False)):
            self.arch = arch
            self.assertIs(is_arm, self.definitions.is_arm(INSTANCE))

    def test_running_are_those_that_libvirt_numbers(self) -> None:
        self.assertIsNone(self.definitions.running(INSTANCE))

        self.xml = document(number=' id="1"')

        self.assertEqual('now', self.definitions.running(INSTANCE).name)

    def test_libvirt_is_not_asked_whether_others_run(self) -> None:
        self.arch = 'x86_64'
        self.host.get_guest = mock.Mock(side_effect=AssertionError)

        self.assertIsNone(self.definitions.running(INSTANCE))

    def test_before_an_operation_the_guest_was_as_that_knows(self) -> None:
        with operation.of(INSTANCE, Event.ARRIVE, previous=document('old')):
            self.assertEqual(
                'old', self.definitions.previous_guest(INSTANCE).name)
        with operation.of(INSTANCE, Event.SPAWN):
            self.assertIsNone(self.definitions.previous_guest(INSTANCE))

    def test_without_an_operation_it_is_as_libvirt_has_it(self) -> None:
        self.assertEqual(
            'now', self.definitions.previous_guest(INSTANCE).name)


class KeepingTest(DefinitionsTest):

    def test_an_operation_knows_what_libvirt_had(self) -> None:
        for event in (Event.HARD_REBOOT, Event.REVERT):
            self.saved[str(self.left)] = document('left')
            doing = self.keep(event)

            self.assertEqual((event, document()),
                             (doing.event, doing.previous))

    def test_a_rescued_guest_had_that_of_before(self) -> None:
        rescue = ('<devices><disk><source file="/instances/disk.rescue"/>'
                  '</disk></devices></domain>')
        self.xml = document().replace('</domain>', rescue)
        for kept, own in ((document('own'), document('own')),
                          (None, self.xml),
                          (document('1').replace('</domain>', rescue),
                           self.xml),
                          (document(arch='x86_64'), self.xml)):
            self.luggage.before_rescue.return_value = kept

            self.assertEqual(own, self.keep().previous)
        self.luggage.before_rescue.assert_called_with(str(self.folder))

    def test_others_have_what_libvirt_has(self) -> None:
        disk = '<disk><source file="/instances/disk{}"/></disk>'
        for arch, end, text in (('x86_64', '.rescue', ''),
                                ('aarch64', '', '<title>a.rescue</title>')):
            self.xml = document(arch=arch).replace('</domain>', (
                f'{text}<devices>{disk.format(end)}</devices></domain>'))
            self.luggage.before_rescue.return_value = document('own')

            self.assertEqual(self.xml, self.keep().previous)

    def test_a_file_that_cannot_be_read_does_not_stop_it(self) -> None:
        self.xml = document().replace('</domain>', (
            '<devices><disk><source dev="/dev/vg/disk.rescue"/></disk>'
            '</devices></domain>'))
        self.luggage.before_rescue.side_effect = OSError('no')

        self.assertEqual(self.xml, self.keep().previous)

    def test_after_one_that_was_cut_off_the_saved_one_counts(self) -> None:
        self.xml = None
        self.saved[str(self.folder)] = document('saved')
        for event in (Event.HARD_REBOOT, Event.REVERT):
            self.assertEqual(document('saved'), self.keep(event).previous)

    def test_after_an_arrival_that_was_cut_off_it_goes_on(self) -> None:
        self.luggage.has_arrived.side_effect = (
            lambda uuid, folder: (uuid, folder) == (UUID, str(self.folder)))
        self.saved[str(self.folder)] = document('sent')

        doing = self.keep()

        self.assertEqual((Event.ARRIVE, document('sent')),
                         (doing.event, doing.previous))

    def test_an_arrival_without_its_xml_has_that_of_libvirt(self) -> None:
        self.luggage.has_arrived.return_value = True

        self.assertEqual(document(), self.keep().previous)

    def test_a_revert_is_no_arrival(self) -> None:
        self.luggage.has_arrived.return_value = True

        self.assertEqual(Event.REVERT, self.keep(Event.REVERT).event)

    def test_a_revert_on_one_host_has_what_was_left_there(self) -> None:
        self.xml = None
        self.saved[str(self.left)] = document('left')
        self.saved[str(self.folder)] = document('saved')

        self.assertEqual(document('left'), self.keep(Event.REVERT).previous)
        self.left.mkdir()
        self.folder.mkdir()
        (self.folder / 'disk').touch()
        self.assertEqual(document('saved'), self.keep().previous)


class SaveTest(DefinitionsTest):

    def test_it_is_saved_where_there_is_a_folder(self) -> None:
        self.definitions.save(INSTANCE, document())
        self.assertFalse(self.luggage.write_document.called)

        self.folder.mkdir()
        self.definitions.save(INSTANCE, document())
        self.luggage.write_document.assert_called_once_with(
            str(self.folder), document())

    def test_a_full_disk_does_not_stop_nova(self) -> None:
        self.folder.mkdir()
        self.luggage.write_document.side_effect = OSError('no space')

        self.definitions.save(INSTANCE, document())

        self.assertIn('ERROR Saving the domain XML has failed',
                      self.log.output)

    def test_it_can_be_forgotten(self) -> None:
        self.definitions.forget_saved(INSTANCE)

        self.luggage.remove_document.assert_called_once_with(
            str(self.folder))

    def test_names_are_those_of_all_guests(self) -> None:
        self.host.list_guests.return_value = [
            types.SimpleNamespace(name='a'), types.SimpleNamespace(name='b')]

        for name, there in (('a', True), ('b', True), ('c', False)):
            self.assertIs(there, self.definitions.has_name(name))
        self.host.list_guests.assert_called_with(only_running=False)


class DefineAgainTest(DefinitionsTest):

    def test_what_nova_took_away_is_defined_again(self) -> None:
        self.folder.mkdir()

        self.fail()

        self.host.write_instance_config.assert_called_once_with(document())
        self.assertIn('WARNING The instance could not be defined anew',
                      self.log.output)
        self.luggage.remove_document.assert_called_once_with(
            str(self.folder))
        self.assertIsNone(operation.current.get())

    def test_a_revert_that_fails_leaves_it_defined_too(self) -> None:
        self.fail(Event.REVERT)

        self.host.write_instance_config.assert_called_once_with(document())

    def test_one_that_was_deleted_meanwhile_is_not(self) -> None:
        xml = self.xml
        for self.task_state, again in (
                ('gone', False), (task_states.DELETING, False),
                (task_states.REBOOTING_HARD, True), ('unknown', True)):
            self.host.write_instance_config.reset_mock()
            self.xml, self.is_defined = xml, True

            self.fail()

            self.assertIs(again, self.host.write_instance_config.called)

    def test_guests_of_others_are_left_to_nova(self) -> None:
        self.xml = document(arch='x86_64')

        self.fail()

        self.assertFalse(self.host.write_instance_config.called)

    def test_nothing_is_defined_of_which_nothing_is_known(self) -> None:
        self.xml = None

        self.fail()

        self.assertFalse(self.host.write_instance_config.called)

    def test_the_xml_is_logged_where_that_fails_as_well(self) -> None:
        self.host.write_instance_config.side_effect = OSError('libvirt')

        self.fail()

        # for the next hard reboot
        self.assertFalse(self.luggage.remove_document.called)
        self.assertIn('ERROR The previous domain could not be defined again '
                      f'either. It was:\n{document()}', self.log.output)


class RescueTest(DefinitionsTest):

    RESCUE = document().replace('</domain>', (
        '<devices><disk><source file="/instances/disk.rescue"/></disk>'
        '</devices></domain>'))

    def rescue(self, left: str | None = None, is_defined: bool = True
               ) -> operation.Operation | None:
        """What is known within.

        :param left: Nova fails, and this is what libvirt then has
        """
        with self.definitions.rescuing(INSTANCE):
            doing = operation.on(INSTANCE)
            if left:
                self.xml, self.is_defined = left, is_defined
                raise ValueError('Nova failed')
        return doing

    def test_it_knows_the_guest(self) -> None:
        doing = self.rescue()

        self.assertEqual((Event.RESCUE, document()),
                         (doing.event, doing.previous))
        self.assertIsNone(operation.current.get())
        self.assertFalse(self.host.write_instance_config.called)

    def test_one_that_fails_leaves_what_is_to_be_rescued(self) -> None:
        self.assertRaises(ValueError, self.rescue, self.RESCUE)

        self.host.write_instance_config.assert_called_once_with(document())

    def test_so_does_the_second_one(self) -> None:
        self.xml = self.RESCUE
        self.luggage.before_rescue.return_value = document('own')

        self.assertRaises(ValueError, self.rescue, self.RESCUE)

        self.host.write_instance_config.assert_called_once_with(
            document('own'))

    def test_one_that_leaves_nothing_leaves_it_too(self) -> None:
        self.assertRaises(ValueError, self.rescue, document(), False)

        self.host.write_instance_config.assert_called_once_with(document())

    def test_one_that_failed_before_it_began_changes_nothing(self) -> None:
        self.assertRaises(ValueError, self.rescue, document())

        self.assertFalse(self.host.write_instance_config.called)

    def test_a_guest_of_which_nothing_is_known_stays_so(self) -> None:
        self.xml = None

        self.assertRaises(ValueError, self.rescue, self.RESCUE)

        self.assertFalse(self.host.write_instance_config.called)


class CutOffRevertTest(DefinitionsTest):

    def setUp(self) -> None:
        super().setUp()
        self.left.mkdir()
        (self.left / 'disk').touch()

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder.parent))
                      for path in self.folder.parent.rglob('disk'))

    def test_a_hard_reboot_gives_the_files_their_name_back(self) -> None:
        for prepare in (lambda: None, self.folder.mkdir):
            prepare()
            self.keep()

            self.assertEqual([f'{UUID}/disk'], self.files())
            self.assertIn('WARNING A revert to this host was cut off',
                          self.log.output)
            self.assertIn(str(self.left), self.log.output)
            self.folder.rename(self.left)

    def test_not_those_of_a_migration_that_goes_on(self) -> None:
        self.folder.mkdir()
        (self.folder / 'disk').touch()

        self.keep()

        self.assertEqual([f'{UUID}/disk', f'{UUID}_resize/disk'],
                         self.files())

    def test_not_those_of_others_nor_before_nova_does_it(self) -> None:
        self.keep(Event.REVERT)
        self.arch = 'x86_64'
        self.keep()

        self.assertEqual([f'{UUID}_resize/disk'], self.files())
