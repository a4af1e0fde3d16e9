# SPDX-License-Identifier: Apache-2.0
"""The forms of output: -f, as OpenStack's clients have it.

Programs get true, false, null and numbers; people get words. What programs
get has the same bytes in each run if nothing has changed.
"""

import argparse
import json
from typing import Any

import yaml
from cliff import columns

#: What a program can rely on: keys are added, and never renamed or removed,
#: while this number stays.
VERSION = 1

#: For people; what it looks like is the command's own.
TABLE = 'table'


def add(parser: argparse.ArgumentParser, *forms: str,
        default: str = TABLE, text: str = '') -> None:
    """Add ``-f`` and ``--json``, its short form.

    :param forms: those of this command besides JSON and YAML
    :param text: explains them
    """
    parser.add_argument(
        '-f', '--format', dest='formatter', default=default,
        choices=(*forms, 'json', 'yaml'),
        help=f'the form of the output{text} (default: {default})')
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` where ``-f`` is there already."""
    parser.add_argument('--json', dest='formatter', action='store_const',
                        const='json', help='the same as -f json')


def dump(form: str, value: dict[str, Any]) -> str:
    """An object for programs, with the version of its form.

    :param form: json or yaml
    """
    value = {'format': VERSION, **value}
    if form == 'yaml':
        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    return json.dumps(value, indent=2) + '\n'


class YesNo(columns.FormattableColumn):
    """Whether something is so: yes or no, true or false."""

    def human_readable(self) -> str:
        return 'yes' if self._value else 'no'


class Known(columns.FormattableColumn):
    """A value that may be missing: a hyphen, or null."""

    def human_readable(self) -> str:
        return '-' if self._value is None else str(self._value)
