# SPDX-License-Identifier: Apache-2.0
"""Puts the right variable store in place before a guest starts."""

import dataclasses
from typing import Any

from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.copies import Copies
from nova_arm_ext.compute.nvram.images import Carried
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known about a guest that starts, beside its domain XML.

    :param folder: the instance directory
    :param own: where the store of its own system is
    :param secure_boot: whether its firmware is for Secure Boot, if known
    :param other_firmware: its own store is of another firmware
    :param carried: the store that the image carries
    :param ran_with_store: it has run with a store that was to stay
    :param of_other: the instance directory is that of another host where
        nothing there says which host used it last
    """

    folder: str
    own: Place | None = None
    secure_boot: bool | None = None
    other_firmware: bool = False
    carried: Carried | None = None
    ran_with_store: bool = False
    of_other: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Sources:
    """The packed stores that can take the place of the guest's."""

    arrived: Place
    brought: bytes | None = None
    saved: bytes | None = None
    carried: Carried | None = None


class Start:
    """Decides by the table in ``nova_arm_ext/nvram.py``, and does it.

    :param conf: parsed configuration
    """

    def __init__(self, conf: Any, stores: store.Stores,
                 luggage_: luggage.Luggage, copies: Copies) -> None:
        self._conf = conf
        self._stores = stores
        self._luggage = luggage_
        self._copies = copies

    def prepare(self, event: Event, instance: Any, guest: view.Domain,
                known: Known) -> Fate | None:
        """Have the right store where a guest's domain XML says.

        :param guest: the domain XML with which it starts
        :returns: what became of the store; None if the guest has none
        :raises StoreNotUsable: when it is damaged, and is to stay; when it
            cannot be read or written
        """
        arrived = self._luggage.arrived(event, instance.uuid, known.folder)
        place = self._stores.place(guest)
        if place is None:
            store.remove(arrived)
            return None
        try:
            host = self._luggage.last_host(instance.uuid, known.folder)
            state, sources = self._found(event, instance, place, arrived,
                                         host, known)
            fate = self._carry_out(nvram.decide(event, state), instance,
                                   guest, place, known, sources)
            if event is Event.ARRIVE:
                # the XML that came along may name a store of the other host
                self._luggage.write_document(known.folder, guest.to_xml())
            if event is not Event.RESCUE:
                # the next start would take it for a new arrival
                store.remove(arrived)
        except (OSError, errors.Busy) as e:
            raise store.StoreNotUsable(reason=(
                f'The UEFI variable store {place.path} cannot be written or '
                f'read; what is there and what came along stays: reset the '
                f"guest's state and reboot it hard when the cause is gone: "
                f'{e}')) from e
        if (event is not Event.RESCUE and state.inside
                and host != self._conf.host):
            with extra('Noting this host as the one that uses the variable '
                       'store', instance):
                self._luggage.mark(instance.uuid, known.folder)
        self._tell(event, fate, instance, place, state)
        return fate

    def _found(self, event: Event, instance: Any, place: Place,
               arrived: Place, host: str | None, known: Known
               ) -> tuple[nvram.State, _Sources]:
        """What there is.

        A packed store of another firmware is not counted.
        """
        present = store.exists(known.own if event is Event.RESCUE
                               and known.own is not None else place)
        inside = places.is_inside(place.path, known.folder)
        # libvirt's folder may be in another container, and the store with it
        had = known.ran_with_store and (inside or store.exists(
            Place.of(place.folder, self._conf)))
        of_other = (known.of_other if host is None
                    else host != self._conf.host)
        brought = (luggage.read_packed(arrived)
                   if event in (Event.ARRIVE, Event.REBUILD) else b'')
        other_firmware = known.other_firmware or (
            # the domain XML was on the host that is lost
            event is Event.EVACUATE and present and of_other
            and {known.secure_boot,
                 store.has_platform_key(place)} == {True, False})
        # an existing guest does not go back to its image
        carried = known.carried if event in (
            Event.SPAWN, Event.REBUILD, Event.UNSHELVE) else None
        sources = _Sources(
            arrived=arrived,
            brought=brought if _fits(brought, known.secure_boot) else None,
            carried=carried if carried is not None
            and carried.secure_boot == bool(known.secure_boot) else None)
        state = nvram.State(
            present=present, had=had, inside=inside, of_other=of_other,
            brought=bool(sources.brought),
            carried=sources.carried is not None,
            other_firmware=(
                other_firmware or bool(brought and not sources.brought)
                or (carried is not None and sources.carried is None)))
        with_copy = dataclasses.replace(state, saved=True)
        if nvram.decide(event, with_copy) is Fate.SAVED:
            # not asked otherwise: it may be that it cannot be read
            saved = self._copy(instance)
            if saved and _fits(saved, known.secure_boot):
                return with_copy, dataclasses.replace(sources, saved=saved)
        return state, sources

    def _copy(self, instance: Any) -> bytes | None:
        """The copy in the store driver.

        :raises StoreNotUsable: when it cannot be told whether there is one
        """
        try:
            return self._copies.load(instance.uuid)
        except Exception as e:
            # whatever the driver of a third party raises
            raise store.StoreNotUsable(reason=(
                f'The copy of the UEFI variables in the store that '
                f'[arm_nvram] names cannot be read; start the instance when '
                f'the cause is gone: {type(e).__name__}: {e}')) from e

    def _carry_out(self, fate: Fate, instance: Any, guest: view.Domain,
                   place: Place, known: Known, sources: _Sources) -> Fate:
        """Do what was decided.

        :returns: what became of the store, which is another fate where a
            store is damaged
        """
        size = store.flash_size(guest)
        if fate is Fate.KEEP:
            try:
                store.check(place, size)
            except errors.Damaged as e:
                self._stores.replace_damaged(instance, place, e)
                return Fate.LOST
            return fate
        if fate in (Fate.FRESH, Fate.LOST):
            self._stores.clear(instance, place)
            return fate
        try:
            if fate is Fate.COPY and known.own is not None:
                what = f'The UEFI variable store {known.own.path}'
                packed = store.pack(known.own, size)
            elif fate is Fate.BROUGHT:
                what = (f'The UEFI variable store {sources.arrived.path}, '
                        f'which came along,')
                packed = sources.brought or b''
            elif fate is Fate.IMAGE and sources.carried is not None:
                what = 'The UEFI variable store that the image carries'
                packed = sources.carried.packed
            else:
                what = ('The copy of the UEFI variables in the store that '
                        '[arm_nvram] names')
                packed = sources.saved or b''
            varstore.check(varstore.unpack(packed), size)
        except errors.Damaged as e:
            if fate is Fate.COPY:
                # the rescue is there to mend it
                LOG.warning('%s cannot be used: %s. The rescue starts with a '
                            'new one', what, e, instance=instance)
                self._stores.clear(instance, place)
                return Fate.FRESH
            self._stores.accept_damage(instance, what, e)
            if fate is Fate.BROUGHT:
                self._stores.clear(instance, sources.arrived)
            self._stores.clear(instance, place)
            return Fate.LOST
        try:
            store.write(place, packed, size)
        except errors.Damaged as e:
            # a link is in its place
            self._stores.replace_damaged(instance, place, e)
            store.write(place, packed, size)
        return fate

    @staticmethod
    def _tell(event: Event, fate: Fate, instance: Any, place: Place,
              state: nvram.State) -> None:
        if fate is Fate.LOST:
            LOG.warning(
                'The UEFI variables of this guest are lost (%s): it starts '
                'with a new store, %s. Boot entries and Secure Boot keys of '
                'its own are gone. If there is a backup, stop the guest and '
                'put it back: nova-arm-ext nvram restore %s FILE',
                event.name.lower(), place.path, instance.uuid,
                instance=instance)
        elif fate is Fate.SAVED and state.had:
            LOG.warning(
                'The UEFI variable store %s of this guest was not there. The '
                'copy in the store that [arm_nvram] names has taken its '
                'place; what was changed since it was made is lost',
                place.path, instance=instance)


def _fits(packed: bytes | None, secure_boot: bool | None) -> bool:
    """Whether a packed store may be one of this firmware.

    One that is not whole is told of where it is used.
    """
    if not packed or secure_boot is None:
        return True
    try:
        return varstore.is_for_secure_boot(packed) in (None, secure_boot)
    except errors.Damaged:
        return True
