# SPDX-License-Identifier: Apache-2.0
"""Facts about the host are kept as long as they are valid."""

import os
import types

import fixtures

from nova_arm_ext import facts
from nova_arm_ext.compute import host_facts
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
            types.SimpleNamespace(get_connection=lambda: None))

    def ask(self, connection: object) -> facts.Host:
        self.asked += 1
        return self.answer

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
