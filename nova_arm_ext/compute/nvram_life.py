# SPDX-License-Identifier: Apache-2.0
"""The life of a guest's UEFI variable store, call by call of Nova's."""

import contextlib
import contextvars
import dataclasses
import os
import time
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

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import nvram
from nova_arm_ext.compute import operation
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate
from nova_arm_ext.nvram import on_rebuild
from nova_arm_ext.nvram import STORE_PROPERTY
from nova_arm_ext.nvram import undefine_keeps

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF


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


class Life:
    """What is done to variable stores at each call of Nova's driver.

    :param host: Nova's Host object
    :param get_image: gives an image, with all its properties, as Nova's image
        API does
    :param is_shared: whether the disks of guests are on shared storage
    """

    def __init__(self, host: Any, stores: nvram.Stores,
                 definitions: definition.Definitions,
                 facts: host_facts.HostFacts,
                 get_image: Callable[[Any, str], Any],
                 is_shared: Callable[[], bool]) -> None:
        self._host = host
        self._stores = stores
        self._definitions = definitions
        self._facts = facts
        self._get_image = get_image
        self._is_shared = is_shared
        self._last_copies = time.monotonic()
        # uuids of instances that Nova is about to spawn because their host
        # is lost: rebuild has returned before that
        self._evacuated: set[str] = set()

    # -- A guest starts ------------------------------------------------------

    def rebuilding(self, instance: Any, *, evacuate: bool) -> None:
        """Remember, for the spawn that follows, what it is for.

        Nova's driver does not implement rebuild: destroy and spawn follow,
        and neither says why it is called.
        """
        if evacuate:
            self._evacuated.add(instance.uuid)
        else:
            self._evacuated.discard(instance.uuid)

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
        carried = (None if event is Event.EVACUATE else
                   self._carried(context, instance, image_meta, event))
        with operation.of(instance, event, carried=carried):
            yield

    def _carried(self, context: Any, instance: Any, image_meta: Any,
                 event: Event) -> nvram.Carried | None:
        """The variable store that an image carries.

        Nova's own object of the image has no property that Nova does not
        know, and Nova truncates what it keeps with the instance to 255
        characters.
        """
        if (not self._stores.go_into_images
                or not image_meta.obj_attr_is_set('id')
                or not self._definitions.is_arm_image(image_meta)):
            return None
        properties = self._get_image(context, image_meta.id)['properties']
        try:
            return self._stores.from_image(image_meta.id, properties)
        except nvram.StoreNotUsable as e:
            if (event is not Event.UNSHELVE
                    or not self._stores.has_copy(instance.uuid)):
                raise
            LOG.warning('%s. The guest gets the copy in the store that '
                        '[arm_nvram] names', e, instance=instance)
            return None

    def store_path(self, instance: Any,
                   doing: operation.Operation) -> str | None:
        """Where the store of a guest is to be; None if nothing says so."""
        guest = doing.guest
        return nvram.path_for(
            doing.event, instance.uuid,
            libvirt_utils.get_instance_path(instance),
            None if guest is None else nvram.store_of(guest),
            is_new=guest is None,
            is_here=(doing.event is Event.ARRIVE
                     and self._is_here(instance)))

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
        fate = self._stores.before_start(
            doing.event, instance, libvirt_utils.get_instance_path(instance),
            guest,
            source=(nvram.store_of(before)
                    if before is not None and doing.event is Event.RESCUE
                    else None),
            carried=doing.carried,
            other_firmware=(
                doing.carried.secure_boot != bool(secure_boot)
                if doing.carried is not None else before is not None
                and {self._facts.secure_boot_in(before),
                     secure_boot} == {True, False}),
            # libvirt makes a store at the first start
            had=(doing.event in (Event.HARD_REBOOT, Event.UNRESCUE)
                 and instance.launched_at is not None
                 and (before is None or nvram.store_of(before) is not None)),
            # Nova evacuates to a directory that it takes for a shared one
            of_other=not self._is_shared())
        if fate is Fate.LOST:
            # for `openstack server event show`
            with compute_utils.EventReporter(
                    context, 'arm_nvram_lost', CONF.host, instance.uuid,
                    graceful_exit=True):
                pass

    # -- Copies and snapshots ------------------------------------------------

    def into_snapshot(self, metadata: Any, instance: Any) -> None:
        """Have a snapshot carry the guest's store.

        :param metadata: the image's, as Nova made it; changed in place
        """
        if not self._stores.go_into_images:
            return
        guest = self._definitions.guest(instance)
        value = None if guest is None else self._stores.for_image(
            instance, guest,
            secure_boot=bool(self._facts.secure_boot_in(guest)))
        # Nova truncates the value that the guest's image had
        if value or f'image_{STORE_PROPERTY}' in instance.system_metadata:
            metadata['properties'][STORE_PROPERTY] = value or ''

    def after_power_off(self, instance: Any) -> None:
        """Copy the store of a guest that has just been switched off."""
        if self._stores.has_store:
            guest = self._definitions.guest(instance)
            if guest is not None:
                self._save_copy(instance.uuid, guest)

    def copy_running(self) -> None:
        """Copy the stores of all running guests, if it is time to."""
        interval = CONF.arm_nvram.copy_interval
        now = time.monotonic()
        if (not self._stores.has_store or not interval
                or now - self._last_copies < interval):
            return
        self._last_copies = now
        for running in self._host.list_guests():
            guest = view.arm_guest(running.get_xml_desc())
            if guest is not None:
                self._save_copy(running.uuid, guest, running=True)

    def _save_copy(self, uuid: str, guest: view.Domain, *,
                   running: bool = False) -> None:
        try:
            self._stores.save(uuid, guest, running=running)
        except Exception:
            # the guest has its own; whatever a third party's driver raises
            LOG.exception('[instance: %s] The UEFI variables could not be '
                          'copied to the store that [arm_nvram] names', uuid)

    # -- A guest moves -------------------------------------------------------

    @contextlib.contextmanager
    def sending(self, instance: Any, dest: str,
                undo: Callable[..., Any]) -> Iterator[None]:
        """Have the store and the domain XML follow the disks.

        :param dest: the address of the other host
        :param undo: Nova's _cleanup_remote_migration
        :raises StoreNotUsable: before anything is done, when the store is
            damaged; afterwards, when it could not be sent
        """
        document = self._definitions.of(instance)
        guest = view.arm_guest(document)
        if guest is not None:
            # check before the guest is powered off
            self._stores.check(guest)
        yield
        if document is not None and guest is not None:
            self._send(instance, dest, guest, document, undo)

    def _send(self, instance: Any, dest: str, guest: view.Domain,
              document: str, undo: Callable[..., Any]) -> None:
        """Send the store and the domain XML.

        Nova has renamed the instance directory by now. That there is one all
        the same means that it is shared with the destination, or that this
        host is the destination.

        :raises StoreNotUsable: when they cannot; the disks are back then
        """
        folder = libvirt_utils.get_instance_path(instance)
        left = folder + '_resize'
        is_shared = os.path.exists(folder)
        try:
            path = nvram.store_of(guest)
            if path is not None and nvram.is_inside(path, folder):
                path = os.path.join(left, os.path.basename(path))
            packed = self._stores.pack(guest, path)
            try:
                for name in self._stores.leave(instance.uuid, left, packed,
                                               document):
                    libvirt_utils.copy_image(
                        os.path.join(left, name), os.path.join(folder, name),
                        host=None if is_shared else dest)
            finally:
                # where one lies, a store has arrived
                self._stores.remove_packed(instance.uuid, left)
        except Exception as e:
            # as Nova does when a disk cannot be copied
            undo(None if is_shared else dest, folder, left, is_shared)
            # Nova shows only the text of its own exceptions, and only the
            # beginning: of a command (ProcessExecutionError) what it said
            raise nvram.StoreNotUsable(reason=(
                f'The UEFI variables could not be sent to {dest}, so the '
                f'guest stays on this host, switched off; reset its state and '
                f'reboot it hard, or migrate it again, when the cause is '
                f"gone: {getattr(e, 'stderr', None) or e}")) from e

    @contextlib.contextmanager
    def arriving(self, instance: Any) -> Iterator[None]:
        """A guest that was migrated or resized starts on this host."""
        folder = libvirt_utils.get_instance_path(instance)
        with operation.of(instance, Event.ARRIVE, previous=(
                self._stores.document(folder)
                or self._definitions.of(instance))):
            yield
        self._stores.remove_document(folder)

    def after_live_migration(self, instance: Any) -> None:
        """Remove the store from libvirt's folder: libvirt leaves it there.

        One in the instance directory goes with that, or is shared.
        """
        if (self._stores.lies_in_libvirt(instance.name)
                and self._definitions.is_arm(instance)
                and not self._is_here(instance)):
            self._stores.remove_from_libvirt(instance.name)

    def after_live_arrival(self, instance: Any) -> None:
        """Note that this host uses the store in the instance directory."""
        guest = self._definitions.guest(instance)
        path = None if guest is None else nvram.store_of(guest)
        folder = libvirt_utils.get_instance_path(instance)
        if path is not None and nvram.is_inside(path, folder):
            self._stores.mark(instance.uuid, folder)

    # -- A guest goes --------------------------------------------------------

    def before_destroy(self, instance: Any) -> None:
        """Save what is needed again of a guest whose disks are removed."""
        if instance.task_state not in (task_states.SHELVING_OFFLOADING,
                                       task_states.REBUILDING):
            return
        guest = self._definitions.guest(instance)
        if guest is None:
            return
        if instance.task_state == task_states.REBUILDING:
            self._stores.before_rebuild(instance.uuid, guest, on_rebuild(
                CONF.arm_nvram.on_rebuild, gather.image_properties(instance)))
        elif self._stores.has_store:
            # without a copy it is not offloaded
            self._stores.save(instance.uuid, guest)
        else:
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
            self._after_cleanup(instance, cleanup.guest, removed)

    def keeps_store(self, instance: Any, guest: view.Domain) -> bool:
        """Whether a guest that is undefined now keeps its store."""
        removed = True
        cleanup = _cleanup.get()
        if cleanup is not None and cleanup.uuid == instance.uuid:
            cleanup.guest = guest
            removed = cleanup.removed
        path = nvram.store_of(guest)
        return path is not None and undefine_keeps(
            inside=nvram.is_inside(
                path, libvirt_utils.get_instance_path(instance)),
            removed=removed,
            leaving=operation.on(instance) is None and _is_leaving(instance))

    def _after_cleanup(self, instance: Any, guest: view.Domain | None,
                       removed: bool) -> None:
        """Let nothing of a guest stay behind that is not here any more.

        :param guest: the guest that was undefined
        """
        if guest is not None and _is_leaving(instance):
            self._stores.forget(
                instance.uuid, libvirt_utils.get_instance_path(instance),
                own_only=instance.task_state != task_states.RESIZE_REVERTING)
            removed = True
        if guest is not None and removed and not self._is_here(instance):
            # that of a rescued guest's own system is not in its domain XML;
            # libvirt older than 9.2 does not name a stopped guest's
            self._stores.remove_from_libvirt(guest.name or '')
        if removed and self._stores.may_have_copies(instance.uuid) and (
                instance.task_state == task_states.DELETING
                or instance.vm_state in (vm_states.SOFT_DELETED,
                                         vm_states.DELETED)):
            self._stores.remove_copies(instance.uuid)

    def _is_here(self, instance: Any) -> bool:
        """Whether libvirt has a domain of the instance."""
        try:
            self._host.get_guest(instance)
        except (exception.InternalError, exception.InstanceNotFound):
            return False
        return True


def _is_leaving(instance: Any) -> bool:
    """Whether a guest that is undefined here goes on elsewhere."""
    if instance.task_state == task_states.RESIZE_REVERTING:
        # there is one where it goes back to, which may be this host
        return not os.path.exists(
            libvirt_utils.get_instance_path(instance) + '_resize')
    return instance.host not in (None, CONF.host)
