# SPDX-License-Identifier: Apache-2.0
"""Copies of variable stores."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import os
import shutil
import threading
import time
from importlib import metadata
from unittest import mock

import nova.conf
from nova.compute import task_states
from nova.compute import vm_states
from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import copies
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.domain import view
from tests.nova.nvram import base

CONF = nova.conf.CONF


class CopiesTest(base.StoresTestCase):

    def setUp(self):
        super().setUp()
        self.keep_copies()

    def test_a_guest_that_is_offloaded_gets_its_variables_back(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                self.instance.vm_state = vm_states.ACTIVE
                self.instance.task_state = None
                self.instance.host = 'a'
                shutil.rmtree(self.folder, ignore_errors=True)
                self.at('a')
                prepare()
                self.stop('1')
                self.offload()
                self.assert_nothing_left('a')
                self.at('b')
                self.spawn()
                self.assertEqual(base.variables('1'), self.started)
                # which is what it is for
                self.assertNotIn('of this guest was not there',
                                 self.stdlog.logger.output)
                shutil.rmtree(self.folder)
                self.domains.clear()

    def test_an_evacuated_guest_gets_the_copy_of_its_last_power_off(self):
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.at('b')

        self.rebuild(evacuate=True)

        self.assertEqual(base.variables('1'), self.started)

    def test_a_resize_to_another_cell_gets_the_copy_too(self):
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.at('b')
        self.instance.task_state = task_states.RESIZE_FINISH

        self.spawn()

        self.assertEqual(base.variables('1'), self.started)

    def test_a_rebuild_needs_no_copy(self):
        self.spawn()
        with mock.patch.object(self.driver._life._copies._driver, 'load',
                               side_effect=RuntimeError('no reels')):
            self.rebuild()

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_a_store_that_somebody_removed_comes_from_the_copy(self):
        for start in self.starts():
            with self.subTest(start.__name__):
                self.domains.clear()
                self.spawn()
                self.stop('1')
                with self.nova('power_off'):
                    self.driver.power_off(self.instance)
                self.store.unlink()

                start()

                self.assertEqual(base.variables('1'), self.started)
                self.assertEqual([], self.notes)
                self.assertIn(f'{self.store} of this guest was not there. The '
                              f'copy in the store', self.stdlog.logger.output)

    def test_a_copy_of_before_a_rebuild_does_not_come_back(self):
        for told in ({}, {'image_arm_nvram_on_rebuild': 'keep'}):
            self.spawn()
            self.stop('1')
            with self.nova('power_off'):
                self.driver.power_off(self.instance)
            self.rebuild(**told)
            self.store.unlink()

            self.hard_reboot()

            self.assertEqual(base.variables('1') if told
                             else self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_copy_of_another_time_is_no_store_for_a_guest_that_has_one(
            self):
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.stop('2')

        self.hard_reboot()

        self.assertEqual(base.variables('2'), self.started)

    def test_a_guest_is_not_offloaded_where_its_variables_cannot_be_saved(
            self):
        self.spawn()
        self.store.write_bytes(b'')

        self.assertRaises(store.StoreNotUsable, self.offload)

        self.assertIn('a', self.domains)
        self.assertTrue(self.store.exists())

    def test_a_store_that_fails_stops_an_offload_and_no_power_off(self):
        self.spawn()
        self.stop('1')
        (self.root / 'copies').rmdir()

        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.assertIn('Copying the variable store has failed',
                      self.stdlog.logger.output)
        self.assertRaises(OSError, self.offload)

        self.assertEqual(base.variables('1'), self.store.read_bytes())

    def test_a_copy_that_cannot_be_read_stops_the_start(self):
        self.spawn()
        self.offload()
        self.at('b')
        with mock.patch.object(self.driver._life._copies._driver, 'load',
                               side_effect=RuntimeError('no reels')):
            error = self.assertRaises(store.StoreNotUsable, self.spawn)

        self.assertIn('RuntimeError: no reels', str(error))

    def test_a_guest_whose_store_is_damaged_can_be_deleted(self):
        self.spawn()
        self.store.write_bytes(b'')
        self.instance.task_state = task_states.DELETING

        self.destroy()

        self.assert_nothing_left('a')

    def test_a_copy_goes_with_the_guest(self):
        self.spawn()
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        [_] = (self.root / 'copies').iterdir()

        self.instance.task_state = task_states.DELETING
        self.clean(removed=False)
        [_] = (self.root / 'copies').iterdir()
        self.clean(removed=True)

        self.assertEqual([], list((self.root / 'copies').iterdir()))

    def test_a_driver_that_is_not_there_is_told_at_the_start(self):
        self.flags(store='tape', group='arm_nvram')

        error = self.assertRaises(errors.ConfigurationError, copies.load,
                                  CONF)

        self.assertIn("'tape', which is not installed; installed are: "
                      'directory', str(error))

    def test_a_driver_of_another_package_that_fails_is_told_too(self):
        self.flags(store='tape', group='arm_nvram')
        tape = metadata.EntryPoint('tape', 'tapes:Tape', nvram.STORES)

        def without_tapes(namespace, on_load_failure_callback):
            on_load_failure_callback(None, tape, ImportError('no tapes'))
            return []

        def with_tapes(namespace, on_load_failure_callback):
            return [extension.Extension(
                'tape', tape, mock.Mock(side_effect=OSError('no reels')),
                None)]

        for installed, told in (
                (without_tapes, 'tape cannot be imported: ImportError: no ta'),
                (with_tapes, 'tape cannot be made: OSError: no reels')):
            with mock.patch.object(extension, 'ExtensionManager', installed):
                error = self.assertRaises(errors.ConfigurationError,
                                          copies.load, CONF)
            self.assertIn(told, str(error))

    def test_a_folder_that_cannot_keep_copies_is_told_at_the_start(self):
        folder = self.root / 'copies'
        for change, told in (
                (lambda: folder.chmod(0o750), 'has the permissions 750'),
                (lambda: os.chown(folder, 1000, 0), 'belongs to user 1000'),
                (folder.rmdir, 'No such file or directory; mount storage'),
                (folder.touch, 'is not a directory')):
            change()

            error = self.assertRaises(errors.ConfigurationError, copies.load,
                                      CONF)

            self.assertIn(told, str(error))

    def test_a_folder_whose_storage_is_gone_has_no_answer(self):
        """Neither that there is no copy, nor that one is kept."""
        folder = self.root / 'copies'
        directory = copies.load(CONF)
        directory.save(base.UUID, b'a copy')
        kept = folder.rename(self.root / 'elsewhere')
        for there in (lambda: None, folder.mkdir, folder.touch):
            there()

            for call in (lambda: directory.save(base.UUID, b'another'),
                         lambda: directory.load(base.UUID),
                         lambda: directory.remove(base.UUID)):
                self.assertRaises(OSError, call)

            if folder.is_dir():
                folder.rmdir()
        folder.unlink()
        kept.rename(folder)
        self.assertEqual(b'a copy', directory.load(base.UUID))

    def test_without_a_store_the_copy_of_before_stays(self):
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
            self.store.unlink()
            self.driver.power_off(self.instance)

        [copy] = (self.root / 'copies').iterdir()
        self.assertEqual(base.variables('1'),
                         varstore.unpack(copy.read_bytes()))
        self.assertNotIn('has failed', self.stdlog.logger.output)

    def save(self, still):
        """Copy the store, and ask this before the copy is written."""
        life = self.driver._life
        guest = view.arm_guest(self.domains['a'].document)
        return life._copies.save(base.UUID, life._stores.place(guest), guest,
                                 still=still)

    def test_a_copy_is_never_older_than_the_one_before(self):
        """One that was read earlier waits, or is not written."""
        self.spawn()
        self.stop('1')
        steps = []

        def still():
            # the instance is switched off by another thread meanwhile
            self.stop('2')
            other = threading.Thread(target=lambda: steps.append(
                self.driver._life.after_power_off(self.instance)))
            other.start()
            time.sleep(0.1)
            self.assertEqual([], steps)
            self.other = other
            return True

        self.save(still)
        self.other.join()

        [copy] = (self.root / 'copies').iterdir()
        self.assertEqual(base.variables('2'),
                         varstore.unpack(copy.read_bytes()))

    def test_a_copy_that_is_removed_meanwhile_does_not_come_back(self):
        self.spawn()
        other = threading.Thread(target=self.driver._life._copies.remove,
                                 args=(base.UUID,))

        def still():
            other.start()
            time.sleep(0.1)
            return True

        self.assertTrue(self.save(still))
        other.join()

        self.assertEqual([], list((self.root / 'copies').iterdir()))

    def test_the_copies_of_two_guests_do_not_wait_for_each_other(self):
        self.spawn()
        other = threading.Thread(target=self.driver._life._copies.remove,
                                 args=('of-another-guest',))

        def still():
            other.start()
            other.join(timeout=10)
            return not other.is_alive()

        saved = self.save(still)
        other.join()
        self.assertTrue(saved)

    def test_copies_without_a_store_are_told_at_the_start(self):
        self.flags(store='', copy_interval=60, group='arm_nvram')

        self.assertEqual(
            ['[arm_nvram] copy_interval is 60, and [arm_nvram] store names '
             'no store for the copies'], nvram.faults(CONF))

    def test_an_interval_is_no_fault_where_there_is_a_store(self):
        for name, interval in (('directory', 60), ('directory', 0), ('', 0)):
            self.flags(store=name, copy_interval=interval, group='arm_nvram')

            self.assertEqual([], nvram.faults(CONF))
