# SPDX-License-Identifier: Apache-2.0
"""The PCI Express slots of a ``virt`` machine: what takes one, what is free.

libvirt puts each PCI Express endpoint behind a root port of its own, and all
devices for legacy PCI on one bridge behind one root port (libvirt 9.0.0 and
11.3.0: qemuDomainDeviceCalculatePCIConnectFlags).
"""

import enum
import itertools
from typing import NamedTuple

from lxml import etree

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view
from nova_arm_ext.domain.firmware import Os
from nova_arm_ext.domain.virtio_mmio import follows_to_mmio

#: libvirt puts up to eight root ports into each of the slots 1 to 31 of pcie.0
_SLOTS = 31
_PORTS_OF_A_SLOT = 8
MAX_ROOT_PORTS = _SLOTS * _PORTS_OF_A_SLOT

#: With UEFI a 32-bit machine has only the small configuration window, with
#: room for 16 buses (QEMU, hw/arm/virt.c): the root's own and one behind each
#: root port or bridge. Observed with QEMU 7.2 and AAVMF 2022.11: the last of
#: 16 ports has no bus, and a disk behind it is not found.
MAX_ROOT_PORTS_ARMV7_UEFI = 15


class Place(enum.Enum):
    """Where libvirt puts a device that has no address."""

    ROOT_PORT = 'behind a root port of its own'
    BRIDGE = 'on the bridge for legacy PCI'
    ROOT = 'on pcie.0 itself'
    ELSEWHERE = 'on no PCI bus'


#: NICs that go to the bridge
LEGACY_INTERFACES = frozenset(('e1000', 'e1000-82544gc', 'e1000-82545em',
                                'rtl8139', 'vmxnet3', 'virtio-transitional'))
_ROOT_PORT_VIDEOS = frozenset(('virtio', 'bochs'))
_XHCI = frozenset((None, 'qemu-xhci', 'nec-xhci'))
_BRIDGE_MODELS = frozenset(('pcie-to-pci-bridge', 'dmi-to-pci-bridge',
                            'pci-bridge'))


def place(device: devices.Device) -> Place:
    """Where libvirt will put a device, if it has no address."""
    if device.element.get('model') == 'virtio-transitional':
        return Place.BRIDGE
    on_a_port = False
    match device:
        case devices.Controller():
            return _controller_place(device)
        case devices.Disk() | devices.Input():
            on_a_port = device.bus == 'virtio'
        case devices.Interface():
            return (Place.BRIDGE if device.model in LEGACY_INTERFACES
                    else Place.ROOT_PORT)
        case devices.Video() if device.model not in (None, 'ramfb', 'none'):
            return (Place.ROOT_PORT if device.model in _ROOT_PORT_VIDEOS
                    else Place.BRIDGE)
        case devices.Serial() if device.target_type == 'pci-serial':
            return Place.BRIDGE
        case devices.Memballoon():
            on_a_port = device.model != 'none'
        case (devices.Rng() | devices.Crypto() | devices.Vsock()
              | devices.Filesystem()):
            on_a_port = True
        case devices.Hostdev():
            on_a_port = device.type in ('pci', 'mdev', 'scsi_host')
        case devices.Memory():
            on_a_port = device.model in ('virtio-mem', 'virtio-pmem')
        case devices.Sound() if device.model != 'usb':
            return (Place.ROOT_PORT if device.model == 'virtio'
                    else Place.BRIDGE)
        case devices.Shmem():
            return Place.BRIDGE
        case devices.Watchdog() if device.model == 'i6300esb':
            return Place.BRIDGE
        case devices.Iommu() if device.model == 'virtio':
            return Place.ROOT
    return Place.ROOT_PORT if on_a_port else Place.ELSEWHERE


def _controller_place(controller: devices.Controller) -> Place:
    model = controller.model
    match controller.type:
        case 'pci' if model == 'pcie-to-pci-bridge':
            return Place.ROOT_PORT
        case 'virtio-serial':
            return Place.ROOT_PORT
        case 'usb' if model != 'none':
            return Place.ROOT_PORT if model in _XHCI else Place.BRIDGE
        case 'scsi':
            # without a model it is an LSI one before libvirt 11.6, behind
            # the bridge, and virtio-scsi since then; either takes one port
            return (Place.ROOT_PORT if (model or 'virtio').startswith('virtio')
                    else Place.BRIDGE)
        case 'sata':
            return Place.BRIDGE
    return Place.ELSEWHERE


def root_ports(domain: view.Domain) -> list[devices.Controller]:
    """The root ports that the document names."""
    return [c for c in domain.all(devices.Controller) if c.is_root_port]


class Slots(NamedTuple):
    """The PCI Express slots of a document.

    :param ports: the root ports that it names, and those that addresses
        imply
    :param implied: how many of them are implied: where a device is on a bus
        that no controller has, libvirt adds root ports up to that bus
        (virDomainPCIAddressSetGrow)
    :param free: those that will have nothing behind them; negative if
        libvirt will have to add ports itself
    :param limit: the root ports that the machine can have
    :param lacks_bridge: a device waits for a bridge that is not there
    """

    ports: int
    implied: int
    free: int
    limit: int
    lacks_bridge: bool


def slots(domain: view.Domain, *, needs_bridge: bool = False) -> Slots:
    """Count the slots of a document.

    :param needs_bridge: whether it has to have a bridge for legacy PCI in any
        case
    """
    ours = devices.addressed(domain)
    tags = [element.tag for element in domain.devices]
    controllers = [d for d in ours if isinstance(d, devices.Controller)]
    addresses = [device.address for device in ours]
    kinds = [None if address is None else address.type
             for address in addresses]
    has_mmio = 'virtio-mmio' in kinds
    places = _implied_places(ours, 'graphics' in tags, has_mmio)
    used = set()                         # buses
    on_the_root = tags.count('panic')
    for device, address, kind in zip(ours, addresses, kinds, strict=True):
        if address is None:
            if not (has_mmio and follows_to_mmio(device)):
                places.append(place(device))
        elif kind == 'pci':
            bus = address.bus
            if bus is None:
                # on PCI, and libvirt chooses where
                places.append(place(device))
            else:
                used.add(bus)
                on_the_root += bus == 0 and not _is_root_port(device)
    numbers = _numbers(controllers)
    ports = [number for number, controller in numbers.items()
             if controller.is_root_port]
    implied = [bus for bus in range(1, max(used, default=0) + 1)
               if bus not in numbers]
    bridges = sum(c.type == 'pci' and c.model in _BRIDGE_MODELS
                  for c in controllers)
    lacks_bridge = (needs_bridge or Place.BRIDGE in places) and not bridges
    if domain.arch == 'armv7l' and Os.of(domain).has_uefi:
        limit = MAX_ROOT_PORTS_ARMV7_UEFI - bridges - lacks_bridge
    else:
        limit = ((_SLOTS - on_the_root - places.count(Place.ROOT))
                 * _PORTS_OF_A_SLOT)
    return Slots(
        ports=len(ports) + len(implied), implied=len(implied), limit=limit,
        lacks_bridge=lacks_bridge,
        free=(sum(bus not in used for bus in ports + implied)
              - places.count(Place.ROOT_PORT) - lacks_bridge))


def _numbers(controllers: list[devices.Controller]
             ) -> dict[int, devices.Controller]:
    """The PCI controllers by number; libvirt gives those without one the
    lowest that are free."""
    found: dict[int, devices.Controller] = {}
    unnumbered = []
    for controller in controllers:
        if controller.type == 'pci':
            number = controller.index
            if number is not None:
                found[number] = controller
            elif controller.model != 'pcie-root':
                unnumbered.append(controller)
    free = (number for number in itertools.count(1) if number not in found)
    for controller in unnumbered:
        found[next(free)] = controller
    return found


def _is_root_port(device: devices.Device) -> bool:
    return isinstance(device, devices.Controller) and device.is_root_port


def _implied_places(ours: list[devices.Device], has_graphics: bool,
                    has_mmio: bool) -> list[Place]:
    """The places of the devices that libvirt adds by itself."""
    present = set()      # kinds of controllers
    needed = set()
    lacks_video = has_graphics
    for device in ours:
        match device:
            case devices.Controller():
                present.add(device.type)
            case devices.Disk():
                needed.add(device.bus)
            case devices.Channel() if device.target_type == 'virtio':
                needed.add('virtio-serial')
            case devices.Video():
                lacks_video = False
    places = []
    lacking = needed - present
    if 'scsi' in lacking:
        places.append(Place.ROOT_PORT)
    if 'sata' in lacking:
        places.append(Place.BRIDGE)
    if 'virtio-serial' in lacking and not has_mmio:
        places.append(Place.ROOT_PORT)
    if lacks_video and not has_mmio:
        places.append(Place.ROOT_PORT)
    return places


def add_root_ports(domain: view.Domain, count: int,
                   counted: Slots) -> None:
    """Add root ports after those that are there, which moves nothing.

    Those that addresses imply are named with them. A bridge for legacy PCI is
    added too if a device needs one and there is none: libvirt would add it
    with a root port of its own, although others are free (observed, 9.0.0).

    :param counted: the slots of the document as it stands
    """
    if count < 1:
        return
    count += counted.implied
    ours = [c for c in domain.all(devices.Controller) if c.type == 'pci']
    has_root = any(controller.model == 'pcie-root' for controller in ours)
    made = list(etree.fromstring(
        '<devices>'
        + '<controller type="pci" index="0" model="pcie-root"/>' * (
            not has_root)
        + '<controller type="pci" model="pcie-root-port"/>' * count
        + '<controller type="pci" model="pcie-to-pci-bridge"/>' * (
            counted.lacks_bridge)
        + '</devices>'))
    if not has_root:
        # libvirt numbers these from 0, and number 0 must be the root
        for controller in ours:
            controller.remove()
        made[1:1] = [controller.element for controller in ours]
    domain.insert(*made)
