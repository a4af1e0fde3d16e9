# SPDX-License-Identifier: Apache-2.0
"""Reading a host's CPU, from files of real hosts and from broken ones."""

import json
import pathlib
import types
import unittest

import fixtures

from nova_arm_ext import cpu
from tests.data import cpus
from tests.support import base

try:
    import libvirt

    from nova_arm_ext.compute import cpu as compute_cpu
except ImportError as e:
    raise unittest.SkipTest(f'libvirt-python is not installed: {e}') from e

#: as libvirt 9.0 answers on an AArch64 host with KVM, in part
CAPABILITIES = """
<domainCapabilities>
  <cpu>
    <mode name='host-passthrough' supported='yes'/>
    <mode name='maximum' supported='yes'/>
    <mode name='host-model' supported='no'/>
    <mode name='custom' supported='yes'>
      <model usable='unknown'>cortex-a57</model>
      <model usable='no'>cortex-a15</model>
    </mode>
  </cpu>
  <features>
    <gic supported='yes'>
      <enum name='version'><value>3</value><value>2</value></enum>
    </gic>
  </features>
</domainCapabilities>"""


class Connection:

    def __init__(self, answer: str | Exception = CAPABILITIES) -> None:
        self._answer = answer

    def getDomainCapabilities(self, *asked: object) -> str:
        self.asked = asked
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Kernel:
    """The part of prctl for SVE (Documentation/arch/arm64/sve.rst)."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = [bits // 8 for bits in lengths]
        self.now = 16
        self.at_exec: int | None = None

    def prctl(self, option: int, value: int, *rest: int) -> int:
        if not self.lengths:
            return -1
        if option == 51:
            return self.now
        assert option == 50
        length = max((one for one in self.lengths
                      if one <= value & 0xffff), default=min(self.lengths))
        if value & 1 << 18:
            self.at_exec = length
        else:
            self.now, self.at_exec = length, None
        return length


class ReadTest(base.TestCase):

    def read(self, name: str, connection: Connection | None = None,
             **more: object) -> cpu.Cpu:
        return compute_cpu.read(
            connection or Connection(), **{
                'aarch32_el1': None, 'root': str(cpus.FOLDER / name),
                'device': '/nowhere', **more})

    def kernel(self, *lengths: int) -> Kernel:
        made = Kernel(*lengths)
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.cpu.ctypes.CDLL',
            lambda name, use_errno: made))
        return made

    def kvm(self, **able: bool) -> None:
        capabilities = {93: able.get('el1', True), 170: able.get('sve', True),
                        171: able.get('pauth', True)}
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.cpu.fcntl.ioctl',
            lambda kvm, request, number: int(capabilities[number])))

    def test_a_real_host_is_read_from_its_files(self) -> None:
        found = self.read('altra', aarch32_el1=False)

        self.assertEqual((cpu.Core(0x413fd0c1, 0),), found.cores)
        self.assertEqual(
            cpu.parse_cpuinfo(cpus.cpuinfo('altra')).features, found.features)
        self.assertEqual((False, (), (2, 3)), (
            found.aarch32_el1, found.sve_lengths, found.gic_versions))
        self.assertRegex(found.kernel or '', r'^\d+\.\d+$')
        self.assertGreaterEqual(found.page_size or 0, 4096)

    def test_the_registers_win_over_the_text_and_may_be_absent(self) -> None:
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (folder / 'proc').mkdir()
        (folder / 'proc/cpuinfo').write_text(cpus.cpuinfo('altra'))
        text = cpu.Core(0x413fd0c1)
        self.assertEqual((text,), self.read('', root=str(folder)).cores)
        for number, midr, revidr, cores in (
                (0, '', '', (text,)),            # an offline core
                (1, '0x00000000413fd0c2\n', '', (cpu.Core(0x413fd0c2),)),
                (2, '0x00000000413fd0c2\n', '0x4\n',
                 (cpu.Core(0x413fd0c2), cpu.Core(0x413fd0c2, 4)))):
            registers = (folder / f'sys/devices/system/cpu/cpu{number}/regs'
                         / 'identification')
            registers.mkdir(parents=True)
            (registers / 'midr_el1').write_text(midr)
            (registers / 'revidr_el1').write_text(revidr)

            self.assertEqual(cores, self.read('', root=str(folder)).cores)

    def test_sve_vector_lengths_are_all_found_and_nothing_is_left(
            self) -> None:
        # Neoverse V1, Neoverse V2, A64FX, and one with a gap
        for lengths in ((128, 256), (128,), (128, 256, 512),
                        (128, 384, 2048)):
            kernel = self.kernel(*lengths)

            self.assertEqual(lengths, self.read('graviton3').sve_lengths)

            self.assertEqual((16, None), (kernel.now, kernel.at_exec))

    def test_a_kernel_that_does_not_answer_leaves_them_unknown(self) -> None:
        self.kernel()

        self.assertIsNone(self.read('graviton3').sve_lengths)
        self.assertIn('SVE vector lengths are unknown', self.log.output)

    def test_this_kernel_is_asked_without_harm(self) -> None:
        # an x86 kernel refuses; one of AArch64 with SVE answers
        self.assertIn(type(self.read('graviton3').sve_lengths),
                      (type(None), tuple))

    def test_what_kvm_cannot_give_no_guest_has(self) -> None:
        self.kernel(128)
        for able, sve, pauth in (({}, True, True),
                                 ({'sve': False}, False, True),
                                 ({'pauth': False}, True, False)):
            self.kvm(**able)

            found = self.read('grace', device='/dev/null')

            self.assertEqual((sve, pauth), (found.has_sve, found.has_pauth))
            self.assertEqual((128,) if sve else (), found.sve_lengths)
            self.assertEqual(sve, 'svebf16' in (found.features or ()))

    def test_nor_what_no_guest_can_ask_for(self) -> None:
        """It is no reason to refuse a live migration."""
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (folder / 'proc').mkdir()
        text = cpus.cpuinfo('altra').replace(
            'Features\t: fp', 'Features\t: sme smef64f64 mte mte3 fp')
        self.assertIn('mte3', text)
        (folder / 'proc/cpuinfo').write_text(text)

        found = self.read('', root=str(folder))

        self.assertEqual(
            cpu.parse_cpuinfo(cpus.cpuinfo('altra')).features, found.features)

    def test_a_libvirt_that_does_not_tell_leaves_it_unknown(self) -> None:
        for answer in (libvirt.libvirtError('it has no KVM'),
                       '<domainCapabilities/>',
                       CAPABILITIES.replace("gic supported='yes'",
                                            "gic supported='no'")):
            self.assertIsNone(
                self.read('altra', Connection(answer)).gic_versions)

    def test_without_files_all_of_it_is_unknown(self) -> None:
        found = self.read('no-such-host')

        self.assertEqual((None, None, None), (
            found.cores, found.features, found.sve_lengths))


class ModesTest(base.TestCase):

    def test_modes_and_usable_models_are_those_that_libvirt_offers(
            self) -> None:
        connection = Connection()

        self.assertEqual(
            {'host-passthrough': frozenset(), 'maximum': frozenset(),
             'custom': frozenset(('cortex-a57',))},
            compute_cpu.offered_modes(connection))
        self.assertEqual((None, 'aarch64', 'virt', 'kvm', 0),
                         connection.asked)

    def test_a_libvirt_that_says_nothing_is_unknown(self) -> None:
        for answer in (libvirt.libvirtError('no'), '<domainCapabilities/>'):
            self.assertIsNone(
                compute_cpu.offered_modes(Connection(answer)))


class TellTest(base.TestCase):

    def test_what_one_host_tells_another_reads(self) -> None:
        known = cpu.parse_cpuinfo(cpus.cpuinfo('grace'))
        cpu_info: dict[str, object] = {'arch': 'aarch64'}

        compute_cpu.into_cpu_info(cpu_info, known)

        self.assertEqual('aarch64', cpu_info['arch'])
        self.assertEqual(known, compute_cpu.from_cpu_info(
            json.dumps(cpu_info)))

    def test_a_host_that_tells_nothing_is_unknown(self) -> None:
        for text in (None, '', '{}', '[]', '{"arm": 7}', '{"arch": "x86_64"}',
                     'no JSON'):
            self.assertEqual(cpu.Cpu(), compute_cpu.from_cpu_info(text))


class WhyNotTest(base.TestCase):

    def refusal(self, how: str) -> str | None:
        one, other = (cpu.Cpu(cores=(cpu.Core(midr),))
                      for midr in (0x413fd0c1, 0x481fd010))
        return compute_cpu.refusal(one, other, how,
                                   types.SimpleNamespace(uuid='x'))

    def test_a_refusal_says_what_and_by_which_option(self) -> None:
        for how, unknown in (('strict', True), ('compatible', False)):
            reason = self.refusal(how) or ''

            self.assertIn(f'[arm_cpu] compare = {how}', reason)
            self.assertIn('Kunpeng 920', reason)
            self.assertEqual(unknown, 'unknown' in reason)

    def test_what_is_no_reason_is_logged_and_with_off_nothing_is(
            self) -> None:
        self.assertIsNone(self.refusal('off'))
        self.assertEqual('', self.log.output)

        self.assertIsNone(self.refusal('warn'))
        self.assertIn('WARNING', self.log.output)
        self.assertIn('Kunpeng 920', self.log.output)
