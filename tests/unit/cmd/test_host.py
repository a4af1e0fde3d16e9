# SPDX-License-Identifier: Apache-2.0
"""Calls of libvirt have a time limit."""

import os
import socket
import time

import fixtures
import testtools

from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import host
from tests.support import base

#: Seconds; what takes so long hangs. How quick it is no test decides.
ENDLESS = 60


class AskTest(base.TestCase):

    def test_one_that_hangs_leaves_no_process(self):
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, 's')
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()
        started = time.monotonic()

        with testtools.ExpectedException(
                failure.Failure, '.* does not answer within 0.3 s'):
            host.ask(f'qemu+unix:///system?socket={path}', 0.3)

        self.assertLess(time.monotonic() - started, ENDLESS)
        self.assertRaises(ChildProcessError, os.waitpid, -1, os.WNOHANG)

    def test_a_user_who_may_not_connect_is_told_who_may(self):
        self.assertIn('run this as root', host._advice(
            "Failed to connect socket to '/run/x': Permission denied"))
        self.assertEqual('', host._advice('No such file or directory'))

    def test_files_of_this_machine_count_for_a_local_libvirt_alone(self):
        for uri in ('qemu:///system', 'qemu:///session', 'test:///default',
                    'qemu+unix:///system?socket=/run/x'):
            self.assertTrue(host.is_local(uri), uri)
        for uri in ('qemu+ssh://other/system', 'qemu://other/system',
                    'qemu+tls://other/system', 'qemu+ssh:///system'):
            self.assertFalse(host.is_local(uri), uri)
