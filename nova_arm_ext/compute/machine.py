# SPDX-License-Identifier: Apache-2.0
"""The versioned machine that a guest always keeps, such as ``virt-7.2``."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from nova import exception
from nova.compute import task_states
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_arm_ext.compute import definition
from nova_arm_ext.compute import operation
from nova_arm_ext.domain import view

LOG = logging.getLogger(__name__)

#: Where Nova, and `nova-manage libvirt`, record a guest's machine.
RECORD = 'image_hw_machine_type'
#: What Nova requests on Arm; it means the newest versioned ``virt``.
ALIAS = 'virt'


class Machines:
    """The machines of this host's guests.

    :param host: Nova's Host object
    :param arch_of: returns the architecture of an image's guests
    """

    def __init__(self, host: Any, definitions: definition.Definitions,
                 arch_of: Callable[[Any], str]) -> None:
        self._host = host
        self._definitions = definitions
        self._arch_of = arch_of

    def asked_for(self, instance: Any, image_meta: Any) -> Any:
        """The image with the versioned machine that the guest keeps.

        Nova records the machine of a new guest in the instance's
        system_metadata, and uses it from then on. It records the alias
        ``virt``, which is another machine in each release of QEMU. This method
        records the versioned machine: of an existing guest the one that
        libvirt has given it, of a new guest the current meaning of the alias.

        :returns: Nova's ImageMeta; a copy if the machine differs
        """
        arch = self._arch_of(image_meta)
        if (arch not in view.ARM
                or libvirt_utils.get_machine_type(image_meta) != ALIAS):
            return image_meta
        machine = self._known(instance, arch) or ALIAS
        try:
            machine = self._host.get_canonical_machine_type(arch, machine)
        except exception.InternalError:
            # unknown to libvirt, or gone from QEMU: the guest cannot keep it
            LOG.warning('QEMU on this host does not have the machine %s',
                        machine, instance=instance)
            return image_meta
        image_meta = image_meta.obj_clone()
        image_meta.properties.hw_machine_type = machine
        instance.system_metadata[RECORD] = machine
        return image_meta

    @contextlib.contextmanager
    def forgetting(self, instance: Any) -> Iterator[None]:
        """Restore the record if the guest could not be created.

        The next host may have another QEMU.
        """
        recorded = instance.system_metadata.get(RECORD)
        try:
            yield
        except Exception:
            if recorded is None:
                instance.system_metadata.pop(RECORD, None)
            else:
                instance.system_metadata[RECORD] = recorded
            raise

    def record(self, instance: Any) -> None:
        """Record a guest's machine, because its domain XML is not moved."""
        if instance.system_metadata.get(RECORD) == ALIAS:
            machine = self._known(instance,
                                  self._arch_of(instance.image_meta))
            if machine is not None:
                instance.system_metadata[RECORD] = machine

    def before_destroy(self, instance: Any) -> None:
        """Record the machine of a guest that Nova takes from this host.

        It may go on where QEMU is another one: offloaded, or in another cell.
        """
        if (operation.on(instance) is None and instance.task_state not in (
                task_states.REBUILDING, task_states.DELETING)):
            self.record(instance)

    def is_missing(self, instance: Any, arch: str) -> str | None:
        """A guest's versioned machine, if QEMU here does not have it."""
        machine = _versioned(instance.system_metadata.get(RECORD))
        if machine is None:
            return None
        try:
            self._host.get_canonical_machine_type(arch, machine)
        except exception.InternalError:
            return machine
        return None

    def _known(self, instance: Any, arch: str) -> str | None:
        """The versioned machine of an existing guest."""
        recorded = _versioned(instance.system_metadata.get(RECORD))
        if recorded is not None:
            return recorded
        guest = self._definitions.previous_guest(instance)
        if guest is None or guest.arch != arch:
            return None
        return _versioned(guest.machine)


def _versioned(machine: str | None) -> str | None:
    """The machine if it is a versioned ``virt``, else None."""
    return machine if (machine or '').startswith(f'{ALIAS}-') else None
