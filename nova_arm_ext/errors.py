# SPDX-License-Identifier: Apache-2.0
"""Every error of nova-arm-ext.

::

    ArmExtError
    ├── ConfigurationError   nova.conf or an installed hook is wrong
    ├── InvalidDocument      not domain XML, or a wrong value in it
    ├── InvalidFacts         a facts file with a wrong form
    ├── Refused              a hook refuses what was requested
    ├── HookFailed           a hook crashed or broke its contract
    ├── InvalidResult        libvirt must not get the hooks' result
    ├── Damaged              a variable store that cannot be used
    └── Busy                 another process writes the variable store
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any


class ArmExtError(Exception):
    """The base class of all errors of nova-arm-ext."""


class ConfigurationError(ArmExtError):
    """The configuration cannot work.

    :param faults: every fault that was found, one sentence per fault
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            'nova-arm-ext cannot start: ' + '; '.join(self.faults))


class InvalidDocument(ArmExtError):
    """The text is not valid XML of libvirt."""


class InvalidFacts(ArmExtError):
    """Facts have a wrong form; the text names the place and the value."""


class Refused(ArmExtError):
    """The guest cannot have what was requested; the text tells users why.

    :param sentence: what, where, which value, and what to do
    :param this_host: only this host cannot do it; another host may
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
    """The hooks turned valid domain XML into XML that libvirt refuses."""


class Damaged(ArmExtError):
    """The content or the file of a variable store is not valid."""


class Busy(ArmExtError):
    """Another process is writing the variable store."""


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
