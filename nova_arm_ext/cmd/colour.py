# SPDX-License-Identifier: Apache-2.0
"""Colours, on a terminal that has them."""

import os
from typing import TextIO

RED, GREEN, YELLOW, CYAN, BOLD = (
    '\033[31m', '\033[32m', '\033[33m', '\033[36m', '\033[1m')
_PLAIN = '\033[0m'


def wanted(stream: TextIO) -> bool:
    """Whether a stream gets colours: on a terminal, unless $NO_COLOR is set
    (https://no-color.org)."""
    return (stream.isatty() and not os.environ.get('NO_COLOR')
            and os.environ.get('TERM') != 'dumb')


def of(text: str, start: str) -> str:
    """The text in a colour."""
    return f'{start}{text}{_PLAIN}'
