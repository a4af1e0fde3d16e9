# SPDX-License-Identifier: Apache-2.0
"""Why a guest that runs cannot come to a host."""

import json
import types
from unittest import mock

import fixtures
from nova import objects

from nova_arm_ext import cpu as arm_cpu
from nova_arm_ext import facts
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import live_migration
from tests.support import base

objects.register_all()

FIRMWARE = facts.Firmware(arch='aarch64', machines=('virt-*',),
                          loader='/code', template='/vars')


class RefusalTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.arch = 'aarch64'
        self.missing: str | None = None
        self.host = facts.Host(arch='aarch64', firmware=(FIRMWARE,))
        self.runs_kvm = True
        self.image: dict[str, str] = {}
        self.kernel = ''
        self.source = arm_cpu.Cpu()
        compared = mock.patch.object(live_migration.cpu, 'refusal',
                                     return_value='another CPU')
        self.compared = compared.start()
        self.addCleanup(compared.stop)
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.live_migration.CONF',
            types.SimpleNamespace(
                arm_cpu=types.SimpleNamespace(compare='warn'))))

    def refusal(self) -> str | None:
        known = types.SimpleNamespace(
            now=lambda: self.host, runs_kvm_on_arm=self.runs_kvm)
        machines = types.SimpleNamespace(
            is_missing=lambda instance, arch:
            self.missing if arch == self.arch else None)
        self.instance = types.SimpleNamespace(
            uuid='one', kernel_id=self.kernel,
            image_meta=objects.ImageMeta.from_dict(
                {'properties': self.image}))
        told: dict[str, object] = {}
        cpu.into_cpu_info(told, self.source)
        return live_migration.Destination(
            known, machines, lambda image_meta: self.arch).refusal(
                self.instance, {'cpu_info': json.dumps(told)})

    def test_guests_of_other_architectures_are_novas_business(self) -> None:
        self.arch, self.missing = 'x86_64', 'virt-9.9'

        self.assertIsNone(self.refusal())
        self.assertFalse(self.compared.called)

    def test_a_machine_that_qemu_does_not_have(self) -> None:
        self.missing = 'virt-9.9'

        self.assertEqual('the instance has the machine virt-9.9, which QEMU '
                         'on this host does not have', self.refusal())

    def test_no_firmware_for_the_architecture(self) -> None:
        self.host = facts.Host(arch='aarch64', firmware=())
        self.assertEqual('this host has no UEFI firmware for aarch64 guests',
                         self.refusal())

        self.arch = 'armv7l'
        self.host = facts.Host(arch='aarch64', firmware=(FIRMWARE,))
        self.image = {'hw_firmware_type': 'uefi'}
        self.assertEqual('this host has no UEFI firmware for armv7l guests',
                         self.refusal())

    def test_a_guest_that_needs_no_firmware(self) -> None:
        self.host = facts.Host(arch='aarch64', firmware=())
        for self.arch, self.image, self.kernel in (
                ('aarch64', {'hw_firmware_type': 'bios'}, ''),
                ('armv7l', {}, ''), ('aarch64', {}, 'a kernel')):
            self.assertEqual('another CPU', self.refusal())

    def test_firmware_that_is_not_known_refuses_nobody(self) -> None:
        self.host = facts.Host(arch='aarch64')

        self.assertEqual('another CPU', self.refusal())

    def test_another_cpu(self) -> None:
        mine = arm_cpu.Cpu(aarch32_el1=True)
        for self.host, compared_with in (
                (facts.Host(firmware=(FIRMWARE,), cpu=mine), mine),
                (facts.Host(firmware=(FIRMWARE,)), arm_cpu.Cpu())):
            self.assertEqual('another CPU', self.refusal())

            self.compared.assert_called_with(
                self.source, compared_with, 'warn', self.instance)

    def test_an_emulated_cpu_is_the_same_everywhere(self) -> None:
        self.runs_kvm = False

        self.assertIsNone(self.refusal())

    def test_a_32_bit_guest_is_emulated_where_the_cores_cannot(self) -> None:
        for self.arch, able, refusal in (
                ('armv7l', False, None), ('armv7l', True, 'another CPU'),
                ('armv7l', None, 'another CPU'),
                ('aarch64', False, 'another CPU')):
            self.source = arm_cpu.Cpu(aarch32_el1=able)

            self.assertEqual(refusal, self.refusal(), (self.arch, able))
