# SPDX-License-Identifier: Apache-2.0
"""What Nova writes for Arm guests that libvirt or QEMU refuses.

A table of small rules. Each says for which libvirt versions and Nova releases
it is, and why, and can be disabled by its name.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from lxml import etree
from oslo_config import cfg
from oslo_config import types

from nova_arm_ext import errors
from nova_arm_ext.domain import cpu
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import scsi
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.firmware import Os
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.facts import format_version
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


def _drop(domain: Domain, part: str, name: str) -> str | None:
    """Remove every element of a name in a part of the domain.

    :returns: the place, if there was one
    """
    parent = domain.part(part)
    found = [] if parent is None else [e for e in parent if e.tag == name]
    for element in found:
        tree.detach(element)
    return f'{part}/{name}' if found else None


def _loader_secure(domain: Domain, facts: Facts) -> str | None:
    os = Os.of(domain)
    loader = tree.child(os.element, 'loader')
    if (not os.selection or loader is None or loader.text
            or loader.get('secure') != 'no'):
        return None
    del loader.attrib['secure']
    if not loader.attrib:
        tree.detach(loader)
    return 'os/loader/@secure'


def _ioapic(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'features', 'ioapic')


#: libvirt's <iommu model='virtio'> (NEWS)
_VIRTIO_IOMMU_SINCE = (8, 3, 0)

#: what Nova writes into <iommu><driver>; newer libvirt knows others that are
#: for Arm (pciBus, accel, ats, granule), which stay
_OF_X86 = frozenset(('intremap', 'iotlb', 'caching_mode', 'eim', 'aw_bits'))


def _iommu_driver(domain: Domain, facts: Facts) -> str | None:
    place = None
    for iommu in domain.all(devices.Iommu):
        if iommu.model not in ('smmuv3', 'virtio'):
            continue
        for driver in iommu.element.findall('driver'):
            found = _OF_X86.intersection(driver.attrib)
            if not found:
                continue
            for name in found:
                del driver.attrib[name]
            if not driver.attrib and not len(driver):
                tree.detach(driver)
            place = 'devices/iommu/driver'
    return place


def _iommu_auto(domain: Domain, facts: Facts) -> str | None:
    """Nova makes an smmuv3 of ``auto``."""
    wish = base.asked(domain, facts, 'hw:viommu_model')
    libvirt = facts.host.libvirt_version
    if (wish is None or wish.value != 'auto' or domain.arch != 'aarch64'
            # it needs ACPI to be found
            or tree.find(domain.element, ('features', 'acpi')) is None
            or (libvirt is not None and libvirt < _VIRTIO_IOMMU_SINCE)):
        return None
    had = domain.previous_of_same_arch
    before = () if had is None else had.all(devices.Iommu)
    place = None
    for iommu in domain.all(devices.Iommu):
        if iommu.model != 'smmuv3' or len(iommu.element):
            continue
        if (any(one.model == 'smmuv3' for one in before)
                and not _is_passed_through(domain)):
            continue
        iommu.model = 'virtio'
        place = 'devices/iommu/@model'
    return place


def _iommu_passthrough(domain: Domain, facts: Facts) -> str | None:
    if not _is_passed_through(domain):
        return None
    for iommu in domain.all(devices.Iommu):
        driver = tree.child(iommu.element, 'driver')
        if iommu.model == 'smmuv3' and (
                driver is None or driver.get('accel') != 'on'):
            raise errors.Refused(
                "devices of the host cannot be behind the IOMMU model "
                "'smmuv3', because it does not tell QEMU what the instance "
                "maps; set hw:viommu_model of the flavor or hw_viommu_model "
                "of the image to 'virtio', or remove it")
    return None


def _is_passed_through(domain: Domain) -> bool:
    """Whether the guest has a PCI device of the host."""
    return (any(device.type in ('pci', 'mdev')
                for device in domain.all(devices.Hostdev))
            or any(interface.type == 'hostdev'
                   for interface in domain.all(devices.Interface)))


def _hyperv(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'features', 'hyperv')


def _x86_timers(domain: Domain, facts: Facts) -> str | None:
    place = None
    clock = domain.part('clock')
    for timer in [] if clock is None else list(clock):
        if timer.get('name') in ('hypervclock', 'kvmclock', 'tsc'):
            tree.detach(timer)
            place = f"clock/timer[@name='{timer.get('name')}']"
    return place


def _maxphysaddr(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'cpu', 'maxphysaddr')


def _kvm_hidden(domain: Domain, facts: Facts) -> str | None:
    kvm = tree.find(domain.element, ('features', 'kvm'))
    hidden = None if kvm is None else tree.child(kvm, 'hidden')
    if hidden is None:
        return None
    tree.detach(hidden)
    if not len(kvm) and not kvm.attrib:
        tree.detach(kvm)     # an empty one says nothing
    return 'features/kvm/hidden'


def _smm(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'features', 'smm')


def _acpi_without_uefi(domain: Domain, facts: Facts) -> str | None:
    # without a kernel the guest needs UEFI, which the hook uefi adds
    if (domain.arch != 'aarch64' or not domain.kernel
            or Os.of(domain).has_uefi):
        return None
    return _drop(domain, 'features', 'acpi')


def _ide(domain: Domain, facts: Facts) -> str | None:
    return scsi.move_disks(domain, [disk for disk in domain.all(devices.Disk)
                                    if disk.bus == 'ide'])


def _cdrom_virtio(domain: Domain, facts: Facts) -> str | None:
    return scsi.move_disks(domain, [disk for disk in domain.all(devices.Disk)
                                    if disk.bus == 'virtio'
                                    and disk.device == 'cdrom'])


def _sata(domain: Domain, facts: Facts) -> str | None:
    if domain.kernel:
        return None     # Linux has a driver
    had = domain.previous_of_same_arch
    if had is not None and any(disk.bus == 'sata'
                               for disk in had.all(devices.Disk)):
        return None
    return scsi.move_disks(domain, [disk for disk in domain.all(devices.Disk)
                                    if disk.bus == 'sata'])


def _scsi_model(domain: Domain, facts: Facts) -> str | None:
    if not domain.is_virt:
        return None
    controllers = [c for c in domain.all(devices.Controller)
                   if c.type == 'scsi']
    place = _set_model(domain, 'scsi', 'virtio-scsi')
    # libvirt would add the missing ones as LSI, whatever the others are
    needed = {scsi.place(disk)[0] for disk in scsi.disks(domain).values()}
    for index in sorted(needed - set(range(len(controllers)))
                        - {c.index for c in controllers}):
        domain.add(devices.Controller, type='scsi', index=index,
                   model='virtio-scsi')
        place = place or 'devices/controller'
    return place


def _usb_model(domain: Domain, facts: Facts) -> str | None:
    return _set_model(domain, 'usb', 'qemu-xhci') if domain.is_virt else None


def _set_model(domain: Domain, kind: str, model: str) -> str | None:
    place = None
    for controller in domain.all(devices.Controller):
        if controller.type == kind and controller.model is None:
            controller.model = model
            place = f"devices/controller[@type='{kind}']/@model"
    return place


def _watchdog(domain: Domain, facts: Facts) -> str | None:
    place = None
    for watchdog in domain.all(devices.Watchdog):
        if watchdog.model == 'ib700':
            watchdog.model = 'i6300esb'
            place = 'devices/watchdog/@model'
    return place


def _tpm_model(domain: Domain, facts: Facts) -> str | None:
    place = None
    for tpm in domain.all(devices.Tpm):
        if tpm.model == 'tpm-crb':
            tpm.model = 'tpm-tis'
            place = 'devices/tpm/@model'
    return place


def _iommu_intel(domain: Domain, facts: Facts) -> str | None:
    if any(iommu.model == 'intel' for iommu in domain.all(devices.Iommu)):
        raise errors.Refused(
            "the IOMMU model 'intel' exists only on x86; set hw:viommu_model "
            "of the flavor or hw_viommu_model of the image to 'auto', "
            "'smmuv3' or 'virtio'")
    return None


def _tpm_version(domain: Domain, facts: Facts) -> str | None:
    for tpm in domain.all(devices.Tpm):
        if tpm.version == '1.2':
            raise errors.Refused(
                "Arm machines have no TPM version 1.2; set hw:tpm_version "
                "of the flavor or hw_tpm_version of the image to '2.0'")
    return None


def _sound_virtio(domain: Domain, facts: Facts) -> str | None:
    if (facts.host.libvirt_version is not None
            and any(sound.model == 'virtio'
                    for sound in domain.all(devices.Sound))):
        raise errors.Refused(
            f"the sound model 'virtio' needs libvirt 10.4.0, but this host "
            f'has {format_version(facts.host.libvirt_version)}; choose '
            f'another hw_sound_model or another host', this_host=True)
    return None


def _host_model(domain: Domain, facts: Facts) -> str | None:
    if cpu.mode(domain) != 'host-model':
        return None
    domain.child('cpu').set('mode', 'host-passthrough'
                            if domain.virt_type == 'kvm' else 'maximum')
    return 'cpu/@mode'


def _host_passthrough(domain: Domain, facts: Facts) -> str | None:
    if domain.virt_type != 'qemu' or cpu.mode(domain) != 'host-passthrough':
        return None
    domain.child('cpu').set('mode', 'maximum')
    return 'cpu/@mode'


def _no_cpu_model(domain: Domain, facts: Facts) -> str | None:
    """libvirt and QEMU then choose a Cortex-A15.

    With KVM it does not start; emulated, 64-bit firmware does not run on it.
    """
    if (domain.arch != 'aarch64' or not domain.is_virt
            or cpu.mode(domain) != 'custom' or cpu.model(domain)):
        return None
    had = domain.previous_of_same_arch
    if had is not None and cpu.mode(had) == 'custom' and (
            domain.virt_type != 'qemu' or domain.kernel):
        return None     # whatever it runs on, it stays
    mode = 'host-passthrough' if domain.virt_type == 'kvm' else 'maximum'
    return 'cpu' if cpu.choose(domain, mode, None) else None


def _emulated_cpu(domain: Domain, facts: Facts) -> str | None:
    """Nova names this model, without a mode, for whatever it emulates."""
    found = domain.part('cpu')
    if (domain.virt_type != 'qemu' or domain.arch != 'aarch64'
            or not domain.is_virt or found is None or found.get('mode')
            or cpu.model(domain) != 'cortex-a57'):
        return None
    had = domain.previous_of_same_arch
    if had is None:
        wanted = facts.host.arch not in (None, 'aarch64')
    else:
        wanted = cpu.mode(had) == 'maximum'
    if wanted and cpu.choose(domain, 'maximum', None):
        return 'cpu'
    return None


def _gic_version(domain: Domain, facts: Facts) -> str | None:
    gic = tree.find(domain.element, ('features', 'gic'))
    asked = None if gic is None else gic.get('version')
    if ((domain.vcpus or 0) <= _GIC_2_VCPUS or not domain.is_virt
            or asked not in (None, '2')):
        return None
    if domain.virt_type == 'kvm':
        host = facts.host.cpu
        if host is not None and host.gic_versions == (2,):
            raise _too_many_vcpus(domain, 'KVM on this host offers only',
                                  this_host=True)
        return None
    if domain.virt_type != 'qemu':
        return None
    if domain.arch == 'armv7l' and not _had_gic_3(domain):
        # QEMU for 32-bit Arm has no gic-version in libvirt (9.0.0)
        raise _too_many_vcpus(domain, 'an emulated 32-bit instance has')
    features = domain.child('features')
    if gic is None:
        gic = etree.SubElement(features, 'gic')
    gic.set('version', '3')
    return 'features/gic/@version'


def _had_gic_3(domain: Domain) -> bool:
    had = domain.previous_of_same_arch
    gic = None if had is None else tree.find(had.element,
                                             ('features', 'gic'))
    return gic is not None and gic.get('version') == '3'


def _too_many_vcpus(domain: Domain, why: str, *,
                    this_host: bool = False) -> errors.Refused:
    return errors.Refused(
        f'the instance has {domain.vcpus} vCPUs, but {why} an interrupt '
        f'controller (GIC) of version 2, which is for at most '
        f'{_GIC_2_VCPUS}; use a flavor with fewer vCPUs'
        f'{" or another host" if this_host else ""}', this_host=this_host)


#: QEMU, hw/intc/arm_gic.c
_GIC_2_VCPUS = 8

#: In the order in which they are applied.
RULES: tuple[Rule, ...] = (
    Rule(name='loader_secure', words=('loader',), apply=_loader_secure,
         nova='33, 34', since=(8, 6, 0), until=(9, 2, 0),
         reason="libvirt 8.6 to 9.1 refuses 'secure' beside firmware "
                'selection; without it Secure Boot is not asked for either'),
    Rule(name='ioapic', words=('ioapic',), apply=_ioapic, nova='29 to 34',
         reason='libvirt refuses the feature, which only x86 has'),
    Rule(name='iommu_driver', words=('iommu',), apply=_iommu_driver,
         nova='29 to 34',
         reason='libvirt knows these attributes only for IOMMUs of x86'),
    Rule(name='hyperv', words=('hyperv',), apply=_hyperv, nova='29 to 34',
         reason='QEMU has Hyper-V enlightenments only on x86'),
    Rule(name='x86_timers', words=('timer',), apply=_x86_timers,
         nova='29 to 34',
         reason='libvirt refuses the timer, which only x86 has'),
    Rule(name='maxphysaddr', words=('maxphysaddr',), apply=_maxphysaddr,
         nova='29 to 34',
         reason='libvirt refuses it except for x86 CPUs'),
    Rule(name='kvm_hidden', words=('kvm',), apply=_kvm_hidden,
         nova='29 to 34',
         reason='QEMU refuses it: Arm CPUs have no hypervisor signature'),
    Rule(name='smm', words=('smm',), apply=_smm, nova='29 to 34',
         reason='QEMU has System Management Mode only on x86'),
    Rule(name='acpi_without_uefi', words=('kernel',), apply=_acpi_without_uefi,
         nova='29 to 34',
         reason='libvirt refuses ACPI without UEFI on aarch64; the guest '
                'gets a device tree'),
    Rule(name='iommu_auto', words=('iommu',), apply=_iommu_auto,
         nova='29 to 34', refused=False,
         reason='only a virtio one works with devices of the host, and it '
                'works with all others'),
    Rule(name='iommu_passthrough', words=('iommu',),
         apply=_iommu_passthrough, nova='29 to 34',
         reason='QEMU refuses devices of the host behind an smmuv3'),
    Rule(name='ide', words=('ide',), apply=_ide, nova='29 to 34',
         reason='the virt machine has no IDE; on SCSI the disk keeps its '
                'target name'),
    Rule(name='cdrom_virtio', words=('cdrom',), apply=_cdrom_virtio,
         nova='29 to 34',
         reason='libvirt refuses removable media on virtio'),
    Rule(name='sata', words=('sata',), apply=_sata, nova='29 to 34',
         refused=False,
         reason='the firmware has no driver for it and does not see the '
                'disk; on SCSI the disk keeps its target name'),
    Rule(name='scsi_model', words=('scsi', 'ide', 'sata', 'cdrom'),
         apply=_scsi_model, nova='29 to 34', until=(11, 6, 0), refused=False,
         reason='libvirt before 11.6 uses the LSI 53c895a, for which Arm '
                'images have no driver'),
    Rule(name='usb_model', words=('controller',), apply=_usb_model,
         nova='29 to 34', until=(11, 9, 0),
         refused=False,
         reason='libvirt before 11.9 uses piix3-uhci on armv7l; qemu-xhci '
                'is on PCI Express'),
    Rule(name='watchdog', words=('watchdog',), apply=_watchdog,
         nova='29 to 34',
         reason='QEMU has the ib700 only on x86; i6300esb does the same'),
    Rule(name='tpm_model', words=('tpm',), apply=_tpm_model, nova='29 to 34',
         reason='libvirt refuses the CRB interface on Arm; TIS does the '
                'same'),
    Rule(name='iommu_intel', words=('iommu',), apply=_iommu_intel,
         nova='29 to 34', reason='libvirt refuses it on Arm'),
    Rule(name='tpm_version', words=('tpm',), apply=_tpm_version,
         nova='29 to 34', reason='libvirt refuses it on Arm'),
    Rule(name='sound_virtio', words=('sound',), apply=_sound_virtio,
         nova='32 to 34', until=(10, 4, 0),
         reason='libvirt before 10.4 does not know it'),
    Rule(name='host_model', words=('host-model',), apply=_host_model,
         nova='29 to 34',
         reason='libvirt has no host-model on Arm; the host CPU is passed '
                'through'),
    Rule(name='host_passthrough', words=('host-passthrough',),
         apply=_host_passthrough, nova='29 to 34',
         reason='libvirt passes the host CPU through only with KVM; an '
                'emulated guest gets all that QEMU can emulate'),
    Rule(name='no_cpu_model', words=('type',), apply=_no_cpu_model,
         nova='29 to 34',
         reason='without a model it is a 32-bit Cortex-A15, which 64-bit '
                'firmware and KVM cannot use'),
    Rule(name='emulated_cpu', words=('model',), apply=_emulated_cpu,
         nova='29 to 34', refused=False,
         reason='Nova names a Cortex-A57 for each guest that an x86 host '
                'emulates; a new guest gets all that QEMU can emulate'),
    Rule(name='gic_version', words=('type',), apply=_gic_version,
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
