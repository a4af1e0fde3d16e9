# SPDX-License-Identifier: Apache-2.0
"""Facts about the host are kept as long as they are valid."""

import dataclasses
import os
import types

import fixtures
import nova.conf
from nova.compute import provider_tree
from oslo_config import fixture as config_fixture

from nova_arm_ext import cpu
from nova_arm_ext import facts
from nova_arm_ext.compute import host_facts
from nova_arm_ext.domain import view
from tests.support import base

KNOWN = facts.Host(arch='aarch64', libvirt_version=(9, 0, 0),
                   qemu_version=(7, 2, 0), virt_types={'aarch64': ('kvm',)})


class HostFactsTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.asked = 0
        self.answer = KNOWN
        self.now = 0.0
        self.folder = self.useFixture(fixtures.TempDir()).path
        for name, value in (
                ('nova_arm_ext.compute.gather.host', self.ask),
                ('nova_arm_ext.compute.gather.DESCRIPTORS',
                 (self.folder, os.path.join(self.folder, 'missing'))),
                ('nova_arm_ext.compute.host_facts.time',
                 types.SimpleNamespace(monotonic=lambda: self.now))):
            self.useFixture(fixtures.MonkeyPatch(name, value))
        self.facts = host_facts.HostFacts(
            types.SimpleNamespace(
                get_connection=lambda: None,
                get_capabilities=lambda: types.SimpleNamespace(
                    host=types.SimpleNamespace(
                        cpu=types.SimpleNamespace(arch=self.arch)))))
        self.arch = 'aarch64'
        self.conf = self.useFixture(config_fixture.Config(nova.conf.CONF))

    def ask(self, connection: object) -> facts.Host:
        self.asked += 1
        return self.answer

    def test_a_libvirt_that_nobody_has_tried_is_logged_once(self) -> None:
        for version, logged in (((12, 99, 0), False), ((13, 0, 0), True)):
            self.answer = dataclasses.replace(
                KNOWN, libvirt_version=version)
            for _ in range(2):
                self.facts.forget()
                self.facts.now()

            self.assertEqual(int(logged), self.log.output.count(
                'Nobody has tried nova-arm-ext with libvirt 13.0.0'))

    def test_they_are_asked_once(self) -> None:
        self.assertIs(KNOWN, self.facts.now())
        self.assertIs(KNOWN, self.facts.now())

        self.assertEqual(1, self.asked)

    def test_they_are_asked_again_when_they_are_old(self) -> None:
        self.facts.now()
        self.now = host_facts.LIFETIME - 1
        self.facts.now()
        self.assertEqual(1, self.asked)

        self.now = host_facts.LIFETIME
        self.facts.now()
        self.assertEqual(2, self.asked)

    def test_they_are_asked_again_after_another_connection(self) -> None:
        self.facts.now()

        self.facts.forget()

        self.facts.now()
        self.assertEqual(2, self.asked)

    def test_they_are_asked_again_when_firmware_is_installed(self) -> None:
        self.facts.now()
        # file systems count in steps of some milliseconds
        os.utime(self.folder, ns=(0, 0))

        self.facts.now()

        self.assertEqual(2, self.asked)

    def test_what_could_not_be_asked_is_asked_again(self) -> None:
        for missing in ('arch', 'libvirt_version', 'qemu_version',
                        'virt_types'):
            self.facts.forget()
            self.answer = facts.Host(**{
                name: None if name == missing else getattr(KNOWN, name)
                for name in ('arch', 'libvirt_version', 'qemu_version',
                             'virt_types')})
            self.facts.now()
            self.answer = KNOWN

            self.assertIs(KNOWN, self.facts.now(), missing)

    def test_an_option_wants_no_kvm(self) -> None:
        self.answer = dataclasses.replace(
            KNOWN, virt_types={'aarch64': ('kvm', 'qemu'), 'x86_64': ()})
        for virt_type, kinds in (('kvm', ('kvm', 'qemu')),
                                 ('qemu', ('qemu',))):
            self.conf.config(virt_type=virt_type, group='libvirt')
            self.facts.forget()

            self.assertEqual({'aarch64': kinds, 'x86_64': ()},
                             self.facts.now().virt_types)

    def test_who_runs_kvm_on_arm(self) -> None:
        for self.arch, virt_type, runs in (
                ('aarch64', 'kvm', True), ('aarch64', 'qemu', False),
                ('x86_64', 'kvm', False), ('armv7l', 'kvm', False)):
            self.conf.config(virt_type=virt_type, group='libvirt')

            self.assertIs(runs, self.facts.runs_kvm_on_arm)

    @staticmethod
    def firmware(loader: str, arch: str = 'aarch64',
                 **features: bool) -> facts.Firmware:
        return facts.Firmware(arch=arch, machines=(), loader=loader,
                              template='', **features)

    def test_secure_boot_needs_firmware_with_keys(self) -> None:
        for firmware, there in (
                (None, False), ((), False),
                ((self.firmware('a', secure_boot=True),), False),
                ((self.firmware('a', enrolled_keys=True),), False),
                ((self.firmware('a', 'armv7l', secure_boot=True,
                                enrolled_keys=True),), False),
                ((self.firmware('a'), self.firmware(
                    'b', secure_boot=True, enrolled_keys=True)), True)):
            self.answer = dataclasses.replace(KNOWN, firmware=firmware)
            self.facts.forget()

            self.assertIs(there, self.facts.has_secure_boot('aarch64'))

    def test_secure_boot_of_a_guest_is_that_of_its_firmware(self) -> None:
        self.answer = dataclasses.replace(KNOWN, firmware=(
            self.firmware('/plain'), self.firmware('/s', secure_boot=True)))
        for inner, secure in (
                ('<loader>/plain</loader>', False), ('<loader>/s</loader>',
                                                     True),
                ('<loader>/gone</loader>', None), ('', None),
                ('<firmware><feature name="secure-boot" enabled="yes"/>'
                 '</firmware>', True)):
            self.assertIs(secure, self.facts.secure_boot_in(
                view.Domain.parse(f'<domain><os>{inner}</os></domain>')))

    def traits(self, *before: str) -> set[str]:
        tree = provider_tree.ProviderTree()
        tree.new_root('host', '916180a7-0b43-5c08-b3c8-c738826880bb')
        tree.add_traits('host', *before)
        self.facts.forget()
        self.facts.publish_traits(tree, 'host')
        return set(tree.data('host').traits)

    def test_the_traits_are_those_of_the_cpu(self) -> None:
        known = cpu.Cpu(features=frozenset(['fp', 'asimd', 'aes']))
        old = {'HW_CPU_AARCH64_SVE', 'CUSTOM_MINE', 'HW_CPU_X86_AVX'}
        kept = {'CUSTOM_MINE', 'HW_CPU_X86_AVX'}
        for self.arch, kinds, of, wanted in (
                ('aarch64', {'aarch64': ('kvm',)}, known,
                 {'HW_CPU_AARCH64_AES'}),
                ('aarch64', {'aarch64': ('kvm',)}, None, set()),
                ('aarch64', {'aarch64': ('qemu',)}, known, set()),
                ('aarch64', {'armv7l': ('kvm',)}, known, set()),
                ('aarch64', None, known, set()),
                ('x86_64', {'aarch64': ('kvm',)}, known, set())):
            self.answer = dataclasses.replace(KNOWN, virt_types=kinds, cpu=of)
            found = self.traits(*old)

            self.assertEqual(wanted, found & {'HW_CPU_AARCH64_AES'})
            self.assertEqual(kept, found & old)

    def test_the_trait_of_32_bit_guests(self) -> None:
        for self.arch, able, there in (
                ('aarch64', True, True), ('aarch64', False, False),
                ('aarch64', None, False), ('x86_64', True, False)):
            self.answer = dataclasses.replace(KNOWN, aarch32_el1=able)
            for before in ((), (host_facts.AARCH32_EL1,)):
                self.assertIs(there, host_facts.AARCH32_EL1
                              in self.traits(*before))

    def test_who_runs_32_bit_guests_with_kvm(self) -> None:
        for able, kinds, hooks, accel, runs in (
                (True, {'armv7l': ('kvm',)}, ('armv7',), 'kvm', True),
                (True, {'armv7l': ('kvm',)}, ('armv7',), 'tcg', False),
                (True, {'armv7l': ('kvm',)}, ('uefi',), 'kvm', False),
                (True, {'armv7l': ('qemu',)}, ('armv7',), 'kvm', False),
                (True, {'aarch64': ('kvm',)}, ('armv7',), 'kvm', False),
                (True, None, ('armv7',), 'kvm', False),
                (False, {'armv7l': ('kvm',)}, ('armv7',), 'kvm', False),
                (None, {'armv7l': ('kvm',)}, ('armv7',), 'kvm', False)):
            self.facts.forget()
            self.answer = dataclasses.replace(
                KNOWN, aarch32_el1=able, virt_types=kinds)
            with fixtures.MonkeyPatch(
                    'nova_arm_ext.compute.host_facts.CONF',
                    types.SimpleNamespace(
                        arm_armv7=types.SimpleNamespace(accel=accel),
                        libvirt=types.SimpleNamespace(virt_type='kvm'))):
                self.assertIs(runs, self.facts.runs_armv7(hooks))

    def test_another_thread_may_forget_them_meanwhile(self) -> None:
        self.facts.now()
        kept = [self.facts._kept]

        class Forgotten(host_facts.HostFacts):
            """A kept value that disappears after it was read once."""

            _kept = property(lambda made: kept.pop() if kept else None,
                             lambda made, value: None)

        self.facts.__class__ = Forgotten

        self.assertIs(KNOWN, self.facts.now())
        self.assertEqual(1, self.asked)
