# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext audit` and `explain` of a guest that Nova has booted."""

import contextlib
import io
import json
import typing

from nova_arm_ext.cmd import main
from tests.hosts.one import base


def command(*arguments: str) -> typing.Any:
    """What the command prints as JSON."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main((*arguments, '--json'))
    assert (status, err.getvalue()) == (0, ''), err.getvalue()
    return json.loads(out.getvalue())


class AuditTest(base.GuestTestCase):

    def audit(self, server):
        [row] = [row for row in command('audit') if row['UUID'] == server.uuid]
        return row['Recorded'], row['Now']

    def test_a_guest_from_its_boot_to_other_options(self):
        server = self.bed.boot(
            config_drive=True,
            extra_specs={'arm:skip_hooks': 'console'})
        first = server.report()
        booted = self.audit(server)
        explained = command('explain', server.uuid)
        server.hard_reboot()
        again = server.report()
        rebooted = self.audit(server)
        self.bed.restart_compute(
            options={'arm_pcie_root_ports': {'free': 6}})
        server.hard_reboot()

        self.assertEqual(first.pci, again.pci)
        self.assertEqual([('this version', 'unchanged')] * 2,
                         [booted, rebooted])
        hooks = {hook['name']: hook for hook in explained['record']['hooks']}
        self.assertIn('arm:skip_hooks', hooks['console']['failure'])
        self.assertIn('root ports',
                      hooks['pcie_root_ports']['reasons'][0]['text'])
        # the command runs without configuration, so with the defaults
        self.assertEqual(('this version, other options', 'unchanged'),
                         self.audit(server))
