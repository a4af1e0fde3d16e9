# SPDX-License-Identifier: Apache-2.0
"""The PCI Express slots of a ``virt`` machine: what takes one, what is free.

libvirt puts each PCI Express endpoint behind a root port of its own, and all
devices for legacy PCI on one bridge behind one root port (libvirt 9.0.0 and
11.3.0: qemuDomainDeviceCalculatePCIConnectFlags).
"""

import enum

from nova_arm_ext.domain import devices
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


def free_root_ports(domain: view.Domain) -> int:
    """How many of the named root ports will have nothing behind them.

    :returns: negative where libvirt will have to add ports of its own
    """
    used = {device.address.bus for device in devices.addressed(domain)
            if device.address is not None and device.address.is_pci}
    waiting = _waiting(domain)
    return (sum(port.index is None or port.index not in used
                for port in root_ports(domain))
            - waiting.count(Place.ROOT_PORT) - _lacks_bridge(domain, waiting))


def _waiting(domain: view.Domain) -> list[Place]:
    """Where libvirt will put the devices that have no address yet."""
    present = devices.addressed(domain)
    mmio = domain.has_virtio_mmio
    return [*(place(device) for device in present
              if _waits_for_pci(device)
              or (device.address is None
                  and not (mmio and _follows_to_mmio(device)))),
            *_implied(domain, mmio)]


def _waits_for_pci(device: devices.Device) -> bool:
    """Whether the document asks libvirt for a place on PCI, whichever."""
    address = device.address
    return address is not None and address.is_pci and address.bus is None


def _bridges(domain: view.Domain) -> int:
    """How many bridges for legacy PCI the document names."""
    return sum(controller.type == 'pci' and controller.model in _BRIDGE_MODELS
               for controller in domain.all(devices.Controller))


def _lacks_bridge(domain: view.Domain, waiting: list[Place]) -> bool:
    """Whether a device waits for a bridge that is not there."""
    return Place.BRIDGE in waiting and not _bridges(domain)


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


def _implied(domain: view.Domain, mmio: bool) -> list[Place]:
    """The places of the devices that libvirt adds of its own accord."""
    present = {c.type for c in domain.all(devices.Controller)}
    buses = {disk.bus for disk in domain.all(devices.Disk)}
    found = []
    if 'scsi' in buses - present:
        found.append(Place.ROOT_PORT)
    if 'sata' in buses - present:
        found.append(Place.BRIDGE)
    if 'virtio-serial' not in present and not mmio and any(
            channel.target_type == 'virtio'
            for channel in domain.all(devices.Channel)):
        found.append(Place.ROOT_PORT)
    if domain.has_graphics and not mmio and not domain.all(devices.Video):
        found.append(Place.ROOT_PORT)
    return found


def max_root_ports(domain: view.Domain) -> int:
    """How many root ports the guest's machine can have."""
    if domain.arch == 'armv7l' and Os.of(domain).has_uefi:
        return (MAX_ROOT_PORTS_ARMV7_UEFI - _bridges(domain)
                - _lacks_bridge(domain, _waiting(domain)))
    on_the_root = len(domain.element.findall('devices/panic'))
    for device in devices.addressed(domain):
        address = device.address
        if address is None or _waits_for_pci(device):
            on_the_root += place(device) is Place.ROOT
        elif address.is_pci and not address.bus:
            on_the_root += not (isinstance(device, devices.Controller)
                                and device.is_root_port)
    return (_SLOTS - on_the_root) * _PORTS_OF_A_SLOT


def add_root_ports(domain: view.Domain, count: int) -> None:
    """Add root ports behind those that are there, which moves nothing.

    A bridge for legacy PCI comes along if a device needs one that is not
    there: libvirt would add it with a port of its own, beside those that
    are free (observed, 9.0.0).
    """
    if count < 1:
        return
    ours = [c for c in domain.all(devices.Controller) if c.type == 'pci']
    if not any(controller.model == 'pcie-root' for controller in ours):
        # libvirt counts those without a number from 0, and that is the root
        domain.add(devices.Controller, type='pci', index=0, model='pcie-root')
        for controller in ours:
            controller.remove()
            domain.insert(controller.element)
    for _ in range(count):
        domain.add(devices.Controller, type='pci', model='pcie-root-port')
    if _lacks_bridge(domain, _waiting(domain)):
        domain.add(devices.Controller, type='pci', model='pcie-to-pci-bridge')
