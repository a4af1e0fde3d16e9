# SPDX-License-Identifier: Apache-2.0
"""Reads, checks and writes variable stores, as root where that is needed."""

import os
from collections.abc import Callable
from typing import Any
from typing import TypeVar

from nova import exception
from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import files
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import privileged
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain import view

LOG = logging.getLogger(__name__)

#: How often a store that is being written is read again.
_TRIES = 3

T = TypeVar('T')


class StoreNotUsable(exception.NovaException):
    """A guest's variable store is damaged, or cannot be moved or written.

    The API shows why.
    """

    msg_fmt = '%(reason)s'


class Stores:
    """The variable stores of this host's Arm guests.

    :param conf: parsed configuration
    """

    def __init__(self, conf: Any) -> None:
        self._conf = conf

    def place(self, guest: view.Domain) -> Place | None:
        """Where the store of a guest is; None if it has none."""
        path = places.store_of(guest)
        return None if path is None else Place.of(path, self._conf)

    def is_missing(self, guest: view.Domain) -> bool:
        """Whether there is nothing where the store of a guest should be."""
        place = self.place(guest)
        return place is not None and not exists(place)

    def check(self, guest: view.Domain) -> None:
        """Check the store of a guest.

        :raises StoreNotUsable: when it is damaged, and is not to be replaced
        """
        place = self.place(guest)
        if place is None or not exists(place):
            return
        try:
            check(place, flash_size(guest))
        except errors.Damaged as e:
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise self._not_usable(place, e) from e

    def pack(self, guest: view.Domain, path: str | None = None
             ) -> bytes | None:
        """The store of a guest, packed.

        :param path: where it is, if that is not where its domain XML says
        :returns: None if there is none
        :raises StoreNotUsable: when it is damaged, and is not to be replaced
        """
        path = path or places.store_of(guest)
        if path is None:
            return None
        place = Place.of(path, self._conf)
        if not exists(place):
            return None
        try:
            return pack(place, flash_size(guest))
        except errors.Damaged as e:
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise self._not_usable(place, e) from e
            LOG.warning('The UEFI variable store %s does not go along: %s',
                        path, e)
            return None

    def pack_settled(self, guest: view.Domain) -> bytes | None:
        """The store of a guest that may be writing it, packed.

        It is read until it is the same twice.

        :returns: None if there is none, or if it is being written all the
            time
        :raises StoreNotUsable: as `pack` does
        """
        packed = self.pack(guest)
        for _ in range(_TRIES):
            before, packed = packed, self.pack(guest)
            if packed == before:
                return packed
        return None

    def replace_damaged(self, instance: Any, place: Place,
                        error: Exception) -> None:
        """Rename a damaged store, if ``[arm_nvram] on_damage`` says so.

        :raises StoreNotUsable: when it does not say so
        """
        if self._conf.arm_nvram.on_damage != 'fresh':
            raise self._not_usable(place, error) from error
        LOG.warning('The UEFI variable store %s cannot be used: %s',
                    place.path, error, instance=instance)
        self.clear(instance, place)

    @staticmethod
    def clear(instance: Any, place: Place) -> None:
        """Rename whatever is in the place of a guest's store."""
        if not exists(place):
            return
        aside = _as_needed(files.put_aside, privileged.put_aside, *place)
        LOG.warning('What was in the place of the UEFI variable store of this '
                    'instance is not its own or not sound, and was renamed '
                    'to %s', os.path.join(place.folder, aside),
                    instance=instance)

    @staticmethod
    def _not_usable(place: Place, error: Exception) -> StoreNotUsable:
        return StoreNotUsable(reason=(
            f'The UEFI variable store {place.path} cannot be used: {error}. '
            f'Restore or reset it with "nova-arm-ext nvram", or set '
            f'[arm_nvram] on_damage = fresh'))


def exists(place: Place) -> bool:
    """Whether there is anything in a place, a store or not."""
    return _as_needed(files.exists, privileged.exists, *place)


def check(place: Place, size: int | None) -> None:
    """Check a store.

    :param size: bytes of flash, if known
    :raises Damaged: when it is not sound
    """
    _as_needed(
        lambda folder, name, size: varstore.check(
            files.read(folder, name), size),
        privileged.check, *place, size)


def pack(place: Place, size: int | None) -> bytes:
    """Check a store, and pack it.

    :param size: bytes of flash, if known
    :raises Damaged: when it is not sound
    """
    return _as_needed(privileged.checked_and_packed, privileged.pack, *place,
                      size)


def write(place: Place, packed: bytes, size: int | None) -> None:
    """Write a store that came packed.

    :param size: bytes of flash, if known
    :raises Damaged: when it is not sound, or does not fit
    :raises OSError: when it cannot be written
    """
    # libvirt's folder is closed to Nova's user
    _as_needed(privileged.check_and_write, privileged.write, *place, packed,
               size)


def remove(place: Place) -> None:
    """Remove a file, if there is one."""
    _as_needed(files.remove, privileged.remove, *place)


def remove_from_libvirt(name: str) -> None:
    """Remove what libvirt's folder has under a domain's name.

    Only for domains that this host does not have any more.
    """
    for place in filter(exists, places.in_libvirt(name)):
        remove(place)
        LOG.info('Removed the UEFI variable store %s of a guest that is not '
                 'here any more', place.path)


def is_in_libvirt(name: str) -> bool:
    """Whether libvirt's folder has a store under a domain's name."""
    return any(map(exists, places.in_libvirt(name)))


def flash_size(guest: view.Domain) -> int | None:
    """The bytes of flash that a guest's firmware is made for, if known."""
    template = firmware.Os.of(guest).nvram_template
    if template is None:
        return None
    try:
        with open(template, 'rb') as file:
            if file.read(len(varstore.QCOW2)) == varstore.QCOW2:
                return None
            return file.seek(0, os.SEEK_END)
    except OSError:
        # libvirt may have it in a container of its own
        return None


def _as_needed(direct: Callable[..., T], as_root: Callable[..., T],
               *args: Any) -> T:
    """Do something as this user, and as root where that is not allowed.

    In this order, because on shared storage root may be nobody.
    """
    try:
        return direct(*args)
    except PermissionError:
        return as_root(*args)
