# SPDX-License-Identifier: Apache-2.0
"""The versioned machine that a guest keeps for life, such as ``virt-7.2``."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from nova import exception
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_arm_ext.compute import definition
from nova_arm_ext.domain import view

LOG = logging.getLogger(__name__)

#: Where Nova records a guest's machine, for `nova-manage libvirt` too.
RECORD = 'image_hw_machine_type'
#: What Nova asks for on Arm; the newest versioned one of the same name.
ALIAS = 'virt'


class Machines:
    """The machines of this host's guests.

    :param host: Nova's Host object
    :param arch_of: tells the architecture of an image's guests
    """

    def __init__(self, host: Any, definitions: definition.Definitions,
                 arch_of: Callable[[Any], str]) -> None:
        self._host = host
        self._definitions = definitions
        self._arch_of = arch_of

    def asked_for(self, instance: Any, image_meta: Any) -> Any:
        """The image, asking for the versioned machine that the guest keeps.

        Nova records the machine in the instance's system_metadata when it
        makes a guest, and reads it there ever after: the alias ``virt``, which
        is another machine with every release of QEMU. What is recorded here
        is the machine that libvirt gave a guest that exists, and for a new
        one that for which the alias stands now.

        :returns: Nova's ImageMeta, a copy where the machine is another
        """
        arch = self._arch_of(image_meta)
        if (arch not in view.ARM
                or libvirt_utils.get_machine_type(image_meta) != ALIAS):
            return image_meta
        machine = self._known(instance, arch) or ALIAS
        try:
            machine = self._host.get_canonical_machine_type(arch, machine)
        except exception.InternalError:
            # libvirt does not say, or QEMU no longer has it: then nothing
            # keeps the guest on it
            LOG.warning('QEMU on this host does not have the machine %s',
                        machine, instance=instance)
            return image_meta
        image_meta = image_meta.obj_clone()
        image_meta.properties.hw_machine_type = machine
        instance.system_metadata[RECORD] = machine
        return image_meta

    @contextlib.contextmanager
    def forgetting(self, instance: Any) -> Iterator[None]:
        """Leave recorded what was, if no guest was made.

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
        """Record the machine of a guest whose domain XML stays behind."""
        if instance.system_metadata.get(RECORD) == ALIAS:
            machine = self._known(instance,
                                  self._arch_of(instance.image_meta))
            if machine is not None:
                instance.system_metadata[RECORD] = machine

    def is_missing(self, instance: Any, arch: str) -> str | None:
        """The versioned machine of a guest, if QEMU here does not have it."""
        machine = _versioned(instance.system_metadata.get(RECORD))
        if machine is None:
            return None
        try:
            self._host.get_canonical_machine_type(arch, machine)
        except exception.InternalError:
            return machine
        return None

    def _known(self, instance: Any, arch: str) -> str | None:
        """The versioned machine of a guest that exists."""
        recorded = _versioned(instance.system_metadata.get(RECORD))
        if recorded is not None:
            return recorded
        guest = self._definitions.previous_guest(instance)
        if guest is None or guest.arch != arch:
            return None
        return _versioned(guest.machine)


def _versioned(machine: str | None) -> str | None:
    """A machine, if it is a versioned one of ours."""
    return machine if (machine or '').startswith(f'{ALIAS}-') else None
