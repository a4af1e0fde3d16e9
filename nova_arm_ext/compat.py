# SPDX-License-Identifier: Apache-2.0
"""What libvirt or QEMU refuses on Arm, put right in a domain document.

Each function is for one thing that Nova writes. It returns the place of what
it has changed, None where there is nothing to change, and raises Refused where
nothing can take its place. The hook libvirt_compat says for which versions
each is, and why.
"""

import re
from typing import Any

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain import cpu
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import scsi
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.firmware import Os
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.facts import format_version


def _drop(domain: Domain, part: str, name: str) -> str | None:
    """Remove every element of a name in a part of the domain.

    :returns: the place, if there was one
    """
    parent = domain.part(part)
    found = [] if parent is None else [e for e in parent if e.tag == name]
    for element in found:
        tree.detach(element)
    return f'{part}/{name}' if found else None


def loader_secure(domain: Domain, facts: Facts) -> str | None:
    os = Os.of(domain)
    loader = tree.child(os.element, 'loader')
    if (not os.selection or loader is None or loader.text
            or loader.get('secure') != 'no'):
        return None
    del loader.attrib['secure']
    if not loader.attrib:
        tree.detach(loader)
    return 'os/loader/@secure'


def ioapic(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'features', 'ioapic')


#: QEMU, hw/intc/arm_gic.c
_GIC_2_VCPUS = 8

#: what Nova writes into <iommu><driver>; newer libvirt knows others that are
#: for Arm (pciBus, accel, ats, granule), which stay
_OF_X86 = frozenset(('intremap', 'iotlb', 'caching_mode', 'eim', 'aw_bits'))


def iommu_driver(domain: Domain, facts: Facts) -> str | None:
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


def iommu_passthrough(domain: Domain, facts: Facts) -> str | None:
    if not is_passed_through(domain):
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


def is_passed_through(domain: Domain) -> bool:
    """Whether the guest has a PCI device of the host."""
    return (any(device.type in ('pci', 'mdev')
                for device in domain.all(devices.Hostdev))
            or any(interface.type == 'hostdev'
                   for interface in domain.all(devices.Interface)))


def hyperv(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'features', 'hyperv')


def x86_timers(domain: Domain, facts: Facts) -> str | None:
    place = None
    clock = domain.part('clock')
    for timer in [] if clock is None else list(clock):
        if timer.get('name') in ('hypervclock', 'kvmclock', 'tsc'):
            tree.detach(timer)
            place = f"clock/timer[@name='{timer.get('name')}']"
    return place


def maxphysaddr(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'cpu', 'maxphysaddr')


def kvm_hidden(domain: Domain, facts: Facts) -> str | None:
    kvm = tree.find(domain.element, ('features', 'kvm'))
    hidden = None if kvm is None else tree.child(kvm, 'hidden')
    if hidden is None:
        return None
    tree.detach(hidden)
    if not len(kvm) and not kvm.attrib:
        tree.detach(kvm)     # an empty one says nothing
    return 'features/kvm/hidden'


def smm(domain: Domain, facts: Facts) -> str | None:
    return _drop(domain, 'features', 'smm')


def acpi_without_uefi(domain: Domain, facts: Facts) -> str | None:
    # without a kernel the guest needs UEFI, which the hook uefi adds
    if (domain.arch != 'aarch64' or not domain.kernel
            or Os.of(domain).has_uefi):
        return None
    return _drop(domain, 'features', 'acpi')


def ide(domain: Domain, facts: Facts) -> str | None:
    return scsi.move_disks(domain, [disk for disk in domain.all(devices.Disk)
                                    if disk.bus == 'ide'])


def cdrom_virtio(domain: Domain, facts: Facts) -> str | None:
    return scsi.move_disks(domain, [disk for disk in domain.all(devices.Disk)
                                    if disk.bus == 'virtio'
                                    and disk.device == 'cdrom'])


def sata(domain: Domain, facts: Facts) -> str | None:
    if domain.kernel:
        return None     # Linux has a driver
    had = domain.previous_of_same_arch
    if had is not None and any(disk.bus == 'sata'
                               for disk in had.all(devices.Disk)):
        return None
    return scsi.move_disks(domain, [disk for disk in domain.all(devices.Disk)
                                    if disk.bus == 'sata'])


def scsi_model(domain: Domain, facts: Facts) -> str | None:
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


def usb_model(domain: Domain, facts: Facts) -> str | None:
    return _set_model(domain, 'usb', 'qemu-xhci') if domain.is_virt else None


def _set_model(domain: Domain, kind: str, model: str) -> str | None:
    place = None
    for controller in domain.all(devices.Controller):
        if controller.type == kind and controller.model is None:
            controller.model = model
            place = f"devices/controller[@type='{kind}']/@model"
    return place


def watchdog(domain: Domain, facts: Facts) -> str | None:
    place = None
    for watchdog in domain.all(devices.Watchdog):
        if watchdog.model == 'ib700':
            watchdog.model = 'i6300esb'
            place = 'devices/watchdog/@model'
    return place


def tpm_model(domain: Domain, facts: Facts) -> str | None:
    place = None
    for tpm in domain.all(devices.Tpm):
        if tpm.model == 'tpm-crb':
            tpm.model = 'tpm-tis'
            place = 'devices/tpm/@model'
    return place


def iommu_intel(domain: Domain, facts: Facts) -> str | None:
    if any(iommu.model == 'intel' for iommu in domain.all(devices.Iommu)):
        raise errors.Refused(
            "the IOMMU model 'intel' exists only on x86; set hw:viommu_model "
            "of the flavor or hw_viommu_model of the image to 'auto', "
            "'smmuv3' or 'virtio'")
    return None


def tpm_version(domain: Domain, facts: Facts) -> str | None:
    for tpm in domain.all(devices.Tpm):
        if tpm.version == '1.2':
            raise errors.Refused(
                "Arm machines have no TPM version 1.2; set hw:tpm_version "
                "of the flavor or hw_tpm_version of the image to '2.0'")
    return None


def sound_virtio(domain: Domain, facts: Facts) -> str | None:
    if (facts.host.libvirt_version is not None
            and any(sound.model == 'virtio'
                    for sound in domain.all(devices.Sound))):
        raise errors.Refused(
            f"the sound model 'virtio' needs libvirt 10.4.0, but this host "
            f'has {format_version(facts.host.libvirt_version)}; choose '
            f'another hw_sound_model or another host', this_host=True)
    return None


def host_model(domain: Domain, facts: Facts) -> str | None:
    if cpu.mode(domain) != 'host-model':
        return None
    domain.child('cpu').set('mode', 'host-passthrough'
                            if domain.virt_type == 'kvm' else 'maximum')
    return 'cpu/@mode'


def host_passthrough(domain: Domain, facts: Facts) -> str | None:
    if domain.virt_type != 'qemu' or cpu.mode(domain) != 'host-passthrough':
        return None
    domain.child('cpu').set('mode', 'maximum')
    return 'cpu/@mode'


def no_cpu_model(domain: Domain, facts: Facts) -> str | None:
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


#: With older QEMU a guest takes twice as long to boot with mode='maximum'
#: (7.2, against cortex-a57, each several times): it emulates pointer
#: authentication exactly.
_QUICK_MAXIMUM = (10, 0, 0)


def emulated_cpu(domain: Domain, facts: Facts) -> str | None:
    """Nova names this model, without a mode, for whatever it emulates."""
    found = domain.part('cpu')
    if (domain.virt_type != 'qemu' or domain.arch != 'aarch64'
            or not domain.is_virt or found is None or found.get('mode')
            or cpu.model(domain) != 'cortex-a57'):
        return None
    had = domain.previous_of_same_arch
    if had is None:
        qemu = facts.host.qemu_version
        wanted = (facts.host.arch not in (None, 'aarch64')
                  and qemu is not None and qemu >= _QUICK_MAXIMUM)
    else:
        wanted = cpu.mode(had) == 'maximum'
    if wanted and cpu.choose(domain, 'maximum', None):
        return 'cpu'
    return None


def gic_version(domain: Domain, facts: Facts) -> str | None:
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


#: What builds of QEMU leave out: kind of device, model, QEMU's name of it, and
#: the image property that asks for it.
_OPTIONAL: tuple[tuple[Any, str, str, str], ...] = (
    (devices.Watchdog, 'i6300esb', 'i6300esb', 'hw_watchdog_action'),
    (devices.Tpm, 'tpm-tis', 'tpm-tis-device', 'hw_tpm_version'),
    (devices.Iommu, 'virtio', 'virtio-iommu-pci', 'hw_viommu_model'))

#: The devices that hooks ask about.
ASKED_ABOUT = (*(name for _, _, name, _ in _OPTIONAL), 'ramfb')


def lacking_device(domain: Domain, facts: Facts) -> str | None:
    lacks = facts.host.lacks
    for kind, model, name, asked_by in _OPTIONAL if lacks else ():
        if name in (lacks or ()) and any(
                device.model == model for device in domain.all(kind)):
            raise errors.Refused(
                f'QEMU on this host was built without the {kind.tag} '
                f'{model}; remove {asked_by} from the image and its like '
                f'from the flavor, or boot the instance on another host',
                this_host=True)
    return None


def machine(domain: Domain, facts: Facts) -> str | None:
    """QEMU drops old machines.

    One that is newer than all that are known may be there: QEMU may have been
    updated since the facts were read.
    """
    wanted, there = domain.machine or '', facts.host.machines or ()
    number = _machine_number(wanted)
    known = [one for one in map(_machine_number, there) if one]
    if number and known and number < min(known):
        raise errors.Refused(
            f'QEMU on this host does not have the machine {wanted}; set '
            f'hw_machine_type of the image to virt or one of '
            f'{", ".join(there)}, or boot the instance on another host',
            this_host=True)
    return None


def _machine_number(machine: str) -> tuple[int, int] | None:
    """Of a versioned ``virt``, such as (7, 2); None of another machine."""
    found = re.fullmatch(r'virt-(\d+)\.(\d+)', machine)
    return (int(found[1]), int(found[2])) if found else None


def sound_isa(domain: Domain, facts: Facts) -> str | None:
    for sound in domain.all(devices.Sound):
        if sound.model in ('sb16', 'pcspk'):
            raise errors.Refused(
                f'the sound model {sound.model!r} is for the ISA bus, which '
                f'Arm machines do not have; choose another hw_sound_model')
    return None
