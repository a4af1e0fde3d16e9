# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext nvram` with a real libvirt and a real QEMU."""

import contextlib
import io
import os
import pathlib
import time
import typing

from nova_arm_ext.cmd import main
from tests.support import base
from tests.support import sandbox

NAME = 'instance-0000002a'
STORE = pathlib.Path(f'/var/lib/libvirt/qemu/nvram/{NAME}_VARS.fd')
LOADER = '/usr/share/AAVMF/AAVMF_CODE.fd'
TEMPLATE = pathlib.Path('/usr/share/AAVMF/AAVMF_VARS.ms.fd')

DOMAIN = f"""\
<domain type='qemu'>
  <name>{NAME}</name>
  <uuid>8d5e4b6a-93c1-4e07-8f6e-3f2b1c9a7d10</uuid>
  <memory unit='MiB'>256</memory>
  <os>
    <type arch='aarch64' machine='virt'>hvm</type>
    <loader readonly='yes' type='pflash'>{LOADER}</loader>
    <nvram template='{TEMPLATE}'/>
  </os>
  <cpu mode='custom'><model>cortex-a57</model></cpu>
</domain>
"""


def command(*arguments: str) -> tuple[int, str, str]:
    """Run the command with the paths that it has by default."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main(('nvram', *arguments))
    return status, out.getvalue(), err.getvalue()


def life(folder: pathlib.Path) -> dict[str, typing.Any]:
    """One guest's store from its first start to what is left of it."""
    import libvirt

    from tests.hosts.one import host
    host.start(folder)
    backup = str(folder / 'backup')
    domain = libvirt.open('qemu:///system').defineXML(DOMAIN)
    said: dict[str, typing.Any] = {}
    # its processors are stopped, so that the store stays like the template
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    said['owner'] = STORE.stat().st_uid
    said['list'] = command('list', '-f', 'value', '-c', 'State', '-c',
                           'Size', '-c', 'Where', '-c', 'Template')
    said['show'] = command('show', NAME)
    said['backup'] = command('backup', NAME, backup)
    said['restore, running'] = command('restore', NAME, backup, '--yes')
    said['reset, running'] = command('reset', NAME, '--yes')

    domain.managedSave(0)
    said['restore, suspended'] = command('restore', NAME, backup, '--yes')
    domain.managedSaveRemove(0)
    STORE.write_bytes(b'damaged')
    said['show, damaged'] = command('show', NAME)
    said['restore'] = command('restore', NAME, backup, '--yes')
    said['is as before'] = STORE.read_bytes() == TEMPLATE.read_bytes()
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    said['owner after'] = STORE.stat().st_uid
    domain.destroy()

    said['reset'] = command('reset', NAME, '--yes', '--template', str(
        TEMPLATE.with_name('AAVMF_VARS.fd')))
    said['is blank'] = not any(STORE.read_bytes())
    said['no orphan'] = command('orphans', '--older-than', '0m', '--yes')
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    said['young'] = command('orphans', '--yes', '-f', 'value')
    said['orphan'] = command('orphans', '--older-than', '0m', '--yes', '-f',
                             'value', '-c', 'Outcome')
    said['left'] = os.listdir(STORE.parent)
    return said


def boot(folder: pathlib.Path) -> list[int]:
    """Back up a guest again and again while its firmware starts.

    :returns: how many variables were in each backup
    """
    import libvirt

    from nova_arm_ext import varstore
    from tests.hosts.one import host
    host.start(folder)
    document = DOMAIN.replace('VARS.ms.fd', 'VARS.fd')
    libvirt.open('qemu:///system').createXML(document)
    counts = []
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and max(counts, default=0) < 15:
        backup = folder / f'backup-{len(counts)}'
        status, _, error = command('backup', NAME, str(backup))
        assert status == 0, error
        counts.append(len(varstore.variables(
            varstore.unpack(backup.read_bytes()))))
    return counts


class NvramCommandTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        reason = sandbox.why_not()
        if reason:
            self.skipTest(reason)

    def test_no_backup_of_a_booting_guest_is_torn(self) -> None:
        counts = sandbox.call('tests.hosts.one.test_nvram_command:boot', 200)

        # its firmware adds variables and rewrites them all at times
        self.assertGreaterEqual(counts[-1], 15)
        self.assertEqual(sorted(counts), counts)

    def test_a_guest_s_store_from_its_first_start_to_its_end(self) -> None:
        said = sandbox.call('tests.hosts.one.test_nvram_command:life', 200)

        title = f'{NAME} (8d5e4b6a-93c1-4e07-8f6e-3f2b1c9a7d10)'
        self.assertEqual([0, 'paused 67108864 libvirt '
                             f'{TEMPLATE}\n', ''], said['list'])
        status, text, _ = said['show']
        self.assertEqual(0, status)
        self.assertIn(f'Guest: {title}, paused\nSecure Boot: on', text)
        self.assertEqual(0, said['backup'][0])
        for event in ('restore, running', 'reset, running'):
            self.assertEqual(
                [2, '', f'nova-arm-ext: the instance {title} is paused: stop '
                        f'it first (openstack server stop)\n'], said[event])
        self.assertIn('is suspended', said['restore, suspended'][2])
        self.assertEqual(
            [2, '', f'nova-arm-ext: {STORE}: it ends at byte 7, inside the '
                    f'header of its firmware volume\n'],
            said['show, damaged'])
        self.assertEqual([0, ''], said['restore'][::2])
        self.assertTrue(said['is as before'])
        # libvirt gives the file to QEMU's user, as it did before
        self.assertNotEqual(0, said['owner'])
        self.assertEqual(said['owner'], said['owner after'])
        self.assertEqual([0, ''], said['reset'][::2])
        self.assertTrue(said['is blank'])
        for event in ('no orphan', 'young'):
            self.assertEqual([0, ''], said[event][::2])
            self.assertNotIn('removed', said[event][1])
        status, text, errors = said['orphan']
        # what restore and reset kept goes with it
        self.assertEqual((0, ''), (status, errors))
        self.assertEqual(['removed'] * 3, text.splitlines())
        self.assertEqual([], said['left'])
