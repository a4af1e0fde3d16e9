# SPDX-License-Identifier: Apache-2.0
"""The CPU that a host gives its guests: comparison and traits.

A guest with KVM has the host's CPU, because ``host-passthrough`` is the only
mode that libvirt supports for it on Arm.
"""

import dataclasses
import enum
import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

GROUP = 'arm_cpu'

#: How strictly two hosts are compared before a live migration.
COMPARE = 'compare'

OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        COMPARE,
        default='compatible',
        choices=[
            ('strict', 'Refuse the migration if the two hosts differ in '
                       'anything, or if something is unknown.'),
            ('compatible', 'Refuse it if the guest would lose something that '
                           'it saw: another core, or a missing feature. '
                           'Other differences are logged.'),
            ('warn', 'Refuse nothing; log every difference.'),
            ('off', 'Compare nothing.')],
        help="""
What the destination of a live migration does when its CPU differs from the
source's. Instances that run with KVM have the host's own CPU on Arm, and KVM
does not let a guest continue on another core: before Linux 6.15 not even on
another revision of the same core. The destination compares MIDR and REVIDR,
the features of /proc/cpuinfo, SVE vector lengths, AArch32 at EL1, GIC
versions, page size and kernel. Each host publishes its own in the ``cpu_info``
of its compute node. libvirt cannot compare CPUs on Arm (error 84), so Nova's
own check, which would fail there, is skipped, whatever the value of
``[workarounds] skip_cpu_compare_on_dest``. Instances without KVM are not
compared.
"""),
)

#: Implementer and part of cores that servers have; Arm's, Cavium's and
#: HiSilicon's manuals, arch/arm64/include/asm/cputype.h in Linux.
NAMES: Mapping[tuple[int, int], str] = {
    (0x41, 0xd03): 'Arm Cortex-A53',
    (0x41, 0xd07): 'Arm Cortex-A57',
    (0x41, 0xd08): 'Arm Cortex-A72',
    (0x41, 0xd09): 'Arm Cortex-A73',
    (0x41, 0xd0b): 'Arm Cortex-A76',
    (0x41, 0xd0c): 'Arm Neoverse-N1',
    (0x41, 0xd40): 'Arm Neoverse-V1',
    (0x41, 0xd49): 'Arm Neoverse-N2',
    (0x41, 0xd4f): 'Arm Neoverse-V2',
    (0x41, 0xd84): 'Arm Neoverse-V3',
    (0x41, 0xd8e): 'Arm Neoverse-N3',
    (0x42, 0x516): 'Broadcom Vulcan (ThunderX2)',
    (0x43, 0x0a1): 'Cavium ThunderX',
    (0x43, 0x0af): 'Cavium ThunderX2',
    (0x46, 0x001): 'Fujitsu A64FX',
    (0x48, 0xd01): 'HiSilicon TSV110 (Kunpeng 920)',
    (0x50, 0x000): 'APM X-Gene',
    (0xc0, 0xac3): 'Ampere-1 (AmpereOne)',
    (0xc0, 0xac4): 'Ampere-1a (AmpereOne)',
}

#: Features in /proc/cpuinfo that do not depend on the core: the kernel makes
#: evtstrm and cpuid itself, and Linux 6.11 and newer hide ssbs on cores with
#: an erratum.
_KERNEL_MADE = frozenset(('evtstrm', 'cpuid', 'ssbs'))

#: Pointer authentication, of addresses and generic, in /proc/cpuinfo.
PAUTH = frozenset(('paca', 'pacg'))

_FIELDS = {name: re.compile(rf'^{label}\s*:\s*(.*)$', re.MULTILINE)
           for name, label in {
               'implementer': 'CPU implementer', 'variant': 'CPU variant',
               'part': 'CPU part', 'revision': 'CPU revision',
               'features': 'Features'}.items()}


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Core:
    """One kind of core.

    :param midr: the Main ID Register (MIDR_EL1): implementer, variant,
        architecture, part and revision
    :param revidr: the Revision ID Register (REVIDR_EL1), whose bits stand for
        fixes within a revision; -1 if it is unknown
    """

    midr: int
    revidr: int = -1

    @classmethod
    def of(cls, implementer: int, variant: int, part: int,
           revision: int) -> 'Core':
        """A core, by the fields of its MIDR as /proc/cpuinfo has them."""
        # the architecture is 15 in every AArch64 core: see the ID registers
        return cls(implementer << 24 | variant << 20 | 0xf << 16
                   | part << 4 | revision)

    @property
    def implementer(self) -> int:
        return self.midr >> 24 & 0xff

    @property
    def part(self) -> int:
        return self.midr >> 4 & 0xfff

    @property
    def stepping(self) -> str:
        """Variant and revision in Arm's words: ``r3p1``."""
        return f'r{self.midr >> 20 & 0xf}p{self.midr & 0xf}'

    def __str__(self) -> str:
        name = NAMES.get((self.implementer, self.part),
                         f'implementer {self.implementer:#04x} part '
                         f'{self.part:#05x}')
        more = f', REVIDR {self.revidr:#x}' if self.revidr > 0 else ''
        return f'{name} {self.stepping} (MIDR {self.midr:#010x}{more})'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """What is known about the CPUs of a host; None means unknown."""

    #: every kind of core, sorted; servers have one
    cores: tuple[Core, ...] | None = None
    #: in the words of /proc/cpuinfo, only those that KVM can give
    features: frozenset[str] | None = None
    #: bits of the SVE vectors that can be chosen; empty without SVE
    sve_lengths: tuple[int, ...] | None = None
    #: whether KVM can run AArch32 at EL1
    aarch32_el1: bool | None = None
    #: versions of the GIC that KVM can give
    gic_versions: tuple[int, ...] | None = None
    #: bytes of the host's memory pages
    page_size: int | None = None
    #: major and minor version of the kernel, ``6.1``
    kernel: str | None = None

    @property
    def has_sve(self) -> bool | None:
        return None if self.features is None else 'sve' in self.features

    @property
    def has_pauth(self) -> bool | None:
        # libvirt's and QEMU's pauth is both
        return None if self.features is None else self.features >= PAUTH

    def to_data(self) -> dict[str, Any]:
        """A form that JSON can carry; what is unknown is left out."""
        data: dict[str, Any] = {}
        if self.cores is not None:
            data['cores'] = [
                {'midr': f'{core.midr:#010x}',
                 **({} if core.revidr < 0 else
                    {'revidr': f'{core.revidr:#x}'})}
                for core in self.cores]
        if self.features is not None:
            data['features'] = sorted(self.features)
        for name in ('sve_lengths', 'gic_versions'):
            if getattr(self, name) is not None:
                data[name] = list(getattr(self, name))
        for name in ('aarch32_el1', 'page_size', 'kernel'):
            if getattr(self, name) is not None:
                data[name] = getattr(self, name)
        return data

    @classmethod
    def from_data(cls, data: Any) -> 'Cpu':
        """What ``to_data`` made, in this or another release.

        What cannot be understood is unknown: it may come from a newer
        release.
        """
        if not isinstance(data, dict):
            return cls()
        return cls(
            cores=_all(data.get('cores'), _core),
            features=(None if (found := _all(data.get('features'), _text))
                      is None else frozenset(found)),
            sve_lengths=_all(data.get('sve_lengths'), _number),
            gic_versions=_all(data.get('gic_versions'), _number),
            aarch32_el1=(data['aarch32_el1']
                         if isinstance(data.get('aarch32_el1'), bool)
                         else None),
            page_size=_number(data.get('page_size')),
            kernel=_text(data.get('kernel')))


def _all(values: Any, read: Any) -> Any:
    """Every value as it is read; None if one cannot be."""
    if not isinstance(values, list):
        return None
    found = tuple(read(value) for value in values)
    return None if None in found else found


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return (value if isinstance(value, int) and not isinstance(value, bool)
            else None)


def _core(value: Any) -> Core | None:
    if not isinstance(value, dict):
        return None
    try:
        return Core(int(value['midr'], 16), int(value.get('revidr', '-1'), 16))
    except (KeyError, TypeError, ValueError):
        return None


def parse_cpuinfo(text: str) -> Cpu:
    """What the ``/proc/cpuinfo`` of an AArch64 kernel contains.

    :param text: the file; that of another architecture gives nothing
    :returns: cores and features. Features are those that every core has.
    """
    cores = set()
    features: list[frozenset[str]] = []
    for block in re.split(r'\n\s*\n', text):
        found = {name: match[1].strip() for name, field in _FIELDS.items()
                 if (match := field.search(block))}
        if 'features' in found:
            features.append(frozenset(found.pop('features').split()))
        try:
            cores.add(Core.of(**{name: int(value, 16)
                                 for name, value in found.items()}))
        except (TypeError, ValueError):
            continue     # a block without a core, such as Hardware
    if not cores:
        return Cpu()
    return Cpu(cores=tuple(sorted(cores)),
               features=frozenset.intersection(*features)
               if features else None)


class Verdict(enum.Enum):
    """What a difference means to a guest that runs on the source."""

    LOST = 'the guest would lose something that it saw'
    DIFFERENT = 'the guest does not notice, as far as is known'
    UNKNOWN = 'it cannot be told'


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a destination is not the source.

    :param text: both values, in words
    """

    verdict: Verdict
    text: str


def compare(source: Cpu, destination: Cpu) -> tuple[Difference, ...]:
    """How a destination differs for a guest that has the source's CPU.

    KVM accepts the registers of a guest only if the host's own agree:
    MIDR and REVIDR cannot be written at all before Linux 6.15, the ID
    registers before 6.6, and later not beyond what the host has
    (Documentation/virt/kvm/api.rst, KVM_CAP_ARM_WRITABLE_IMP_ID_REGS).
    """
    found: list[Difference] = []

    def tell(verdict: Verdict, text: str) -> None:
        found.append(Difference(verdict, text))

    def both(what: str, name: str) -> bool:
        """Whether it is known of both and not the same."""
        values = {'source': getattr(source, name),
                  'destination': getattr(destination, name)}
        unknown = [where for where, value in values.items() if value is None]
        if unknown:
            tell(Verdict.UNKNOWN,
                 f'{what} of the {" and the ".join(unknown)} '
                 f'{"is" if len(unknown) == 1 else "are"} unknown')
        return not unknown and values['source'] != values['destination']

    if (both('the core', 'cores')
            and _known(source, destination) != _known(destination, source)):
        tell(Verdict.LOST, f'the core is {_listed(destination.cores)}, the '
                           f"source's {_listed(source.cores)}")
    if both('the features', 'features'):
        has = (destination.features or frozenset()) - _KERNEL_MADE
        had = (source.features or frozenset()) - _KERNEL_MADE
        if had - has:
            tell(Verdict.LOST, 'it has no ' + _listed(sorted(had - has)))
        if has - had:
            tell(Verdict.DIFFERENT,
                 'the source has no ' + _listed(sorted(has - had)))
    if both('the SVE vector length', 'sve_lengths'):
        # a guest without SVE does not see any; one with SVE sees them all
        tell(Verdict.LOST if source.sve_lengths else Verdict.DIFFERENT,
             f'its SVE vectors have {_listed(destination.sve_lengths)} bits, '
             f"the source's {_listed(source.sve_lengths)}")
    if both('AArch32 at EL1', 'aarch32_el1'):
        tell(*((Verdict.LOST, 'it runs no AArch32 at EL1')
               if source.aarch32_el1 else
               (Verdict.DIFFERENT, 'the source runs no AArch32 at EL1')))
    if both('the GIC version', 'gic_versions'):
        lost = set(source.gic_versions or ()) - set(
            destination.gic_versions or ())
        tell(Verdict.LOST if lost else Verdict.DIFFERENT,
             f'it gives GIC {_listed(destination.gic_versions)}, the source '
             f'GIC {_listed(source.gic_versions)}')
    if both('the page size', 'page_size'):
        tell(Verdict.DIFFERENT,
             f'its memory pages have {destination.page_size} bytes, the '
             f"source's {source.page_size}")
    if both('the kernel', 'kernel'):
        tell(Verdict.DIFFERENT, f'its kernel is Linux {destination.kernel}, '
                                f"the source's {source.kernel}")
    return tuple(found)


def _known(cpu: Cpu, other: Cpu) -> set[Core]:
    """The cores of one, without REVIDR unless it is known of all cores."""
    both = [core for one in (cpu, other) for core in one.cores or ()]
    if any(core.revidr < 0 for core in both):
        return {Core(core.midr) for core in cpu.cores or ()}
    return set(cpu.cores or ())


def refused(differences: Iterable[Difference],
            how: str) -> tuple[Difference, ...]:
    """The differences because of which a migration is refused.

    :param how: the value of ``[arm_cpu] compare``
    """
    wrong = {'strict': frozenset(Verdict),
             'compatible': frozenset((Verdict.LOST,))}.get(how, frozenset())
    return tuple(one for one in differences if one.verdict in wrong)


def traits(cpu: Cpu, standard: Collection[str]) -> frozenset[str]:
    """The traits of a host with this CPU.

    :param standard: the names that os-traits knows; a feature without one of
        them has no trait
    """
    found = {f'HW_CPU_AARCH64_{feature.upper()}'
             for feature in cpu.features or ()} & set(standard)
    for core in cpu.cores or ():
        name = f'CUSTOM_ARM_MIDR_{core.implementer:02X}_{core.part:03X}'
        found |= {name, f'{name}_{core.stepping.upper()}'}
    found |= {f'CUSTOM_ARM_SVE_{bits}' for bits in cpu.sve_lengths or ()}
    found |= {f'CUSTOM_ARM_GIC_V{version}'
              for version in cpu.gic_versions or ()}
    if cpu.has_pauth:
        found.add('CUSTOM_ARM_PAUTH')
    return frozenset(found)


def is_ours(trait: str) -> bool:
    """Whether this trait is set and removed only as ``traits`` says."""
    return trait == 'CUSTOM_ARM_PAUTH' or trait.startswith(
        ('HW_CPU_AARCH64_', 'CUSTOM_ARM_MIDR_', 'CUSTOM_ARM_SVE_',
         'CUSTOM_ARM_GIC_'))


def _listed(values: Iterable[Any] | None) -> str:
    """``a, b and c``; ``none`` if there is none."""
    *most, last = [str(value) for value in values or ()] or ['none']
    return f'{", ".join(most)} and {last}' if most else last
