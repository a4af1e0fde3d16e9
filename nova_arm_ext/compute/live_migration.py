# SPDX-License-Identifier: Apache-2.0
"""Whether a guest can be migrated live to this host."""

from collections.abc import Callable
from typing import Any

import nova.conf

from nova_arm_ext import cpu as arm_cpu
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import machine
from nova_arm_ext.domain import view

CONF = nova.conf.CONF


class Destination:
    """This host as the destination of a live migration.

    :param arch_of: returns the architecture of an image's guests
    """

    def __init__(self, facts: host_facts.HostFacts,
                 machines: machine.Machines,
                 arch_of: Callable[[Any], str]) -> None:
        self._facts = facts
        self._machines = machines
        self._arch_of = arch_of

    def refusal(self, instance: Any, source: Any) -> str | None:
        """Why a guest cannot be migrated live to this host.

        :param source: fields of the source's compute node
        :returns: a sentence; None if no reason is known
        """
        arch = self._arch_of(instance.image_meta)
        if arch not in view.ARM:
            return None
        missing = self._machines.is_missing(instance, arch)
        if missing is not None:
            return (f'the instance has the machine {missing}, which QEMU on '
                    f'this host does not have')
        host = self._facts.now()
        firmware = instance.image_meta.properties.get('hw_firmware_type')
        if ((firmware or ('uefi' if arch == 'aarch64' else None)) == 'uefi'
                and not instance.kernel_id and host.firmware is not None
                and arch not in {one.arch for one in host.firmware}):
            return f'this host has no UEFI firmware for {arch} guests'
        told = cpu.from_cpu_info(source['cpu_info'])
        if not self._facts.runs_kvm_on_arm or (arch == 'armv7l'
                                               and told.aarch32_el1 is False):
            return None      # emulated
        return cpu.refusal(told, host.cpu or arm_cpu.Cpu(),
                           CONF.arm_cpu.compare, instance)
