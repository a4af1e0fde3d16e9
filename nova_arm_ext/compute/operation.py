# SPDX-License-Identifier: Apache-2.0
"""What Nova is doing to a guest, known while it is done and no longer.

Nova's driver tells its own private methods little about why they are called:
``_create_guest`` is the same at the first start and after a migration. The
method that nova-compute calls therefore says it here, and whatever runs within
that call, in the same thread or greenlet, can ask.

A ``ContextVar`` keeps it: each greenlet (greenlet 1.0 and newer) and each
native thread has a value of its own and begins with none. So an operation ends
with the call that began it, however that ends, and two operations on one
instance at once do not see each other.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from nova_arm_ext.compute.nvram import images
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """What is being done to one guest.

    :param uuid: of the instance
    :param previous: the domain XML that the guest had before
    :param carried: the variable store that the instance's image carries
    """

    uuid: str
    event: Event
    previous: str | None = None
    carried: images.Carried | None = None

    @property
    def existing(self) -> bool:
        """Whether the guest exists, so that no hook's refusal stops it.

        A rescue, a migration that arrives and an evacuation are there to save
        a guest. Of a shelved guest nothing is left but what a new one has,
        and it stays shelved.
        """
        return self.event not in (Event.SPAWN, Event.REBUILD, Event.UNSHELVE)

    @functools.cached_property
    def guest(self) -> view.Domain | None:
        """The previous domain XML, parsed, if it is an Arm guest's."""
        return view.arm_guest(self.previous)


current: contextvars.ContextVar[Operation | None] = contextvars.ContextVar(
    'nova_arm_ext_operation', default=None)


@contextlib.contextmanager
def of(instance: Any, event: Event, *, previous: str | None = None,
       carried: images.Carried | None = None
       ) -> Iterator[Operation]:
    """Say what is being done to an instance until the block ends.

    The arguments are those of `Operation`.
    """
    operation = Operation(uuid=instance.uuid, event=event, previous=previous,
                          carried=carried)
    token = current.set(operation)
    try:
        yield operation
    finally:
        current.reset(token)


def on(instance: Any) -> Operation | None:
    """What this thread or greenlet is doing to an instance, if anything."""
    operation = current.get()
    if operation is None or operation.uuid != instance.uuid:
        return None
    return operation
