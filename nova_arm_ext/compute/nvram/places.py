# SPDX-License-Identifier: Apache-2.0
"""Where the files of variable stores are."""

import os
from typing import Any
from typing import NamedTuple

from nova_arm_ext import nvram
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event

#: Where libvirt puts the store of a guest whose domain XML names none.
LIBVIRT = '/var/lib/libvirt/qemu/nvram'
SUFFIXES = ('.fd', '.raw', '.qcow2')

#: Nova removes each file with this suffix from the instance directory on
#: unrescue.
RESCUE = '.rescue'


class Place(NamedTuple):
    """Where a file is: a trusted folder, and its path from there."""

    folder: str
    name: str

    @classmethod
    def of(cls, path: str, conf: Any) -> 'Place':
        """The place of an absolute path.

        :param conf: parsed configuration; ``instances_path`` is trusted, and
            so is the folder of a file that is not below it
        """
        path = os.path.normpath(path)
        folder = os.path.join(conf.instances_path, '')
        if path.startswith(folder):
            return cls(conf.instances_path, path.removeprefix(folder))
        return cls(*os.path.split(path))

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)


def store_of(guest: view.Domain) -> str | None:
    """The path of the store that a domain XML names.

    :returns: None if it has none, or one that is no file
    """
    has = firmware.Os.of(guest)
    if not has.has_uefi or has.is_stateless or not has.nvram_is_file:
        return None
    if has.nvram:
        return has.nvram
    # libvirt older than 9.2 does not keep the path of what it selects, and
    # has one name for it (qemuDomainNVRAMPathFormat)
    return os.path.join(LIBVIRT, f'{guest.name}_VARS.fd')


def is_inside(path: str, folder: str) -> bool:
    """Whether a file is in a folder itself, however both are spelled."""
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(folder)


def is_in_libvirt(path: str) -> bool:
    """Whether a file is in libvirt's folder of stores."""
    return is_inside(path, LIBVIRT)


def is_rescue(guest: view.Domain) -> bool:
    """Whether a domain XML is that of a rescue, and not of the own system."""
    return (store_of(guest) or '').endswith(RESCUE) or any(
        disk.source.endswith(RESCUE) for disk in guest.all(devices.Disk)
        if disk.source)


def in_libvirt(name: str) -> list[Place]:
    """Where libvirt's folder can have the store of a domain.

    :param name: the domain's name
    """
    return [Place(LIBVIRT, f'{name}_VARS{suffix}') for suffix in SUFFIXES]


def path_for(event: Event, uuid: str, folder: str, previous: str | None, *,
             is_new: bool, is_here: bool) -> str | None:
    """Where the store of a guest is to be.

    :param folder: the instance directory
    :param previous: the path in the guest's previous domain XML
    :param is_new: there is no such XML
    :param is_here: this host has the guest's domain
    :returns: ending in ``_VARS`` where the template decides the suffix; None
        where nothing is to be said about it
    """
    previous = previous and previous.removesuffix(RESCUE)
    if event is Event.RESCUE:
        return previous and nvram.file_of(folder, uuid, previous) + RESCUE
    if event is Event.ARRIVE:
        if is_here and previous and not is_inside(previous, folder):
            return previous
        return nvram.file_of(folder, uuid, previous)
    if is_new:
        # one that is there, on shared storage, keeps its name
        return next(
            (path for suffix in SUFFIXES if os.path.lexists(
                path := nvram.file_of(folder, uuid, suffix=suffix))),
            nvram.file_of(folder, uuid))
    return previous
