# SPDX-License-Identifier: Apache-2.0
"""The life of a guest's UEFI variable store, call by call of Nova's."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova import exception
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext.compute import definition
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import operation
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import images
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import start
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.copies import Copies
from nova_arm_ext.compute.nvram.luggage import Luggage
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate
from nova_arm_ext.nvram import on_rebuild
from nova_arm_ext.nvram import STORE_PROPERTY

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF

#: Events at which a guest goes on with the store that it has.
_KEPT = (Event.HARD_REBOOT, Event.UNRESCUE)


class Life:
    """What is done to variable stores at each call of Nova's driver.

    :param host: Nova's Host object
    :param get_image: gives an image, with all its properties, as Nova's image
        API does
    :param is_shared: whether the disks of guests are on shared storage
    """

    def __init__(self, host: Any, stores: store.Stores, copies: Copies,
                 images_: images.Images, luggage: Luggage,
                 definitions: definition.Definitions,
                 facts: host_facts.HostFacts,
                 get_image: Callable[[Any, str], Any],
                 is_shared: Callable[[], bool]) -> None:
        self._host = host
        self._stores = stores
        self._copies = copies
        self._images = images_
        self._luggage = luggage
        self._start = start.Start(CONF, stores, luggage, copies)
        self._definitions = definitions
        self._facts = facts
        self._get_image = get_image
        self._is_shared = is_shared
        # uuids of instances that Nova is about to spawn because their host
        # is lost: rebuild has returned before that
        self._evacuated: set[str] = set()

    # -- A guest starts ------------------------------------------------------

    def rebuilding(self, context: Any, instance: Any, image_meta: Any, *,
                   evacuate: bool) -> None:
        """Remember, for the spawn that follows, what it is for.

        Nova's driver does not implement rebuild: destroy and spawn follow,
        and neither says why it is called.

        :param image_meta: the new image
        :raises InstanceFaultRollback: when the new image cannot be used; the
            instance stays as it is
        """
        if evacuate:
            self._evacuated.add(instance.uuid)
            return
        self._evacuated.discard(instance.uuid)
        try:
            self._check_image(instance, image_meta)
            self._carried(context, instance, image_meta, Event.REBUILD)
        except Exception as e:
            # nothing has been destroyed yet
            raise exception.InstanceFaultRollback(inner_exception=e) from e

    def _check_image(self, instance: Any, image_meta: Any) -> None:
        """Check what an image asks for.

        :raises InvalidInput: when a property has an unknown value
        """
        if self._definitions.is_arm_image(image_meta):
            try:
                on_rebuild(CONF.arm_nvram.on_rebuild,
                           gather.image_properties(instance))
            except errors.Refused as e:
                raise exception.InvalidInput(reason=str(e)) from e

    @contextlib.contextmanager
    def spawning(self, context: Any, instance: Any,
                 image_meta: Any) -> Iterator[None]:
        """Nova makes a guest on this host."""
        event = Event.SPAWN
        evacuated = instance.uuid in self._evacuated
        self._evacuated.discard(instance.uuid)
        if instance.task_state == task_states.REBUILD_SPAWNING:
            event = Event.EVACUATE if evacuated else Event.REBUILD
        elif (instance.vm_state == vm_states.SHELVED_OFFLOADED
              or instance.task_state == task_states.RESIZE_FINISH):
            event = Event.UNSHELVE
        else:
            self._check_image(instance, image_meta)
        carried = (None if event is Event.EVACUATE else
                   self._carried(context, instance, image_meta, event))
        with operation.of(instance, event, carried=carried):
            yield

    def _carried(self, context: Any, instance: Any, image_meta: Any,
                 event: Event) -> images.Carried | None:
        """The variable store that an image carries.

        Nova's own object of the image has no property that Nova does not
        know, and Nova truncates what it keeps with the instance to 255
        characters.
        """
        if (not self._images.carry_stores
                or not image_meta.obj_attr_is_set('id')
                or not self._definitions.is_arm_image(image_meta)):
            return None
        properties = self._get_image(context, image_meta.id)['properties']
        try:
            return self._images.carried(image_meta.id, properties)
        except store.StoreNotUsable as e:
            if (event is not Event.UNSHELVE
                    or self._copies.load(instance.uuid) is None):
                raise
            LOG.warning('%s. The guest gets the copy in the store that '
                        '[arm_nvram] names', e, instance=instance)
            return None

    def store_path(self, instance: Any,
                   doing: operation.Operation) -> str | None:
        """Where the store of a guest is to be; None if nothing says so."""
        guest = doing.guest
        own = None
        if doing.event is Event.ARRIVE:
            # what the XML names is on the other host
            own = None if guest is None else places.store_of(guest)
        elif guest is not None or doing.event in _KEPT:
            place = self._stores.own(instance, guest)
            own = None if place is None else place.path
        return places.path_for(
            doing.event, instance.uuid,
            libvirt_utils.get_instance_path(instance), own,
            is_new=guest is None and own is None,
            is_here=(doing.event is Event.ARRIVE
                     and self._definitions.is_here(instance)))

    def before_start(self, context: Any, xml: str, instance: Any) -> None:
        """Have the right store where a guest's domain XML says."""
        doing = operation.on(instance)
        guest = None if doing is None else view.arm_guest(xml)
        if doing is not None and guest is not None:
            self._settle(context, instance, guest, doing)

    def before_soft_reboot(self, context: Any, instance: Any) -> None:
        """Look for the store of a guest that libvirt is about to start.

        libvirt starts the domain that it has, with a new store where there is
        none; until then the guest has the file that was removed.
        """
        if not self._definitions.is_arm(instance):
            return
        document = self._definitions.of(instance)
        guest = view.arm_guest(document)
        if guest is not None and self._stores.is_missing(guest):
            with operation.of(instance, Event.HARD_REBOOT,
                              previous=document) as doing:
                self._settle(context, instance, guest, doing)

    def _settle(self, context: Any, instance: Any, guest: view.Domain,
                doing: operation.Operation) -> None:
        before = doing.guest
        secure_boot = self._facts.secure_boot_in(guest)
        fate = self._start.prepare(doing.event, instance, guest, start.Known(
            folder=libvirt_utils.get_instance_path(instance),
            own=(None if before is None
                 else self._stores.own(instance, before)),
            carried=doing.carried,
            secure_boot=secure_boot,
            other_firmware=(
                before is not None
                and {self._facts.secure_boot_in(before),
                     secure_boot} == {True, False}),
            # libvirt makes a store at the first start
            ran_with_store=(
                doing.event in _KEPT
                and instance.launched_at is not None
                and (before is None or places.store_of(before) is not None)),
            # Nova evacuates to a directory that it takes for a shared one
            of_other=not self._is_shared()))
        if fate is Fate.LOST:
            with extra('Reporting the event arm_nvram_lost', instance), \
                    compute_utils.EventReporter(
                        context, 'arm_nvram_lost', CONF.host, instance.uuid,
                        graceful_exit=True):
                pass

    # -- Copies and snapshots ------------------------------------------------

    def snapshotting(
            self, image: str) -> contextlib.AbstractContextManager[None]:
        """Nova makes a snapshot.

        :param image: the uuid of the image
        """
        return self._images.making(image)

    def into_snapshot(self, metadata: Any, instance: Any) -> None:
        """Have a snapshot carry the guest's store.

        :param metadata: the image's, as Nova made it; changed in place
        """
        if not self._images.carry_stores:
            return
        guest = self._definitions.guest(instance)
        value = None if guest is None else self._images.sealed(
            instance, guest,
            secure_boot=bool(self._facts.secure_boot_in(guest)))
        # Nova truncates the value that the guest's image had
        if value or f'image_{STORE_PROPERTY}' in instance.system_metadata:
            metadata['properties'][STORE_PROPERTY] = value or ''

    def after_power_off(self, instance: Any) -> None:
        """Copy the store of a guest that has just been switched off."""
        if self._copies.are_kept:
            guest = self._definitions.guest(instance)
            if guest is not None:
                self._copies.save(
                    instance.uuid, self._stores.own(instance, guest), guest)
