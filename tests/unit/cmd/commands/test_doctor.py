# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext doctor`, with a real libvirt."""

import collections
import subprocess
import sys

from nova_arm_ext.cmd import checks
from tests.unit.cmd import base
from tests.unit.cmd.commands import hosts

KINDS = ('UEFI', 'Secure Boot', 'vIOMMU', 'ARMv7', 'many root ports',
         'all on virtio-mmio')

#: Spoils 32-bit guests, and crashes at those with an IOMMU.
HOOK = '''
from nova_arm_ext.hooks import base


class Strange(base.Hook):
    changes = frozenset(('serial',))

    def adjust(self, domain, facts, report):
        if domain.arch == 'armv7l':
            for serial in domain.element.findall('devices/serial'):
                serial.set('type', 'nonsense')
        if domain.element.find('devices/iommu') is not None:
            1 / 0
'''

#: A store driver with an option of its own.
STORE = '''
from oslo_config import cfg


def Tape(conf):
    conf.register_opt(cfg.IntOpt('reels'), group='arm_tape')
    return conf.arm_tape.reels
'''


class DoctorTest(hosts.LibvirtTestCase):

    def doctor(self, *arguments: str, **environment: str) -> base.Ran:
        done = subprocess.run(
            [sys.executable, '-c', hosts.COMMAND.format(module='cmd.main'),
             'doctor', '--connect', self.uri, '--config-file', self.conf,
             '--nvram-dir', str(self.directory / 'nvram'),
             '--instances-dir', str(self.directory / 'instances'),
             *arguments], capture_output=True,
            env=self.environment(**environment), timeout=300)
        return base.Ran(status=done.returncode, out=done.stdout,
                        stderr=done.stderr.decode())

    def findings(self, ran: base.Ran) -> dict[str, list[tuple[str, str]]]:
        """Status and text of the findings of each check."""
        found = {}
        for one in ran.json['checks']:
            found.setdefault(one['check'], []).append(
                (one['status'], one['text']))
        return found

    def test_each_check_speaks_and_canaries_are_defined(self) -> None:
        ran = self.doctor('--define-test')

        *lines, last = ran.stdout.splitlines()
        self.assertRegex(last, rf'^{len(lines)} results: \d+ ok, ')
        self.assertIn('ok              driver: [DEFAULT] compute_driver is '
                      f'arm_ext.ArmLibvirtDriver in {self.conf}', lines, ran)
        for kind in KINDS:
            self.assertIn(f'ok              define test: {kind}: libvirt '
                          f'defines it', lines)
        self.assertEqual([one.name for one in checks.CHECKS],
                         list(dict.fromkeys(
                             line[16:].partition(':')[0]
                             for line in lines))[:-1])
        worst = max(('ok', 'not applicable', 'warning', 'failure').index(
            line[:16].strip()) for line in lines)
        self.assertEqual(max(worst - 1, 0), ran.status)
        # no canary stays
        self.assertEqual([], [
            path for path in (self.directory / 'root').rglob('*.xml')
            if 'doctor' in path.name])

    def test_faults_that_others_bring(self) -> None:
        self.file('nova.conf', hosts.CONF + (
            '[arm_uefy]\nx = 1\n[arm]\nhooks = $default_hooks,bad\n'))

        ran = self.doctor('--define-test', '--json', **self.plugins(
            HOOK, bad='strange_hooks:Strange', broken='no_such_module:Hook'))

        found = self.findings(ran)
        [(status, text)] = found['hooks']
        self.assertEqual('failure', status)
        self.assertIn('no_such_module', text)
        self.assertEqual(
            [('warning', f'{self.conf}: there is no group [arm_uefy]')],
            found['option names'])
        self.assertEqual('ok', found['libvirt'][0][0])
        # one kind is refused by libvirt, with one the hook crashes
        self.assertEqual(
            {'failure': 2, 'ok': len(KINDS) - 2},
            collections.Counter(
                status for status, _ in found['define test']))
        texts = [text for status, text in found['define test']
                 if status == 'failure']
        self.assertEqual('vIOMMU: hook bad failed: ZeroDivisionError: '
                         'division by zero', texts[0])
        self.assertTrue(texts[1].startswith('ARMv7: '), texts)
        self.assertIn('nonsense', texts[1])
        self.assertEqual((2, 'failure'), (ran.status, ran.json['status']))


class WithoutLibvirtTest(base.CommandTestCase):

    def test_a_libvirt_that_does_not_answer(self) -> None:
        ran = self.run_command(
            'doctor', '--json', '--define-test', '--config-file',
            self.file('nova.conf', hosts.CONF))

        found = {one['check']: one for one in ran.json['checks']}
        self.assertEqual((2, 'failure', 'failure'),
                         (ran.status, ran.json['status'],
                          found['libvirt']['status']))
        self.assertIn('start libvirtd', found['libvirt']['advice'])
        self.assertEqual('not applicable', found['define test']['status'])
        self.assertEqual('ok', found['option names']['status'])

    def copies(self, source: str) -> dict[str, dict[str, str]]:
        """The findings with a store driver of another package."""
        conf = self.file('nova.conf', hosts.CONF + (
            '[arm_nvram]\nstore = tape\n[arm_tape]\nreels = 2\n'))

        ran = self.run_process(
            'doctor', '--json', '--config-file', conf, **self.plugins(
                source, namespace='nova_arm_ext.nvram_stores',
                tape='strange_hooks:Tape'))

        return {one['check']: one for one in ran.json['checks']}

    def test_a_store_driver_that_cannot_be_imported(self) -> None:
        found = self.copies('import no_such_module\n')

        self.assertEqual(
            ('failure', "[arm_nvram] store: tape cannot be imported: "
                        "ModuleNotFoundError: No module named "
                        "'no_such_module'"),
            (found['store for copies']['status'],
             found['store for copies']['text']))
        self.assertIn('install the package',
                      found['store for copies']['advice'])

    def test_a_store_driver_that_cannot_be_made(self) -> None:
        found = self.copies('def Tape(conf):\n    1 / 0\n')

        self.assertIn('tape cannot be made: ZeroDivisionError',
                      found['store for copies']['text'])

    def test_the_options_of_a_store_driver_are_known(self) -> None:
        found = self.copies(STORE)

        self.assertEqual('ok', found['option names']['status'])
        self.assertEqual('ok', found['store for copies']['status'])

    def test_a_folder_that_is_not_there(self) -> None:
        ran = self.run_command('doctor', '--json', '--nvram-dir', '/nowhere',
                               '--connect', 'test:///default')

        found = {one['check']: one for one in ran.json['checks']}
        self.assertIn("no directory '/nowhere'", found['free space']['text'])

    def test_a_configuration_that_cannot_be_read(self) -> None:
        self.assert_fails(
            self.run_command('doctor', '--config-file', '/nowhere/nova.conf'),
            '/nowhere/nova.conf')
