# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext facts`: what libvirt tells about the host."""

import os
import socket
import time

import fixtures
import testtools

from nova_arm_ext import facts
from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import host
from tests import base as top
from tests.unit.cmd import base

#: Seconds; what takes so long hangs. How quick it is no test decides.
ENDLESS = 60


class FactsTest(base.CommandTestCase):

    def test_they_are_json_that_preview_reads(self):
        ran = self.run_command('facts', '--connect', 'test:///default')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertEqual('i686', ran.json['host']['arch'])
        self.assertEqual(
            facts.Guest(), facts.Facts.from_json(ran.stdout).guest)

    def test_names_are_the_fixed_ones(self):
        ran = self.run_command('facts', '--connect', 'test:///default')

        self.assertEqual({'format', 'host', 'guest', 'pci'}, set(ran.json))
        self.assertEqual(
            {'arch', 'libvirt_version', 'qemu_version', 'virt_types',
             'aarch32_el1', 'firmware'}, set(ran.json['host']))

    def test_environment_names_the_libvirt(self):
        self.useFixture(fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', 'test:///default'))

        self.assertEqual(0, self.run_command('facts').status)

    def test_no_libvirt_is_one_line(self):
        for ran in (self.run_command('facts'), self.run_process('facts')):
            self.assert_fails(ran, base.NO_LIBVIRT, 'No such file')

    def test_nonsense_for_a_uri_is_one_line(self):
        for uri in ('nonsense', 'a:b:c', 'http://[', '\n'):
            self.assert_fails(self.run_process('facts', '--connect', uri))


class AskTest(top.TestCase):

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

    def test_files_of_this_machine_count_for_a_local_libvirt_alone(self):
        for uri in ('qemu:///system', 'qemu:///session', 'test:///default',
                    'qemu+unix:///system?socket=/run/x'):
            self.assertTrue(host.is_local(uri), uri)
        for uri in ('qemu+ssh://other/system', 'qemu://other/system',
                    'qemu+tls://other/system', 'qemu+ssh:///system'):
            self.assertFalse(host.is_local(uri), uri)
