# SPDX-License-Identifier: Apache-2.0
"""32-bit guests: domain type and CPU."""

import dataclasses
import types

import hypothesis
from hypothesis import strategies

from nova_arm_ext import cpu as cpus
from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import armv7
from nova_arm_ext.hooks import base as hooks
from tests.support import base
from tests.support import contract
from tests.unit import properties

#: what Nova writes
PLAIN = '<cpu match="exact">{}</cpu>'
TOPOLOGY = '<topology sockets="2" cores="1" threads="1"/>'
ASKED = PLAIN.format(TOPOLOGY)
EMULATED = ('<cpu match="exact" mode="custom"><model>cortex-a15</model>'
            f'{TOPOLOGY}</cpu>')
PASSED_THROUGH = (f'<cpu match="exact" mode="host-passthrough">{TOPOLOGY}'
                  '</cpu>')

BOTH = ('kvm', 'qemu')


def hook(accel: str = 'prefer_kvm') -> armv7.Armv7:
    return armv7.Armv7(types.SimpleNamespace(accel=accel))


def host(able: bool | None, arch: str | None = 'aarch64',
         offered: tuple[str, ...] | None = BOTH) -> facts.Facts:
    return facts.Facts(host=facts.Host(
        arch=arch, aarch32_el1=able,
        virt_types=None if offered is None else {'armv7l': offered}))


ABLE, UNABLE, UNKNOWN = host(True), host(False), host(None)
WITH_SVE = dataclasses.replace(ABLE, host=dataclasses.replace(
    ABLE.host, cpu=cpus.Cpu(features=frozenset(('asimd', 'sve')))))
ON_X86 = host(False, 'x86_64', ('qemu',))


def document(kind: str = 'qemu', cpu: str = ASKED, *, arch: str = 'armv7l',
             machine: str = 'virt', os: str = '<kernel>/k</kernel>',
             features: str = '') -> str:
    return (f'<domain type="{kind}"><os>'
            f'<type arch="{arch}" machine="{machine}">hvm</type>{os}</os>'
            f'{features}{cpu}</domain>')


class Armv7TestCase(base.TestCase):

    def adjusted(self, xml: str, known: facts.Facts, *,
                 accel: str = 'prefer_kvm', previous: str | None = None,
                 ) -> tuple[str, list[str]]:
        """The domain XML and the reported places."""
        domain = view.Domain.parse(xml, previous)
        report = hooks.Report()
        made = hook(accel)
        if made.applies_to(domain, known):
            made.adjust(domain, known, report)
        self.essential = [place for place, _ in report.essential]
        return base.compact(domain), [place for place, _ in report.reasons]

    def check_left(self, xml: str, known: facts.Facts, **more: str) -> None:
        self.assertEqual((xml, []), self.adjusted(xml, known, **more))


class NewGuestTest(Armv7TestCase):

    def test_cores_that_can_run_it_by_kvm(self):
        for accel in ('prefer_kvm', 'kvm'):
            self.assertEqual(
                (document('kvm', PASSED_THROUGH), ['domain/@type', 'cpu']),
                self.adjusted(document(), ABLE, accel=accel))

    def test_cores_that_cannot_emulate_a_32_bit_cpu(self):
        for known in (UNABLE, UNKNOWN, ON_X86, host(True, offered=('qemu',)),
                      host(True, offered=()), host(True, 'x86_64')):
            self.assertEqual((document(cpu=EMULATED), ['cpu']),
                             self.adjusted(document(), known))

    def test_emulation_by_choice(self):
        self.assertEqual((document(cpu=EMULATED), ['cpu']),
                         self.adjusted(document(), ABLE, accel='tcg'))

    def test_kvm_or_nothing_is_refused_for_another_host(self):
        for known, words in ((UNABLE, 'AArch32 at EL1'),
                             (ON_X86, 'x86_64 host'),
                             (host(None, offered=('qemu',)), 'no KVM')):
            error = self.assertRaises(
                errors.Refused, self.adjusted, document(), known, accel='kvm')

            self.assertTrue(error.this_host)
            for word in (words, 'accel = kvm', 'CUSTOM_ARM_AARCH32_EL1'):
                self.assertIn(word, str(error))

    def test_kvm_or_nothing_tries_where_nobody_could_ask(self):
        for known in (UNKNOWN, host(None, offered=None)):
            self.assertEqual(
                document('kvm', PASSED_THROUGH),
                self.adjusted(document(), known, accel='kvm')[0])

    def test_a_document_for_kvm_is_taken_back_where_it_would_fail(self):
        made, places = self.adjusted(document('kvm', ASKED), UNABLE)

        self.assertEqual(document(cpu=EMULATED), made)
        self.assertEqual(['domain/@type', 'cpu'], places)
        self.assertEqual(['domain/@type'], self.essential)

    def test_it_would_not_fail_where_the_cores_can_run_it(self):
        self.adjusted(document('kvm', ASKED), ABLE, accel='tcg')

        self.assertEqual([], self.essential)

    def test_by_kvm_it_does_not_start_without_the_hosts_cpu(self):
        self.adjusted(document('kvm', ASKED), ABLE)

        self.assertEqual(['cpu'], self.essential)

    def test_without_any_facts_a_document_for_kvm_stays(self):
        for accel in ('prefer_kvm', 'kvm', 'tcg'):
            self.check_left(document('kvm', PASSED_THROUGH), facts.Facts(),
                            accel=accel)

    def test_without_any_facts_emulation_gets_its_cpu(self):
        for accel in ('prefer_kvm', 'kvm', 'tcg'):
            self.assertEqual(
                document(cpu=EMULATED),
                self.adjusted(document(), facts.Facts(), accel=accel)[0])

    def test_a_document_without_a_cpu_gets_one(self):
        self.assertIn('<cpu mode="host-passthrough" match="exact"/>',
                      self.adjusted(document(cpu=''), ABLE)[0])
        self.assertIn('<cpu mode="custom" match="exact"><model>cortex-a15'
                      '</model></cpu>',
                      self.adjusted(document(cpu=''), UNABLE)[0])

    def test_64_bit_cpus_are_replaced_and_32_bit_ones_stay(self):
        for model in ('max', 'cortex-a57', 'host'):
            made, _ = self.adjusted(document(
                cpu=PLAIN.format(f'<model>{model}</model>{TOPOLOGY}')),
                UNABLE)
            self.assertEqual(document(cpu=EMULATED), made)
        self.check_left(document(
            cpu=PLAIN.format('<model>cortex-a7</model>')), UNABLE)
        for mode in ('maximum', 'host-passthrough'):
            self.assertEqual(document(cpu=EMULATED), self.adjusted(document(
                cpu=f'<cpu match="exact" mode="{mode}">{TOPOLOGY}</cpu>'),
                UNABLE)[0])

    def test_a_named_model_gives_way_to_the_hosts_cpu(self):
        made, _ = self.adjusted(document(
            cpu=PLAIN.format(f'<model>max</model>{TOPOLOGY}')), ABLE)

        self.assertEqual(document('kvm', PASSED_THROUGH), made)

    def test_cpu_features_go_because_32_bit_cpus_have_none(self):
        features = ('<feature name="sve" policy="require"/>'
                    '<feature name="aarch64" policy="disable"/>')
        for known, cpu, kind in ((ABLE, PASSED_THROUGH, 'kvm'),
                                 (UNABLE, EMULATED, 'qemu')):
            made, places = self.adjusted(document(
                cpu=PLAIN.format(TOPOLOGY + features)), known)

            self.assertEqual(document(kind, cpu), made)
            self.assertIn('cpu/feature', places)

    def test_sve_of_the_host_is_off_for_guests_of_kvm(self):
        off = '<feature policy="disable" name="sve"/>'
        expected = document('kvm', PASSED_THROUGH.replace('</cpu>',
                                                          f'{off}</cpu>'))
        asked = '<feature name="sve" policy="require"/>'
        for features in ('', asked, off, off + asked):
            made, places = self.adjusted(document(
                cpu=PLAIN.format(TOPOLOGY + features)), WITH_SVE)

            self.assertEqual(expected, made)
            self.assertEqual(features != off, 'cpu/feature' in places)
        made, _ = self.adjusted(expected, WITH_SVE, previous=document(
            'kvm', PASSED_THROUGH))
        self.assertEqual(expected, made)

    def test_sve_does_not_matter_to_a_cpu_that_is_not_the_hosts(self):
        made, _ = self.adjusted(document(), WITH_SVE, accel='tcg')
        bare, _ = self.adjusted(document('kvm', ''), WITH_SVE,
                                previous=document('kvm', ''))

        self.assertEqual(document(cpu=EMULATED), made)
        self.assertEqual(document('kvm', ''), bare)

    def test_acpi_goes_where_no_firmware_hands_it_on(self):
        acpi = '<features><acpi/><apic/></features>'
        made, places = self.adjusted(document(features=acpi), ABLE)

        self.assertIn('<features><apic/></features>', made)
        self.assertIn('features/acpi', places)
        loader = '<loader type="pflash">/code32</loader>'
        for known in (ABLE, UNABLE):
            self.assertIn(acpi, self.adjusted(
                document(features=acpi, os=loader), known)[0])

    def test_64_bit_guests_other_boards_and_32_bit_hosts_are_left(self):
        for xml, known in (
                (document(arch='aarch64'), ABLE),
                (document(machine='vexpress-a15'), UNABLE),
                (document('kvm'), host(True, 'armv7l')),
                (document('kvm'), host(None, 'armv7l'))):
            self.check_left(xml, known, accel='kvm')


class ExistingGuestTest(Armv7TestCase):

    def test_emulated_stays_emulated(self):
        for accel in ('prefer_kvm', 'kvm', 'tcg'):
            for known in (ABLE, UNABLE, UNKNOWN, facts.Facts()):
                self.assertEqual(
                    document(cpu=EMULATED),
                    self.adjusted(document(), known, accel=accel,
                                  previous=document(cpu=EMULATED))[0])

    def test_kvm_stays_kvm(self):
        for accel in ('prefer_kvm', 'kvm', 'tcg'):
            for known in (ABLE, UNABLE, UNKNOWN, facts.Facts()):
                self.assertEqual(
                    document('kvm', PASSED_THROUGH),
                    self.adjusted(
                        document(), known, accel=accel,
                        previous=document('kvm', PASSED_THROUGH))[0])

    def test_what_libvirt_has_stored_is_understood(self):
        stored = ('<cpu mode="custom" match="exact" check="none"><model '
                  'fallback="forbid">cortex-a7</model></cpu>')

        made, _ = self.adjusted(document(), ABLE,
                                previous=document(cpu=stored))

        self.assertEqual(
            document(cpu=EMULATED.replace('cortex-a15', 'cortex-a7')), made)

    def test_a_guest_without_a_cpu_goes_on_without(self):
        self.check_left(document(), ABLE, previous=document())
        self.check_left(document(cpu=''), UNABLE, previous=document(cpu=''))

    def test_the_topology_is_the_new_one(self):
        was = document('kvm', PASSED_THROUGH.replace('"2"', '"1"'))

        made, _ = self.adjusted(document(), ABLE, previous=was)

        self.assertEqual(document('kvm', PASSED_THROUGH), made)

    def test_another_architecture_is_no_guide(self):
        self.assertEqual(
            document('kvm', PASSED_THROUGH),
            self.adjusted(document(), ABLE, previous=document(
                cpu=EMULATED, arch='aarch64'))[0])


class PropertyTest(Armv7TestCase):

    @hypothesis.given(
        kind=strategies.sampled_from(('qemu', 'kvm')),
        cpu=strategies.sampled_from(('', ASKED, EMULATED, PASSED_THROUGH,
                                     PLAIN.format('<model>max</model>'))),
        features=strategies.sampled_from(
            ('', '<features><acpi/></features>')),
        able=strategies.sampled_from((True, False, None)),
        arch=strategies.sampled_from(('aarch64', 'x86_64', 'armv7l', None)),
        offered=strategies.sampled_from((BOTH, ('qemu',), None)),
        accel=strategies.sampled_from(('kvm', 'prefer_kvm', 'tcg')),
        previous=strategies.sampled_from((
            None, document(cpu=EMULATED), document(),
            document('kvm', PASSED_THROUGH), document('kvm', ''))))
    @hypothesis.settings(properties.SETTINGS, max_examples=300)
    def test_twice_is_once_and_kvm_is_never_a_guess(
            self, kind, cpu, features, able, arch, offered, accel, previous):
        known = host(able, arch, offered)
        xml = document(kind, cpu, features=features)
        try:
            made, _ = self.adjusted(xml, known, accel=accel,
                                    previous=previous)
        except errors.Refused:
            self.assertEqual('kvm', accel)
            self.assertIsNone(previous)
            return

        self.check_left(made, known, accel=accel, previous=previous)
        domain = view.Domain.parse(made)
        if arch in ('aarch64', 'x86_64') and previous is None:
            if domain.virt_type == 'kvm':
                self.assertEqual('aarch64', arch)
                self.assertNotEqual('tcg', accel)
                self.assertTrue(able or (accel == 'kvm' and able is None))
                self.assertEqual('host-passthrough',
                                 domain.element.find('cpu').get('mode'))
            else:
                self.assertEqual('cortex-a15',
                                 domain.element.findtext('cpu/model'))
        if previous is not None and arch != 'armv7l':
            self.assertEqual(view.Domain.parse(previous).virt_type,
                             domain.virt_type)


class Armv7ContractTest(contract.HookContract, base.TestCase):

    def make_hook(self):
        return hook()

    def documents(self):
        yield from super().documents()
        for known in (ABLE, UNABLE, UNKNOWN, WITH_SVE, ON_X86):
            yield document(), known


class Armv7OrNothingContractTest(Armv7ContractTest):

    def make_hook(self):
        return hook('kvm')
