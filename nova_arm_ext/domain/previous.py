# SPDX-License-Identifier: Apache-2.0
"""Restores the places of a guest's devices from its previous document.

Nova always builds a document without addresses, and libvirt then numbers the
devices in the order of the document. If devices were added or removed since
(a volume attached, a NIC removed), the guest would find the others in other
slots. So each device gets the address that it had, and the PCI controllers
stay.

Before::

    <disk type='file' device='disk'>
      <target dev='vdb' bus='virtio'/>
    </disk>

After, where the previous document says so::

    <disk type='file' device='disk'>
      <target dev='vdb' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x05' slot='0x00'
               function='0x0'/>
    </disk>
"""

import collections
import copy
from typing import Any

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import tree
from nova_arm_ext.domain import view
from nova_arm_ext.domain.address import Address

#: Types of addresses that decide which slot the guest sees. Others (ISA, DIMM,
#: CCW) either do not exist on ``virt`` or follow from the device itself.
_RESTORED = frozenset(('pci', 'drive', 'usb', 'virtio-serial',
                       'virtio-mmio'))


def of_same_board(domain: view.Domain) -> view.Domain | None:
    """The guest's previous document, if it is for the same kind of machine."""
    previous = domain.previous_of_same_arch
    if previous is None or previous.is_virt != domain.is_virt:
        return None
    return previous


def restore_places(domain: view.Domain) -> dict[str, int]:
    """Give each device the controllers and the address that it had before.

    Devices are matched by what identifies them (see ``identity`` of each
    class in devices). A new device gets no address, so that libvirt finds a
    free slot for it.

    :param domain: changed in place; nothing happens without a previous
        document for the same kind of machine
    :returns: how many ``controllers`` and ``addresses`` were restored
    """
    previous = of_same_board(domain)
    if previous is None:
        return {}
    counts = collections.Counter(
        controllers=_pci_controllers(domain, previous)
        + _other_controllers(domain, previous))
    counts['addresses'] = _addresses(domain, previous)
    return {name: count for name, count in counts.items() if count}


def keep_a_port_free(domain: view.Domain) -> int:
    """Add root ports until one will be left free for hotplug.

    An existing guest gets more ports only here: it keeps the number that it
    had, until its devices need more. libvirt leaves a port free too, but only
    if the document names no port, and the restored controllers do. Another
    port after the last one moves nothing.

    :returns: how many ports were added; none without a previous document
    """
    if domain.previous is None:
        return 0
    slots = pcie.slots(domain)
    if slots.ports == slots.implied:
        return 0
    missing = max(0, min(1 - slots.free, slots.limit - slots.ports))
    pcie.add_root_ports(domain, missing, slots)
    return missing


def keep_plugged(stored: view.Domain, live: view.Domain) -> int:
    """Give disks and interfaces in the stored document the PCI addresses that
    the running guest has, if they have virtio-mmio addresses instead.

    libvirt chooses two places for a device that is plugged in: a free root
    port in the running guest, and virtio-mmio in the stored document if other
    devices are there (qemuDomainEnsureVirtioAddress; observed, 9.0.0).

    :param stored: changed in place
    :returns: how many devices got another address
    """
    kinds = (devices.Disk, devices.Interface)
    seen = {_identity(device): device.address
            for kind in kinds for device in live.all(kind)}
    count = 0
    for device in (device for kind in kinds for device in stored.all(kind)):
        here, there = device.address, seen.get(_identity(device))
        if here is None or not here.is_virtio_mmio:
            continue
        if there is not None and there.is_pci:
            here.remove()
            device.element.append(copy.copy(there.element))
            count += 1
    return count


def _controllers(domain: view.Domain
                 ) -> dict[tuple[str | None, int], devices.Controller]:
    """Controllers of other buses than PCI, by type and index; libvirt counts
    those without one."""
    found: dict[tuple[str | None, int], devices.Controller] = {}
    unnumbered = []
    for controller in domain.all(devices.Controller):
        kind = controller.type
        if kind == 'pci':
            continue
        index = controller.index
        if index is None:
            unnumbered.append((kind, controller))
        else:
            found[kind, index] = controller
    for kind, controller in unnumbered:
        index = 0
        while (kind, index) in found:
            index += 1
        found[kind, index] = controller
    return found


def _pci_controllers(domain: view.Domain, previous: view.Domain) -> int:
    ours = [c for c in domain.all(devices.Controller) if c.type == 'pci']
    present = {c.index for c in ours}
    missing: dict[int, devices.Controller] = {}
    for controller in previous.all(devices.Controller):
        if (controller.type == 'pci' and controller.index is not None
                and controller.index not in present):
            missing.setdefault(controller.index, controller)
    if not missing:
        return 0
    unnumbered = [c for c in ours if c.index is None]
    # Nova writes its root and its ports without numbers, and they are the
    # first ones that the guest saw. If there are more than it had, they stay.
    for model, count in collections.Counter(
            c.model for c in missing.values()).items():
        for controller in [c for c in unnumbered if c.model == model][:count]:
            controller.remove()
            unnumbered.remove(controller)
    domain.insert(*map(_bare, missing.values()))
    for controller in unnumbered:
        # libvirt numbers the rest, but only after the numbered ones: before
        # them it refuses to (9.0.0: "must be model='pcie-root'")
        controller.remove()
        domain.insert(controller.element)
    return len(missing)


def _other_controllers(domain: view.Domain, previous: view.Domain) -> int:
    ours = _controllers(domain)
    needed = _needed_controllers(domain)
    taken = 0
    for key, controller in _controllers(previous).items():
        kind, _ = key
        if controller.model == 'none' and kind in needed:
            continue     # the bus was off, and now has a device
        if key in ours:
            if ours[key].model is None and controller.model is not None:
                ours[key].model = controller.model
                taken += 1
        elif kind in needed:
            domain.insert(_bare(controller))
            taken += 1
    return taken


def _needed_controllers(domain: view.Domain) -> set[str]:
    """The types of controllers that the devices of the document need."""
    buses = {disk.bus for disk in domain.all(devices.Disk)}
    buses |= {device.bus for device in domain.all(devices.Input)}
    buses |= {device.bus for device in domain.all(devices.Redirdev)}
    needed = {bus for bus in buses if bus in ('scsi', 'sata', 'usb')}
    for hostdev in domain.all(devices.Hostdev):
        if hostdev.type in ('scsi', 'usb'):
            needed.add(hostdev.type)
    for channel in domain.all(devices.Channel):
        if channel.target_type == 'virtio':
            needed.add('virtio-serial')
    return needed


def _addresses(domain: view.Domain, previous: view.Domain) -> int:
    had: dict[tuple[Any, ...], collections.deque[devices.Device]] = (
        collections.defaultdict(collections.deque))
    for device in devices.addressed(previous):
        had[_identity(device)].append(device)
    ours = devices.addressed(domain)
    buses = {device.index for device in ours
             if isinstance(device, devices.Controller)
             and device.type == 'pci'} | {0}
    present = [device.address for device in ours]
    # no address is given twice
    taken = {_place(device, address) for device, address
             in zip(ours, present, strict=True) if address is not None}
    count = 0
    for device, own in zip(ours, present, strict=True):
        queue = had.get(_identity(device))
        if not queue:
            continue
        address = queue.popleft().address
        if address is None or own is not None:
            continue
        kind = address.type
        if (kind not in _RESTORED
                or (kind == 'pci' and address.bus not in buses)):
            continue
        place = _place(device, address)
        if kind != 'virtio-mmio' and place in taken:
            continue
        taken.add(place)
        device.element.append(copy.copy(address.element))
        count += 1
    return count


def _identity(device: devices.Device) -> tuple[Any, ...]:
    if isinstance(device, devices.Controller):
        # controllers may have no number; of most kinds a guest has only one,
        # and the others are numbered
        return (device.tag, device.type, device.index or 0, device.model)
    values = [getattr(device, name) for name in device.identity]
    return (device.tag, *(value.lower() if isinstance(value, str) else value
                          for value in values))


def _place(device: devices.Device, address: Address) -> tuple[Any, ...]:
    if address.is_pci:
        return ('pci', address.domain or 0, address.bus or 0,
                address.slot or 0, address.function or 0)
    # each kind of bus counts its own drives
    bus = (device.bus if isinstance(device, devices.Disk)
           and address.type == 'drive' else 'scsi')
    return (address.type, bus, *(
        address.element.get(name, '0')
        for name in ('controller', 'bus', 'target', 'unit', 'port')))


def _bare(controller: devices.Controller) -> Any:
    """A copy without its address, which is restored like all others, and
    without what libvirt adds to a running guest's document.
    """
    element = copy.copy(controller.element)
    address = tree.child(element, 'address')
    if address is not None:
        tree.detach(address)
    alias = tree.child(element, 'alias')
    if alias is not None and not (alias.get('name') or '').startswith('ua-'):
        tree.detach(alias)
    return element
