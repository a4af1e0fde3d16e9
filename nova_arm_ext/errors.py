# SPDX-License-Identifier: Apache-2.0
"""Every error of nova-arm-ext.

::

    ArmExtError
    ├── ConfigurationError   nova.conf or an installed hook; stops the start
    ├── InvalidDocument      no domain XML, or a wrong value in it
    ├── InvalidFacts         a facts file with a wrong shape
    ├── Refused              a hook deliberately refuses what is asked for
    ├── HookFailed           a hook crashed or broke its contract
    ├── InvalidResult        libvirt must not get the hooks' result
    ├── Damaged              a variable store that must not be used
    └── Busy                 a variable store that another process writes
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any


class ArmExtError(Exception):
    """The root of all errors of nova-arm-ext."""


class ConfigurationError(ArmExtError):
    """The set-up cannot work.

    :param faults: every fault that was found, a sentence each
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            'nova-arm-ext cannot start: ' + '; '.join(self.faults))


class InvalidDocument(ArmExtError):
    """The text is not a libvirt document that can be worked on."""


class InvalidFacts(ArmExtError):
    """Facts have a wrong shape; the text names the place and the value."""


class Refused(ArmExtError):
    """The guest cannot have what it asks for; the text tells a user why.

    :param sentence: what, where, which value, and what to do
    :param this_host: the reason is this host, and another host may be able to
    """

    def __init__(self, sentence: str, *, this_host: bool = False) -> None:
        self.this_host = this_host
        super().__init__(sentence)


class HookFailed(ArmExtError):
    """A hook crashed, or changed what it does not declare to change.

    :param hook: the name of the hook
    :param cause: what happened, in words
    """

    def __init__(self, hook: str, cause: str) -> None:
        self.hook = hook
        self.cause = cause
        super().__init__(f'hook {hook} failed: {cause}')


class InvalidResult(ArmExtError):
    """libvirt's schema refuses what the hooks made of a valid document."""


class Damaged(ArmExtError):
    """The content or the file of a variable store is not as it must be."""


class Busy(ArmExtError):
    """A variable store is being written by another process."""


def load_all(*loads: Callable[[], Any]) -> list[Any]:
    """Load several parts of the set-up.

    :param loads: each returns one part
    :returns: the parts, in order
    :raises ConfigurationError: with the faults of all parts
    """
    parts: list[Any] = []
    faults: list[str] = []
    for load in loads:
        try:
            parts.append(load())
        except ConfigurationError as e:
            faults += e.faults
    if faults:
        raise ConfigurationError(faults)
    return parts
