# SPDX-License-Identifier: Apache-2.0
"""The sandbox ends in time, and leaves nothing behind."""

import os
import pathlib
import subprocess
import sys
import time
import uuid

from tests.support import base
from tests.support import sandbox


def start_a_process(name: str) -> None:
    """Start a process that can be found by its last argument."""
    subprocess.Popen(
        [sys.executable, '-c',
         'import time; print(flush=True); time.sleep(600)', name],
        start_new_session=True, stdout=subprocess.PIPE).stdout.readline()


def leave_traces(folder: pathlib.Path, *, name: str) -> bool:
    """Also write files where libvirt does."""
    start_a_process(name)
    pathlib.Path('/var/lib/libvirt', name).touch()
    pathlib.Path('/run', name).touch()
    return bool(processes_with(name))


def hang(folder: pathlib.Path, *, name: str) -> None:
    start_a_process(name)
    time.sleep(600)


def fail(folder: pathlib.Path, *, sentence: str) -> None:
    raise ValueError(sentence)


def processes_with(name: str) -> list[str]:
    found = []
    for place in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            words = (place / 'cmdline').read_bytes().split(b'\0')
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.encode() in words and int(place.name) != os.getpid():
            found.append(place.name)
    return found


class SandboxTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        reason = sandbox.why_not()
        if reason:
            self.skipTest(reason)
        self.name = f'probe-{uuid.uuid4()}'

    def test_processes_and_files_are_gone_afterwards(self) -> None:
        running = sandbox.call(f'{__name__}:leave_traces', timeout=60,
                               name=self.name)

        self.assertTrue(running)
        self.assertEqual([], processes_with(self.name))
        for folder in ('/run', '/var/lib/libvirt'):
            self.assertFalse(pathlib.Path(folder, self.name).exists())

    def test_what_hangs_is_ended_and_tells_where(self) -> None:
        error = self.assertRaises(
            sandbox.SandboxError, sandbox.call, f'{__name__}:hang',
            timeout=4, name=self.name)

        self.assertIn('did not end within 4 s', str(error))
        self.assertIn('in hang', str(error))
        self.assertEqual([], processes_with(self.name))

    def test_an_error_inside_is_told_outside(self) -> None:
        error = self.assertRaises(
            sandbox.SandboxError, sandbox.call, f'{__name__}:fail',
            timeout=60, sentence='this and no other')

        self.assertIn('ValueError: this and no other', str(error))
