# SPDX-License-Identifier: Apache-2.0
"""Trees of node devices, as libvirt describes them; they count calls."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from xml.sax import saxutils

from nova_arm_ext import pci

Address = pci.Address

#: What libvirt 9.0 says about most of the on-chip NIC of ThunderX.
THUNDERX_VENDOR = 0x177d


def pci_name(address: Address) -> str:
    return 'pci_{:04x}_{:02x}_{:02x}_{:x}'.format(*address)


def _address(address: Address) -> str:
    return ("<address domain='0x{:04x}' bus='0x{:02x}' slot='0x{:02x}' "
            "function='0x{:x}'/>").format(*address)


def pci_document(
        address: Address, *, vendor: int = 0x8086, product: int = 0x1521,
        driver: str | None = 'igb', class_code: str | None = '0x020000',
        numa: int | None = 0, virtual: list[Address] | None = None,
        physical: Address | None = None, serial: str | None = None,
        more: str = '') -> str:
    """The XML of a PCI device."""
    name = pci_name(address)
    domain, bus, slot, function = address
    inner = more
    if virtual is not None:
        inner += ("<capability type='virt_functions'>"
                  + ''.join(map(_address, virtual)) + '</capability>')
    if physical is not None:
        inner += ("<capability type='phys_function'>" + _address(physical)
                  + '</capability>')
    if serial is not None:
        inner += (
            "<capability type='vpd'><name>Card</name>"
            "<fields access='readonly'><change_level>A</change_level>"
            f'<serial_number>{saxutils.escape(serial)}</serial_number>'
            "</fields><fields access='readwrite'/></capability>")
    if class_code is not None:
        inner = f'<class>{class_code}</class>' + inner
    if numa is not None:
        inner += f"<numa node='{numa}'/>"
    bound = f'<driver><name>{driver}</name></driver>' if driver else ''
    return (
        f'<device><name>{name}</name><path>/sys/devices/{name}</path>'
        f"<parent>computer</parent>{bound}<capability type='pci'>"
        f'<domain>{domain}</domain><bus>{bus}</bus><slot>{slot}</slot>'
        f'<function>{function}</function>'
        f"<product id='0x{product:04x}'>Product</product>"
        f"<vendor id='0x{vendor:04x}'>Vendor</vendor>"
        f'{inner}</capability></device>')


def net_document(name: str, parent: str,
                 features: tuple[str, ...] = ('rx', 'tx')) -> str:
    """The XML of a network interface."""
    return (
        f'<device><name>{name}</name><parent>{parent}</parent>'
        "<capability type='net'><interface>eth0</interface>"
        '<address>52:54:00:00:00:01</address>'
        + ''.join(f"<feature name='{feature}'/>" for feature in features)
        + "<capability type='80203'/></capability></device>")


def vdpa_document(name: str, parent: str) -> str:
    """The XML of a vDPA device."""
    return (f'<device><name>{name}</name><parent>{parent}</parent>'
            "<capability type='vdpa'><chardev>/dev/vhost-vdpa-0</chardev>"
            '</capability></device>')


class Node:
    """A node device with the libvirt methods that Nova calls."""

    def __init__(self, tree: 'Tree', name: str, parent: str,
                 document: str) -> None:
        self._tree = tree
        self._name = name
        self._parent = parent
        self.document = document

    def name(self) -> str:
        self._tree.called(self._name, 'name')
        return self._name

    def parent(self) -> str:
        self._tree.called(self._name, 'parent')
        return self._parent

    def listCaps(self) -> list[str]:
        self._tree.called(self._name, 'listCaps')
        return [self._name.partition('_')[0]]

    def XMLDesc(self, flags: int) -> str:
        assert flags == 0, 'the device as it is now'
        self._tree.called(self._name, 'XMLDesc')
        return self.document


class Tree:
    """Node devices, Nova's Host object and its connection in one.

    :param fault: called for each call (with its number, device and method);
        may raise an error of libvirt
    """

    def __init__(self, fault: Callable[[int, str, str], None]
                 | None = None) -> None:
        self.nodes: dict[str, Node] = {}
        self.fault = fault
        self.calls: list[tuple[str, str]] = []

    def called(self, name: str, method: str) -> None:
        number = len(self.calls)
        self.calls.append((name, method))
        if self.fault is not None:
            self.fault(number, name, method)

    def calls_by_device(self) -> collections.Counter[str]:
        return collections.Counter(name for name, _ in self.calls if name)

    def add(self, document: str, name: str, parent: str = 'computer') -> str:
        self.nodes[name] = Node(self, name, parent, document)
        return name

    def pci(self, address: Address, **what: Any) -> str:
        return self.add(pci_document(address, **what), pci_name(address))

    def net(self, parent: str, *features: str, name: str = '') -> str:
        name = name or f'net_{parent[4:]}_52_54_00_00_00_01'
        return self.add(net_document(name, parent, features), name, parent)

    def vdpa(self, parent: str, name: str) -> str:
        return self.add(vdpa_document(name, parent), name, parent)

    # as a connection
    def listAllDevices(self, flags: int) -> list[Node]:
        self.called('', 'listAllDevices')
        return list(self.nodes.values())

    # as Nova's Host
    def list_all_devices(self, flags: int = 0) -> list[Node]:
        from nova.virt.libvirt import host
        try:
            return self.listAllDevices(flags)
        except host.libvirt.libvirtError:
            return []

    def get_connection(self) -> 'Tree':
        return self

    def _wrap_libvirt_proxy(self, node: Node) -> Node:
        return node


def functions(first: Address, count: int) -> Iterator[Address]:
    """The next addresses, as virtual functions have them."""
    domain, bus, slot, function = first
    number = (bus << 8) | (slot << 3) | function
    for one in range(number + 1, number + 1 + count):
        yield domain, one >> 8, (one >> 3) & 0x1f, one & 7


def sriov(tree: Tree, physical: Address, count: int, *,
          nets: bool = True, **what: Any) -> tuple[str, list[str]]:
    """A physical function with virtual ones, each with an interface."""
    addresses = list(functions(physical, count))
    parent = tree.pci(physical, virtual=addresses, **what)
    what.pop('serial', None)
    names = []
    for address in addresses:
        names.append(tree.pci(
            address, physical=physical,
            **{'product': 0x1520, 'driver': 'igbvf', **what}))
        if nets:
            tree.net(names[-1], 'rx', 'tx', 'sg', 'tso')
    if nets:
        tree.net(parent, 'rx', 'tx')
    return parent, names


def thunderx(tree: Tree, count: int = 8) -> list[str]:
    """The on-chip NIC of ThunderX: interfaces only on virtual functions."""
    addresses = list(functions((2, 1, 0, 0), count))
    names = [tree.pci((2, 1, 0, 0), vendor=THUNDERX_VENDOR, product=0xa01e,
                      driver='thunder-nic', virtual=addresses)]
    for address in addresses:
        names.append(tree.pci(
            address, vendor=THUNDERX_VENDOR, product=0xa034,
            driver='thunder-nicvf', physical=(2, 1, 0, 0)))
        tree.net(names[-1], 'rx', 'tx')
    return names


def everything() -> Tree:
    """One device of each kind that Nova describes differently."""
    tree = Tree()
    tree.pci((0, 0, 0, 0), vendor=0x1b36, product=8, driver=None)
    tree.pci((0, 0, 1, 0), class_code=None, numa=None)
    tree.pci((0, 0, 2, 0), numa=-1, serial='ABC-123')
    tree.pci((0, 0, 3, 0), more=(
        "<capability type='mdev_types'><type id='nvidia-11'>"
        '<name>GRID</name><deviceAPI>vfio-pci</deviceAPI>'
        '<availableInstances>16</availableInstances></type></capability>'))
    tree.pci((0, 0, 4, 0), more="<capability type='phys_function'/>")
    tree.pci((0x10000, 0, 0, 0), serial='')
    sriov(tree, (0, 0x81, 0, 0), 3)
    sriov(tree, (0, 0x82, 0, 0), 1, serial='PF-SERIAL')
    sriov(tree, (0, 0x83, 0, 0), 1, nets=False)
    own = tree.pci((0, 0x83, 2, 0), physical=(0, 0x83, 0, 0),
                   serial='VF-SERIAL')
    tree.net(own)                                # without any feature
    tree.net(own, 'rx', name='net_second')       # the last one counts
    tree.pci((0, 0x83, 2, 1), physical=(0, 0x90, 0, 0))    # a lost parent
    _, vdpas = sriov(tree, (0, 0x84, 0, 0), 2, nets=False, serial='V')
    tree.vdpa(vdpas[0], 'vdpa_vdpa0')
    tree.pci((0, 0x85, 0, 0), virtual=[])
    tree.net('computer', 'rx', name='net_lo')
    return tree
