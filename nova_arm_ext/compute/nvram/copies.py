# SPDX-License-Identifier: Apache-2.0
"""Copies of variable stores, in the store that ``[arm_nvram] store`` names."""

from typing import Any

from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext.compute import nvram_stores
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.compute.nvram.store import Stores
from nova_arm_ext.domain import view


def load_store(conf: Any) -> nvram_stores.Store | None:
    """The store driver that ``[arm_nvram] store`` names.

    :returns: None if it names none
    :raises ConfigurationError: when it is not installed or cannot be made
    """
    name = conf.arm_nvram.store
    if not name:
        return None
    faults: dict[str, str] = {}

    def broken(_: Any, entry_point: Any, error: BaseException) -> None:
        faults[entry_point.name] = f'{type(error).__name__}: {error}'

    found = {one.name: one.plugin for one in extension.ExtensionManager(
        nvram.STORES, on_load_failure_callback=broken)}
    if name in faults:
        raise errors.ConfigurationError([
            f'[arm_nvram] store: {name} cannot be imported: {faults[name]}'])
    if name not in found:
        raise errors.ConfigurationError([
            f'[arm_nvram] store names {name!r}, which is not installed; '
            f'installed are: {", ".join(sorted(found))}'])
    try:
        made: nvram_stores.Store = found[name](conf)
    except Exception as e:
        # whatever the constructor of a third party raises
        raise errors.ConfigurationError([
            f'[arm_nvram] store: {name} cannot be made: '
            f'{type(e).__name__}: {e}']) from e
    return made


class Copies:
    """The copies of this host's guests.

    Each method raises what the store driver raises.

    :param stores: reads the stores that are copied
    :param driver: the store driver, if there is one
    """

    def __init__(self, stores: Stores,
                 driver: nvram_stores.Store | None) -> None:
        self._stores = stores
        self._driver = driver

    @property
    def are_kept(self) -> bool:
        """Whether there is a store for copies."""
        return self._driver is not None

    def load(self, uuid: str) -> bytes | None:
        """The copy of a guest's store, packed; None if there is none."""
        return None if self._driver is None else self._driver.load(uuid)

    def save(self, uuid: str, place: Place | None, guest: view.Domain, *,
             running: bool = False) -> bool:
        """Copy a guest's store.

        :param place: where it is
        :param running: QEMU may write it meanwhile, so it is read until it is
            the same twice
        :returns: whether a copy was kept: not if there is no store for
            copies, or if the guest's is being written all the time
        """
        if self._driver is None:
            return False
        packed = (self._stores.pack_settled(place, guest) if running
                  else self._stores.pack(place, guest))
        if packed is None:
            return False
        self._driver.save(uuid, packed)
        return True

    def remove(self, uuid: str) -> None:
        """Remove the copy of a guest's store, if there is one."""
        if self._driver is not None:
            self._driver.remove(uuid)
