# SPDX-License-Identifier: Apache-2.0
"""The task that copies the stores of running guests."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import contextlib
import os
from unittest import mock

import nova.conf
from nova import exception
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states

from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import copying
from nova_arm_ext.compute.nvram import store
from tests.nova.nvram import base

CONF = nova.conf.CONF


class CopyingTest(base.StoresTestCase):

    def setUp(self):
        super().setUp()
        self.copies = self.root / 'copies'
        self.keep_copies()
        self.power = power_state.RUNNING
        self.listed = [self.instance]
        self.stub_out('nova.virt.libvirt.guest.Guest.get_power_state',
                      lambda guest, host: self.power)
        self.stub_out('nova.objects.InstanceList.get_by_host',
                      lambda *args, **kwargs: self.listed)
        self.stub_out('nova.objects.Instance.refresh',
                      lambda instance: self.meanwhile())
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.meanwhile = lambda: None
        self.spawn()
        self.stop('1')

    def copy_all(self):
        with self.nova('_check_emulation_arch', lambda *args: self.arch):
            self.driver._copying.copy_all()

    def copied(self):
        return [varstore.unpack(one.read_bytes())
                for one in self.copies.iterdir()]

    def test_a_running_guest_is_copied(self):
        self.copy_all()

        self.assertEqual([base.variables('1')], self.copied())

    def test_a_store_that_has_not_changed_is_not_read(self):
        self.copy_all()
        with mock.patch.object(store, 'pack') as pack:
            self.copy_all()
        pack.assert_not_called()

        self.stop('2')
        self.copy_all()
        self.assertEqual([base.variables('2')], self.copied())

    def test_a_copy_that_failed_is_made_again(self):
        self.copies.chmod(0o500)
        self.copies.rmdir()
        self.copy_all()
        self.assertIn('Copying the variable store has failed',
                      self.stdlog.logger.output)

        self.copies.mkdir(mode=0o700)
        self.copy_all()

        self.assertEqual([base.variables('1')], self.copied())

    def test_a_copy_that_is_gone_is_made_again(self):
        self.copy_all()
        [copy] = self.copies.iterdir()
        copy.unlink()

        self.copy_all()

        self.assertEqual([base.variables('1')], self.copied())

    def test_only_a_guest_that_is_here_and_settled_is_copied(self):
        def being(**values):
            @contextlib.contextmanager
            def change():
                before = {name: getattr(self.instance, name)
                          for name in values}
                self.instance.update(values)
                yield
                self.instance.update(before)
            return change

        @contextlib.contextmanager
        def paused():
            self.power = power_state.PAUSED
            yield
            self.power = power_state.RUNNING

        @contextlib.contextmanager
        def rescued():
            own = self.domains['a'].document
            self.rescue()
            self.stop("the rescue's")
            yield
            self.define(own)

        @contextlib.contextmanager
        def gone():
            domain = self.domains.pop('a')
            yield
            self.domains['a'] = domain

        @contextlib.contextmanager
        def without_a_store():
            own = self.domains['a'].document
            self.define(base.DOCUMENT.replace('<loader secure="no"/>',
                                              '<loader stateless="yes"/>'))
            yield
            self.define(own)

        @contextlib.contextmanager
        def of_another_architecture():
            self.arch = 'x86_64'
            yield
            self.arch = 'aarch64'

        for change in (being(host='b'), being(host=None),
                       being(task_state=task_states.MIGRATING),
                       being(vm_state=vm_states.RESCUED), paused, rescued,
                       gone, without_a_store, of_another_architecture):
            with change(), mock.patch.object(store, 'pack') as pack:
                self.copy_all()
                pack.assert_not_called()
                self.assertEqual([], self.copied())
        self.assertNotIn('has failed', self.stdlog.logger.output)
        self.copy_all()
        self.assertEqual(1, len(self.copied()))

    def test_a_guest_that_was_away_is_copied_again(self):
        self.copy_all()
        [copy] = self.copies.iterdir()
        self.listed = []
        self.copy_all()
        copy.unlink()

        self.listed = [self.instance]
        self.copy_all()

        self.assertEqual([base.variables('1')], self.copied())

    def test_nothing_is_copied_of_a_guest_that_goes_meanwhile(self):
        def deleted():
            raise exception.InstanceNotFound(instance_id=base.UUID)

        def taken():
            self.instance.task_state = task_states.DELETING

        for self.meanwhile in (deleted, taken):
            self.copy_all()
            self.assertEqual([], self.copied())
            self.instance.task_state = None
        self.assertNotIn('has failed', self.stdlog.logger.output)

        # it has been left as it was
        self.meanwhile = lambda: None
        self.copy_all()
        self.assertEqual([base.variables('1')], self.copied())

    def test_what_fails_for_one_guest_is_that_guest_s(self):
        class Bad:
            uuid = 'bad'

            @property
            def host(self):
                raise RuntimeError('whatever')

        self.listed = [Bad(), self.instance, Bad()]

        self.copy_all()

        self.assertEqual([base.variables('1')], self.copied())

    def test_it_runs_only_where_it_is_asked_for(self):
        for store_name, interval, first in (
                ('directory', 30, 30), ('directory', 3600, 60),
                ('directory', 0, None), ('', 60, None)):
            self.flags(store=store_name, copy_interval=interval,
                       group='arm_nvram')
            self.load_stores()
            with self.nova('init_host'), self.nova('cleanup_host'), \
                    mock.patch.object(copying.loopingcall,
                                      'FixedIntervalLoopingCall') as task:
                self.driver.init_host('a')
                self.driver.cleanup_host('a')
            self.assertEqual(first is not None, task.called)
            if first is not None:
                task.assert_called_once_with(self.driver._copying.copy_all)
                task().start.assert_called_once_with(
                    interval=interval, initial_delay=first,
                    stop_on_exception=False)
                task().stop.assert_called_once_with()

    def test_the_updates_of_nova_do_not_wait_for_copies(self):
        with self.nova('update_provider_tree'), mock.patch.object(
                store, 'pack') as pack, mock.patch.object(
                    self.driver._facts, 'publish_traits'):
            self.driver.update_provider_tree(None, 'node')
        pack.assert_not_called()
        self.assertFalse(os.listdir(self.copies))
