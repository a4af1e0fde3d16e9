# SPDX-License-Identifier: Apache-2.0
"""What of a guest's domain XML this machine cannot start, and what is started
instead: all of it is in `TABLE`.

What a start only needs as files, sockets or programs is provided
(``tests.starts.provided``), and then the domain XML stays as it is.
"""

import dataclasses
import hashlib
import typing
from collections.abc import Callable

from lxml import etree

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)

#: Where disks are that Nova has in Ceph.
VOLUMES = '/var/lib/nova/volumes'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Replacement:
    """One thing that another one replaces.

    :param name: what is replaced
    :param by: what is started instead
    :param why: why this machine cannot start it
    :param xpath: finds the elements, from the domain
    :param replace: changes such an element
    :param kvm: whether it is only for guests that run with KVM
    """

    name: str
    by: str
    why: str
    xpath: str
    replace: Callable[[typing.Any], None]
    kvm: bool = False

    def apply(self, domain: typing.Any) -> bool:
        """Whether there was something to replace."""
        found = domain.xpath(self.xpath)
        for element in found:
            self.replace(element)
        return bool(found)


def _remove(element: typing.Any) -> None:
    element.getparent().remove(element)


def _maximum(cpu: typing.Any) -> None:
    cpu.set('mode', 'maximum')


def _gic(domain: typing.Any) -> None:
    etree.SubElement(domain.find('features'), 'gic', version='3')


def _first_cpu(element: typing.Any) -> None:
    for name in ('cpuset', 'nodeset'):
        if name in element.attrib:
            element.set(name, '0')


def _file(disk: typing.Any) -> None:
    disk.set('type', 'file')
    source = disk.find('source')
    name = source.get('name').rpartition('/')[2]
    disk.replace(source, etree.Element('source', file=f'{VOLUMES}/{name}'))
    for auth in disk.findall('auth'):
        disk.remove(auth)


def _tap(interface: typing.Any) -> None:
    """A tap device that nothing else is connected to."""
    interface.set('type', 'ethernet')
    interface.attrib.pop('managed', None)
    for name in ('source', 'driver', 'vlan', 'virtualport', 'rom'):
        for part in interface.findall(name):
            interface.remove(part)


def _card(hostdev: typing.Any) -> None:
    """An emulated PCIe device in the same slot, with a MAC of its own."""
    kept = hostdev.findall('address') + hostdev.findall('alias')
    mac = hashlib.sha256(etree.tostring(hostdev)).hexdigest()[:6]
    hostdev.tag = 'interface'
    hostdev.attrib.clear()
    hostdev.set('type', 'ethernet')
    hostdev[:] = [
        etree.Element('mac', address='52:54:00:' + ':'.join(
            mac[place:place + 2] for place in (0, 2, 4))),
        etree.Element('model', type='e1000e'), *kept]


def _emulated(domain: typing.Any) -> None:
    domain.set('type', 'qemu')


#: In the order in which they are made.
TABLE = (
    Replacement(
        name='the processor of a host with KVM', by='the largest one of QEMU',
        why='only KVM has a host processor to pass through',
        xpath="cpu[@mode='host-passthrough']", replace=_maximum, kvm=True),
    Replacement(
        name="the host's interrupt controller", by='a GICv3',
        why='with KVM it is the one of the host; without it is a GICv2, which '
            'serves at most eight CPUs',
        xpath='self::domain[vcpu > 8][features[not(gic)]]', replace=_gic,
        kvm=True),
    Replacement(
        name='CPUs and NUMA nodes of the host', by='the first one',
        why='the kinds are for a host with 16 CPUs in two nodes',
        xpath='vcpu[@cpuset] | cputune/*[@cpuset] | numatune/*[@nodeset]',
        replace=_first_cpu),
    Replacement(
        name='huge pages', by='usual pages',
        why='they are reserved for a whole machine',
        xpath='memoryBacking/hugepages', replace=_remove),
    Replacement(
        name='shares of the CPU', by='none',
        why='they need a control group of the machine',
        xpath='cputune/shares', replace=_remove),
    Replacement(
        name='disks in Ceph', by='files',
        why='QEMU connects to the cluster when it starts',
        xpath="devices/disk[@type='network']", replace=_file),
    Replacement(
        name='virtual functions of the host', by='tap devices',
        why='this machine has no such device',
        xpath="devices/interface[@type='hostdev']", replace=_tap),
    Replacement(
        name='PCI devices of the host', by='emulated PCIe devices',
        why='this machine has no such device',
        xpath="devices/hostdev[@type='pci']", replace=_card),
    # The last one, because the others ask for it.
    Replacement(
        name='KVM', by='emulation',
        why='there is no KVM for Arm guests on other hosts',
        xpath="self::domain[@type='kvm']", replace=_emulated, kvm=True),
)


def replaced(document: str) -> tuple[str, list[str]]:
    """The domain XML that this machine can start.

    :returns: the XML, and the names of the replacements that were made
    """
    domain = etree.fromstring(document.encode(), _PARSER)
    with_kvm = domain.get('type') == 'kvm'
    made = [one.name for one in TABLE
            if (with_kvm or not one.kvm) and one.apply(domain)]
    return etree.tostring(domain, encoding='unicode'), made
