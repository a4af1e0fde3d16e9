# SPDX-License-Identifier: Apache-2.0
"""Guests that Nova undefines and that go on to exist."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import itertools
import os
import shutil
import types

import nova.conf
from lxml import etree
from nova import exception
from nova.compute import task_states
from nova.compute import vm_states

from nova_arm_ext.compute import operation
from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.compute.nvram import removal
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from tests.nova.nvram import base

CONF = nova.conf.CONF


class UndefineTest(base.StoresTestCase):
    """Nova undefines a guest in more operations than it defines it again."""

    def setUp(self):
        super().setUp()
        self.saved = self.folder / luggage.DOCUMENT

    def slots(self):
        """The address of each disk and interface."""
        return [etree.tostring(one) for one in etree.fromstring(
            self.domains['a'].document).iterfind('devices/*/address')]

    def test_a_failed_start_leaves_slots_and_store(self):
        """As when a suspended instance cannot be resumed."""
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                self.domains.clear()
                prepare()
                self.stop('1')
                slots = self.slots()

                self.clean()
                self.assertNotIn('a', self.domains)
                self.assertTrue(self.saved.exists())

                self.hard_reboot()
                self.assertEqual(base.variables('1'), self.started)
                self.assertEqual(slots, self.slots())
                self.assertFalse(self.saved.exists())
                self.assertEqual([], self.notes)
                self.clean(removed=True)

    def test_a_revert_from_another_cell_has_its_document(self):
        """Nova undefines the guest and renames nothing."""
        self.adopt()
        self.instance.task_state = task_states.RESIZE_MIGRATING
        self.clean()
        self.instance.task_state = task_states.RESIZE_REVERTING

        with self.nova('finish_revert_migration',
                       lambda *args, **kwargs: self.start()):
            self.driver.finish_revert_migration(None, self.instance, None,
                                                None)

        self.assertEqual(base.variables('adopted'), self.started)
        self.assertIn(f'>{self.store}<', self.domains['a'].document)

    def test_a_document_that_is_not_whole_is_none(self):
        for torn in ('', '<domain', '\udcff'):
            with self.subTest(torn):
                self.domains.clear()
                self.folder.mkdir(exist_ok=True)
                self.saved.write_bytes(torn.encode(errors='surrogateescape'))

                self.hard_reboot()

                self.assertFalse(self.saved.exists())
                [aside] = self.folder.glob(f'{luggage.DOCUMENT}.damaged-*')
                aside.unlink()
                self.assertIn(f'{self.saved} is not whole',
                              self.stdlog.logger.output)

    def test_nor_is_one_behind_a_link(self):
        self.folder.mkdir()
        target = self.root / 'target'
        target.write_text(base.DOCUMENT)
        self.saved.symlink_to(target)

        self.hard_reboot()

        self.assertFalse(self.saved.exists())
        self.assertEqual(base.DOCUMENT, target.read_text())
        self.assertIn(f'{self.saved} is not whole',
                      self.stdlog.logger.output)

    def test_what_is_saved_goes_when_the_guest_is_defined_again(self):
        self.spawn()

        def reboot(*args, **kwargs):
            self.clean()
            raise exception.InternalError('no memory')

        self.stub_out('nova.objects.Instance.image_meta', self.image)
        with self.nova('_hard_reboot', reboot), self.nova(
                '_check_emulation_arch', lambda *args: self.arch):
            self.assertRaises(exception.InternalError,
                              self.driver._hard_reboot, None, self.instance,
                              None)

        self.assertIn('a', self.domains)
        self.assertFalse(self.saved.exists())

    def test_a_guest_that_is_deleted_meanwhile_is_not_defined_again(self):
        def gone(*args, **kwargs):
            raise exception.InstanceNotFound(instance_id=base.UUID)

        def deleting(*args, **kwargs):
            return types.SimpleNamespace(task_state=task_states.DELETING)

        def reboot(*args, **kwargs):
            self.clean()
            raise exception.InternalError('its disks are gone')

        self.stub_out('nova.objects.Instance.image_meta', self.image)
        for state in (gone, deleting):
            self.spawn()
            self.stub_out('nova.objects.Instance.get_by_uuid', state)
            with self.nova('_hard_reboot', reboot), self.nova(
                    '_check_emulation_arch', lambda *args: self.arch):
                self.assertRaises(exception.InternalError,
                                  self.driver._hard_reboot, None,
                                  self.instance, None)
            self.assertNotIn('a', self.domains)

    def test_nothing_is_saved_of_a_guest_that_leaves(self):
        self.spawn()
        self.instance.host = 'b'
        self.clean()
        self.assertFalse(self.saved.exists())

        # the other host uses the directory already
        self.define(base.DOCUMENT)
        (self.folder / f'{base.UUID}_VARS.host').write_text('b')
        self.clean()
        self.assertFalse(self.saved.exists())

        self.instance.host = 'a'
        self.define(base.DOCUMENT)
        self.clean(removed=True)
        self.assertFalse(self.saved.exists())

    def test_a_guest_that_is_on_no_host_is_not_elsewhere(self):
        """Nova has not yet said where it is."""
        self.spawn()
        self.instance.host = None

        self.clean()

        self.assertTrue(self.saved.exists())
        self.assertTrue(self.store.exists())

    def test_nothing_is_removed_of_a_guest_that_starts_here(self):
        """A revert that fails on the source, whose directory has its name."""
        self.spawn()
        self.instance.task_state = task_states.RESIZE_REVERTING
        with operation.of(self.instance, Event.REVERT,
                          previous=self.domains['a'].document):
            self.clean()

        self.assertTrue(self.store.exists())
        self.assertTrue(self.saved.exists())

    def test_a_clean_up_says_nothing_of_later_ones_nor_of_other_guests(self):
        self.spawn()
        document = self.domains['a'].document
        self.clean()
        self.saved.unlink()
        another = types.SimpleNamespace(uuid='another', host='a',
                                        task_state=None, vm_state=None)

        self.driver._removal.undefining(
            self.instance, view.arm_guest(document), document)
        with self.driver._removal.cleaning_up(another, removed=False):
            self.driver._removal.undefining(
                self.instance, view.arm_guest(document), document)

        self.assertFalse(self.saved.exists())

    def test_a_store_elsewhere_is_not_removed_by_libvirt(self):
        self.spawn()
        elsewhere = self.root / 'elsewhere.fd'
        elsewhere.write_bytes(base.variables('another'))
        document = self.domains['a'].document
        self.define(document.replace(str(self.store), str(elsewhere)))

        self.clean(removed=True)

        self.assertEqual(base.KEEP, self.undefined)
        self.assertTrue(elsewhere.exists())


class FolderTest(base.StoresTestCase):

    def test_the_directory_of_an_arm_guest_that_starts_again_here_stays(self):
        for event, document in itertools.product(Event, (base.DOCUMENT, None)):
            with operation.of(self.instance, event, previous=document):
                self.assertIs(
                    event in (Event.HARD_REBOOT, Event.ARRIVE)
                    and document is not None,
                    removal.Removal.keeps_folder(self.instance), event)
        self.assertFalse(removal.Removal.keeps_folder(self.instance))


class OwnStoreTest(base.StoresTestCase):
    """The store that a domain XML names is not always the guest's own."""

    def test_a_rescued_guest_that_starts_with_the_host(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                self.domains.clear()
                prepare()
                self.stop('own')
                self.rescue()
                self.stop("the rescue's")

                self.hard_reboot()

                self.assertEqual(base.variables('own'), self.started)
                self.assertIn(f'>{self.store}<', self.domains['a'].document)
                self.assertEqual([], self.notes)
                self.assertNotIn('has failed', self.stdlog.logger.output)
                self.clean(removed=True)

    def test_a_rescue_of_a_rescue(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                self.domains.clear()
                prepare()
                self.stop('own')
                own = self.domains['a'].document
                for _ in range(2):
                    (self.folder / luggage.BEFORE_RESCUE).write_text(
                        self.domains['a'].document)
                    self.rescue()
                    self.assertEqual(base.variables('own'), self.started)
                    self.stop("the rescue's")
                    self.assertNotIn('.rescue.rescue',
                                     self.domains['a'].document)

                self.hard_reboot()

                self.assertEqual(base.variables('own'), self.started)
                self.assertIn(f'>{self.store}<', own)
                self.assertEqual([], self.notes)
                self.clean(removed=True)

    def test_a_folder_behind_a_link(self):
        """Storage was moved, and its old name is a link now."""
        self.spawn()
        self.stop('1')
        new = self.root / 'new'
        self.instances.rename(new)
        self.instances.symlink_to(new)
        self.flags(instances_path=str(new))

        self.hard_reboot()
        self.assertEqual(base.KEEP, self.undefined)
        self.assertEqual(base.variables('1'), self.started)

    def test_an_arrival_whose_start_failed(self):
        """Of a guest whose store was in libvirt's folder."""
        self.adopt()
        self.stop('1')
        self.migrate('b')
        self.at('b')

        def start(*args, **kwargs):
            self.start()
            self.clean()
            raise exception.InternalError('libvirt refuses once')

        with self.nova('finish_migration', start):
            self.assertRaises(
                exception.InternalError, self.driver.finish_migration, None,
                None, self.instance, '[]', None, self.image, True, {})
        os.unlink(self.root / 'a-libvirt' / f'{base.NAME}_VARS.fd')

        self.hard_reboot()

        self.assertEqual(base.variables('1'), self.started)
        self.assertEqual([], self.notes)


    def test_one_that_is_nowhere_should_be_in_the_instance_directory(self):
        self.assertEqual(str(self.store), self.driver._life._stores.own(
            self.instance, None).path)


class DeletedTest(base.StoresTestCase):

    def delete(self, *, task_state=task_states.DELETING):
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.instance.task_state = task_state
        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.clean(removed=True)

    def test_nothing_is_left_of_a_guest_without_a_domain(self):
        self.adopt()
        self.clean()

        self.delete()

        self.assert_nothing_left('a')

    def test_nor_of_one_that_goes_on_in_another_cell(self):
        """Nova undefines it first, and cleans up when that is confirmed."""
        self.adopt()
        self.clean()

        self.delete(task_state=None)

        self.assert_nothing_left('a')

    def test_nor_what_was_kept_for_a_rebuild(self):
        self.adopt()
        (self.instances / f'{base.UUID}_VARS.packed').write_bytes(b'')

        self.delete()

        self.assert_nothing_left('a')

    def test_nor_when_nova_reclaims_it_later(self):
        for state in (vm_states.SOFT_DELETED, vm_states.DELETED):
            self.instance.vm_state = vm_states.ACTIVE
            self.adopt()
            self.clean()
            self.instance.vm_state = state

            self.delete(task_state=None)

            self.assert_nothing_left('a')

    def test_nor_what_was_renamed(self):
        self.adopt()
        aside = self.store.with_name(
            f'{base.NAME}_VARS.fd.damaged-20260101T000000Z')
        aside.write_bytes(b'')
        other = self.store.with_name(
            f'{base.NAME}1_VARS.fd.damaged-20260101T000000Z')
        other.write_bytes(b'')

        self.delete()

        self.assert_nothing_left('a', but=[other.name])

    def test_a_guest_of_another_architecture_is_none_of_ours(self):
        self.adopt()
        self.clean()
        self.arch = 'x86_64'

        self.delete()

        self.assertTrue(self.store.exists())

    def test_a_domain_of_that_name_keeps_its_store(self):
        """Of another cloud, or made by hand."""
        self.adopt()
        self.clean()
        named = types.SimpleNamespace(name=base.NAME)
        self.stub_out('nova.virt.libvirt.host.Host.list_guests',
                      lambda host, **kwargs: [named])

        self.delete()

        self.assertTrue(self.store.exists())


class OffloadTest(base.StoresTestCase):
    """A guest that is shelved and offloaded."""

    def setUp(self):
        super().setUp()
        self.keep_copies()

    def test_one_whose_domain_is_gone_is_saved_all_the_same(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                self.at('a')
                self.instance.vm_state = vm_states.ACTIVE
                self.instance.host, self.instance.task_state = 'a', None
                prepare()
                self.stop('1')
                # a start failed
                self.clean()

                self.offload()
                self.at('b')
                self.spawn()

                self.assertEqual(base.variables('1'), self.started)
                self.domains.clear()
                shutil.rmtree(self.folder)

    def test_so_is_one_of_which_nothing_else_is_left(self):
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.spawn()
        self.stop('1')
        self.domains.clear()

        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.offload()
        self.at('b')
        self.spawn()

        self.assertEqual(base.variables('1'), self.started)

    def test_but_none_of_another_architecture(self):
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.adopt()
        self.define(base.DOCUMENT.replace('aarch64', 'x86_64'))

        with self.nova('_check_emulation_arch', lambda *args: 'x86_64'):
            self.offload()

        self.assertEqual([], list((self.root / 'copies').iterdir()))

    def test_its_machine_is_recorded(self):
        """Nova alone records the alias, which is another machine elsewhere."""
        self.adopt()
        self.define(self.domains['a'].document.replace(
            'machine="virt"', 'machine="virt-6.2"'))
        self.stub_out('nova.objects.Instance.image_meta', self.image)

        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.offload()

        self.assertEqual(
            'virt-6.2',
            self.instance.system_metadata['image_hw_machine_type'])

    def test_nothing_is_lost_where_there_is_no_store(self):
        self.flags(store='', group='arm_nvram')
        self.load_stores()
        self.document = base.DOCUMENT.replace('<loader secure="no"/>',
                                              '<loader stateless="yes"/>')
        self.spawn()

        self.offload()

        self.assertNotIn('are lost', self.stdlog.logger.output)

    def test_what_an_image_carries_is_not_called_lost(self):
        key = self.root / 'key'
        key.write_text('k' * 40)
        key.chmod(0o600)
        for file, lost in (('', True), (str(key), False)):
            self.domains.clear()
            self.flags(store='', image_key_file=file, group='arm_nvram')
            self.load_stores()
            self.spawn()
            before = len(self.stdlog.logger.output)
            self.offload()
            self.assertEqual(lost, 'are lost with offloading' in
                             self.stdlog.logger.output[before:])
            self.instance.vm_state = vm_states.ACTIVE
            self.instance.host, self.instance.task_state = 'a', None
