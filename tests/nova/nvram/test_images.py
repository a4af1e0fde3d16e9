# SPDX-License-Identifier: Apache-2.0
"""Variable stores in images."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import dataclasses
import random
from unittest import mock

import nova.conf
from nova import exception
from nova import objects
from nova.compute import vm_states
from nova.virt import fake

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.compute import driver
from nova_arm_ext.compute.nvram import store
from tests.nova.nvram import base
from tests.support import stores

CONF = nova.conf.CONF


class ImagesTest(base.StoresTestCase):
    """Snapshots hold the stores of their guests."""

    IMAGE = '7a0c1a51-3a3b-4a92-8a8a-6d5b2f6f0f0d'

    def setUp(self):
        super().setUp()
        self.key = self.root / 'key'
        self.write_key('k' * 32)
        self.properties = {}
        self.stub_out('nova.image.glance.API.get', lambda api, context, image:
                      {'id': image, 'properties': self.properties})
        self.instance.update(dict(kernel_id='', ramdisk_id='', os_type=None,
                                  project_id='project'))

    def write_key(self, key):
        self.key.write_text(key + '\n')
        self.key.chmod(0o640)
        self.flags(image_key_file=str(self.key), group='arm_nvram')
        self.load_stores()

    def snapshot(self):
        def snapshot(nova_driver, *args):
            self.properties = nova_driver._create_snapshot_metadata(
                self.image, self.instance, 'qcow2', 'a snapshot')['properties']

        with self.nova('snapshot', snapshot):
            self.driver.snapshot(None, self.instance, self.IMAGE, None)

    def take_it(self):
        self.image = objects.ImageMeta.from_dict(
            {'id': self.IMAGE, 'properties': {'hw_architecture': 'aarch64'}})

    def spawn_from_it(self):
        self.take_it()
        self.spawn()

    def spawned_and_gone(self):
        """Make a guest, take its snapshot, and delete it."""
        self.spawn()
        self.stop('1')
        self.snapshot()
        self.destroy()
        self.at('b')

    def test_a_guest_of_a_snapshot_has_the_variables_of_the_first(self):
        self.spawned_and_gone()
        self.assertLess(len(self.properties['arm_nvram_store']), 60 * 1024)

        self.spawn_from_it()

        self.assertEqual(base.variables('1'), self.started)
        self.assertEqual(base.variables('1'), self.store.read_bytes())

    def test_a_guest_that_is_unshelved_has_its_own_again(self):
        self.spawned_and_gone()
        self.instance.vm_state = vm_states.SHELVED_OFFLOADED

        self.spawn_from_it()

        self.assertEqual(base.variables('1'), self.started)
        self.assertEqual([], self.notes)

    def test_a_guest_that_is_rebuilt_with_a_snapshot_has_what_it_carries(
            self):
        self.spawn()
        self.stop('1')
        self.snapshot()
        self.stop('2')
        self.take_it()

        self.rebuild()

        self.assertEqual(base.variables('1'), self.started)

    def test_nothing_is_destroyed_where_the_image_cannot_be_used(self):
        self.keep_copies()
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.properties = {'arm_nvram_store': 'of somebody else'}
        self.take_it()

        error = self.assertRaises(
            exception.InstanceFaultRollback, self.driver.rebuild, None,
            self.instance, self.image, None, None, None, None, None, None)

        self.assertIsInstance(error.inner_exception, store.StoreNotUsable)
        self.assertEqual(base.variables('1'), self.store.read_bytes())

    def test_an_image_of_another_architecture_is_not_asked_for(self):
        self.take_it()
        with mock.patch('nova.image.glance.API.get') as get, self.nova(
                '_check_emulation_arch', lambda *args: 'x86_64'):
            self.spawn()
        get.assert_not_called()

    def test_a_guest_that_boots_from_a_volume_has_no_image(self):
        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.spawn()

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_an_evacuated_guest_does_not_go_back_to_its_image(self):
        self.spawned_and_gone()
        self.take_it()
        self.properties = {'arm_nvram_store': 'of somebody else'}

        self.rebuild(evacuate=True)

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_what_somebody_else_has_written_stops_the_start(self):
        self.spawned_and_gone()
        value = self.properties['arm_nvram_store']

        for wrong, why in ((value[:254], 'is not whole'),
                           (value[:-6] + 'AAAA==', 'is not whole'),
                           ('2:\u00e4', 'is not whole'),
                           ('x' * 10, 'is no variable store'),
                           ('2:' + 'A' * 61440, 'is no variable store')):
            self.properties = {'arm_nvram_store': wrong}
            error = self.assertRaises(store.StoreNotUsable,
                                      self.spawn_from_it)
            self.assertIn(why, str(error))
            self.assertIn(self.IMAGE, str(error))
        self.assertNotIn('b', self.domains)

        self.flags(on_damage='fresh', group='arm_nvram')
        self.spawn_from_it()
        self.assertEqual(self.template.read_bytes(), self.started)

    def test_what_nova_has_cut_off_is_none(self):
        """A snapshot of a volume has what Nova keeps of the property."""
        self.spawned_and_gone()
        self.properties = {
            'arm_nvram_store': self.properties['arm_nvram_store'][:255]}

        self.spawn_from_it()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertIn('only the beginning of UEFI variables',
                      self.stdlog.logger.output)

    def test_so_is_that_of_a_store_without_variables(self):
        """Its property is one of another image, too, and is short."""
        self.spawn()
        self.store.write_bytes(bytes(stores.MIB))
        self.snapshot()
        self.destroy()
        self.properties = {
            'arm_nvram_store': self.properties['arm_nvram_store'][:255]}
        self.IMAGE = '0d3c9b4e-4f0f-4c5b-9b57-2f3d1a8e6c11'

        self.spawn_from_it()

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_white_space_around_a_key_is_none_of_it(self):
        self.spawned_and_gone()
        self.write_key(f'\n{"k" * 32} \n')

        self.spawn_from_it()

        self.assertEqual(base.variables('1'), self.started)

    def test_so_does_another_key(self):
        self.spawned_and_gone()
        self.write_key('l' * 32)

        error = self.assertRaises(store.StoreNotUsable, self.spawn_from_it)

        self.assertIn('another key', str(error))

    def test_so_does_the_property_of_another_image(self):
        self.spawned_and_gone()
        self.IMAGE = '0d3c9b4e-4f0f-4c5b-9b57-2f3d1a8e6c11'

        error = self.assertRaises(store.StoreNotUsable, self.spawn_from_it)

        self.assertIn('another image', str(error))

    def test_what_is_made_for_no_image_carries_nothing(self):
        self.spawn()

        metadata = self.driver._create_snapshot_metadata(
            self.image, self.instance, 'qcow2', 'a snapshot')

        self.assertNotIn('arm_nvram_store', metadata['properties'])

    def test_a_key_can_be_changed(self):
        """The first one seals, and each one opens."""
        old, new = 'k' * 32, 'l' * 32
        self.spawned_and_gone()
        self.write_key(f'{new}\n{old}')
        self.spawn_from_it()
        self.assertEqual(base.variables('1'), self.started)
        self.snapshot()
        self.destroy()

        self.write_key(new)
        self.spawn_from_it()

        self.assertEqual(base.variables('1'), self.started)

    def test_a_guest_that_is_unshelved_has_its_copy_whatever_the_image_has(
            self):
        self.keep_copies()
        self.spawn()
        self.stop('1')
        self.properties = {'arm_nvram_store': 'of somebody else'}
        self.offload()
        self.at('b')

        self.spawn_from_it()

        self.assertEqual(base.variables('1'), self.started)
        self.assertEqual([], self.notes)
        self.assertRegex(
            self.stdlog.logger.output,
            f'WARNING .* of image {self.IMAGE} cannot be used: .* Remove the '
            f'property from the image. The guest gets the copy')
        self.driver._life._copies.remove(base.UUID)
        self.assertRaises(store.StoreNotUsable, self.spawn_from_it)

    def test_without_a_key_nothing_is_carried_nor_used(self):
        self.spawned_and_gone()
        self.flags(image_key_file='', group='arm_nvram')
        self.load_stores()

        with mock.patch('nova.image.glance.API.get') as get:
            self.spawn_from_it()
        get.assert_not_called()
        self.assertEqual(self.template.read_bytes(), self.started)

        self.snapshot()
        self.assertNotIn('arm_nvram_store', self.properties)

    def test_a_guest_without_a_store_has_none_to_carry(self):
        self.document = base.DOCUMENT.replace('<loader secure="no"/>',
                                              '<loader stateless="yes"/>')
        self.spawn()

        self.snapshot()

        self.assertNotIn('arm_nvram_store', self.properties)
        self.assertNotIn('does not carry', self.stdlog.logger.output)

    def test_a_snapshot_without_a_store_that_can_be_used_says_why(self):
        self.spawned_and_gone()
        self.instance.system_metadata['image_arm_nvram_store'] = (
            self.properties['arm_nvram_store'][:255])
        self.spawn_from_it()

        def fail(*args):
            raise OSError('no such device')

        for spoil, why in (
                (lambda: self.store.write_bytes(b''), 'cannot be used'),
                (self.store.unlink, 'it is not there'),
                (lambda: self.stub_out('nova_arm_ext.compute.nvram.store.'
                                       'exists', fail), 'no such device')):
            spoil()

            self.snapshot()

            self.assertEqual('', self.properties['arm_nvram_store'])
            self.assertRegex(self.stdlog.logger.output,
                             f'does not carry the UEFI variables.*{why}')

    def test_a_store_without_keys_is_not_carried_to_secure_boot(self):
        secure = dataclasses.replace(
            self.plain, loader='/usr/share/AAVMF/AAVMF_CODE.ms.fd',
            secure_boot=True, enrolled_keys=True)
        self.driver._facts.forget()
        self.stub_out('nova_arm_ext.compute.gather.host',
                      lambda connection: facts.Host(
                          arch='aarch64', libvirt_version=(9, 0, 0),
                          firmware=(secure, self.plain)))
        asked = base.DOCUMENT.replace('enabled="no"', 'enabled="yes"')
        for first, then in ((base.DOCUMENT, asked), (asked, base.DOCUMENT)):
            self.at('a')
            self.properties = {}
            self.document = first
            self.spawned_and_gone()
            self.document = then
            self.spawn_from_it()
            self.assertEqual(self.template.read_bytes(), self.started)
            self.assertEqual(['arm_nvram_lost'], self.notes)
            self.destroy()
            self.notes.clear()
            self.document = first
            self.spawn_from_it()
            self.assertEqual(base.variables('1'), self.started)
            self.destroy()
        self.assertEqual([], self.notes)

    def test_what_is_too_much_for_an_image_is_told(self):
        self.spawned_and_gone()
        self.instance.system_metadata['image_arm_nvram_store'] = (
            self.properties['arm_nvram_store'][:255])
        self.spawn_from_it()
        self.store.write_bytes(stores.store(stores.variable(
            'Noise', random.Random(1).randbytes(50000))))

        self.snapshot()

        self.assertEqual('', self.properties['arm_nvram_store'])
        self.assertIn('a property may have 61440', self.stdlog.logger.output)
        self.destroy()
        self.spawn_from_it()
        self.assertEqual(self.template.read_bytes(), self.started)

    def test_a_key_that_is_none_is_told_at_the_start(self):
        self.flags(store='tape', group='arm_nvram')

        def faults():
            error = self.assertRaises(
                errors.ConfigurationError, driver.ArmLibvirtDriver,
                fake.FakeVirtAPI(), False)
            self.assertIn('tape', str(error))
            return str(error)

        for text, size in (('short', 5), ('', 0), (' \n', 0),
                           (f'{"k" * 32}\nshort', 5)):
            self.key.write_text(text)
            self.assertIn(f'has {size} bytes, and a secret needs 32',
                          faults())
        self.key.chmod(0o644)
        self.assertIn('has the permissions 644', faults())
        self.key.unlink()
        self.assertIn('No such file or directory', faults())
