# SPDX-License-Identifier: Apache-2.0
"""Reads, checks and writes variable stores, as root where that is needed."""

import os
from collections.abc import Callable
from typing import Any
from typing import TypeVar

from nova import exception
from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import files
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import privileged
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain import view

LOG = logging.getLogger(__name__)

T = TypeVar('T')


class StoreNotUsable(exception.NovaException):
    """A guest's variable store is damaged, or cannot be moved or written.

    The API shows why.
    """

    msg_fmt = '%(reason)s'


class Stores:
    """The variable stores of this host's Arm guests.

    :param conf: parsed configuration
    :param secure_boot_in: tells whether the firmware of a guest is for
        Secure Boot; None if that is unknown
    """

    def __init__(self, conf: Any, secure_boot_in: Callable[
            [view.Domain], bool | None]) -> None:
        self._conf = conf
        self._secure_boot_in = secure_boot_in

    def place(self, guest: view.Domain) -> Place | None:
        """The store that a domain XML names; None if it has none.

        That of a rescue names the rescue's: see `own`.
        """
        path = places.store_of(guest)
        return None if path is None else Place.of(path, self._conf)

    def own(self, instance: Any, guest: view.Domain | None) -> Place | None:
        """Where the store of a guest's own system is, or should be.

        The store that the domain XML names is not always there: the XML may
        be that of a rescue, or of the host that the guest came from.

        :param guest: its domain XML; None if it has none on this host
        :returns: the first of these places that has something, or else the
            first: what the XML names, the instance directory, libvirt's
            folder; None if the XML names no store
        """
        # not for the command, which only loads the store driver
        from nova.virt.libvirt import utils as libvirt_utils
        named = None if guest is None else self.place(guest)
        if guest is not None and named is None:
            return None
        if named is not None and named.path.endswith(places.RESCUE):
            named = None
        # libvirt's folder may be in another container
        if named is not None and (
                exists(named)
                or not exists(Place(*os.path.split(named.folder)))):
            return named
        folder = libvirt_utils.get_instance_path(instance)
        choices = [Place.of(nvram.file_of(folder, instance.uuid, suffix=one),
                            self._conf) for one in places.SUFFIXES]
        choices += places.in_libvirt(instance.name)
        return next(filter(exists, choices), named or choices[0])

    def moved(self, place: Place, folder: str, left: str) -> Place:
        """Where a store is when Nova has renamed the instance directory.

        :param left: its name by now
        """
        if not places.is_inside(place.path, folder):
            return place
        return Place.of(
            os.path.join(left, os.path.basename(place.path)), self._conf)

    def is_missing(self, guest: view.Domain) -> bool:
        """Whether there is nothing where the store of a guest should be."""
        place = self.place(guest)
        return place is not None and not exists(place)

    def check(self, place: Place | None, guest: view.Domain) -> None:
        """Check the store of a guest.

        :param place: where it is
        :raises StoreNotUsable: when it is damaged, and is not to be replaced
        """
        if place is None or not exists(place):
            return
        try:
            check(place, flash_size(guest))
        except errors.Damaged as e:
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise _not_usable(
                    f'The UEFI variable store {place.path}', e) from e
        except errors.Busy as e:
            raise StoreNotUsable(reason=str(e)) from e

    def pack(self, place: Place | None, guest: view.Domain | None
             ) -> bytes | None:
        """The store of a guest, packed.

        :param place: where it is
        :param guest: its domain XML, if there is one
        :returns: None if there is none
        :raises StoreNotUsable: when it is damaged, and is not to be replaced
        """
        if place is None or not exists(place):
            return None
        try:
            if guest is None:
                return pack(place, None)
            return pack(place, flash_size(guest), self._secure_boot_in(guest))
        except errors.Damaged as e:
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise _not_usable(
                    f'The UEFI variable store {place.path}', e) from e
            LOG.warning('The UEFI variable store %s is not taken along: %s',
                        place.path, e)
            return None
        except errors.Busy as e:
            raise StoreNotUsable(reason=str(e)) from e

    def replace_damaged(self, instance: Any, place: Place,
                        error: Exception) -> None:
        """Rename a damaged store, if ``[arm_nvram] on_damage`` says so.

        :raises StoreNotUsable: when it does not say so
        """
        self.accept_damage(
            instance, f'The UEFI variable store {place.path}', error)
        self.clear(instance, place)

    def accept_damage(self, instance: Any, what: str,
                      error: Exception) -> None:
        """Log that a store is damaged, if ``[arm_nvram] on_damage`` says so.

        :param what: the store, as the beginning of a sentence
        :raises StoreNotUsable: when it does not say so
        """
        if self._conf.arm_nvram.on_damage != 'fresh':
            raise _not_usable(what, error) from error
        LOG.warning('%s cannot be used: %s', what, error, instance=instance)

    @staticmethod
    def clear(instance: Any, place: Place) -> None:
        """Rename whatever is in the place of a guest's store."""
        if not exists(place):
            return
        aside = _as_needed(files.put_aside, privileged.put_aside, *place)
        LOG.warning('%s is not used and was renamed to %s', place.path,
                    os.path.join(place.folder, aside), instance=instance)


def _not_usable(what: str, error: Exception) -> StoreNotUsable:
    return StoreNotUsable(reason=(
        f'{what} cannot be used: {error}. Restore or reset it with '
        f'"nova-arm-ext nvram", or set [arm_nvram] on_damage = fresh'))


def exists(place: Place) -> bool:
    """Whether there is anything in a place, a store or not."""
    return _as_needed(files.exists, privileged.exists, *place)


def check(place: Place, size: int | None) -> None:
    """Check a store.

    :param size: bytes of flash, if known
    :raises Damaged: when it is not sound
    """
    _as_needed(files.read_sound, privileged.check, *place, size)


def state(place: Place) -> tuple[int, ...]:
    """What changes when a store is written.

    :raises FileNotFoundError: when it is not there
    """
    return tuple(_as_needed(files.state, privileged.state, *place))


def pack(place: Place, size: int | None,
         secure_boot: bool | None = None) -> bytes:
    """Check a store, and pack it.

    :param size: bytes of flash, if known
    :param secure_boot: whether its firmware is for Secure Boot, if known
    :raises Damaged: when it is not sound
    """
    return _as_needed(privileged.checked_and_packed, privileged.pack, *place,
                      size, secure_boot)


def has_platform_key(place: Place) -> bool | None:
    """Whether a store has the key without which Secure Boot is off.

    :returns: None if it cannot be looked into
    """
    try:
        data = varstore.unpack(pack(place, None))
        return (None if data.startswith(varstore.QCOW2)
                else varstore.has_platform_key(data))
    except errors.Damaged:
        return None


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

    What was renamed because it could not be used is removed too. Only for
    domains that this host does not have any more.
    """
    for place in places.in_libvirt(name):
        if not _as_needed(files.remove_all, privileged.remove_all, *place):
            continue
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
