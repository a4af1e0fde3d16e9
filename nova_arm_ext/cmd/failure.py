# SPDX-License-Identifier: Apache-2.0
"""Errors of the command, each as one line."""

from nova_arm_ext import errors

#: Longer texts are cut: an exception of a third party may have any length.
MAX_LENGTH = 4000


class Failure(errors.ArmExtError):
    """A wrong option, an unreadable file, a libvirt that does not answer."""


def printable(text: str) -> str:
    """The text without characters that control a terminal."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode('ascii')
        for c in text)


def one_line(text: str) -> str:
    """The text on one line."""
    line = printable(' '.join(text.split()))
    return line if len(line) <= MAX_LENGTH else line[:MAX_LENGTH - 3] + '...'


def sentence(error: BaseException) -> str:
    """What the user reads about an error."""
    if isinstance(error, errors.ConfigurationError):
        # without the words that begin nova-compute's message
        return one_line('; '.join(error.faults))
    if isinstance(error, errors.ArmExtError):
        return one_line(str(error))
    if isinstance(error, OSError):
        return one_line(str(error))
    return one_line(f'unexpected {type(error).__name__}: {error} '
                    f'(--debug shows where)')
