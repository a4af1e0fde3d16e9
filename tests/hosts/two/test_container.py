# SPDX-License-Identifier: Apache-2.0
"""A power cut ends a host at once, and leaves nothing behind."""

import pathlib
import subprocess
import sys
import tempfile
import time
import uuid

from tests.hosts.one import test_sandbox
from tests.hosts.two import bed
from tests.hosts.two import container
from tests.support import base

_WAIT = 'import time; print(flush=True); time.sleep(600)'


def start_and_wait(folder: str, name: str) -> None:
    """A host with one process that can be found by its last argument."""
    host = container.Container('host', pathlib.Path(folder), {})
    host.start()
    daemon = host.spawn('waiting', sys.executable, '-c', _WAIT, name)
    while not daemon.log.read_text():
        time.sleep(0.05)
    print('there', flush=True)
    time.sleep(600)


class ContainerTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        if reason := bed.why_not():
            self.skipTest(reason)
        folder = tempfile.TemporaryDirectory(prefix='nova-arm-ext-')
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.name = f'probe-{uuid.uuid4()}'

    def test_power_goes_and_comes_back_and_the_disk_stays(self):
        disk = self.folder / 'disk'
        disk.mkdir()
        host = container.Container('probe', self.folder / 'host',
                                   {'/srv': disk})
        host.start()
        self.addCleanup(host.power_off)
        self.assertEqual('probe\n', host.run('hostname'))
        host.run('touch', f'/srv/{self.name}', f'/run/{self.name}')
        daemon = host.spawn('waiting', sys.executable, '-c', _WAIT, self.name)

        host.power_off()

        self.assertTrue(daemon.ended)
        self.assertEqual([], test_sandbox.processes_with(self.name))
        host.start()
        self.assertEqual(f'{self.name}\n', host.run('ls', '/srv'))
        self.assertNotIn(self.name, host.run('ls', '/run'))
        self.assertFalse(pathlib.Path('/srv', self.name).exists())

    def test_all_ends_with_whoever_started_it(self):
        starter = subprocess.Popen(
            [sys.executable, '-c',
             f'from {__name__} import *; start_and_wait(*sys.argv[1:])',
             str(self.folder), self.name],
            stdout=subprocess.PIPE, cwd=container.TREE)
        self.assertEqual(b'there\n', starter.stdout.readline())
        self.assertNotEqual([], test_sandbox.processes_with(self.name))

        starter.kill()
        starter.communicate()

        deadline = time.monotonic() + 10
        while (left := test_sandbox.processes_with(self.name)
               ) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual([], left)

    def test_a_command_that_fails_says_so(self):
        host = container.Container('probe', self.folder / 'host', {})
        host.start()
        self.addCleanup(host.power_off)

        error = self.assertRaises(container.HostError, host.run,
                                  'ls', '/nowhere')

        self.assertIn('probe: ls /nowhere ended with 2', str(error))
