# SPDX-License-Identifier: Apache-2.0
"""The life of a variable store on one host."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import itertools
import shutil
from unittest import mock

import nova.conf
from lxml import etree
from nova import exception
from nova.compute import task_states
from nova.virt.libvirt import guest as libvirt_guest
from oslo_utils import timeutils

from nova_arm_ext import errors
from nova_arm_ext import varstore
from nova_arm_ext.compute import operation
from nova_arm_ext.compute import stand_ins
from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from tests.nova.nvram import base
from tests.support import stores

CONF = nova.conf.CONF


class OneHostTest(base.StoresTestCase):

    def test_a_new_guest_has_its_store_in_its_directory(self):
        self.spawn()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertTrue(self.store.exists())
        [nvram_] = etree.fromstring(
            self.domains['a'].document).findall('os/nvram')
        self.assertEqual((str(self.store), str(self.template)),
                         (nvram_.text, nvram_.get('template')))
        self.assertNotIn('cannot be read', self.stdlog.logger.output)

    def test_what_lies_in_the_place_of_a_new_store_is_put_aside(self):
        self.folder.mkdir()
        self.store.write_bytes(base.variables('of another time'))

        self.spawn()

        self.assertEqual(self.template.read_bytes(), self.started)
        [aside] = self.folder.glob(f'{base.STORE}.damaged-*')
        self.assertEqual(base.variables('of another time'), aside.read_bytes())

    def test_a_store_that_arrives_has_the_name_that_it_had(self):
        """And not that of a store of another time, whose form differs."""
        self.spawn()
        named = self.store.with_suffix('.qcow2')
        with operation.of(self.instance, Event.ARRIVE, previous=(
                self.domains['a'].document.replace(str(self.store),
                                                   str(named)))) as doing:
            self.assertTrue(self.store.exists())

            self.assertEqual(str(named), self.driver._life.store_path(
                self.instance, doing))

    def test_a_hard_reboot_keeps_the_store_and_its_path(self):
        self.spawn()
        for number in ('1', '2'):
            self.stop(number)
            self.hard_reboot()
            self.assertEqual(base.KEEP, self.undefined)
            self.assertEqual(base.variables(number), self.started)
        self.assertFalse((self.folder / luggage.DOCUMENT).exists())
        self.assertEqual([], self.notes)

    def test_nor_does_ceph_s_workaround_take_it_away(self):
        self.spawn()
        self.stop('1')

        self.hard_reboot(cleanup_instance_dir=True)

        self.assertFalse(self.asked['cleanup_instance_dir'])
        self.assertEqual(base.variables('1'), self.started)

    def test_an_adopted_guest_keeps_its_path(self):
        self.adopt()

        self.hard_reboot()

        self.assertEqual(base.KEEP, self.undefined)
        self.assertEqual(base.variables('adopted'), self.started)
        self.assertIn(f'>{self.store}<', self.domains['a'].document)
        # nor does a note say whose store is in the instance directory
        self.assertEqual([], list(self.folder.iterdir()))

    def test_a_store_that_is_written_all_the_time_stops_the_start(self):
        self.spawn()
        with mock.patch.object(store, 'check', side_effect=errors.Busy(
                'written all the time')):
            error = self.assertRaises(store.StoreNotUsable, self.hard_reboot)

        self.assertIn(f'{self.store} cannot be written or read',
                      error.format_message())
        self.assertIn('written all the time', str(error))

    def test_a_guest_that_is_defined_nowhere_finds_its_store(self):
        """As after a reboot that ended between undefine and define."""
        self.adopt()
        self.driver._life._luggage.write_document(
            str(self.folder), self.domains.pop('a').document)

        self.hard_reboot()

        self.assertEqual(base.variables('adopted'), self.started)

    def test_one_of_which_nothing_else_is_left_finds_it_too(self):
        self.adopt()
        self.domains.clear()

        self.hard_reboot()

        self.assertEqual(base.variables('adopted'), self.started)

    def test_a_rescue_runs_on_a_copy(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.domains.clear()
                self.at('a')
                prepare()
                self.stop('own')

                self.rescue()
                self.assertEqual(base.variables('own'), self.started)
                self.stop("the rescue's")

                self.assertEqual(base.variables('own'),
                                 self.store.read_bytes())
                # by this name Nova removes it
                self.assertTrue(
                    (self.folder / f'{base.STORE}.rescue').exists())

    def test_a_rescue_says_nothing_of_whose_the_store_is(self):
        self.spawn()
        note = self.folder / f'{base.UUID}_VARS.host'
        note.unlink()

        self.rescue()
        self.assertFalse(note.exists())

        self.hard_reboot()
        self.assertEqual('a', note.read_text())

    def test_a_rescued_guest_that_starts_with_the_host_has_its_own(self):
        self.spawn()
        self.stop('own')
        self.rescue()
        self.stop("the rescue's")

        self.hard_reboot()

        self.assertEqual(base.variables('own'), self.started)

    def test_a_rebuilt_guest_starts_with_a_new_store(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                shutil.rmtree(self.folder, ignore_errors=True)
                prepare()
                self.stop('old')

                self.rebuild()

                self.assertEqual(self.template.read_bytes(), self.started)
                self.assert_nothing_left(
                    'a', but=(base.STORE, f'{base.UUID}_VARS.host'))
                self.domains.clear()

    def test_a_rebuilt_guest_keeps_its_store_where_it_is_told_to(self):
        self.spawn()
        self.stop('old')
        self.rebuild(image_arm_nvram_on_rebuild='keep')
        self.assertEqual(base.variables('old'), self.started)

        self.flags(on_rebuild='keep', group='arm_nvram')
        del self.instance.system_metadata['image_arm_nvram_on_rebuild']
        self.rebuild()
        self.assertEqual(base.variables('old'), self.started)
        self.rebuild(image_arm_nvram_on_rebuild='reset')
        self.assertEqual(self.template.read_bytes(), self.started)

    def test_an_evacuation_that_did_not_start_says_nothing_of_a_rebuild(self):
        self.spawn()
        self.stop('old')
        with mock.patch.object(self, 'spawn'):
            self.rebuild(evacuate=True)

        self.rebuild(image_arm_nvram_on_rebuild='keep')

        self.assertEqual(base.variables('old'), self.started)

    def test_the_image_of_another_architecture_is_left_to_nova(self):
        self.arch = 'x86_64'
        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.rebuild(image_arm_nvram_on_rebuild='Keep')

        self.assertTrue(self.started)

    def test_a_soft_reboot_leaves_the_store_to_the_guest(self):
        self.spawn()
        self.store.write_bytes(b'within a write')
        self.flags(on_damage='fresh', group='arm_nvram')

        self.soft_reboot()

        self.assertEqual(b'within a write', self.started)

    def test_what_an_earlier_rebuild_has_left_is_not_used(self):
        self.spawn()
        self.stop('old')
        left = self.instances / f'{base.UUID}_VARS.packed'
        left.write_bytes(varstore.pack(base.variables('left')))

        self.rebuild()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertFalse(left.exists())

    def test_what_a_rebuild_that_failed_has_kept_is_used(self):
        """Nova had removed the guest and its directory already."""
        self.flags(on_rebuild='keep', group='arm_nvram')
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.spawn()
        self.stop('old')
        self.instance.task_state = task_states.REBUILDING
        self.destroy()
        self.assertFalse(self.store.exists())

        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.rebuild()

        self.assertEqual(base.variables('old'), self.started)
        self.assertFalse(
            (self.instances / f'{base.UUID}_VARS.packed').exists())

    def test_but_not_beside_a_store_that_is_damaged(self):
        self.flags(on_rebuild='keep', on_damage='fresh', group='arm_nvram')
        self.spawn()
        self.store.write_bytes(b'')
        left = self.instances / f'{base.UUID}_VARS.packed'
        left.write_bytes(varstore.pack(base.variables('left')))

        self.rebuild()

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_an_image_with_an_unknown_value_changes_nothing(self):
        self.spawn()
        self.stop('old')
        self.instance.system_metadata['image_arm_nvram_on_rebuild'] = 'Keep'

        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            error = self.assertRaises(
                exception.InstanceFaultRollback, self.driver.rebuild, None,
                self.instance, self.image, None, None, None, None, None, None)
            self.assertRaises(exception.InvalidInput, self.spawn)

        self.assertIsInstance(error.inner_exception, exception.InvalidInput)
        self.assertIn("arm_nvram_on_rebuild is 'Keep'", str(error))
        self.assertEqual(base.variables('old'), self.store.read_bytes())

    def test_nothing_is_left_of_a_guest_that_is_deleted(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                prepare()
                self.rescue()

                self.instance.task_state = task_states.DELETING
                self.clean(removed=True)

                self.assert_nothing_left('a')
                self.instance.task_state = None

    def test_guests_of_others_are_undefined_as_nova_does(self):
        self.define(base.DOCUMENT.replace('aarch64', 'x86_64').replace(
            '<loader secure="no"/>', '<nvram>/nowhere</nvram>'))

        self.clean()

        self.assertEqual(base.KEEP if stand_ins.NOVA_KEEPS else base.GO,
                         self.undefined)

    def test_a_snapshot_leaves_the_store_of_a_running_guest(self):
        self.spawn()
        guest = libvirt_guest.Guest(self.domains['a'])

        def undefine(nova_driver, found, *args):
            if stand_ins.NOVA_KEEPS:
                found.delete_configuration(keep_nvram=True)
            else:
                found.delete_configuration()

        with self.nova('_swap_volume', undefine):
            self.driver._swap_volume(guest, 'vdb', None, 1)

        self.assertEqual(base.KEEP, self.domains['a'].undefined)
        self.assertTrue(self.store.exists())

    def test_a_damaged_store_stops_the_start_and_stays(self):
        self.spawn()
        self.store.write_bytes(b'nothing of the kind')

        error = self.assertRaises(store.StoreNotUsable, self.hard_reboot)

        self.assertIn(f'{self.store} cannot be used: ',
                      error.format_message())
        self.assertIn('[arm_nvram] on_damage = fresh', str(error))
        self.assertEqual(b'nothing of the kind', self.store.read_bytes())
        self.assertIn('a', self.domains)

    def test_a_damaged_store_is_put_aside_if_so_chosen(self):
        self.flags(on_damage='fresh', group='arm_nvram')
        self.spawn()
        good = stores.store()
        flipped = good[:40] + bytes([good[40] ^ 1]) + good[41:]
        for damaged in (b'nothing of the kind', good[:-1], good + b'\0',
                        flipped):
            self.store.write_bytes(damaged)

            self.hard_reboot()

            self.assertEqual(self.template.read_bytes(), self.started)
            self.assertIn(damaged, [
                path.read_bytes() for path
                in self.folder.glob(f'{base.STORE}.damaged-*')])
        self.assertEqual(['arm_nvram_lost'] * 4, self.notes)

    def test_a_store_that_somebody_removed_is_told(self):
        for start, prepare in itertools.product(
                self.starts(), (self.spawn, self.adopt)):
            with self.subTest(start.__name__, prepare=prepare.__name__):
                self.domains.clear()
                self.notes.clear()
                shutil.rmtree(self.folder, ignore_errors=True)
                self.at('a')
                prepare()
                self.stop('1')
                self.store.unlink()

                start()

                self.assertEqual(self.template.read_bytes(), self.started)
                self.assertEqual(['arm_nvram_lost'], self.notes)
                self.assertRegex(
                    self.stdlog.logger.output,
                    rf'WARNING .* are lost .* a new store, {self.store}\. .*: '
                    rf'nova-arm-ext nvram restore {base.UUID} FILE\n')
                self.hard_reboot()
                self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_guest_that_never_ran_with_a_store_loses_none(self):
        bios = base.DOCUMENT.replace('<os firmware="efi">', '<os>').replace(
            '<loader secure="no"/>', '')
        stateless = base.DOCUMENT.replace('<loader secure="no"/>',
                                          '<loader stateless="yes"/>')
        for had, launched in ((base.DOCUMENT, None),
                              (bios, timeutils.utcnow()),
                              (stateless, timeutils.utcnow())):
            for file in self.root.glob('a*/**/*_VARS.fd'):
                file.unlink()
            self.define(had)
            self.instance.launched_at = launched

            self.hard_reboot()

            # libvirt chooses where
            self.assertTrue(places.is_in_libvirt(places.store_of(
                view.arm_guest(self.domains['a'].document))))
        self.assertEqual([], self.notes)

    def test_a_guest_whose_domain_is_gone_too_is_told(self):
        self.spawn()
        self.store.unlink()
        self.domains.clear()

        self.hard_reboot()

        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_store_that_libvirt_has_in_its_own_container_is_not_lost(self):
        self.adopt()
        elsewhere = self.root / 'elsewhere'
        self.libvirt.rename(elsewhere)

        def boot(nova_driver, *args, real=self.boot):
            elsewhere.rename(self.libvirt)
            real(*args)

        with mock.patch.object(self, 'boot', boot):
            self.hard_reboot()

        self.assertEqual(base.variables('adopted'), self.started)
        self.assertEqual([], self.notes)

    def test_a_note_of_a_host_that_cannot_be_read_says_nothing(self):
        self.spawn()
        note = self.folder / f'{base.UUID}_VARS.host'
        for spoil in (lambda: note.write_bytes(b'\xff'),
                      lambda: note.symlink_to('/nowhere')):
            note.unlink()
            spoil()
            self.stop('1')
            told = self.stdlog.logger.output.count(
                f'The note {note} cannot be read')

            self.hard_reboot()

            self.assertEqual(base.variables('1'), self.started)
            self.assertEqual(told + 1, self.stdlog.logger.output.count(
                f'The note {note} cannot be read'))

    def test_a_link_is_not_followed(self):
        self.spawn()
        self.stop('own')
        target = self.root / 'target'
        self.store.rename(target)
        self.store.symlink_to(target)

        self.assertRaises(store.StoreNotUsable, self.hard_reboot)
        self.flags(on_damage='fresh', group='arm_nvram')
        self.hard_reboot()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(base.variables('own'), target.read_bytes())
