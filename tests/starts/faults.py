# SPDX-License-Identifier: Apache-2.0
"""Faults in domain XML that libvirt or QEMU refuse on Arm.

A test puts them beside everything that is replaced, and libvirt has to refuse
them as in a guest in which nothing is replaced.
"""

import re
import typing
from collections.abc import Callable
from collections.abc import Mapping

from lxml import etree

from tests.nova.documents.judge import Verdict

# What differs between two guests: their names, numbers and times.
_OWN = re.compile(
    r'\d{4}-\d\d-\d\dT[\d:.]+Z|/var/lib/[^\s\'",:]+|[0-9a-f]{8}-[0-9a-f-]{27}')
# The numbers of devices and the name of the CPU are the guest's own as well.
_NUMBER = re.compile(r'(?<=net)\d+|[\w-]+(?=-arm-cpu)')
_WARNING = re.compile(r'\S+: warning: .*|\S+ -chardev .*: info: .*')
# libvirt notices in one of two ways that QEMU has ended.
_ENDED = re.compile(
    r'internal error: (QEMU unexpectedly closed the monitor \(vm=\S+\)|'
    r'process exited while connecting to monitor): ')


def _append(path: str, xml: str) -> Callable[[typing.Any], None]:
    def change(domain: typing.Any) -> None:
        parent = domain.find(path)
        parent.append(etree.fromstring(xml))
    return change


def _cpu_feature(domain: typing.Any) -> None:
    etree.SubElement(domain.find('cpu'), 'feature', policy='require',
                     name='vmx')


def _machine(domain: typing.Any) -> None:
    domain.find('os/type').set('machine', 'virt-99.0')


def _clock(domain: typing.Any) -> None:
    etree.SubElement(domain.find('clock'), 'timer', name='hpet',
                     present='yes')


#: By what is refused: at the definition, by libvirt at the start, by QEMU.
FAULTS: Mapping[str, Callable[[typing.Any], None]] = {
    'a disk on IDE': _append(
        'devices', "<disk type='file' device='cdrom'>"
        "<target dev='hdc' bus='ide'/></disk>"),
    'an I/O APIC': _append('features', "<ioapic driver='qemu'/>"),
    'a card of another architecture': _append(
        'devices', "<sound model='sb16'/>"),
    'a HPET': _clock,
    'an unknown machine': _machine,
    'a root port without a root': _append(
        'devices',
        "<controller type='pci' index='0' model='pcie-root-port'/>"),
    'an unknown CPU feature': _cpu_feature,
    'a hidden KVM': _append('features', "<kvm><hidden state='on'/></kvm>"),
    'several queues of virtio-mmio': _append(
        'devices', "<interface type='ethernet'>"
        "<mac address='52:54:00:00:00:99'/><model type='virtio'/>"
        "<driver queues='2'/><address type='virtio-mmio'/></interface>"),
    'a source of random numbers that is missing': _append(
        'devices', "<rng model='virtio'>"
        "<backend model='random'>/dev/missing</backend></rng>"),
}


def with_fault(document: str, name: str) -> str:
    """The domain XML with a fault in it."""
    domain = etree.fromstring(document)
    FAULTS[name](domain)
    return etree.tostring(domain, encoding='unicode')


def told(verdict: Verdict) -> str:
    """What was refused and why, without what is the guest's own."""
    return plain(f'define: {verdict.define}' if verdict.define
                 else f'start: {verdict.start or ""}')


def plain(text: str) -> str:
    """An error without names, numbers, times and QEMU's warnings, which
    another guest would have otherwise."""
    for pattern in (_OWN, _NUMBER, _ENDED, _WARNING):
        text = pattern.sub('', text)
    return ' '.join(text.split())
