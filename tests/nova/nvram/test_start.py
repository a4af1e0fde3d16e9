# SPDX-License-Identifier: Apache-2.0
"""The store with which a guest starts, and its firmware."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import os

import nova.conf

from nova_arm_ext import facts
from tests.nova.nvram import base

CONF = nova.conf.CONF


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
