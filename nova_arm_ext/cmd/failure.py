# SPDX-License-Identifier: Apache-2.0
"""Why the command cannot do what it was asked to, in one line."""

from nova_arm_ext import errors

#: Longer texts are cut: what a stranger's exception says may have any length.
MAX_LENGTH = 4000


class Failure(errors.ArmExtError):
    """A wrong option, a file that cannot be read, a libvirt that is silent."""


def printable(text: str) -> str:
    """The same text without what would steer a terminal."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode('ascii')
        for c in text)


def one_line(text: str) -> str:
    """The same text on one line, however it was spread."""
    line = printable(' '.join(text.split()))
    return line if len(line) <= MAX_LENGTH else line[:MAX_LENGTH - 3] + '...'


def sentence(error: BaseException) -> str:
    """What to tell the user about an error."""
    if isinstance(error, errors.ConfigurationError):
        # without the words that nova-compute starts its message with
        return one_line('; '.join(error.faults))
    if isinstance(error, errors.ArmExtError):
        return one_line(str(error))
    if isinstance(error, OSError):
        return one_line(str(error))
    return one_line(f'unexpected {type(error).__name__}: {error} '
                    f'(--debug shows where)')
