# SPDX-License-Identifier: Apache-2.0
"""The judge inside a root folder, for a process outside."""

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import sysconfig
import types
import typing

from tests.nova.documents.judge import Verdict

TREE = pathlib.Path(__file__).parents[2]
#: Of one suite at once: libvirt and QEMU wait for each other half of the time.
JUDGES = 2


def python() -> list[str]:
    """The paths of this Python and its environment.

    The binding of libvirt works with every newer libvirt.
    """
    if sys.base_prefix != '/usr':
        return [sys.base_prefix, sys.prefix]
    # The distribution's own Python is among the files of others.
    return [os.path.realpath(sys.executable), sysconfig.get_path('stdlib'),
            sys.prefix]


class _Process:
    """One judge with a libvirtd of its own."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._process = subprocess.Popen(
            (TREE / 'tools/root', 'run', suite,
             *(f'--bind={path}' for path in python()), '--', sys.executable,
             '-W', 'ignore', '-m', 'tests.starts.judge'),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, document: str) -> typing.Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(document) + '\n')
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> typing.Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f'the judge of {self._suite} ended with status '
                               f'{self._process.wait()}')
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


class Bed:
    """libvirt of one Debian suite, a context manager.

    :param suite: as ``tools/root`` names it
    """

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()

    def __enter__(self) -> 'Bed':
        with contextlib.ExitStack() as stack:
            judges = []
            for _ in range(JUDGES):
                judges.append(_Process(self._suite))
                stack.callback(judges[-1].close)
            for judge in judges:
                #: The facts of its host.
                self.host: dict[str, typing.Any] = judge.answer()
                self._idle.put(judge)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        self._stack.close()

    def verdict(self, document: str) -> Verdict:
        """The verdict on domain XML that this machine can start; several
        threads may ask at once."""
        judge = self._idle.get()
        try:
            return Verdict(**judge.ask(document))
        finally:
            self._idle.put(judge)
