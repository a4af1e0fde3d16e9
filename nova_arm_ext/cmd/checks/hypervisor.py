# SPDX-License-Identifier: Apache-2.0
"""libvirt, KVM and the hardware of the host."""

import os
import shutil
from collections.abc import Iterator

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import packages
from nova_arm_ext.cmd import inventory
from nova_arm_ext.cmd.checks.base import fault
from nova_arm_ext.cmd.checks.base import Finding
from nova_arm_ext.cmd.checks.base import not_applicable
from nova_arm_ext.cmd.checks.base import ok
from nova_arm_ext.cmd.checks.base import Silent
from nova_arm_ext.cmd.checks.base import Surroundings
from nova_arm_ext.cmd.checks.base import warning
from nova_arm_ext.compute import binding
from nova_arm_ext.domain import view

#: What nova-arm-ext works with: the oldest versions that Nova 31 to 34 start
#: with (MIN_LIBVIRT_VERSION, MIN_QEMU_VERSION). Nova 29 and 30 accept older
#: ones.
OLDEST_LIBVIRT = (8, 0, 0)
OLDEST_QEMU = (6, 2, 0)

#: The number of devices or files that are named; the rest is counted.
NAMED = 3


def some(names: list[str]) -> str:
    """A few names, and how many more there are."""
    more = len(names) - NAMED
    return ', '.join(names[:NAMED]) + (f' and {more} more' if more > 0 else '')


def libvirt(place: Surroundings) -> Iterator[Finding]:
    """Whether libvirt answers, and its versions."""
    try:
        survey = place.survey
    except Silent as e:
        for message in binding.faults():
            text, _, advice = message.partition(': ')
            yield fault(text, advice)
            return
        yield fault(
            str(e), 'start libvirtd (or virtqemud); in a container, mount its '
                    '/run/libvirt; run this as a user who may connect to it')
        return
    if survey.driver != 'QEMU':
        yield fault(f'{survey.uri} is the libvirt driver {survey.driver}, not '
                    f'QEMU', 'give another URI with --connect, such as '
                    'qemu:///system')
        return
    for name, version, oldest in (
            ('libvirt', survey.host.libvirt_version, OLDEST_LIBVIRT),
            ('QEMU', survey.host.qemu_version, OLDEST_QEMU)):
        if version is None:
            yield warning(f'the version of {name} is unknown',
                          'look into the log of libvirt')
        elif version < oldest:
            yield fault(
                f'{name} is {facts.format_version(version)}, and nova-arm-ext '
                f'needs {facts.format_version(oldest)}',
                f'install a newer {name}')
    version = survey.host.libvirt_version
    if version is not None and version >= facts.UNTRIED_LIBVIRT:
        yield warning(
            f'nobody has tried nova-arm-ext with libvirt '
            f'{facts.format_version(version)}',
            'create an instance of each kind that you use before you rely on '
            'it; a newer nova-arm-ext may know this libvirt')
    arches = sorted(view.ARM & (survey.host.virt_types or {}).keys())
    if 'aarch64' not in arches:
        yield fault(
            'libvirt offers no aarch64 guests: it has found no QEMU for '
            'AArch64',
            f'install it where libvirt runs '
            f'({place.package(packages.QEMU)}), and restart libvirt')
    elif survey.host.libvirt_version and survey.host.qemu_version:
        yield ok(
            f'libvirt {facts.format_version(survey.host.libvirt_version)}, '
            f'QEMU {facts.format_version(survey.host.qemu_version)} at '
            f'{survey.uri}, guests: {", ".join(arches)}')


def kvm(place: Surroundings) -> Iterator[Finding]:
    """Whether instances of the host's own architecture run with KVM."""
    survey = place.survey
    arch = survey.host.arch
    if arch not in view.ARM:
        yield not_applicable(f'this is an {arch} host, which emulates Arm '
                             f'instances')
        return
    if place.virt_type == 'qemu':
        yield warning('[libvirt] virt_type is qemu: all instances are '
                      'emulated', 'set it to kvm unless you want that')
        return
    offered = 'kvm' in (survey.host.virt_types or {}).get(arch, ())
    if not survey.is_local:
        if offered:
            yield ok(f'libvirt offers KVM for {arch}')
        else:
            yield fault(f'libvirt offers no KVM for {arch}',
                        'run this command on that host to see why')
        return
    if not os.path.exists(place.dev_kvm):
        text, advice = f'there is no {place.dev_kvm}', (
            'load the kernel module kvm; check that the firmware starts '
            'Linux at EL2; in a container, add the device')
        # nova-compute itself does not open it
        yield (warning if offered else fault)(text, advice)
        return
    try:
        os.close(os.open(place.dev_kvm, os.O_RDWR | os.O_CLOEXEC))
    except OSError as e:
        yield warning(
            f'{place.dev_kvm} cannot be opened: {e.strerror}',
            'add the user to the group that owns it (kvm)')
        return
    if offered:
        yield ok(f'libvirt offers KVM for {arch}')
    else:
        yield fault(f'{place.dev_kvm} exists, but libvirt offers no KVM for '
                    f'{arch}', 'check that QEMU\'s user may open it, then '
                    'restart libvirt, which caches what it found out')


def aarch32(place: Surroundings) -> Iterator[Finding]:
    """How 32-bit instances run."""
    host = place.survey.host
    if 'armv7l' not in (host.virt_types or {}):
        yield not_applicable('libvirt offers no armv7l guests')
    elif host.arch != 'aarch64':
        yield not_applicable(f'this is an {host.arch} host')
    elif host.aarch32_el1:
        yield ok('the cores run AArch32 at EL1: 32-bit instances run with KVM')
    elif host.aarch32_el1 is None:
        yield warning(
            'unknown whether the cores run AArch32 at EL1: KVM could not be '
            'asked; 32-bit instances are emulated',
            f'let this user open {place.dev_kvm}')
    else:
        yield ok('the cores do not run AArch32 at EL1: 32-bit instances are '
                 'emulated')


def gic(place: Surroundings) -> Iterator[Finding]:
    """Which interrupt controllers instances can have."""
    document = place.survey.domain_capabilities.get('aarch64')
    if document is None:
        yield not_applicable('libvirt has no domain capabilities for aarch64')
        return
    versions = [value.text for value in document.findall(
        "features/gic/enum[@name='version']/value")]
    if not versions:
        yield not_applicable('libvirt reports no GIC versions')
    elif versions == ['2']:
        yield warning('instances can only have a GIC of version 2, and at '
                      'most 8 vCPUs', 'use flavors with at most 8 vCPUs on '
                      'this host')
    else:
        yield ok(f'versions {", ".join(filter(None, versions))}')


def cores(place: Surroundings) -> Iterator[Finding]:
    """Whether all cores are of one kind."""
    known = place.survey.host.cpu
    kinds = None if known is None else known.cores
    if kinds is None:
        yield not_applicable('unknown which cores this host has')
        return
    names = ', '.join(map(str, kinds))
    if len(kinds) < 2:
        yield ok(names)
        return
    # the same options as Nova's, whose module cannot be imported here
    place.conf.register_opts([cfg.StrOpt('cpu_shared_set'),
                              cfg.StrOpt('cpu_dedicated_set')],
                             group='compute')
    chosen = [f'{name} = {value}' for name, value in (
        (name, place.conf.compute[name]) for name in (
            'cpu_shared_set', 'cpu_dedicated_set')) if value]
    if chosen:
        yield ok(f'{names}; [compute] {", ".join(chosen)} decides which of '
                 f'them instances use; each set must be of one kind')
    else:
        yield warning(
            f'this host has {len(kinds)} kinds of core: {names}; with KVM an '
            f'instance fails when one of its vCPUs moves to another kind',
            'limit [compute] cpu_shared_set to the cores of one kind')


def tpm(place: Surroundings) -> Iterator[Finding]:
    """Whether instances can have the virtual TPM that Nova advertises."""
    place.conf.register_opt(cfg.BoolOpt('swtpm_enabled', default=False),
                            group='libvirt')
    if not place.conf.libvirt.swtpm_enabled:
        yield not_applicable('[libvirt] swtpm_enabled is false: this host '
                             'refuses instances with a TPM')
        return
    survey = place.survey
    document = survey.domain_capabilities.get('aarch64')
    found = None if document is None else document.find('devices/tpm')
    if found is not None:
        there = 'emulator' in [value.text for value in found.iterfind(
            "enum[@name='backendModel']/value")]
    elif survey.is_local:
        there = all(map(shutil.which, ('swtpm', 'swtpm_setup')))
    else:
        yield not_applicable('unknown: libvirt does not show it')
        return
    if there:
        yield ok('libvirt has swtpm')
    else:
        yield fault(
            '[libvirt] swtpm_enabled is true, but libvirt has no swtpm: '
            'instances with a TPM fail',
            f'install it where libvirt runs '
            f'({place.package(packages.SWTPM)}), and restart libvirt')


def pci_devices(place: Surroundings) -> Iterator[Finding]:
    """Which PCI devices the inventory leaves out."""
    if place.survey.pci is None:
        yield not_applicable('this libvirt has no node devices')
        return
    try:
        settings, named = inventory.settings_of(place.conf)
    except errors.ConfigurationError as e:
        yield not_applicable(f'unknown: {"; ".join(e.faults)}')
        return
    listed = inventory.rows(place.survey.pci, settings, named)
    reasons = inventory.left_out(listed)
    broken = sorted(address for reason, addresses in reasons.items()
                    if reason.startswith(inventory.BROKEN)
                    for address in addresses)
    if broken:
        yield warning(
            f'{len(broken)} of {len(listed)} cannot be read: {some(broken)}',
            'the inventory has the others; "nova-arm-ext pci" says why, and '
            '[arm_pci] skip leaves them out without a warning')
        return
    skipped = '; '.join(f'{len(addresses)} {reason}'
                        for reason, addresses in reasons.items())
    yield ok(f'{len(listed)} devices' + (f', {skipped}' if skipped else ''))
