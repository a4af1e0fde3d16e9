# SPDX-License-Identifier: Apache-2.0
"""The store with which a guest starts, and its firmware."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import os
import shutil
from unittest import mock

import nova.conf
from nova.compute import vm_states

from nova_arm_ext import facts
from nova_arm_ext import varstore
from tests.nova.nvram import base
from tests.support import stores

CONF = nova.conf.CONF
KEYS = stores.store(stores.variable('PK', b'key'))


class FirmwareTest(base.StoresTestCase):

    def setUp(self):
        super().setUp()
        self.stub_out('nova_arm_ext.compute.host_facts.HostFacts.'
                      'arch', property(lambda made: 'aarch64'))

    def having(self, *firmware):
        self.driver._facts.forget()
        self.stub_out('nova_arm_ext.compute.gather.host',
                      lambda connection: facts.Host(
                          arch='aarch64', libvirt_version=(9, 0, 0),
                          firmware=firmware))

    def firmware(self, loader, **features):
        path = self.root / loader
        path.touch()
        return facts.Firmware(
            arch='aarch64', machines=('virt-*',), loader=str(path),
            template=str(self.template), **features)

    def test_secure_boot_is_there_with_firmware_and_keys(self):
        for features, there in (({}, False), ({'secure_boot': True}, False), (
                {'secure_boot': True, 'enrolled_keys': True}, True)):
            self.having(self.firmware('code', **features))
            with self.nova('_update_host_specific_capabilities'):
                self.driver._update_host_specific_capabilities()

            self.assertIs(there, self.driver.capabilities[
                'supports_secure_boot'])
            self.assertIs(there, self.driver._check_secure_boot_support(
                'aarch64', 'virt', 'uefi'))
            self.assertFalse(self.driver._check_secure_boot_support(
                'x86_64', 'pc', 'uefi'))

    def test_a_store_without_keys_is_no_store_for_secure_boot(self):
        plain = self.firmware('plain')
        secure = self.firmware('secure', secure_boot=True,
                               enrolled_keys=True)
        self.having(secure, plain)
        self.spawn()
        self.stop('1')

        self.document = base.DOCUMENT.replace('enabled="no"', 'enabled="yes"')
        self.migrate('b')
        self.at('b')
        self.arrive()
        self.assertIn(secure.loader, self.domains['b'].document)
        self.assertEqual(self.template.read_bytes(), self.started)

        self.stop('2')
        self.hard_reboot()
        self.assertEqual(base.variables('2'), self.started)

        # a successor is no other firmware
        os.unlink(secure.loader)
        self.having(plain, self.firmware('renamed', secure_boot=True,
                                         enrolled_keys=True))
        self.hard_reboot()
        self.assertIn('/renamed<', self.domains['b'].document)
        self.assertEqual(base.variables('2'), self.started)

    def with_both(self):
        """Have firmware with and without Secure Boot, and shared storage."""
        self.having(self.firmware('secure', secure_boot=True,
                                  enrolled_keys=True),
                    self.firmware('plain'))
        self.driver.image_backend = mock.Mock()
        backend = self.driver.image_backend.backend.return_value
        backend.is_shared_block_storage.return_value = False

    def ask(self, secure_boot):
        self.document = base.DOCUMENT.replace('enabled="no"',
                                              f'enabled="{secure_boot}"')

    def test_an_evacuated_guest_does_not_use_a_store_of_other_firmware(self):
        self.with_both()
        none = base.variables('1')
        for asked, found, used in (('no', none, True), ('no', KEYS, False),
                                   ('yes', none, False), ('yes', KEYS, True)):
            self.at('b')
            self.folder.mkdir()
            self.store.write_bytes(found)
            self.ask(asked)

            self.rebuild(evacuate=True)

            self.assertEqual(found if used else self.template.read_bytes(),
                             self.started, asked)
            self.domains.clear()
            shutil.rmtree(self.folder)
        self.assertEqual(['arm_nvram_lost'] * 2, self.notes)

    def test_an_older_copy_of_other_firmware_does_not_spoil_the_store(self):
        self.with_both()
        self.keep_copies()
        self.driver._life._copies._driver.save(base.UUID, varstore.pack(
            base.variables('1'), secure_boot=False))
        self.folder.mkdir()
        self.store.write_bytes(KEYS)
        self.ask('yes')

        self.rebuild(evacuate=True)

        self.assertEqual(KEYS, self.started)
        self.assertEqual([], self.notes)

    def test_nor_is_it_used_where_there_is_no_store(self):
        self.with_both()
        self.keep_copies()
        for asked, then in (('no', 'yes'), ('yes', 'no')):
            self.at('a')
            self.ask(asked)
            self.spawn()
            self.offload()
            self.at('b')
            self.ask(then)
            self.notes.clear()

            self.spawn()

            self.assertEqual(self.template.read_bytes(), self.started)
            self.assertEqual(['arm_nvram_lost'], self.notes)
            self.destroy()
            self.instance.vm_state = vm_states.ACTIVE
            self.instance.host, self.instance.task_state = 'a', None

    def test_a_rebuilt_guest_does_not_keep_a_store_of_other_firmware(self):
        self.with_both()
        self.spawn()
        self.stop('1')
        self.ask('yes')

        self.rebuild(image_arm_nvram_on_rebuild='keep')

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_store_goes_along_as_that_of_its_firmware(self):
        """Whatever keys the guest has put into it."""
        self.with_both()
        for asked, content in (('no', KEYS), ('yes', base.variables('1'))):
            self.at('a')
            self.ask(asked)
            self.spawn()
            self.store.write_bytes(content)
            self.migrate('b')
            self.at('b')

            self.arrive()

            self.assertEqual(content, self.started)
            for host in 'ab':
                shutil.rmtree(self.root / host)
            self.domains.clear()
            self.instance.host = 'a'
        self.assertEqual([], self.notes)

    def test_a_loader_that_is_gone_is_told_and_replaced(self):
        old, new = self.firmware('old'), self.firmware('new')
        self.having(old, new)
        self.spawn()
        self.stop('1')
        self.assertIn(old.loader, self.domains['a'].document)

        os.unlink(old.loader)
        self.having(new)
        self.hard_reboot()

        self.assertIn(f'>{new.loader}</loader>', self.domains['a'].document)
        self.assertEqual(base.variables('1'), self.started)
        self.assertIn(f'{old.loader} is not on this host any more',
                      self.stdlog.logger.output)

    def test_a_loader_that_only_libvirt_sees_stays(self):
        self.spawn()
        self.having(facts.Firmware(
            arch='aarch64', machines=('virt-*',), loader='/not/here',
            template=str(self.template)))

        self.hard_reboot()

        self.assertIn('>/usr/share/AAVMF/AAVMF_CODE.fd</loader>',
                      self.domains['a'].document)
