# SPDX-License-Identifier: Apache-2.0
"""Puts the right variable store in place before a guest starts."""

from typing import Any

from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import nvram
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

    def prepare(self, event: Event, instance: Any, folder: str,
                guest: view.Domain, *, source: str | None = None,
                carried: Carried | None = None,
                other_firmware: bool = False, ran_with_store: bool = False,
                of_other: bool | None = None) -> Fate | None:
        """Have the right store where a guest's domain XML says.

        :param folder: the instance directory
        :param guest: the domain XML with which it starts
        :param source: the path of the store of which a rescue gets a copy
        :param carried: the store that the image carries
        :param other_firmware: it is made for another firmware
        :param ran_with_store: the guest has run with a store that was to stay
        :param of_other: the instance directory is that of another host
            where nothing there says which host used it last
        :returns: what became of the store; None if the guest has none
        :raises StoreNotUsable: when it is damaged, and is to stay; when it
            cannot be written
        """
        arrived = self._luggage.arrived(event, instance.uuid, folder)
        place = self._stores.place(guest)
        if place is None:
            store.remove(arrived)
            return None
        host = self._luggage.last_host(instance.uuid, folder)
        inside = places.is_inside(place.path, folder)
        state = self._state(event, instance, place, arrived, inside=inside,
                            source=source, ran_with_store=ran_with_store,
                            carried=carried is not None,
                            other_firmware=other_firmware,
                            of_other=bool(of_other if host is None
                                          else host != self._conf.host))
        fate = nvram.decide(event, state)
        try:
            self._carry_out(fate, instance, guest, place, arrived, source,
                            carried)
        except errors.Damaged as e:
            self._stores.replace_damaged(instance, place, e)
            fate = Fate.LOST
        except OSError as e:
            raise store.StoreNotUsable(reason=(
                f'The UEFI variable store {place.path} cannot be written or '
                f'read; what is there and what came along stays: reset the '
                f"guest's state and reboot it hard when the cause is gone: "
                f'{e}')) from e
        if event is not Event.RESCUE:
            if inside and host != self._conf.host:
                self._luggage.mark(instance.uuid, folder)
            store.remove(arrived)
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
        return fate

    def _state(self, event: Event, instance: Any, place: Place,
               arrived: Place, *, inside: bool, source: str | None,
               ran_with_store: bool, **known: bool) -> nvram.State:
        """What is found of the guest's store."""
        present = store.exists(
            Place.of(source, self._conf) if source else place)
        # libvirt's folder may be in another container, and the store with it
        had = ran_with_store and (inside or store.exists(
            Place.of(place.folder, self._conf)))
        return nvram.State(
            present=present, had=had, inside=inside,
            brought=(event in (Event.ARRIVE, Event.REBUILD)
                     and luggage.has_content(arrived)),
            saved=((event in (Event.UNSHELVE, Event.EVACUATE)
                    or (had and not present))
                   and self._copies.load(instance.uuid) is not None),
            **known)

    def _carry_out(self, fate: Fate, instance: Any, guest: view.Domain,
                   place: Place, arrived: Place, source: str | None,
                   carried: Carried | None) -> None:
        """Do to the store what was decided."""
        size = store.flash_size(guest)
        if fate is Fate.KEEP:
            store.check(place, size)
        elif fate is Fate.COPY and source:
            store.write(place, store.pack(Place.of(source, self._conf), size),
                        size)
        elif fate is Fate.BROUGHT:
            store.write(place, luggage.read_packed(arrived), size)
        elif fate is Fate.IMAGE and carried is not None:
            store.write(place, carried.packed, size)
        elif fate is Fate.SAVED:
            store.write(place, self._copies.load(instance.uuid) or b'', size)
        else:
            self._stores.clear(instance, place)
