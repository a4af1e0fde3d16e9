# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext-status`, with a real libvirt."""

import os
import pathlib
import subprocess
import sys

from nova_arm_ext.cmd import checks
from nova_arm_ext.cmd.commands import status
from tests.unit.cmd import base
from tests.unit.cmd.commands import hosts


class StatusTest(hosts.LibvirtTestCase):

    def status(self, *arguments: str) -> base.Ran:
        done = subprocess.run(
            [sys.executable, '-c', hosts.COMMAND.format(
                module='cmd.commands.status'),
             *arguments], capture_output=True, timeout=300,
            env=self.environment(LIBVIRT_DEFAULT_URI=self.uri))
        return base.Ran(status=done.returncode, out=done.stdout,
                        stderr=done.stderr.decode())

    def test_the_same_checks_as_operators_know_them(self) -> None:
        self.file('nova.conf', hosts.CONF + '[arm_uefy]\nx = 1\n')

        ran = self.status('--config-file', self.conf, 'upgrade', 'check',
                          '--json')

        found = {one['check']: one for one in ran.json['checks']}
        self.assertEqual([one.name for one in checks.CHECKS], list(found))
        self.assertEqual(
            (1, f'{self.conf}: there is no group [arm_uefy]; did you mean '
                f'[arm_uefi]?'),
            (found['option names']['result'],
             found['option names']['details']))
        self.assertEqual(max(one['result'] for one in found.values()),
                         ran.status)

    def test_what_is_unknown_is_no_success(self) -> None:
        finding = checks.base.not_applicable

        self.assertEqual([1, 0, 0], [status._code(found) for found in (
            finding('unknown: no nova.conf was found'),
            finding('this is an x86_64 host'), checks.base.ok('unknown'))])

    def test_nothing_else_is_on_standard_error(self) -> None:
        ran = self.status('--config-file', self.conf, 'upgrade', 'check')

        self.assertEqual('', ran.stderr)

    def test_a_configuration_that_is_not_there(self) -> None:
        ran = self.status('--config-file', '/nowhere', 'upgrade', 'check')

        self.assertEqual(255, ran.status)
        self.assertIn('/nowhere', ran.stderr)
        self.assertEqual(1, len(ran.stderr.splitlines()), ran.stderr)

    def test_the_script(self) -> None:
        script = pathlib.Path(sys.executable).with_name(
            'nova-arm-ext-status')

        self.assertTrue(os.access(script, os.X_OK))
