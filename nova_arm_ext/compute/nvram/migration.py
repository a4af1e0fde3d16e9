# SPDX-License-Identifier: Apache-2.0
"""A guest moves to another host, and its variable store with it."""

import contextlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from nova import exception
from nova.virt.libvirt import utils as libvirt_utils

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import operation
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.luggage import Luggage
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event


class Migration:
    """What is done around Nova's cold and live migrations and resizes.

    :param stores: the variable stores of this host
    :param luggage: writes what goes along
    """

    def __init__(self, stores: store.Stores, luggage: Luggage,
                 definitions: definition.Definitions) -> None:
        self._stores = stores
        self._luggage = luggage
        self._definitions = definitions

    @contextlib.contextmanager
    def sending(self, instance: Any, dest: str,
                undo: Callable[..., Any]) -> Iterator[None]:
        """Have the store and the domain XML follow the disks.

        :param dest: the address of the other host
        :param undo: Nova's _cleanup_remote_migration
        :raises InstanceFaultRollback: before anything is done, when the
            store is damaged or cannot be read
        :raises StoreNotUsable: afterwards, when it could not be sent
        """
        try:
            document = self._definitions.of(instance)
            guest = view.arm_guest(document)
            place = None
            if guest is not None:
                place = self._stores.own(instance, guest)
                self._stores.check(place, guest)
        except Exception as e:
            # the instance stays as it is, and is not set to ERROR
            raise exception.InstanceFaultRollback(inner_exception=e) from e
        yield
        if document is not None and guest is not None:
            self._send(instance, dest, place, guest, document, undo)

    def _send(self, instance: Any, dest: str, place: Place | None,
              guest: view.Domain, document: str,
              undo: Callable[..., Any]) -> None:
        """Send the store and the domain XML.

        Nova has renamed the instance directory by now. That there is one all
        the same means that it is shared with the destination, or that this
        host is the destination.

        :param place: where the store was before that
        :raises StoreNotUsable: when they cannot; the disks are back then
        """
        folder = libvirt_utils.get_instance_path(instance)
        left = folder + '_resize'
        is_shared = os.path.exists(folder)
        try:
            packed = self._stores.pack(
                place and self._stores.moved(place, folder, left), guest)
            try:
                for name in self._luggage.pack_luggage(
                        instance.uuid, left, packed, document):
                    libvirt_utils.copy_image(
                        os.path.join(left, name), os.path.join(folder, name),
                        host=None if is_shared else dest)
            finally:
                # where one lies, a store has arrived
                self._luggage.remove_packed(instance.uuid, left)
        except Exception as e:
            # as Nova does when a disk cannot be copied
            undo(None if is_shared else dest, folder, left, is_shared)
            # Nova shows only the text of its own exceptions, and only the
            # beginning: of a command (ProcessExecutionError) what it said
            raise store.StoreNotUsable(reason=(
                f'The UEFI variables could not be sent to {dest}, so the '
                f'guest stays on this host, switched off; reset its state and '
                f'reboot it hard, or migrate it again, when the cause is '
                f"gone: {getattr(e, 'stderr', None) or e}")) from e

    @contextlib.contextmanager
    def arriving(self, instance: Any) -> Iterator[None]:
        """A guest that was migrated or resized starts on this host."""
        folder = libvirt_utils.get_instance_path(instance)
        with operation.of(instance, Event.ARRIVE, previous=(
                self._luggage.document(folder)
                or self._definitions.of(instance))):
            yield

    def after_live_migration(self, instance: Any) -> None:
        """Remove the store from libvirt's folder: libvirt leaves it there.

        One in the instance directory goes with that, or is shared.
        """
        with extra("Removing the variable store from libvirt's directory",
                   instance):
            if (store.is_in_libvirt(instance.name)
                    and self._definitions.is_arm(instance)
                    and not self._definitions.is_here(instance)):
                store.remove_from_libvirt(instance.name)

    def after_live_arrival(self, instance: Any) -> None:
        """Note that this host uses the store in the instance directory."""
        with extra('Noting this host as the one that uses the variable '
                   'store', instance):
            guest = self._definitions.guest(instance)
            path = None if guest is None else places.store_of(guest)
            folder = libvirt_utils.get_instance_path(instance)
            if path is not None and places.is_inside(path, folder):
                self._luggage.mark(instance.uuid, folder)
