# SPDX-License-Identifier: Apache-2.0
"""Copies of variable stores, in the store that ``[arm_nvram] store`` names."""

from collections.abc import Callable
from typing import Any

from oslo_concurrency import lockutils
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


def load(conf: Any) -> nvram_stores.Store | None:
    """The store driver, ready to keep copies.

    :returns: None if there is none
    :raises ConfigurationError: also when it says that copies cannot be kept
    """
    driver = load_store(conf)
    if driver is not None:
        try:
            driver.check()
        except Exception as e:
            # whatever a third party's raises
            raise errors.ConfigurationError([
                f'[arm_nvram] store: {conf.arm_nvram.store} cannot keep '
                f'copies: {e}']) from e
    return driver


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

    def save(self, uuid: str, place: Place | None,
             guest: view.Domain | None, *,
             still: Callable[[], bool] = lambda: True) -> bool:
        """Copy a guest's store.

        Nothing else is done to the guest's copy meanwhile, so that an older
        one never replaces a newer one.

        :param place: where the store is
        :param still: asked before the copy is written: whether it is wanted
        :returns: whether a copy was kept: not if there is no store for
            copies, or none of the guest's
        """
        if self._driver is None:
            return False
        with _lock(uuid):
            packed = self._stores.pack(place, guest)
            if packed is None or not still():
                return False
            self._driver.save(uuid, packed)
        return True

    def remove(self, uuid: str) -> None:
        """Remove the copy of a guest's store, if there is one."""
        if self._driver is not None:
            with _lock(uuid):
                self._driver.remove(uuid)


def _lock(uuid: str) -> Any:
    return lockutils.lock(f'nova_arm_ext_copy_{uuid}')
