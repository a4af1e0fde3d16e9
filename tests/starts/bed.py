# SPDX-License-Identifier: Apache-2.0
"""The judge inside a root folder, for a process outside."""

import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import types
import typing

from tests.nova.documents.judge import Verdict

TREE = pathlib.Path(__file__).parents[2]


def python() -> list[str]:
    """The paths of this Python and its environment.

    The binding of libvirt works with every newer libvirt.
    """
    if sys.base_prefix != '/usr':
        return [sys.base_prefix, sys.prefix]
    # The distribution's own Python is among the files of others.
    return [os.path.realpath(sys.executable), sysconfig.get_path('stdlib'),
            sys.prefix]


class Bed:
    """libvirt of one Debian suite, a context manager.

    :param suite: as ``tools/root`` names it
    """

    def __init__(self, suite: str) -> None:
        self._suite = suite

    def __enter__(self) -> 'Bed':
        self._process = subprocess.Popen(
            (TREE / 'tools/root', 'run', self._suite,
             *(f'--bind={path}' for path in python()), '--', sys.executable,
             '-W', 'ignore', '-m', 'tests.starts.judge'),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        #: The facts of its host.
        self.host: dict[str, typing.Any] = self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        self._process.communicate()

    def verdict(self, document: str) -> Verdict:
        """The verdict on domain XML that this machine can start."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(document) + '\n')
        self._process.stdin.flush()
        return Verdict(**self._answer())

    def _answer(self) -> dict[str, typing.Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f'the judge of {self._suite} ended with status '
                               f'{self._process.wait()}')
        return json.loads(line)
