# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext facts`: what libvirt reports about the host."""

import fixtures

from nova_arm_ext import facts
from tests.unit.cmd import base


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
