# SPDX-License-Identifier: Apache-2.0
"""Every error of nova-arm-ext.

::

    ArmExtError
    ├── ConfigurationError   nova.conf or an installed hook; stops the start
    ├── InvalidDocument      no domain or device document, or not a sound one
    ├── InvalidFacts         a facts file with a wrong shape
    ├── Refused              a hook's deliberate no to what is asked for
    ├── HookFailed           a hook crashed or broke its contract
    ├── InvalidResult        the hooks' result may not go to libvirt
    ├── Damaged              a variable store that may not be used
    └── Busy                 a variable store that someone else writes
"""

from collections.abc import Sequence


class ArmExtError(Exception):
    """The root: whoever catches it has caught all of them."""


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
    """What the guest asks for cannot be had, for a reason the user can read.

    :param sentence: what, where, which value, and what to do
    :param this_host: the reason lies in this host, another one may do it
    """

    def __init__(self, sentence: str, *, this_host: bool = False) -> None:
        self.this_host = this_host
        super().__init__(sentence)


class HookFailed(ArmExtError):
    """A hook crashed, or changed what it had not declared.

    :param hook: the name of the hook
    :param cause: what happened, in words
    """

    def __init__(self, hook: str, cause: str) -> None:
        self.hook = hook
        self.cause = cause
        super().__init__(f'hook {hook} failed: {cause}')


class InvalidResult(ArmExtError):
    """The hooks made of a valid document one that libvirt's schema refuses."""


class Damaged(ArmExtError):
    """A variable store is not what it has to be, in content or as a file."""


class Busy(ArmExtError):
    """A variable store is being written by another process."""
