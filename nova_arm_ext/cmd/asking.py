# SPDX-License-Identifier: Apache-2.0
"""Asks the user before something is changed."""

import sys
from typing import TextIO

from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.cmd.failure import printable


def confirm(question: str, yes: bool, stderr: TextIO) -> None:
    """Ask on a terminal; a script has to give --yes.

    :param question: what would be changed, as a sentence without its end
    :param yes: whether --yes was given
    :raises Failure: when the answer is not yes, or nobody can be asked
    """
    if yes:
        return
    question = printable(question)
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure(f'{question}: give --yes if you want that; nothing was '
                      f'changed')
    stderr.write(f'{question}. Continue? [y/N] ')
    stderr.flush()
    if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
        raise Failure('nothing was changed')


def announce(what: str, stderr: TextIO) -> None:
    """Say that standard input is read, if it is a terminal."""
    if sys.stdin is not None and sys.stdin.isatty():
        stderr.write(f'Reading {what} from this terminal; end it with '
                     f'Ctrl-D.\n')
        stderr.flush()
