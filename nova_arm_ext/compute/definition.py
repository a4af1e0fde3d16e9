# SPDX-License-Identifier: Apache-2.0
"""The domain XML of this host's guests: as libvirt has it, and as it is saved
while Nova takes a guest away and defines it anew."""

import contextlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from nova import context
from nova import exception
from nova import objects
from nova.compute import task_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_arm_ext.compute import operation
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram.luggage import Luggage
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event

LOG = logging.getLogger(__name__)


class Definitions:
    """The domain XML of guests on this host.

    :param host: Nova's Host object
    :param luggage: writes and reads what is saved in instance directories
    :param arch_of: tells the architecture of an image's guests
    """

    def __init__(self, host: Any, luggage: Luggage,
                 arch_of: Callable[[Any], str]) -> None:
        self._host = host
        self._luggage = luggage
        self._arch_of = arch_of

    def is_arm(self, instance: Any) -> bool:
        """Whether an instance is an Arm guest, without asking libvirt."""
        return self.is_arm_image(instance.image_meta)

    def is_arm_image(self, image_meta: Any) -> bool:
        """Whether guests of an image are Arm guests."""
        return self._arch_of(image_meta) in view.ARM

    def of(self, instance: Any) -> str | None:
        """The domain XML of a guest as libvirt has it now.

        :returns: None if libvirt does not know the guest
        """
        try:
            xml: str = self._host.get_guest(instance).get_xml_desc()
        except exception.InstanceNotFound:
            return None
        return xml

    def own(self, instance: Any) -> str | None:
        """The domain XML of a guest's own system.

        While it is rescued, libvirt has that of the rescue; Nova keeps the
        own one in a file (rescue, 29 to 34). If it is rescued again, that
        file has the XML of the first rescue.

        :returns: None if libvirt does not know the guest
        """
        document = self.of(instance)
        if document is None or places.RESCUE not in document:
            return document
        guest = view.arm_guest(document)
        if guest is None or not places.is_rescue(guest):
            return document
        with extra('Reading the domain XML from before the rescue', instance):
            kept = self._luggage.before_rescue(
                libvirt_utils.get_instance_path(instance))
            before = view.arm_guest(kept)
            if before is not None and not places.is_rescue(before):
                return kept
        return document

    def guest(self, instance: Any) -> view.Domain | None:
        """The same as `of`, parsed, if it is an Arm guest's."""
        return view.arm_guest(self.of(instance))

    def is_here(self, instance: Any) -> bool:
        """Whether libvirt has a domain of the instance.

        :raises InternalError: when libvirt cannot say
        """
        try:
            self._host.get_guest(instance)
        except exception.InstanceNotFound:
            return False
        return True

    def has_name(self, name: str) -> bool:
        """Whether libvirt has a domain of this name, of Nova or not."""
        return any(guest.name == name for guest
                   in self._host.list_guests(only_running=False))

    def previous_guest(self, instance: Any) -> view.Domain | None:
        """The Arm guest as it was before what is being done to it.

        As libvirt has it now where nothing is known to be done: a resize on
        one host leaves the domain there.
        """
        doing = operation.on(instance)
        return self.guest(instance) if doing is None else doing.guest

    def running(self, instance: Any) -> view.Domain | None:
        """The domain XML of an Arm guest that runs; None of any other.

        libvirt is not asked about guests of other architectures.
        """
        if not self.is_arm(instance):
            return None
        guest = self.guest(instance)
        # libvirt numbers those that run
        if guest is None or guest.element.get('id') is None:
            return None
        return guest

    @contextlib.contextmanager
    def keeping(self, instance: Any, event: Event) -> Iterator[None]:
        """Define a guest's previous domain XML again if all goes wrong.

        Nova destroys and undefines a guest before it makes the new XML
        (_hard_reboot, 29 to 34), so a failure in between would leave nothing
        of it: no slots, no path of its variable store.

        A migration to this host that was cut off before the guest started
        ends with a hard reboot.

        :param event: HARD_REBOOT or REVERT
        """
        if event is Event.HARD_REBOOT:
            self._finish_cut_off_revert(instance)
        recorded = self.own(instance)
        folder = libvirt_utils.get_instance_path(instance)
        if (event is Event.HARD_REBOOT
                and self._luggage.has_arrived(instance.uuid, folder)):
            event = Event.ARRIVE
            recorded = self._luggage.document(folder) or recorded
        elif recorded is None:
            # Nova has undefined it in an operation that failed or was cut
            # off; a resize on this very host, which Nova undefines before it
            # reverts it
            recorded = (
                (self._luggage.document(folder + '_resize')
                 if event is Event.REVERT else None)
                or self._luggage.document(folder))
        with self._defined_again(instance, event, recorded):
            yield

    @contextlib.contextmanager
    def rescuing(self, instance: Any) -> Iterator[None]:
        """Define the domain XML of a guest's own system if its rescue fails.

        Nova leaves that of the rescue. The next rescue would take it for the
        one to go back to (rescue, 29 to 34).
        """
        with self._defined_again(instance, Event.RESCUE, self.own(instance)):
            yield

    @contextlib.contextmanager
    def _defined_again(self, instance: Any, event: Event,
                       recorded: str | None) -> Iterator[None]:
        """Carry out an operation, and put the domain XML back if it fails.

        :param recorded: the domain XML from before it, if there was any
        """
        try:
            with operation.of(instance, event, previous=recorded):
                yield
        except Exception:
            if recorded is not None:
                self._define_again(instance, recorded)
            raise

    def save(self, instance: Any, document: str) -> None:
        """Save the domain XML of a guest that Nova undefines.

        It is in the instance directory until the guest is defined again.
        """
        folder = libvirt_utils.get_instance_path(instance)
        with extra('Saving the domain XML', instance):
            if os.path.isdir(folder):
                self._luggage.write_document(folder, document)

    def forget_saved(self, instance: Any) -> None:
        """Remove what `save` has saved, or what came with a migration."""
        self._luggage.remove_document(
            libvirt_utils.get_instance_path(instance))

    def _finish_cut_off_revert(self, instance: Any) -> None:
        """End a revert that was cut off before this host had its files back.

        Nova makes the guest this host's again (_finish_revert_resize, 29 to
        34) before the driver gives its folder, disks and store, the name that
        they had before the migration.
        """
        folder = libvirt_utils.get_instance_path(instance)
        left = folder + '_resize'
        if (os.path.isdir(left)
                and not (os.path.exists(folder) and os.listdir(folder))
                and self.is_arm(instance)):
            os.rename(left, folder)
            LOG.warning('A revert to this host was cut off. The files of this '
                        'instance, disks and UEFI variables, are back from '
                        '%s', left, instance=instance)

    def _define_again(self, instance: Any, recorded: str) -> None:
        """Put a guest's saved domain XML back if Nova has not left it."""
        try:
            if ((not self._is_defined(instance)
                 or _is_rescue(self.guest(instance)))
                    and view.Domain.parse(recorded).is_arm
                    and not _is_deleted(instance)):
                self._host.write_instance_config(recorded)
                self.forget_saved(instance)
                LOG.warning(
                    'The instance could not be defined anew, so its previous '
                    'domain is defined again; start it when the cause is '
                    'gone', instance=instance)
        except Exception:
            # the caller raises what went wrong first; this is logged here,
            # with the XML, so that nothing is lost
            LOG.exception(
                'The previous domain could not be defined again either. It '
                'was:\n%s', recorded, instance=instance)

    def _is_defined(self, instance: Any) -> bool:
        """Whether libvirt will know a guest when its QEMU has ended.

        When nova-compute was killed at the beginning of a migration, Nova
        starts the guest anew although it runs, and undefines it as that fails
        (_create_guest_with_network, 29 to 34).
        """
        try:
            return bool(self._host.get_guest(
                instance).has_persistent_configuration())
        except exception.InstanceNotFound:
            return False


def _is_rescue(guest: view.Domain | None) -> bool:
    return guest is not None and places.is_rescue(guest)


def _is_deleted(instance: Any) -> bool:
    """Whether an instance was deleted while something else was done to it.

    Nova allows that in any task state.
    """
    with extra('Asking whether the instance was deleted', instance):
        try:
            now = objects.Instance.get_by_uuid(
                context.get_admin_context(), instance.uuid, expected_attrs=[])
        except exception.InstanceNotFound:
            return True
        return bool(now.task_state == task_states.DELETING)
    return False
