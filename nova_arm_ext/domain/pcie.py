# SPDX-License-Identifier: Apache-2.0
"""The PCI Express slots of a ``virt`` machine: what takes one, what is free.

libvirt puts each PCI Express endpoint behind a root port of its own (libvirt
9.0.0 and 11.3.0: qemuDomainDeviceCalculatePCIConnectFlags).
"""

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view

#: libvirt packs eight root ports into each of the slots 1 to 31 of pcie.0
MAX_ROOT_PORTS = 248


def needs_root_port(device: devices.Device) -> bool:
    """Whether libvirt will put a device behind a root port of its own.

    Only for a device that has no address yet. What sits on pcie.0 itself
    (virtio-iommu), on a bridge for legacy PCI, or on no PCI bus does not.
    """
    match device:
        case devices.Controller():
            return device.type in ('scsi', 'usb', 'virtio-serial') \
                and device.model not in ('none', 'lsilogic', 'piix3-uhci')
        case devices.Disk():
            return device.bus == 'virtio'
        case devices.Hostdev():
            return device.type in ('pci', 'mdev')
        case devices.Video():
            return device.model == 'virtio'
        case devices.Input():
            return device.bus == 'virtio'
        case devices.Memballoon():
            return device.model != 'none'
        case (devices.Interface() | devices.Rng() | devices.Vsock()
              | devices.Filesystem() | devices.Shmem()):
            return True
        case devices.Sound():
            return device.model == 'virtio'
    return False


def root_ports(domain: view.Domain) -> list[devices.Controller]:
    """The root ports that the document names."""
    return [c for c in domain.all(devices.Controller) if c.is_root_port]


def free_root_ports(domain: view.Domain) -> int:
    """How many of the named root ports will have nothing behind them.

    :returns: negative where libvirt will have to add ports of its own
    """
    ports = []
    used = set()
    waiting = 0
    for device in devices.addressed(domain):
        address = device.address
        if address is None:
            waiting += needs_root_port(device)
        elif address.is_pci:
            used.add(address.bus)
        if isinstance(device, devices.Controller) and device.is_root_port:
            ports.append(device.index)
    return sum(index is None or index not in used
               for index in ports) - waiting
