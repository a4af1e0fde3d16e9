# SPDX-License-Identifier: Apache-2.0
"""A guest is removed from this host, and its variable store with it."""

import contextlib
import contextvars
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import nova.conf
from nova.compute import task_states
from nova.compute import vm_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import operation
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.copies import Copies
from nova_arm_ext.compute.nvram.images import Images
from nova_arm_ext.compute.nvram.luggage import Luggage
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import on_rebuild
from nova_arm_ext.nvram import undefine_keeps

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF

#: While another host evacuates a guest, it has not yet noted that it uses the
#: store in the instance directory.
_EVACUATING = (task_states.REBUILDING,
               task_states.REBUILD_BLOCK_DEVICE_MAPPING,
               task_states.REBUILD_SPAWNING)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Cleanup:
    """What is known while Nova cleans up after a guest.

    :param removed: its disks are removed from this host
    :param guest: its domain XML, once it has been undefined
    """

    uuid: str
    removed: bool
    guest: view.Domain | None = None


_cleanup: contextvars.ContextVar[_Cleanup | None] = contextvars.ContextVar(
    'nova_arm_ext_cleanup', default=None)


class Removal:
    """What is done around Nova's destroying, cleaning up and undefining."""

    def __init__(self, stores: store.Stores, copies: Copies, images: Images,
                 luggage: Luggage,
                 definitions: definition.Definitions) -> None:
        self._stores = stores
        self._copies = copies
        self._images = images
        self._luggage = luggage
        self._definitions = definitions

    def before_destroy(self, instance: Any) -> None:
        """Save what is needed again of a guest whose disks are removed."""
        if instance.task_state not in (task_states.SHELVING_OFFLOADING,
                                       task_states.REBUILDING):
            return
        guest = (self._definitions.guest(instance)
                 # that of a failed start has no domain
                 or view.arm_guest(self._luggage.document(
                     libvirt_utils.get_instance_path(instance))))
        if guest is None and not self._definitions.is_arm(instance):
            return
        place = self._stores.own(instance, guest)
        if instance.task_state == task_states.REBUILDING:
            asked = on_rebuild(CONF.arm_nvram.on_rebuild,
                               gather.image_properties(instance))
            keep = asked == 'keep'
            # where there is none, a rebuild that failed has kept it already
            if not keep or (place is not None and store.exists(place)):
                self._luggage.keep_for_rebuild(
                    instance.uuid,
                    self._stores.pack(place, guest) if keep else None)
            if not keep:
                with extra('Removing the copy of the variable store',
                           instance):
                    self._copies.remove(instance.uuid)
        elif self._copies.are_kept:
            # without a copy it is not offloaded
            self._copies.save(instance.uuid, place, guest)
        elif (place is not None and store.exists(place)
                and not self._images.carry_stores):
            LOG.warning(
                'The UEFI variables of this guest are lost with offloading '
                'it: [arm_nvram] store names no store for copies',
                instance=instance)

    @staticmethod
    def keeps_folder(instance: Any) -> bool:
        """Whether the instance directory stays, whatever Nova asks for.

        ``[workarounds] ensure_libvirt_rbd_instance_dir_cleanup`` is meant for
        hosts that a guest leaves, and acts on a hard reboot too.
        """
        doing = operation.on(instance)
        return (doing is not None
                and doing.event in (Event.HARD_REBOOT, Event.ARRIVE)
                and doing.guest is not None)

    @contextlib.contextmanager
    def cleaning_up(self, instance: Any, *, removed: bool) -> Iterator[None]:
        """Nova cleans up after a guest, and undefines it on the way.

        :param removed: its disks are removed from this host
        """
        cleanup = _Cleanup(uuid=instance.uuid, removed=removed)
        token = _cleanup.set(cleanup)
        try:
            yield
        finally:
            _cleanup.reset(token)
        if operation.on(instance) is None:
            with extra('Cleaning up after the instance', instance):
                self._after_cleanup(instance, cleanup.guest, removed)

    def undefining(self, instance: Any, guest: view.Domain,
                   document: str) -> bool:
        """Nova is about to undefine a guest.

        The domain XML of a guest that goes on to exist is saved until it is
        defined again, whatever Nova is doing: only it has the guest's slots
        and the path of its variable store.

        :param guest: an Arm guest
        :param document: its domain XML
        :returns: whether libvirt is to keep the store
        """
        removed = True
        cleanup = _cleanup.get()
        if cleanup is not None and cleanup.uuid == instance.uuid:
            cleanup.guest = guest
            removed = cleanup.removed
        leaving = operation.on(instance) is None and _is_leaving(instance)
        if not (removed or leaving):
            self._definitions.save(instance, document)
        path = places.store_of(guest)
        return path is not None and undefine_keeps(
            inside=places.is_inside(
                path, libvirt_utils.get_instance_path(instance)),
            in_libvirt=places.is_in_libvirt(path),
            removed=removed, leaving=leaving)

    def _after_cleanup(self, instance: Any, guest: view.Domain | None,
                       removed: bool) -> None:
        """Let nothing of a guest stay behind that is not here any more.

        :param guest: the guest that was undefined
        """
        # the domain is gone already after a failed start, a resize to another
        # cell and, at times, an evacuation
        is_arm = guest is not None or self._definitions.is_arm(instance)
        deleted = (instance.task_state == task_states.DELETING
                   or instance.vm_state in (vm_states.SOFT_DELETED,
                                            vm_states.DELETED))
        if is_arm and _is_leaving(instance):
            if instance.task_state not in _EVACUATING:
                with extra('Removing its files from the instance directory',
                           instance):
                    self._luggage.forget(
                        instance.uuid,
                        libvirt_utils.get_instance_path(instance),
                        own_only=(instance.task_state
                                  != task_states.RESIZE_REVERTING))
            removed = True
        with extra("Removing the variable store from libvirt's directory",
                   instance):
            # The domain XML may name none of them: that of a rescue names the
            # rescue's, and libvirt older than 9.2 none of a stopped guest.
            if (removed and is_arm
                    and not self._definitions.is_here(instance)
                    and not self._definitions.has_name(instance.name)):
                store.remove_from_libvirt(instance.name)
        if removed and deleted:
            with extra('Removing the store that was kept for a rebuild',
                       instance):
                self._luggage.keep_for_rebuild(instance.uuid, None)
            with extra('Removing the copy of the variable store',
                       instance):
                self._copies.remove(instance.uuid)


def _is_leaving(instance: Any) -> bool:
    """Whether a guest that is undefined here goes on elsewhere."""
    if instance.task_state == task_states.RESIZE_REVERTING:
        # there is one where it goes back to, which may be this host
        return not os.path.exists(
            libvirt_utils.get_instance_path(instance) + '_resize')
    return instance.host not in (None, CONF.host)
