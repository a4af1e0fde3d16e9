# SPDX-License-Identifier: Apache-2.0
"""Objects that replace Nova's own while one of its methods runs.

Nova's Host and Guest objects give answers that are right on x86. Nova's method
runs unchanged on a copy of the driver that has such an object. The driver
itself does not change for other threads.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

from nova import exception
from nova.virt.libvirt import guest as libvirt_guest

from nova_arm_ext import facts
from nova_arm_ext.compute.binding import libvirt
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.domain import view

#: Whether Nova can undefine a guest and keep its variable store.
NOVA_KEEPS = 'keep_nvram' in inspect.signature(
    libvirt_guest.Guest.delete_configuration).parameters

#: Tells, of an Arm guest and its domain XML, whether its store is kept.
Keeps = Callable[[view.Domain, str], bool]


def with_host(driver: Any, host: Any) -> Any:
    """A copy of Nova's driver that has another Host object."""
    made = copy.copy(driver)
    made._host = host
    return made


class HostWithUefi:
    """Nova's Host object with other answers about UEFI.

    :param firmware: that of the guest's architecture
    """

    supports_uefi = True

    def __init__(self, host: Any, firmware: list[facts.Firmware]) -> None:
        self._host = host
        self._firmware = firmware

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def get_loader(self, arch: str, machine: str,
                   has_secure_boot: bool) -> tuple[str, str, bool]:
        """The loader, its template and whether it needs SMM.

        Nova 29 to 32 call it. Nova's own method compares libvirt's name of
        the architecture with that of the descriptors: armv7l with "arm".

        :raises UEFINotSupported: as Nova's own does
        """
        for one in self._firmware:
            if one.secure_boot == has_secure_boot:
                return one.loader, one.template, False
        raise exception.UEFINotSupported()


class GuestOfStore:
    """Nova's Guest object that can keep the store when it is undefined.

    Nova 29 to 31.2 and 32.1 always remove the file, even while the guest is
    running (_live_snapshot, _swap_volume). Later releases keep it when the
    guest is about to move, but remove it on shared storage.

    :param keeps: returns whether the store of an Arm guest is kept
    """

    def __init__(self, guest: Any, keeps: Keeps) -> None:
        self._guest = guest
        self._keeps = keeps
        self._document: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def get_xml_desc(self, *args, **kwargs):
        self._document = self._guest.get_xml_desc(*args, **kwargs)
        return self._document

    def delete_configuration(self, *args, **kwargs):
        is_arm, keeps = True, True
        with extra('Deciding whether the variable store is kept'):
            document = self._document or self.get_xml_desc()
            guest = view.arm_guest(document)
            is_arm = guest is not None
            keeps = guest is not None and self._keeps(guest, document)
        if not is_arm:
            return self._guest.delete_configuration(*args, **kwargs)
        if NOVA_KEEPS:
            return self._guest.delete_configuration(
                *args, **{**kwargs, 'keep_nvram': keeps})
        if not keeps:
            return self._guest.delete_configuration()
        return self._guest._domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


class HostOfStores:
    """Nova's Host object that returns `GuestOfStore`."""

    def __init__(self, host: Any, keeps: Keeps) -> None:
        self._host = host
        self._keeps = keeps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def get_guest(self, instance: Any) -> Any:
        return GuestOfStore(self._host.get_guest(instance), self._keeps)


def keeping_store(argument: Any) -> Any:
    """The argument; a guest as a `GuestOfStore` that keeps its store."""
    if not NOVA_KEEPS and isinstance(argument, libvirt_guest.Guest):
        return GuestOfStore(argument, lambda guest, document: True)
    return argument
