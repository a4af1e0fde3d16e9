# SPDX-License-Identifier: Apache-2.0
"""Variable stores of guests that go to another host."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import itertools
import pathlib
import re
import shutil
from unittest import mock

import nova.conf
from nova import exception
from nova.compute import task_states
from oslo_concurrency import processutils

from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.compute.nvram import store
from tests.data import formats
from tests.nova.nvram import base

CONF = nova.conf.CONF


class TwoHostsTest(base.StoresTestCase):

    def places(self):
        """Guests made by this driver and by Nova's own, on separate and on
        shared disks."""
        for shared in (False, True):
            for prepare in (self.spawn, self.adopt):
                with self.subTest(prepare.__name__, shared=shared):
                    self.domains.clear()
                    for host in self.root.iterdir():
                        if host.is_dir():
                            shutil.rmtree(host)
                    self.shared = shared
                    self.instance.host = 'a'
                    self.at('a')
                    prepare()
                    self.stop('1')
                    yield prepare

    def assert_one_store(self, host):
        folder = 'shared' if self.shared else host
        self.assert_nothing_left(
            folder, but=(base.STORE, f'{base.UUID}_VARS.host'))
        other = 'a' if host == 'b' else 'b'
        self.assert_nothing_left(f'{other}-libvirt')
        if not self.shared:
            self.assert_nothing_left(other)

    def test_the_store_goes_along_and_is_confirmed(self):
        for _ in self.places():
            self.migrate('b')
            self.at('b')
            self.arrive()
            self.assertEqual(base.variables('1'), self.started)
            self.assertEqual(self.store.read_bytes(), self.started)
            self.stop('2')

            self.at('a')
            self.confirm()

            self.at('b')
            self.assertEqual(base.variables('2'), self.store.read_bytes())
            self.assert_one_store('b')

    def test_a_revert_goes_back_to_the_store_of_before(self):
        for prepare in self.places():
            self.migrate('b')
            self.at('b')
            self.arrive()
            self.stop('2')

            self.revert('a')

            self.assertEqual(base.variables('1'), self.started)
            if prepare == self.spawn:
                self.assert_one_store('a')

    def test_what_lies_at_the_destination_is_replaced(self):
        self.spawn()
        self.stop('1')
        self.at('b')
        self.folder.mkdir()
        self.store.write_bytes(base.variables('of another time'))
        (self.folder / f'{base.UUID}_VARS.packed').write_bytes(b'torn')

        self.at('a')
        self.migrate('b')
        self.at('b')
        self.arrive()

        self.assertEqual(base.variables('1'), self.started)

    def test_without_a_store_from_the_source_none_is_taken(self):
        self.at('b')
        self.instance.host = 'b'
        self.folder.mkdir()
        self.store.write_bytes(base.variables('of another time'))

        self.arrive()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_resize_on_one_host_keeps_the_store_and_can_be_reverted(self):
        for prepare in self.places():
            self.migrate('a')
            self.arrive()
            self.assertEqual(base.variables('1'), self.started)
            self.stop('2')

            self.revert('a')

            # libvirt's folder is not part of what Nova renames
            self.assertEqual(
                base.variables('1' if prepare == self.spawn else '2'),
                self.started)

    def test_so_does_one_that_began_with_nova_s_own_driver(self):
        self.adopt()
        self.migrate('a')
        for file in self.folder.iterdir():
            file.unlink()

        self.arrive()

        self.assertEqual(base.variables('adopted'), self.started)
        self.assertEqual([], self.notes)

    def test_the_document_goes_along_too(self):
        self.spawn()
        known = self.domains['a'].document.replace(
            '<target dev="vda" bus="virtio"/>',
            '<target dev="vda" bus="virtio"/><address type="pci" '
            'domain="0x0000" bus="0x00" slot="0x09" function="0x0"/>')
        self.define(known)
        self.migrate('b')
        self.at('b')

        self.arrive()

        self.assertIn('slot="0x09"', self.domains['b'].document)
        self.assertFalse((self.folder / luggage.DOCUMENT).exists())

    def test_a_guest_with_a_kernel_of_its_own_arrives_once(self):
        self.document = base.DOCUMENT.replace(
            '<os firmware="efi">', '<os>').replace(
            '<loader secure="no"/>', '<kernel>/vmlinuz</kernel>')
        self.spawn()
        self.migrate('b')
        self.at('b')
        self.assertTrue((self.folder / f'{base.UUID}_VARS.packed').exists())

        self.arrive()

        # or each later hard reboot would be an arrival again
        self.assert_nothing_left('b')

    def test_what_each_version_has_sent_arrives(self):
        for version in formats.versions():
            left = formats.left(version)
            self.at('b')
            self.instance.host = 'b'
            self.folder.mkdir()
            (self.folder / luggage.DOCUMENT).write_text(left.domain)
            (self.folder / f'{base.UUID}_VARS.packed').write_bytes(left.packed)

            self.arrive()

            self.assertEqual(formats.store(), self.started, version)
            [address] = set(re.findall(
                '<target dev="vda".*?<address (.*?)/>',
                self.domains['b'].document, re.DOTALL))
            self.assertIn(address, left.domain.replace("'", '"'))
            self.assert_nothing_left(
                'b', but=(base.STORE, f'{base.UUID}_VARS.host'))
            self.destroy()
            self.domains.clear()

    def test_a_revert_that_was_cut_off_ends_with_a_hard_reboot(self):
        for another_attempt in (False, True):
            with self.subTest(another_attempt=another_attempt):
                self.at('a')
                self.spawn()
                self.stop('1')
                self.migrate('b')
                self.instance.host = 'a'
                if another_attempt:
                    self.folder.mkdir()

                self.hard_reboot()

                self.assertEqual(base.variables('1'), self.started)
                self.assertEqual([self.folder], list(self.instances.iterdir()))
                self.destroy()
                shutil.rmtree(self.root / 'b')

    def test_one_of_a_guest_of_another_architecture_is_left_to_nova(self):
        self.arch = 'x86_64'
        self.spawn()
        self.migrate('b')
        self.instance.host = 'a'

        self.hard_reboot()

        self.assertTrue(pathlib.Path(f'{self.folder}_resize').exists())

    def test_nothing_is_taken_from_a_migration_that_goes_on(self):
        self.spawn()
        self.stop('1')
        self.migrate('a')
        self.arrive()
        self.stop('2')

        self.hard_reboot()

        self.assertEqual(base.variables('2'), self.started)
        self.revert('a')
        self.assertEqual(base.variables('1'), self.started)

    def test_a_store_that_was_torn_on_its_way_stops_the_migration(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        packed = self.folder / f'{base.UUID}_VARS.packed'
        packed.write_bytes(packed.read_bytes()[:-1])

        error = self.assertRaises(store.StoreNotUsable, self.arrive)

        self.assertIn(f'{packed}, which came along, cannot be used',
                      error.format_message())
        left = self.root / 'a' / f'{base.UUID}_resize'
        self.assertEqual(base.variables('1'),
                         (left / base.STORE).read_bytes())

    def cut_off(self, step):
        """Arrive, and have nova-compute end as this step begins."""
        with mock.patch(f'nova_arm_ext.compute.nvram.{step}',
                        side_effect=SystemExit):
            self.assertRaises(SystemExit, self.arrive)

    def test_an_arrival_that_was_cut_off_ends_with_a_hard_reboot(self):
        for step in ('start.Start.prepare', 'luggage.Luggage.mark',
                     'store.remove'):
            for _ in self.places():
                self.migrate('b')
                self.at('b')
                self.store.write_bytes(base.variables('of another time'))
                self.cut_off(step)

                self.hard_reboot()

                self.assertEqual(base.variables('1'), self.started, step)
                self.stop('2')
                self.hard_reboot()
                self.assertEqual(base.variables('2'), self.started, step)
                self.at('a')
                self.confirm()
                self.assert_one_store('b')

    def test_nor_does_ceph_s_workaround_take_away_what_came_along(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        self.cut_off('start.Start.prepare')

        self.hard_reboot(cleanup_instance_dir=True)

        self.assertFalse(self.asked['cleanup_instance_dir'])
        self.assertEqual(base.variables('1'), self.started)

    def test_a_rescue_leaves_what_came_along_to_the_guest(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        self.cut_off('start.Start.prepare')

        self.rescue()
        self.hard_reboot()

        self.assertEqual(base.variables('1'), self.started)

    def test_it_ends_so_without_a_store_too(self):
        self.spawn()
        self.store.unlink()
        self.migrate('b')
        self.at('b')
        self.store.write_bytes(base.variables('of another time'))
        self.cut_off('start.Start.prepare')

        self.hard_reboot()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_an_adopted_guest_moves_although_its_arrival_was_cut_off(self):
        self.adopt()
        self.migrate('b')
        self.at('b')
        (self.libvirt / f'{base.NAME}_VARS.fd').write_bytes(
            base.variables('of another time'))
        self.cut_off('start.Start.prepare')

        self.hard_reboot()

        self.assertEqual(base.variables('adopted'), self.started)
        self.assertTrue(self.store.exists())

    def test_a_damaged_store_stops_a_migration_before_it_begins(self):
        self.spawn()
        self.store.write_bytes(b'')

        error = self.assertRaises(exception.InstanceFaultRollback,
                                  self.migrate, 'b')

        # Nova shows the inner one, and leaves the instance as it is
        self.assertIsInstance(error.inner_exception, store.StoreNotUsable)
        self.assertTrue(self.folder.exists())

    def test_what_is_sent_is_the_guest_s_own_wherever_it_is(self):
        self.spawn()
        self.stop('1')
        self.define(self.domains['a'].document.replace(
            str(self.store), str(self.libvirt / f'{base.NAME}_VARS.fd')))

        self.migrate('b')
        self.at('b')
        self.arrive()

        self.assertEqual(base.variables('1'), self.started)

    def test_a_store_that_cannot_be_sent_leaves_the_guest_here(self):
        self.spawn()
        self.stop('1')
        self.stub_out('nova.virt.libvirt.utils.copy_image',
                      mock.Mock(side_effect=OSError('no space left')))
        with self.nova('_cleanup_remote_migration') as cleaned:
            error = self.assertRaises(store.StoreNotUsable, self.migrate,
                                      'b')

        self.assertIn('no space left', str(error))
        self.assertTrue(cleaned is not None)
        self.assertEqual('a', self.instance.host)
        self.assertEqual([], list(self.root.glob('a/*/*.packed')))

    def test_nova_undoes_what_it_has_done_when_a_store_cannot_be_sent(self):
        for dest, shared in (('b', False), ('b', True), ('a', False)):
            self.shared = shared
            self.at('a')
            self.spawn()
            undone = []
            with mock.patch('nova.virt.libvirt.utils.copy_image',
                            side_effect=OSError), \
                    self.nova('_cleanup_remote_migration',
                              lambda made, *args, to=undone: to.append(args)):
                self.assertRaises(store.StoreNotUsable, self.migrate, dest)

            # what Nova takes for shared is at hand here
            here = shared or dest == 'a'
            self.assertEqual([(None if here else dest, str(self.folder),
                               f'{self.folder}_resize', here)], undone)
            for host in self.root.iterdir():
                if host.is_dir():
                    shutil.rmtree(host)
            self.domains.clear()

    def test_the_fault_has_room_for_why_a_store_cannot_be_sent(self):
        why = 'ssh: connect to host 192.0.2.11 port 22: Connection refused'
        self.spawn()
        self.stop('1')
        self.stub_out('nova.virt.libvirt.utils.copy_image', mock.Mock(
            side_effect=processutils.ProcessExecutionError(
                cmd=f'scp -C -r {self.store} 192.0.2.11:{self.store}',
                exit_code=255, stderr=why)))
        with self.nova('_cleanup_remote_migration'):
            error = self.assertRaises(store.StoreNotUsable, self.migrate,
                                      'b')

        # What Nova keeps of it for the API (compute/utils.py, 29 to 34).
        self.assertIn(why, str(error)[:255])

    def test_a_store_that_cannot_be_written_can_be_later(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        with mock.patch('os.pwrite', side_effect=OSError('no space left')):
            error = self.assertRaises(store.StoreNotUsable, self.arrive)
        self.assertIn('no space left', str(error))
        self.assertFalse(self.store.exists())

        self.hard_reboot()

        self.assertEqual(base.variables('1'), self.started)

    def test_disks_in_ceph_leave_a_directory_and_no_store(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        self.arrive()

        self.revert('a', disks_are_shared=True)

        self.assert_nothing_left('b')
        self.assert_one_store('a')

    def test_nor_does_a_revert_leave_one_where_the_note_is_gone(self):
        self.spawn()
        self.migrate('b')
        self.at('b')
        self.arrive()
        (self.folder / f'{base.UUID}_VARS.host').unlink()

        self.revert('a', disks_are_shared=True)

        self.assert_nothing_left('b')

    def evacuate(self, *, ceph=False):
        backend = mock.Mock()
        backend.is_shared_block_storage.return_value = ceph
        self.driver.image_backend = mock.Mock()
        self.driver.image_backend.backend.return_value = backend
        self.at('b')
        self.rebuild(evacuate=True)
        self.instance.host = 'b'

    def return_(self):
        self.at('a')
        self.clean(removed=False)

    def test_an_evacuated_guest_finds_its_store_on_shared_storage(self):
        self.shared = True
        self.at('a')
        self.spawn()
        self.stop('1')

        self.evacuate()
        self.assertEqual(base.variables('1'), self.started)
        self.return_()

        self.assertEqual(base.KEEP, self.undefined)
        self.assertTrue(
            (self.root / 'shared' / base.UUID / base.STORE).exists())
        self.assertEqual([], self.notes)

    def test_an_evacuated_guest_that_finds_its_store_needs_no_copy(self):
        def no_reels(copies, uuid):
            raise RuntimeError('no reels')

        self.stub_out('nova_arm_ext.compute.nvram.copies.Copies.load',
                      no_reels)
        self.shared = True
        self.at('a')
        self.spawn()
        self.stop('1')

        self.evacuate()

        self.assertEqual(base.variables('1'), self.started)

    def test_without_a_note_the_kind_of_storage_says_whose_a_store_is(self):
        for ceph in (False, True):
            self.at('b')
            self.folder.mkdir()
            self.store.write_bytes(base.variables('1'))

            self.evacuate(ceph=ceph)

            self.assertEqual(self.template.read_bytes() if ceph
                             else base.variables('1'), self.started)
            self.domains.clear()
            shutil.rmtree(self.folder)

    def test_an_evacuated_guest_without_its_store_is_told_so(self):
        self.spawn()

        self.evacuate(ceph=True)

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)
        self.assertIn('are lost (evacuate)', self.stdlog.logger.output)

        self.return_()
        self.assert_nothing_left('a')

    def test_an_adopted_store_is_gone_when_its_host_returns(self):
        self.adopt()
        self.evacuate(ceph=True)

        self.return_()

        self.assertEqual(base.GO, self.undefined)
        self.assert_nothing_left('a-libvirt')

    def test_so_is_that_of_a_guest_that_was_rescued(self):
        self.adopt()
        self.rescue()
        self.evacuate(ceph=True)

        self.return_()

        self.assert_nothing_left('a-libvirt')

    def files(self, host):
        return sorted(path for folder in (host, f'{host}-libvirt')
                      for path in (self.root / folder).rglob('*')
                      if path.is_file())

    def test_so_is_that_of_a_guest_whose_domain_is_gone(self):
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        for prepare, arch in itertools.product((self.spawn, self.adopt),
                                               ('aarch64', 'x86_64')):
            with self.subTest(prepare.__name__, arch=arch):
                self.at('a')
                self.instance.host = 'a'
                self.arch = arch
                prepare()
                self.domains.clear()
                there = self.files('a')
                self.instance.host = 'b'

                with self.nova('_check_emulation_arch',
                               lambda *args: self.arch):
                    self.return_()

                self.assertEqual([] if arch == 'aarch64' else there,
                                 self.files('a'))
                shutil.rmtree(self.folder)

    def test_one_that_another_host_uses_stays(self):
        """On shared storage; its domain is gone from this host."""
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.shared = True
        self.at('a')
        self.spawn()
        self.stop('1')
        self.evacuate()
        self.domains.pop('a')

        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.return_()

        self.assertEqual(base.variables('1'), self.store.read_bytes())

    def test_one_that_another_host_is_about_to_use_stays(self):
        """The note does not name that host yet."""
        for state in (task_states.REBUILDING,
                      task_states.REBUILD_BLOCK_DEVICE_MAPPING,
                      task_states.REBUILD_SPAWNING):
            self.at('a')
            self.instance.host = 'a'
            self.spawn()
            self.stop('1')
            self.instance.host = 'b'
            self.instance.task_state = state

            self.return_()

            self.assertEqual(base.variables('1'), self.store.read_bytes())
            self.instance.task_state = None

    def test_the_store_of_an_earlier_stay_is_not_evacuated_to(self):
        self.spawn()
        self.stop('old')
        self.domains.clear()
        self.instance.host = 'b'

        backend = mock.Mock()
        backend.is_shared_block_storage.return_value = True
        self.driver.image_backend = mock.Mock()
        self.driver.image_backend.backend.return_value = backend
        self.rebuild(evacuate=True)

        self.assertEqual(self.template.read_bytes(), self.started)

    def live(self, method):
        """Do one of the last steps of a live migration."""
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.'
                      '_check_emulation_arch', lambda *args: self.arch)
        self.stub_out('nova.objects.Instance.name', base.NAME)
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        with self.nova(method):
            getattr(self.driver, method)(None, self.instance, None, None)

    def test_live_migration_leaves_nothing_in_libvirts_folder(self):
        left = self.libvirt / f'{base.NAME}_VARS.fd'
        for method in ('post_live_migration_at_source',
                       'rollback_live_migration_at_destination'):
            left.write_bytes(b'')
            self.live(method)
            self.assertFalse(left.exists())

    def test_but_it_leaves_what_is_none_of_the_guest_that_went(self):
        left = self.libvirt / f'{base.NAME}_VARS.fd'
        left.write_bytes(b'')
        self.arch = 'x86_64'
        self.live('post_live_migration_at_source')
        self.assertTrue(left.exists())

        self.arch = 'aarch64'
        self.define(base.DOCUMENT)
        self.live('post_live_migration_at_source')
        self.assertTrue(left.exists())

    def test_after_live_migration_a_note_says_who_uses_the_store(self):
        self.shared = True
        self.at('a')
        self.spawn()
        note = self.folder / f'{base.UUID}_VARS.host'
        self.assertEqual('a', note.read_text())
        document = self.domains['a'].document
        self.at('b')
        self.define(document)

        self.live('post_live_migration_at_destination')

        self.assertEqual('b', note.read_text())

    def test_nor_is_there_a_note_of_a_store_that_is_elsewhere(self):
        self.folder.mkdir()
        stateless = base.DOCUMENT.replace('<loader secure="no"/>',
                                          '<loader stateless="yes"/>')
        # libvirt has a name for the store of the first
        for document in (base.DOCUMENT, stateless):
            self.define(document)

            self.live('post_live_migration_at_destination')

            self.assertEqual([], list(self.folder.iterdir()))
        self.domains.clear()
        self.live('post_live_migration_at_destination')
        self.assertEqual([], list(self.folder.iterdir()))
        self.assertNotIn('has failed', self.stdlog.logger.output)


class FolderTest(base.StoresTestCase):
    """What of ours lies in an instance directory."""

    def setUp(self):
        super().setUp()
        self.luggage = self.driver._life._luggage

    def test_a_directory_that_stays_keeps_what_is_nova_s(self):
        self.folder.mkdir()
        for name in ('disk.info', luggage.DOCUMENT, *(
                f'{base.UUID}_VARS.{suffix}' for suffix in (
                    'fd', 'raw', 'qcow2', 'packed', 'host'))):
            (self.folder / name).write_bytes(b'')

        self.luggage.forget(base.UUID, str(self.folder), own_only=False)

        self.assert_nothing_left('a', but=['disk.info'])

    def test_a_host_forgets_only_what_it_has_used_last_itself(self):
        self.folder.mkdir()
        note = self.folder / f'{base.UUID}_VARS.host'
        for last, forgotten in (('b', False), (None, False), ('a', True)):
            self.store.write_bytes(b'')
            note.unlink(missing_ok=True)
            if last:
                note.write_text(last)

            self.luggage.forget(base.UUID, str(self.folder), own_only=True)

            self.assertEqual(forgotten, not self.store.exists(), last)

    def test_there_is_no_note_without_a_directory(self):
        self.luggage.mark(base.UUID, str(self.folder))

        self.assertFalse(self.folder.exists())
