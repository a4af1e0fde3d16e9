# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext doctor` on a host with a real libvirtd, working or broken."""

import contextlib
import io
import json
import os
import pathlib
import typing

from nova_arm_ext.cmd import main
from tests.support import base
from tests.support import sandbox

NVRAM = pathlib.Path('/var/lib/libvirt/qemu/nvram')


def doctor(*arguments: str) -> dict[str, typing.Any]:
    """Run the command with the paths that it has by default."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main(('doctor', '--json', *arguments))
    assert not err.getvalue(), err.getvalue()
    found: dict[str, list[tuple[str, str]]] = {}
    for one in json.loads(out.getvalue())['checks']:
        found.setdefault(one['check'], []).append((one['status'], one['text']))
    return {'status': status, **found}


def look(folder: pathlib.Path) -> dict[str, typing.Any]:
    """The output of the doctor before and after the host is broken."""
    import libvirt

    from tests.hosts.one import host
    host.start(folder)
    conf = folder / 'nova.conf'
    conf.write_text('[DEFAULT]\ncompute_driver = arm_ext.ArmLibvirtDriver\n')
    connection = libvirt.open('qemu:///system')
    said = {'owner': os.stat(NVRAM).st_uid,
            'sound': doctor('--config-file', str(conf), '--define-test'),
            'domains': [one.name() for one in connection.listAllDomains()]}
    os.chown(NVRAM, 1000, 1000)
    (NVRAM / 'instance-00000001_VARS.fd').symlink_to('/etc/hostname')
    said['spoilt'] = doctor()
    return said


class DoctorTest(base.TestCase):

    def test_a_host_before_and_after_it_is_spoilt(self) -> None:
        reason = sandbox.why_not()
        if reason:
            self.skipTest(reason)

        said = sandbox.call(f'{__name__}:look', 300)

        sound, spoilt = said['sound'], said['spoilt']
        self.assertEqual(
            [('ok', f'{kind}: libvirt defines it') for kind in (
                'UEFI', 'Secure Boot', 'vIOMMU', 'ARMv7', 'many root ports',
                'all on virtio-mmio')],
            [tuple(one) for one in sound['define test']])
        self.assertEqual([], said['domains'])
        for check in ('libvirt', 'GIC', 'PCI devices',
                      'firmware seen by libvirt', 'variable stores'):
            self.assertEqual({'ok'}, {status for status, _ in sound[check]},
                             (check, sound[check]))
        self.assertLess(sound['status'], 2)
        self.assertEqual(2, spoilt['status'])
        texts = [text for status, text in spoilt['variable stores']
                 if status == 'failure']
        self.assertEqual(
            f'{NVRAM} belongs to user 1000, and QEMU runs as '
            f'{said["owner"]}', texts[0])
        self.assertIn('1 stores are links', texts[-1])
