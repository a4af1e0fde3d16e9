# SPDX-License-Identifier: Apache-2.0
"""Facts about this host, kept for a while."""

import dataclasses
import os
import time
from typing import Any

import nova.conf
import os_traits
from oslo_log import log as logging

from nova_arm_ext import cpu
from nova_arm_ext import facts
from nova_arm_ext.compute import gather
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain.view import Domain

CONF = nova.conf.CONF
LOG = logging.getLogger(__name__)

#: The trait of a host that runs 32-bit guests with KVM.
AARCH32_EL1 = 'CUSTOM_ARM_AARCH32_EL1'

#: Seconds after which everything is read again. Some changes cannot be
#: noticed otherwise, such as the permissions of /dev/kvm.
LIFETIME = 600


class HostFacts:
    """Facts about the host, read when they are first needed.

    They are read again after `LIFETIME` seconds, after a change in a folder of
    firmware descriptors, and after `forget`. They are not kept if an essential
    one is unknown.

    :param host: Nova's Host object
    """

    def __init__(self, host: Any) -> None:
        self._host = host
        self._kept: tuple[Any, float, facts.Host] | None = None
        self._warned_of: facts.Version | None = None

    def now(self) -> facts.Host:
        """The facts."""
        key = _state_of_descriptors()
        kept = self._kept        # another thread may reset it
        if kept is not None:
            known, until, host = kept
            if known == key and time.monotonic() < until:
                return host
        host = gather.host(self._host.get_connection())
        self._warn_of(host.libvirt_version)
        if CONF.libvirt.virt_type == 'qemu' and host.virt_types:
            # this option disables KVM, even if libvirt offers it
            host = dataclasses.replace(host, virt_types={
                arch: tuple(kind for kind in kinds if kind != 'kvm')
                for arch, kinds in host.virt_types.items()})
        self._kept = None
        if None not in (host.arch, host.libvirt_version, host.qemu_version,
                        host.virt_types):
            self._kept = key, time.monotonic() + LIFETIME, host
        return host

    def _warn_of(self, libvirt: facts.Version | None) -> None:
        """Log once that nobody has tried a libvirt."""
        if (libvirt is not None and libvirt >= facts.UNTRIED_LIBVIRT
                and libvirt != self._warned_of):
            self._warned_of = libvirt
            LOG.warning('Nobody has tried nova-arm-ext with libvirt %s; a '
                        'newer nova-arm-ext may know it',
                        facts.format_version(libvirt))

    def forget(self) -> None:
        """Read the facts again next time, for example from a new libvirtd."""
        self._kept = None

    @property
    def arch(self) -> str:
        """The host's architecture, by libvirt's name."""
        arch: str = self._host.get_capabilities().host.cpu.arch
        return arch

    @property
    def runs_kvm_on_arm(self) -> bool:
        """Whether guests of an AArch64 host run with KVM."""
        return CONF.libvirt.virt_type == 'kvm' and self.arch == 'aarch64'

    def runs_armv7(self, hooks: tuple[str, ...]) -> bool:
        """Whether new armv7l guests get KVM here.

        :param hooks: names of the hooks that are enabled
        """
        host = self.now()
        return (host.aarch32_el1 is True
                and 'kvm' in (host.virt_types or {}).get('armv7l', ())
                and 'armv7' in hooks
                and CONF.arm_armv7.accel != 'tcg')

    def has_secure_boot(self, arch: str) -> bool:
        """Whether the host has firmware for Secure Boot, with keys.

        Nova asks libvirt whether loader/@secure may be "yes". That means SMM,
        which no Arm machine has.
        """
        return any(one.arch == arch and one.secure_boot and one.enrolled_keys
                   for one in self.now().firmware or ())

    def secure_boot_in(self, guest: Domain) -> bool | None:
        """Whether a guest's firmware is for Secure Boot; None if unknown."""
        has = firmware.Os.of(guest)
        one = self.now().firmware_at(has.loader)
        return has.feature('secure-boot') if one is None else one.secure_boot

    def publish_traits(self, provider_tree: Any, nodename: str) -> None:
        """Report exactly the traits of this host's CPU to Placement.

        :param provider_tree: Nova's ProviderTree, changed in place
        """
        wanted = self._cpu_traits()
        if self.arch == 'aarch64' and self.now().aarch32_el1:
            wanted |= {AARCH32_EL1}
        present = provider_tree.data(nodename).traits
        # a trait is also removed if it is unknown now
        provider_tree.remove_traits(nodename, *(
            trait for trait in present if trait not in wanted
            and (trait == AARCH32_EL1 or cpu.is_ours(trait))))
        provider_tree.add_traits(nodename, *wanted)

    def _cpu_traits(self) -> frozenset[str]:
        """The traits of the CPU that guests with KVM have here."""
        if self.arch != 'aarch64':
            return frozenset()
        host = self.now()
        if 'kvm' not in (host.virt_types or {}).get('aarch64', ()):
            return frozenset()
        return cpu.traits(host.cpu or cpu.Cpu(),
                          os_traits.get_traits('HW_CPU_AARCH64_'))


def _state_of_descriptors() -> tuple[int | None, ...]:
    """A value that changes when firmware is installed or removed."""
    return tuple(_modified(folder) for folder in gather.DESCRIPTORS)


def _modified(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None
