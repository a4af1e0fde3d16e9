# SPDX-License-Identifier: Apache-2.0
"""A guest keeps the versioned machine that it was made with."""

import types
from unittest import mock

from nova import exception
from nova import objects

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import machine
from nova_arm_ext.domain import view
from tests.support import base

objects.register_all()


class MachinesTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.arch = 'aarch64'
        #: QEMU's machines by the names that it knows
        self.qemu = {'virt': 'virt-9.0', 'virt-9.0': 'virt-9.0',
                     'virt-7.2': 'virt-7.2'}
        host = types.SimpleNamespace(get_canonical_machine_type=self.ask)
        self.previous: view.Domain | None = None
        definitions = mock.Mock(spec=definition.Definitions)
        definitions.previous_guest.side_effect = lambda _: self.previous
        self.instance = types.SimpleNamespace(
            uuid='one', system_metadata={}, image_meta=self.image())
        self.machines = machine.Machines(host, definitions,
                                         lambda image_meta: self.arch)

    def ask(self, arch: str, name: str) -> str:
        self.assertEqual(self.arch, arch)
        if name not in self.qemu:
            raise exception.InternalError('no such machine')
        return self.qemu[name]

    @staticmethod
    def image(**properties: str) -> objects.ImageMeta:
        return objects.ImageMeta.from_dict({'properties': {
            'hw_machine_type': 'virt', **properties}})

    def had(self, name: str, arch: str = 'aarch64') -> None:
        self.previous = view.Domain.parse(
            f'<domain><os><type arch="{arch}" machine="{name}">hvm</type>'
            f'</os></domain>')

    @property
    def recorded(self) -> str | None:
        return self.instance.system_metadata.get(machine.RECORD)

    def record(self, name: str) -> None:
        self.instance.system_metadata[machine.RECORD] = name


class AskedForTest(MachinesTest):

    def asked(self, image: objects.ImageMeta | None = None) -> str:
        asked = self.machines.asked_for(self.instance, image or self.image())
        return asked.properties.hw_machine_type

    def test_a_new_guest_gets_the_newest_and_keeps_it(self) -> None:
        self.assertEqual(('virt-9.0', 'virt-9.0'),
                         (self.asked(), self.recorded))

    def test_the_image_itself_is_not_changed(self) -> None:
        image = self.image()

        self.asked(image)

        self.assertEqual('virt', image.properties.hw_machine_type)

    def test_what_is_recorded_counts_before_what_the_guest_had(self) -> None:
        self.record('virt-7.2')
        self.had('virt-9.0')

        self.assertEqual(('virt-7.2', 'virt-7.2'),
                         (self.asked(), self.recorded))

    def test_a_guest_that_exists_keeps_what_it_has(self) -> None:
        for recorded in (None, 'virt', 'pc-q35-9.0'):
            self.instance.system_metadata.clear()
            if recorded:
                self.record(recorded)
            self.had('virt-7.2')

            self.assertEqual(('virt-7.2', 'virt-7.2'),
                             (self.asked(), self.recorded))

    def test_not_that_of_another_architecture_or_board(self) -> None:
        self.had('virt-7.2', arch='armv7l')
        self.assertEqual('virt-9.0', self.asked())

        self.instance.system_metadata.clear()
        self.had('raspi3b')
        self.assertEqual('virt-9.0', self.asked())

    def test_an_image_that_names_another_has_it(self) -> None:
        image = self.image(hw_machine_type='virt-7.2')

        self.assertIs(image, self.machines.asked_for(self.instance, image))
        self.assertIsNone(self.recorded)

    def test_guests_of_other_architectures_are_left_alone(self) -> None:
        self.arch = 'x86_64'
        image = self.image()

        self.assertIs(image, self.machines.asked_for(self.instance, image))
        self.assertIsNone(self.recorded)

    def test_what_qemu_does_not_have_cannot_be_kept(self) -> None:
        self.record('virt-1.0')
        image = self.image()

        self.assertIs(image, self.machines.asked_for(self.instance, image))

        self.assertIn('WARNING QEMU on this host does not have the machine '
                      'virt-1.0', self.log.output)
        self.assertEqual('virt-1.0', self.recorded)


class RecordTest(MachinesTest):

    def fail(self) -> None:
        with self.machines.forgetting(self.instance):
            self.record('virt-9.0')
            raise ValueError

    def test_a_guest_that_was_not_made_leaves_what_was(self) -> None:
        self.assertRaises(ValueError, self.fail)
        self.assertEqual({}, self.instance.system_metadata)

        self.record('virt')
        self.assertRaises(ValueError, self.fail)
        self.assertEqual('virt', self.recorded)

    def test_one_that_was_made_keeps_it(self) -> None:
        with self.machines.forgetting(self.instance):
            self.record('virt-9.0')

        self.assertEqual('virt-9.0', self.recorded)

    def test_a_guest_that_leaves_takes_its_machine_along(self) -> None:
        self.record('virt')
        self.had('virt-7.2')

        self.machines.record(self.instance)

        self.assertEqual('virt-7.2', self.recorded)

    def test_nothing_is_recorded_that_is_not_known(self) -> None:
        self.record('virt')

        self.machines.record(self.instance)

        self.assertEqual('virt', self.recorded)

    def test_only_the_alias_is_replaced(self) -> None:
        self.had('virt-7.2')
        for recorded in (None, 'pc-q35-9.0', 'virt-9.0'):
            self.instance.system_metadata[machine.RECORD] = recorded

            self.machines.record(self.instance)

            self.assertEqual(recorded, self.recorded)


class IsMissingTest(MachinesTest):

    def test_only_a_versioned_machine_can_be_missing(self) -> None:
        for recorded, missing in (
                (None, None), ('virt', None), ('pc-q35-1.0', None),
                ('virt-7.2', None), ('virt-1.0', 'virt-1.0')):
            self.instance.system_metadata[machine.RECORD] = recorded

            self.assertEqual(missing, self.machines.is_missing(
                self.instance, 'aarch64'), recorded)
