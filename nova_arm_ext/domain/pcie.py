# SPDX-License-Identifier: Apache-2.0
"""The PCI Express slots of a ``virt`` machine: what takes one, what is free.

libvirt puts each PCI Express endpoint behind a root port of its own, and all
devices for legacy PCI on one bridge behind one root port (libvirt 9.0.0 and
11.3.0: qemuDomainDeviceCalculatePCIConnectFlags).
"""

import copy
import enum
import functools
import types
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from lxml import etree

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view
from nova_arm_ext.domain.address import Address
from nova_arm_ext.domain.firmware import Os

#: libvirt packs eight root ports into each of the slots 1 to 31 of pcie.0
_SLOTS = 31
_PORTS_OF_A_SLOT = 8
MAX_ROOT_PORTS = _SLOTS * _PORTS_OF_A_SLOT

#: With UEFI a 32-bit machine has the small configuration window alone, with
#: room for 16 buses (QEMU, hw/arm/virt.c): the root's own and one behind each
#: root port or bridge. Observed with QEMU 7.2 and AAVMF 2022.11: of 16 ports
#: the last one has no bus, and the disk behind it is not found.
MAX_ROOT_PORTS_ARMV7_UEFI = 15


class Place(enum.Enum):
    """Where libvirt puts a device that has no address."""

    ROOT_PORT = 'behind a root port of its own'
    BRIDGE = 'on the bridge for legacy PCI'
    ROOT = 'on pcie.0 itself'
    ELSEWHERE = 'on no PCI bus'


# a member's name is looked up slowly before Python 3.12
_ROOT_PORT, _BRIDGE, _ROOT, _ELSEWHERE = Place

#: models that go to the bridge, each for its kind of device
_LEGACY_INTERFACES = frozenset(('e1000', 'e1000-82544gc', 'e1000-82545em',
                                'rtl8139', 'vmxnet3'))
_ROOT_PORT_VIDEOS = frozenset(('virtio', 'bochs'))
_XHCI = frozenset((None, 'qemu-xhci', 'nec-xhci'))
_BRIDGE_MODELS = frozenset(('pcie-to-pci-bridge', 'dmi-to-pci-bridge',
                            'pci-bridge'))


def place(device: devices.Device) -> Place:
    """Where libvirt will put a device, if it has no address."""
    return _place(device.element)


def _place(element: Any) -> Place:
    if element.get('model') == 'virtio-transitional':
        return _BRIDGE
    where = _PLACES.get(element.tag, _ELSEWHERE)
    return where if isinstance(where, Place) else where(element)


def _either(on_a_port: bool) -> Place:
    return _ROOT_PORT if on_a_port else _ELSEWHERE


def _below(element: Any, tag: str, attribute: str) -> str | None:
    """An attribute of a child element."""
    for child in element[:]:
        if child.tag == tag:
            value: str | None = child.get(attribute)
            return value
    return None


def _interface_place(interface: Any) -> Place:
    model = _below(interface, 'model', 'type')
    return (_BRIDGE if model in _LEGACY_INTERFACES
            or model == 'virtio-transitional' else _ROOT_PORT)


def _video_place(video: Any) -> Place:
    model = _below(video, 'model', 'type')
    if model in _ROOT_PORT_VIDEOS:
        return _ROOT_PORT
    return (_ELSEWHERE if model in (None, 'ramfb', 'none')
            else _BRIDGE)


def _sound_place(sound: Any) -> Place:
    model = sound.get('model')
    if model == 'usb':
        return _ELSEWHERE
    return _ROOT_PORT if model == 'virtio' else _BRIDGE


def _controller_place(controller: Any) -> Place:
    model = controller.get('model')
    match controller.get('type'):
        case 'pci':
            return _either(model == 'pcie-to-pci-bridge')
        case 'virtio-serial':
            return _ROOT_PORT
        case 'usb' if model == 'none':
            return _ELSEWHERE
        case 'usb':
            return _ROOT_PORT if model in _XHCI else _BRIDGE
        case 'scsi':
            # without a model it is an LSI one before libvirt 11.6, behind
            # the bridge, and virtio-scsi since then; either takes one port
            return (_ROOT_PORT if (model or 'virtio').startswith('virtio')
                    else _BRIDGE)
        case 'sata':
            return _BRIDGE
    return _ELSEWHERE


#: by the tag of a device: its place, or what tells it of the element
_PLACES: Mapping[str, Place | Callable[[Any], Place]] = (
    types.MappingProxyType({
        'controller': _controller_place,
        'disk': lambda e: _either(_below(e, 'target', 'bus') == 'virtio'),
        'input': lambda e: _either(e.get('bus') == 'virtio'),
        'interface': _interface_place,
        'hostdev': lambda e: _either(
            e.get('type') in ('pci', 'mdev', 'scsi_host')),
        'video': _video_place,
        'memballoon': lambda e: _either(e.get('model') != 'none'),
        'rng': _ROOT_PORT,
        'crypto': _ROOT_PORT,
        'vsock': _ROOT_PORT,
        'filesystem': _ROOT_PORT,
        'memory': lambda e: _either(
            e.get('model') in ('virtio-mem', 'virtio-pmem')),
        'sound': _sound_place,
        'shmem': _BRIDGE,
        'watchdog': lambda e: (
            _BRIDGE if e.get('model') == 'i6300esb'
            else _ELSEWHERE),
        'serial': lambda e: (
            _BRIDGE if _below(e, 'target', 'type') == 'pci-serial'
            else _ELSEWHERE),
        'iommu': lambda e: (
            _ROOT if e.get('model') == 'virtio' else _ELSEWHERE),
    }))


def root_ports(domain: view.Domain) -> list[devices.Controller]:
    """The root ports that the document names."""
    return [c for c in domain.all(devices.Controller) if c.is_root_port]


class Slots(NamedTuple):
    """The PCI Express slots of a document.

    :param ports: the root ports that it names
    :param free: those that will have nothing behind them; negative where
        libvirt will have to add ports of its own
    :param limit: the root ports that the machine can have
    :param lacks_bridge: a device waits for a bridge that is not there
    :param has_controllers: the document names PCI controllers
    """

    ports: int
    free: int
    limit: int
    lacks_bridge: bool
    has_controllers: bool


def slots(domain: view.Domain) -> Slots:
    """Count the slots, in one walk over the devices.

    On elements rather than views: it looks at every device of every guest.
    """
    places: list[Place] = []
    waiting: list[Any] = []              # devices without an address
    ports: list[int | None] = []
    used: set[int | None] = set()
    controllers: set[str | None] = set()
    present: set[str | None] = set()     # kinds of devices, buses of disks
    bridges = on_the_root = 0
    mmio = False
    # a new guest's document has none, and then there is nothing to look for
    found = domain.devices
    has_addresses = (len(found)
                     and next(found.iter('address'), None) is not None)
    for element in found[:]:
        tag = element.tag
        is_port = False
        if tag == 'controller':
            kind = element.get('type')
            controllers.add(kind)
            if kind == 'pci':
                model = element.get('model')
                if model in _BRIDGE_MODELS:
                    bridges += 1
                elif model == 'pcie-root-port':
                    is_port = True
                    ports.append(devices.Controller(element).index)
        elif tag == 'disk':
            present.add(_below(element, 'target', 'bus'))
        elif tag == 'channel':
            if _below(element, 'target', 'type') == 'virtio':
                present.add('virtio-serial')
        else:
            present.add(tag)
            on_the_root += tag == 'panic'
        if tag not in _PLACES:
            continue
        for child in element[:] if has_addresses else ():
            if child.tag == 'address':
                address = Address(child)
                if address.is_virtio_mmio:
                    mmio = True
                elif address.is_pci:
                    bus = address.bus
                    if bus is None:
                        # the document asks for PCI, wherever
                        places.append(_place(element))
                    else:
                        used.add(bus)
                        on_the_root += not bus and not is_port
                break
        else:
            waiting.append(element)
    places += [_place(element) for element in waiting
               if not (mmio and _follows_to_mmio(element))]
    # what libvirt adds of its own accord
    for kind, where in (('scsi', _ROOT_PORT), ('sata', _BRIDGE)):
        if kind in present and kind not in controllers:
            places.append(where)
    if not mmio:
        if 'virtio-serial' in present and 'virtio-serial' not in controllers:
            places.append(_ROOT_PORT)
        if 'graphics' in present and 'video' not in present:
            places.append(_ROOT_PORT)
    lacks_bridge = _BRIDGE in places and not bridges
    if domain.arch == 'armv7l' and Os.of(domain).has_uefi:
        limit = MAX_ROOT_PORTS_ARMV7_UEFI - bridges - lacks_bridge
    else:
        limit = ((_SLOTS - on_the_root - places.count(_ROOT))
                 * _PORTS_OF_A_SLOT)
    return Slots(
        ports=len(ports), limit=limit, lacks_bridge=lacks_bridge,
        has_controllers='pci' in controllers,
        free=(sum(index is None or index not in used for index in ports)
              - places.count(_ROOT_PORT) - lacks_bridge))


def _follows_to_mmio(element: Any) -> bool:
    """Whether libvirt moves a device to virtio-mmio as soon as another one
    is there (qemuDomainAssignVirtioMMIOAddresses).
    """
    model = element.get('model')
    match element.tag:
        case 'controller':
            kind = element.get('type')
            return kind == 'virtio-serial' or (
                kind == 'scsi' and model == 'virtio-scsi')
        case 'disk':
            return _below(element, 'target', 'bus') == 'virtio'
        case 'input':
            return bool(element.get('bus') == 'virtio')
        case 'interface':
            return (element.get('type') != 'hostdev'
                    and _below(element, 'model', 'type') == 'virtio')
        case 'video':
            return _below(element, 'model', 'type') == 'virtio'
        case 'sound' | 'crypto':
            return bool(model == 'virtio')
        case 'memballoon' | 'rng' | 'memory':
            return True
    return False


def add_root_ports(domain: view.Domain, count: int,
                   counted: Slots) -> None:
    """Add root ports behind those that are there, which moves nothing.

    A bridge for legacy PCI comes along if a device needs one that is not
    there: libvirt would add it with a port of its own, beside those that
    are free (observed, 9.0.0).

    :param counted: the slots of the document as it stands
    """
    if count < 1:
        return
    ours = [c for c in domain.all(devices.Controller)
            if c.type == 'pci'] if counted.has_controllers else []
    has_root = any(controller.model == 'pcie-root' for controller in ours)
    made = copy.copy(_controllers(count, not has_root,
                                  counted.lacks_bridge))[:]
    if not has_root:
        # libvirt counts those without a number from 0, and that is the root
        for controller in ours:
            controller.remove()
        made[1:1] = [controller.element for controller in ours]
    domain.insert(*made)


@functools.lru_cache
def _controllers(ports: int, root: bool, bridge: bool) -> Any:
    """PCI controllers to copy: that takes a third of making them."""
    return etree.fromstring(
        '<devices>'
        + '<controller type="pci" index="0" model="pcie-root"/>' * root
        + '<controller type="pci" model="pcie-root-port"/>' * ports
        + '<controller type="pci" model="pcie-to-pci-bridge"/>' * bridge
        + '</devices>')
