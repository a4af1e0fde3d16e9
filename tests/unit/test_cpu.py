# SPDX-License-Identifier: Apache-2.0
"""CPUs of Arm servers, and how two of them differ."""

import dataclasses
import json

import hypothesis
from hypothesis import strategies as st

from nova_arm_ext import cpu
from tests.data import cpus
from tests.support import base
from tests.unit import properties

#: as os-traits 3.0 to 3.9 has them
STANDARD = frozenset(f'HW_CPU_AARCH64_{name}' for name in (
    'FP', 'ASIMD', 'EVTSTRM', 'AES', 'PMULL', 'SHA1', 'SHA2', 'CRC32',
    'FPHP', 'ASIMDHP', 'ASIMDRDM', 'ATOMICS', 'JSCVT', 'FCMA', 'LRCPC',
    'DCPOP', 'SHA3', 'SM3', 'SM4', 'ASIMDDP', 'SHA512', 'SVE', 'CPUID'))

#: name, what people are told, part of the traits
SERVERS = {
    'altra': ('Arm Neoverse-N1 r3p1 (MIDR 0x413fd0c1)', '41_D0C_R3P1'),
    'ampereone': ('Ampere-1a (AmpereOne) r0p0 (MIDR 0xc00fac40)',
                  'C0_AC4_R0P0'),
    'cortex-a57': ('Arm Cortex-A57 r1p1 (MIDR 0x411fd071)', '41_D07_R1P1'),
    'cortex-a72': ('Arm Cortex-A72 r0p3 (MIDR 0x410fd083)', '41_D08_R0P3'),
    'grace': ('Arm Neoverse-V2 r0p0 (MIDR 0x410fd4f0)', '41_D4F_R0P0'),
    'graviton2': ('Arm Neoverse-N1 r3p1 (MIDR 0x413fd0c1)', '41_D0C_R3P1'),
    'graviton3': ('Arm Neoverse-V1 r1p1 (MIDR 0x411fd401)', '41_D40_R1P1'),
    'kunpeng-920': ('HiSilicon TSV110 (Kunpeng 920) r1p0 (MIDR 0x481fd010)',
                    '48_D01_R1P0'),
    'thunderx': ('Cavium ThunderX r1p0 (MIDR 0x431f0a10)', '43_0A1_R1P0'),
    'thunderx2': ('Cavium ThunderX2 r1p1 (MIDR 0x431f0af1)', '43_0AF_R1P1'),
}
X86 = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu vme de
"""


def host(name: str, **known: object) -> cpu.Cpu:
    """A server's CPU with all values known."""
    return dataclasses.replace(
        cpu.parse_cpuinfo(cpus.cpuinfo(name)), **{
            'sve_lengths': {'graviton3': (128, 256),
                            'grace': (128,)}.get(name, ()),
            'aarch32_el1': name in ('cortex-a57', 'cortex-a72'),
            'gic_versions': (3,), 'page_size': 4096, 'kernel': '6.1',
            **known})


def told(source: cpu.Cpu, destination: cpu.Cpu) -> dict[str, cpu.Verdict]:
    return {one.text: one.verdict
            for one in cpu.compare(source, destination)}


class CpuinfoTest(base.TestCase):

    def test_each_server_is_known_by_its_core(self) -> None:
        self.assertEqual(sorted(SERVERS), cpus.names())
        for name, (words, _) in SERVERS.items():
            [core] = cpu.parse_cpuinfo(cpus.cpuinfo(name)).cores or ()
            self.assertEqual(words, str(core))

    def test_features_are_those_of_the_kernel(self) -> None:
        self.assertEqual(
            frozenset(('fp', 'asimd', 'evtstrm', 'aes', 'pmull', 'sha1',
                       'sha2', 'crc32')),
            cpu.parse_cpuinfo(cpus.cpuinfo('thunderx')).features)
        for name, sve, pauth in (('grace', True, True),
                                 ('ampereone', False, True),
                                 ('altra', False, False)):
            found = cpu.parse_cpuinfo(cpus.cpuinfo(name))
            self.assertEqual((sve, pauth), (found.has_sve, found.has_pauth))

    def test_unlike_cores_are_all_there_and_share_their_features(
            self) -> None:
        found = cpu.parse_cpuinfo(cpus.cpuinfo('altra') + '\n'
                                  + cpus.cpuinfo('cortex-a72'))

        self.assertEqual(['r0p3', 'r3p1'],
                         [core.stepping for core in found.cores or ()])
        self.assertNotIn('atomics', found.features or ())
        self.assertIn('crc32', found.features or ())

    def test_a_core_that_nobody_knows_is_told_by_its_numbers(self) -> None:
        [core] = cpu.parse_cpuinfo(cpus.cpuinfo('altra').replace(
            '0xd0c', '0xfff')).cores or ()

        self.assertEqual('implementer 0x41 part 0xfff r3p1 (MIDR 0x413ffff1)',
                         str(core))

    def test_what_is_no_arm_or_broken_tells_nothing(self) -> None:
        for text in ('', X86, 'CPU implementer\t: 0x41\n',
                     cpus.cpuinfo('altra').replace(': 0x41', ': ?')):
            self.assertEqual(cpu.Cpu(), cpu.parse_cpuinfo(text))


class CompareTest(base.TestCase):

    def test_each_server_equals_itself_and_no_other(self) -> None:
        for one in SERVERS:
            for other in SERVERS:
                lost = cpu.refused(cpu.compare(host(one), host(other)),
                                   'compatible')
                alike = SERVERS[one] == SERVERS[other]
                self.assertEqual(alike, not lost, (one, other, lost))
                if alike:
                    self.assertEqual((), cpu.compare(host(one), host(other)))

    def test_another_core_is_told_by_both_names(self) -> None:
        self.assertIn(
            "the core is Arm Neoverse-V1 r1p1 (MIDR 0x411fd401), the "
            "source's Arm Neoverse-N1 r3p1 (MIDR 0x413fd0c1)",
            told(host('altra'), host('graviton3')))

    def test_another_revision_of_a_core_is_another_core(self) -> None:
        newer = host('altra', cores=(cpu.Core(0x413fd0c2),))

        self.assertEqual(
            {"the core is Arm Neoverse-N1 r3p2 (MIDR 0x413fd0c2), the "
             "source's Arm Neoverse-N1 r3p1 (MIDR 0x413fd0c1)":
             cpu.Verdict.LOST}, told(host('altra'), newer))

    def test_the_revision_id_counts_where_both_tell_it(self) -> None:
        fixed = host('altra', cores=(cpu.Core(0x413fd0c1, 0x4),))
        plain = host('altra', cores=(cpu.Core(0x413fd0c1, 0x0),))

        self.assertEqual({}, told(host('altra'), fixed))
        [text] = told(plain, fixed)
        self.assertIn('REVIDR 0x4', text)

    def test_a_feature_that_is_gone_is_lost_and_a_new_one_is_not(
            self) -> None:
        full = host('grace')
        less = dataclasses.replace(full, features=(
            (full.features or frozenset()) - {'paca', 'pacg', 'bti'}))

        self.assertEqual({'it has no bti, paca and pacg': cpu.Verdict.LOST},
                         told(full, less))
        self.assertEqual(
            {'the source has no bti, paca and pacg': cpu.Verdict.DIFFERENT},
            told(less, full))

    def test_what_the_kernel_adds_and_hides_is_no_difference(self) -> None:
        full = host('altra')
        self.assertEqual({}, told(full, dataclasses.replace(
            full, features=(full.features or frozenset())
            - {'ssbs', 'cpuid', 'evtstrm'})))

    def test_sve_vectors_have_the_same_lengths_or_the_guest_is_lost(
            self) -> None:
        long = host('graviton3')
        short = host('graviton3', sve_lengths=(128,))

        for source, destination, text in (
                (long, short, "its SVE vectors have 128 bits, the source's "
                              '128 and 256 bits'),
                (short, long, "its SVE vectors have 128 and 256 bits, the "
                              "source's 128 bits")):
            self.assertEqual({text.removesuffix(' bits'): cpu.Verdict.LOST},
                             told(source, destination))

    def test_what_the_rest_means_to_a_guest(self) -> None:
        full = host('cortex-a72', gic_versions=(2, 3))
        other = host('cortex-a72', aarch32_el1=False, gic_versions=(3,),
                     page_size=65536, kernel='6.12')

        self.assertEqual({
            'it runs no AArch32 at EL1': cpu.Verdict.LOST,
            'it gives GIC 3, the source GIC 2 and 3': cpu.Verdict.LOST,
            "its memory pages have 65536 bytes, the source's 4096":
                cpu.Verdict.DIFFERENT,
            "its kernel is Linux 6.12, the source's 6.1":
                cpu.Verdict.DIFFERENT}, told(full, other))
        self.assertEqual({cpu.Verdict.DIFFERENT},
                         set(told(other, full).values()))

    def test_what_is_unknown_is_told_as_unknown(self) -> None:
        for source, destination, where in (
                (host('altra'), cpu.Cpu(), 'of the destination is unknown'),
                (cpu.Cpu(), host('altra'), 'of the source is unknown'),
                (cpu.Cpu(), cpu.Cpu(),
                 'of the source and the destination are unknown')):
            found = told(source, destination)

            self.assertEqual({cpu.Verdict.UNKNOWN}, set(found.values()))
            self.assertEqual(7, len(found))
            self.assertIn(f'the core {where}', found)

    def test_how_strict_it_is_says_the_option(self) -> None:
        differences = tuple(cpu.Difference(verdict, verdict.name)
                            for verdict in cpu.Verdict)
        for how, refused in (
                ('strict', {'LOST', 'DIFFERENT', 'UNKNOWN'}),
                ('compatible', {'LOST'}), ('warn', set()), ('off', set())):
            self.assertEqual(refused, {
                one.text for one in cpu.refused(differences, how)})


class TraitsTest(base.TestCase):

    def test_each_server_has_those_of_its_core(self) -> None:
        for name, (_, midr) in SERVERS.items():
            found = cpu.traits(host(name), STANDARD)

            self.assertLessEqual(
                {f'CUSTOM_ARM_MIDR_{midr}',
                 f'CUSTOM_ARM_MIDR_{midr.rpartition("_")[0]}',
                 'CUSTOM_ARM_GIC_V3', 'HW_CPU_AARCH64_AES'}, found)
            self.assertTrue(all(map(cpu.is_ours, found)))

    def test_features_have_the_names_that_os_traits_knows(self) -> None:
        found = cpu.traits(host('grace'), STANDARD)

        self.assertIn('HW_CPU_AARCH64_SVE', found)
        self.assertNotIn('HW_CPU_AARCH64_SVE2', found)
        self.assertLessEqual({'CUSTOM_ARM_SVE_128', 'CUSTOM_ARM_PAUTH'},
                             found)
        self.assertNotIn('CUSTOM_ARM_SVE_256', found)

    def test_what_is_unknown_has_no_trait(self) -> None:
        self.assertEqual(frozenset(), cpu.traits(cpu.Cpu(), STANDARD))

    def test_traits_of_others_are_not_ours(self) -> None:
        for name in ('CUSTOM_ARM_AARCH32_EL1', 'CUSTOM_MINE',
                     'HW_CPU_X86_AVX', 'HW_ARCH_AARCH64'):
            self.assertFalse(cpu.is_ours(name))


#: what JSON can hold, small, in the places where it is read
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5),
    st.lists(st.one_of(
        st.none(), st.integers(), st.text(max_size=5),
        st.dictionaries(st.sampled_from(('midr', 'revidr')), st.one_of(
            st.none(), st.integers(), st.sampled_from(('0x1', 'x', ''))))),
        max_size=3))


class DataTest(base.TestCase):

    def test_it_goes_through_json_and_back(self) -> None:
        for name in SERVERS:
            one = host(name, cores=(cpu.Core(0x413fd0c1, 3),
                                    cpu.Core(0x481fd010)))
            self.assertEqual(one, cpu.Cpu.from_data(
                json.loads(json.dumps(one.to_data()))))
        self.assertEqual({}, cpu.Cpu().to_data())

    @properties.SETTINGS
    @hypothesis.given(st.dictionaries(st.sampled_from(
        [field.name for field in dataclasses.fields(cpu.Cpu)]), _VALUES))
    def test_whatever_another_release_tells_can_be_read(
            self, known: dict[str, object]) -> None:
        read = cpu.Cpu.from_data(known)

        # and be worked with
        cpu.compare(read, read)
        cpu.traits(read, STANDARD)
        self.assertEqual(read, cpu.Cpu.from_data(read.to_data()))

    def test_what_is_no_object_tells_nothing(self) -> None:
        for data in (None, 7, 'x', [], {}):
            self.assertEqual(cpu.Cpu(), cpu.Cpu.from_data(data))
