# SPDX-License-Identifier: Apache-2.0
"""virtio-mmio: which devices libvirt puts there, and which QEMU has there."""

from nova_arm_ext.domain import devices

_VIRTIO = frozenset(('virtio', 'virtio-scsi', 'virtio-transitional',
                     'virtio-non-transitional'))


def has_mmio_form(device: devices.Device) -> bool:
    """Whether QEMU has an mmio form of a device that libvirt asks for.

    Seen with libvirt 9.0.0 and 11.3.0.
    """
    match device:
        case devices.Disk():
            return (device.bus == 'virtio' and device.device != 'cdrom'
                    and device.element.get('type') != 'vhostuser')
        case devices.Interface():
            return (device.type not in ('hostdev', 'vdpa')
                    and (device.model or 'virtio') in _VIRTIO)
        case devices.Controller():
            return device.type == 'virtio-serial' or (
                device.type == 'scsi' and device.model in _VIRTIO)
        case devices.Memballoon() | devices.Rng():
            return device.model in _VIRTIO
        case devices.Video() | devices.Sound() | devices.Crypto():
            return device.model == 'virtio'
        case devices.Input():
            return device.bus == 'virtio'
    return False


def follows_to_mmio(device: devices.Device) -> bool:
    """Whether libvirt puts a device without an address on virtio-mmio as soon
    as another device is there (qemuDomainAssignVirtioMMIOAddresses).

    It does so with some of which QEMU has no mmio form.
    """
    match device:
        case devices.Disk():
            return device.bus == 'virtio'
        case devices.Controller():
            # SCSI controllers of whatever model
            return device.type in ('scsi', 'virtio-serial')
        case devices.Hostdev():
            return device.type == 'scsi_host'
        case devices.Memory():
            return device.model in ('virtio-mem', 'virtio-pmem')
        case devices.Interface() if device.type == 'vdpa':
            return True
    return has_mmio_form(device)


def is_on_mmio(device: devices.Device) -> bool:
    """Whether the device has a virtio-mmio address."""
    address = device.address
    return address is not None and address.is_virtio_mmio
