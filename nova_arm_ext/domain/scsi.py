# SPDX-License-Identifier: Apache-2.0
"""Disks on SCSI: where libvirt and Nova put them, and moving others there."""

import itertools

from lxml import etree

from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view

#: the models that have one target of seven units
_LSI = ('auto', 'lsilogic', 'lsisas1068', 'lsisas1078', 'buslogic', 'ncr53c90')


def move_disks(domain: view.Domain, moved: list[devices.Disk]) -> str | None:
    """Put disks on SCSI: where they were there before, or in a free place.

    :returns: the place in the document; None if there is nothing to move
    """
    if not moved or not domain.is_virt:
        return None
    named = f"devices/disk/target/@bus='{moved[0].bus}'"
    had = disks(domain.previous) if domain.previous else {}
    taken = {place(disk) for disk in disks(domain).values()}
    # those that are still to be moved, maybe by another rule, have these
    present = {disk.dev for disk in domain.all(devices.Disk)}
    kept = {place(disk) for dev, disk in had.items() if dev in present}
    # libvirt (9.0.0) and Nova put disks, also hot-plugged ones, at target 0
    # by their names; the LSI controllers have no other target
    narrow = any(controller.type == 'scsi' and not controller.index
                 and controller.model in _LSI
                 for controller in domain.all(devices.Controller))
    places = ((0, int(not narrow), unit) for unit in itertools.count())
    free = (one for one in places if one not in taken and one not in kept)
    for disk in moved:
        # the target name stays, because Nova finds the disk by it
        disk.bus = 'scsi'
        if disk.address is not None:
            disk.address.remove()
        before = had.get(disk.dev)
        if before is not None and place(before) not in taken:
            unit = place(before)
        else:
            unit = next(free)
        taken.add(unit)
        etree.SubElement(
            disk.element, 'address', type='drive', controller=str(unit[0]),
            bus='0', target=str(unit[1]), unit=str(unit[2]))
    return named


def disks(domain: view.Domain) -> dict[str | None, devices.Disk]:
    """The disks on SCSI, by target name."""
    return {disk.dev: disk for disk in domain.all(devices.Disk)
            if disk.bus == 'scsi'}


def place(disk: devices.Disk) -> tuple[int, int, int]:
    """Controller, target, unit: as given, or as libvirt derives them from the
    name (virDomainDiskDefAssignAddress, 7 units per controller).
    """
    address = disk.address
    if address is not None:
        return address.controller or 0, address.target or 0, address.unit or 0
    index = 0
    for letter in (disk.dev or '')[2:]:
        index = index * 26 + (ord(letter) - ord('a') + 1)
    unit = max(index - 1, 0)
    return unit // 7, 0, unit % 7
