# SPDX-License-Identifier: Apache-2.0
"""The PCI Express slots of a ``virt`` machine: what takes one, what is free.

libvirt puts each PCI Express endpoint behind a root port of its own, and all
devices for legacy PCI on one bridge behind one root port (libvirt 9.0.0 and
11.3.0: qemuDomainDeviceCalculatePCIConnectFlags).
"""

import dataclasses
import enum

from lxml import etree

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import tree
from nova_arm_ext.domain import view
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


#: models that go to the bridge, each for its kind of device
_LEGACY_INTERFACES = frozenset(('e1000', 'e1000-82544gc', 'e1000-82545em',
                                'rtl8139', 'vmxnet3'))
_ROOT_PORT_VIDEOS = frozenset(('virtio', 'bochs'))
_XHCI = frozenset((None, 'qemu-xhci', 'nec-xhci'))
_BRIDGE_MODELS = frozenset(('pcie-to-pci-bridge', 'dmi-to-pci-bridge',
                            'pci-bridge'))


def place(device: devices.Device) -> Place:
    """Where libvirt will put a device, if it has no address."""
    if device.element.get('model') == 'virtio-transitional':
        return Place.BRIDGE
    match device:
        case devices.Controller():
            return _controller_place(device)
        case devices.Disk() | devices.Input():
            return _either(device.bus == 'virtio')
        case devices.Interface():
            if (device.model in _LEGACY_INTERFACES
                    or device.model == 'virtio-transitional'):
                return Place.BRIDGE
            return Place.ROOT_PORT
        case devices.Hostdev():
            return _either(device.type in ('pci', 'mdev', 'scsi_host'))
        case devices.Video():
            if device.model in _ROOT_PORT_VIDEOS:
                return Place.ROOT_PORT
            return (Place.ELSEWHERE if device.model in (None, 'ramfb', 'none')
                    else Place.BRIDGE)
        case devices.Memballoon():
            return _either(device.model != 'none')
        case (devices.Rng() | devices.Crypto() | devices.Vsock()
              | devices.Filesystem()):
            return Place.ROOT_PORT
        case devices.Memory():
            return _either(device.model in ('virtio-mem', 'virtio-pmem'))
        case devices.Sound():
            if device.model == 'usb':
                return Place.ELSEWHERE
            return (Place.ROOT_PORT if device.model == 'virtio'
                    else Place.BRIDGE)
        case devices.Shmem():
            return Place.BRIDGE
        case devices.Watchdog():
            return (Place.BRIDGE if device.model == 'i6300esb'
                    else Place.ELSEWHERE)
        case devices.Serial():
            return (Place.BRIDGE if device.target_type == 'pci-serial'
                    else Place.ELSEWHERE)
        case devices.Iommu():
            return (Place.ROOT if device.model == 'virtio'
                    else Place.ELSEWHERE)
    return Place.ELSEWHERE


def _either(on_a_port: bool) -> Place:
    return Place.ROOT_PORT if on_a_port else Place.ELSEWHERE


def _controller_place(controller: devices.Controller) -> Place:
    model = controller.model
    match controller.type:
        case 'virtio-serial':
            return Place.ROOT_PORT
        case 'usb' if model == 'none':
            return Place.ELSEWHERE
        case 'usb':
            return Place.ROOT_PORT if model in _XHCI else Place.BRIDGE
        case 'scsi':
            # without a model it is an LSI one before libvirt 11.6, behind
            # the bridge, and virtio-scsi since then; either takes one port
            return (Place.ROOT_PORT if (model or 'virtio').startswith('virtio')
                    else Place.BRIDGE)
        case 'sata':
            return Place.BRIDGE
        case 'pci' if model == 'pcie-to-pci-bridge':
            return Place.ROOT_PORT
    return Place.ELSEWHERE


def root_ports(domain: view.Domain) -> list[devices.Controller]:
    """The root ports that the document names."""
    return [c for c in domain.all(devices.Controller) if c.is_root_port]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slots:
    """The PCI Express slots of a document.

    :param ports: the root ports that it names
    :param free: those that will have nothing behind them; negative where
        libvirt will have to add ports of its own
    :param limit: the root ports that the machine can have
    :param lacks_bridge: a device waits for a bridge that is not there
    """

    ports: int
    free: int
    limit: int
    lacks_bridge: bool


def slots(domain: view.Domain) -> Slots:
    """Count the slots, in one walk over the devices."""
    mmio = domain.has_virtio_mmio
    present = devices.addressed(domain)
    waiting = _implied(domain, present, mmio)
    ports: list[int | None] = []
    used: set[int | None] = set()
    bridges = 0
    on_the_root = len(domain.element.findall('devices/panic'))
    for device in present:
        is_port = False
        if isinstance(device, devices.Controller) and device.type == 'pci':
            model = device.model
            bridges += model in _BRIDGE_MODELS
            is_port = model == 'pcie-root-port'
            if is_port:
                ports.append(device.index)
        address = device.address
        if address is None or (address.is_pci and address.bus is None):
            # without a bus the document asks for PCI, wherever
            if address is not None or not (mmio and _follows_to_mmio(device)):
                waiting.append(place(device))
        elif address.is_pci:
            used.add(address.bus)
            on_the_root += not address.bus and not is_port
    lacks_bridge = Place.BRIDGE in waiting and not bridges
    if domain.arch == 'armv7l' and Os.of(domain).has_uefi:
        limit = MAX_ROOT_PORTS_ARMV7_UEFI - bridges - lacks_bridge
    else:
        limit = ((_SLOTS - on_the_root - waiting.count(Place.ROOT))
                 * _PORTS_OF_A_SLOT)
    return Slots(
        ports=len(ports), limit=limit, lacks_bridge=lacks_bridge,
        free=(sum(index is None or index not in used for index in ports)
              - waiting.count(Place.ROOT_PORT) - lacks_bridge))


def free_root_ports(domain: view.Domain) -> int:
    """How many of the named root ports will have nothing behind them.

    :returns: negative where libvirt will have to add ports of its own
    """
    return slots(domain).free


def max_root_ports(domain: view.Domain) -> int:
    """How many root ports the guest's machine can have."""
    return slots(domain).limit


def _follows_to_mmio(device: devices.Device) -> bool:
    """Whether libvirt moves a device to virtio-mmio as soon as another one
    is there (qemuDomainAssignVirtioMMIOAddresses).
    """
    match device:
        case devices.Controller():
            return device.type == 'virtio-serial' or (
                device.type == 'scsi' and device.model == 'virtio-scsi')
        case devices.Disk() | devices.Input():
            return device.bus == 'virtio'
        case devices.Interface():
            return device.type != 'hostdev' and device.model == 'virtio'
        case devices.Video() | devices.Sound() | devices.Crypto():
            return device.model == 'virtio'
        case devices.Memballoon() | devices.Rng() | devices.Memory():
            return True
    return False


def _implied(domain: view.Domain, present: list[devices.Device],
             mmio: bool) -> list[Place]:
    """The places of the devices that libvirt adds of its own accord."""
    types: set[str | None] = set()
    buses: set[str | None] = set()
    has_channel = has_video = False
    for device in present:
        match device:
            case devices.Controller():
                types.add(device.type)
            case devices.Disk():
                buses.add(device.bus)
            case devices.Channel():
                has_channel |= device.target_type == 'virtio'
            case devices.Video():
                has_video = True
    found = []
    if 'scsi' in buses - types:
        found.append(Place.ROOT_PORT)
    if 'sata' in buses - types:
        found.append(Place.BRIDGE)
    if has_channel and 'virtio-serial' not in types and not mmio:
        found.append(Place.ROOT_PORT)
    if not has_video and not mmio and domain.has_graphics:
        found.append(Place.ROOT_PORT)
    return found


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
    models = ['pcie-root-port'] * count
    if counted.lacks_bridge:
        models.append('pcie-to-pci-bridge')
    ours = [c for c in domain.all(devices.Controller) if c.type == 'pci']
    if not any(controller.model == 'pcie-root' for controller in ours):
        # libvirt counts those without a number from 0, and that is the root
        domain.add(devices.Controller, type='pci', index=0, model='pcie-root')
        for controller in ours:
            controller.remove()
            domain.insert(controller.element)
    parent = domain.child('devices')
    last = parent.findall(devices.Controller.tag)[-1]
    for model in models:
        element = etree.Element(devices.Controller.tag, type='pci',
                                model=model)
        tree.insert_after(parent, last, element)
        last = element
