# SPDX-License-Identifier: Apache-2.0
"""What Nova writes for Arm guests that libvirt or QEMU refuses.

A table of small rules. Each says for which libvirt versions and Nova releases
it is, and why, and can be disabled by its name.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from oslo_config import types

from nova_arm_ext import compat
from nova_arm_ext import errors
from nova_arm_ext.domain import cpu
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.facts import Version
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One thing that Nova writes and that does not work on Arm.

    :param words: names of elements two levels below <domain>, of which the
        document has at least one if there is anything to do; or the device
        or bus of a disk, or the mode of the CPU
    :param nova: the Nova releases that write it
    :param since, until: the first libvirt that refuses it and the first that
        accepts it again; None for all of them. If the host's version is
        unknown the rule is applied, because all versions accept the result
        of every rule.
    :param reason: who refuses it and why, for the report
    :param refused: whether libvirt or QEMU refuses a guest with it; otherwise
        the guest starts, with a device that does not work
    """

    name: str
    words: tuple[str, ...]
    nova: str
    since: Version | None = None
    until: Version | None = None
    reason: str
    refused: bool = True
    apply: Callable[[Domain, Facts], str | None]

    def concerns(self, libvirt: Version | None) -> bool:
        """Whether a host with this libvirt needs the rule."""
        return libvirt is None or (
            (self.since is None or libvirt >= self.since)
            and (self.until is None or libvirt < self.until))


#: libvirt's <iommu model='virtio'> (NEWS)
_VIRTIO_IOMMU_SINCE = (8, 3, 0)


def _iommu_auto(domain: Domain, facts: Facts) -> str | None:
    """Nova makes an smmuv3 of ``auto``."""
    wish = base.asked(domain, facts, 'hw:viommu_model')
    libvirt = facts.host.libvirt_version
    if (wish is None or wish.value != 'auto' or domain.arch != 'aarch64'
            # it needs ACPI to be found
            or tree.find(domain.element, ('features', 'acpi')) is None
            or (libvirt is not None and libvirt < _VIRTIO_IOMMU_SINCE)
            or 'virtio-iommu-pci' in (facts.host.lacks or ())):
        return None
    had = domain.previous_of_same_arch
    before = () if had is None else had.all(devices.Iommu)
    place = None
    for iommu in domain.all(devices.Iommu):
        if iommu.model != 'smmuv3' or len(iommu.element):
            continue
        if (any(one.model == 'smmuv3' for one in before)
                and not compat.is_passed_through(domain)):
            continue
        iommu.model = 'virtio'
        place = 'devices/iommu/@model'
    return place


#: In the order in which they are applied.
RULES: tuple[Rule, ...] = (
    Rule(name='loader_secure', words=('loader',), apply=compat.loader_secure,
         nova='33, 34', since=(8, 6, 0), until=(9, 2, 0),
         reason="libvirt 8.6 to 9.1 refuses 'secure' beside firmware "
                'selection; without it Secure Boot is not asked for either'),
    Rule(name='ioapic', words=('ioapic',), apply=compat.ioapic,
         nova='29 to 34',
         reason='libvirt refuses the feature, which only x86 has'),
    Rule(name='iommu_driver', words=('iommu',), apply=compat.iommu_driver,
         nova='29 to 34',
         reason='libvirt knows these attributes only for IOMMUs of x86'),
    Rule(name='hyperv', words=('hyperv',), apply=compat.hyperv,
         nova='29 to 34',
         reason='QEMU has Hyper-V enlightenments only on x86'),
    Rule(name='x86_timers', words=('timer',), apply=compat.x86_timers,
         nova='29 to 34',
         reason='libvirt refuses the timer, which only x86 has'),
    Rule(name='maxphysaddr', words=('maxphysaddr',), apply=compat.maxphysaddr,
         nova='29 to 34',
         reason='libvirt refuses it except for x86 CPUs'),
    Rule(name='kvm_hidden', words=('kvm',), apply=compat.kvm_hidden,
         nova='29 to 34',
         reason='QEMU refuses it: Arm CPUs have no hypervisor signature'),
    Rule(name='smm', words=('smm',), apply=compat.smm, nova='29 to 34',
         reason='QEMU has System Management Mode only on x86'),
    Rule(name='acpi_without_uefi', words=('kernel',),
         apply=compat.acpi_without_uefi, nova='29 to 34',
         reason='libvirt refuses ACPI without UEFI on aarch64; the guest '
                'gets a device tree'),
    Rule(name='iommu_auto', words=('iommu',), apply=_iommu_auto,
         nova='29 to 34', refused=False,
         reason='only a virtio one works with devices of the host, and it '
                'works with all others'),
    Rule(name='iommu_passthrough', words=('iommu',),
         apply=compat.iommu_passthrough, nova='29 to 34',
         reason='QEMU refuses devices of the host behind an smmuv3'),
    Rule(name='ide', words=('ide',), apply=compat.ide, nova='29 to 34',
         reason='the virt machine has no IDE; on SCSI the disk keeps its '
                'target name'),
    Rule(name='cdrom_virtio', words=('cdrom',), apply=compat.cdrom_virtio,
         nova='29 to 34',
         reason='libvirt refuses removable media on virtio'),
    Rule(name='sata', words=('sata',), apply=compat.sata, nova='29 to 34',
         refused=False,
         reason='the firmware has no driver for it and does not see the '
                'disk; on SCSI the disk keeps its target name'),
    Rule(name='scsi_model', words=('scsi', 'ide', 'sata', 'cdrom'),
         apply=compat.scsi_model, nova='29 to 34', until=(11, 6, 0),
         refused=False,
         reason='libvirt before 11.6 uses the LSI 53c895a, for which Arm '
                'images have no driver'),
    Rule(name='usb_model', words=('controller',), apply=compat.usb_model,
         nova='29 to 34', until=(11, 9, 0),
         refused=False,
         reason='libvirt before 11.9 uses piix3-uhci on armv7l; qemu-xhci '
                'is on PCI Express'),
    Rule(name='watchdog', words=('watchdog',), apply=compat.watchdog,
         nova='29 to 34',
         reason='QEMU has the ib700 only on x86; i6300esb does the same'),
    Rule(name='tpm_model', words=('tpm',), apply=compat.tpm_model,
         nova='29 to 34',
         reason='libvirt refuses the CRB interface on Arm; TIS does the '
                'same'),
    Rule(name='lacking_device', words=('watchdog', 'tpm', 'iommu'),
         apply=compat.lacking_device, nova='29 to 34',
         reason='QEMU refuses a device that it was built without'),
    Rule(name='iommu_intel', words=('iommu',), apply=compat.iommu_intel,
         nova='29 to 34', reason='libvirt refuses it on Arm'),
    Rule(name='tpm_version', words=('tpm',), apply=compat.tpm_version,
         nova='29 to 34', reason='libvirt refuses it on Arm'),
    Rule(name='sound_virtio', words=('sound',), apply=compat.sound_virtio,
         nova='32 to 34', until=(10, 4, 0),
         reason='libvirt before 10.4 does not know it'),
    Rule(name='sound_isa', words=('sound',), apply=compat.sound_isa,
         nova='32 to 34',
         reason='QEMU has no ISA bus on Arm'),
    Rule(name='machine', words=('type',), apply=compat.machine,
         nova='29 to 34',
         reason='libvirt refuses a machine that QEMU does not have'),
    Rule(name='host_model', words=('host-model',), apply=compat.host_model,
         nova='29 to 34',
         reason='libvirt has no host-model on Arm; the host CPU is passed '
                'through'),
    Rule(name='host_passthrough', words=('host-passthrough',),
         apply=compat.host_passthrough, nova='29 to 34',
         reason='libvirt passes the host CPU through only with KVM; an '
                'emulated guest gets all that QEMU can emulate'),
    Rule(name='no_cpu_model', words=('custom',), apply=compat.no_cpu_model,
         nova='29 to 34',
         reason='without a model it is a 32-bit Cortex-A15, which 64-bit '
                'firmware and KVM cannot use'),
    Rule(name='emulated_cpu', words=('model',), apply=compat.emulated_cpu,
         nova='29 to 34', refused=False,
         reason='Nova names a Cortex-A57 for each guest that an x86 host '
                'emulates; a new guest gets all that QEMU can emulate'),
    Rule(name='gic_version', words=('type',), apply=compat.gic_version,
         nova='29 to 34',
         reason='machines with GIC version 2 can have at most eight vCPUs'),
)


class LibvirtCompat(base.Hook):
    """Remove or replace what libvirt or QEMU refuses on Arm.

    An existing guest keeps the controllers that it has: they are restored
    from its previous document before, and the rules only fill what is left
    open.

    Before (Nova 34, refused by libvirt 9.0.0)::

        <os firmware='efi'>
          <loader secure='no'/>

    After::

        <os firmware='efi'>
    """

    order = base.FIRST
    opts = (
        cfg.ListOpt(
            'disabled_rules',
            default=[],
            item_type=types.String(choices=[rule.name for rule in RULES]),
            help="""
Names of rules that are not applied. Each rule removes or replaces one thing
that Nova writes and that libvirt or QEMU refuses for Arm instances, if the
host's libvirt version needs it. Without the rule such instances fail, unless
the cause is gone.
"""),
    )

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._enabled = tuple(rule for rule in RULES
                              if rule.name not in options.disabled_rules)

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        self._apply(domain, facts, report)

    def keep(self, domain: Domain, facts: Facts, report: Report) -> None:
        # all but the rules that refuse
        self._apply(domain, facts, report, existing=True)

    def _apply(self, domain: Domain, facts: Facts, report: Report, *,
               existing: bool = False) -> None:
        words = _words(domain)
        for rule in self._enabled:
            if (words.isdisjoint(rule.words)
                    or not rule.concerns(facts.host.libvirt_version)):
                continue
            try:
                place = rule.apply(domain, facts)
            except errors.Refused:
                if not existing:
                    raise
                continue
            if place is not None:
                report.because(place, f'{rule.reason} (rule {rule.name})',
                               essential=rule.refused)


def _words(domain: Domain) -> set[str | None]:
    """What a document says of the words of all rules."""
    words = {element.tag for part in domain.element for element in part}
    for disk in domain.all(devices.Disk):
        words |= {disk.device, disk.bus}
    return words | {cpu.mode(domain)}
