# SPDX-License-Identifier: Apache-2.0
"""Every command reads the files and asks the libvirt of nova-compute."""

import os
import pathlib
import types

import fixtures

from nova_arm_ext.cmd import host
from nova_arm_ext.cmd import reading
from nova_arm_ext.compute import binding
from tests.unit.cmd import base

#: A libvirt test host with one guest.
NODE = '''\
<node>
  <domain type="test">
    <name>instance-0000002a</name>
    <uuid>8d5e4b6a-93c1-4e07-8f6e-3f2b1c9a7d10</uuid>
    <memory>1048576</memory>
    <os><type>hvm</type></os>
  </domain>
  {more}
</node>
'''

ASKING = ('audit', 'facts', 'pci', 'explain instance-0000002a', 'nvram list',
          'nvram orphans', 'nvram show instance-0000002a',
          'nvram backup instance-0000002a x',
          'nvram restore instance-0000002a {file}',
          'nvram reset instance-0000002a')


class ServiceTestCase(base.CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        # nova-compute looks there before it looks into /etc/nova
        self.folder = self.directory / '.nova'
        self.folder.mkdir()
        self.useFixture(fixtures.EnvironmentVariable(
            'HOME', str(self.directory)))

    def conf(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)


class FilesTest(ServiceTestCase):

    def hooks(self, *arguments: str) -> list[str]:
        """The enabled hooks, in their order."""
        ran = self.run_command('hooks', '-f', 'value', '-c', 'Name', '-c',
                               'Enabled', *arguments)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return [line.split()[0] for line in ran.stdout.splitlines()
                if line.endswith(('yes', 'True'))]

    def test_the_files_of_the_service_count_without_an_option(self) -> None:
        self.conf('nova.conf', '[arm]\nhooks = uefi\n')

        self.assertEqual(['uefi'], self.hooks())

    def test_nova_compute_conf_is_read_after_nova_conf(self) -> None:
        self.conf('nova.conf', '[arm]\nhooks = uefi\n')
        self.conf('nova-compute.conf', '[arm]\nhooks = console\n')

        self.assertEqual(['console'], self.hooks())

    def test_directories_are_read_after_files(self) -> None:
        self.conf('nova.conf', '[arm]\nhooks = uefi\n')
        self.conf('nova.conf.d/25-arm.conf', '[arm]\nhooks = armv7\n')

        self.assertEqual(['armv7'], self.hooks())

    def test_files_that_are_given_count_in_their_order(self) -> None:
        self.conf('nova.conf', '[arm]\nhooks = uefi\n')
        one = self.file('one.conf', '[arm]\nhooks = console\n')
        (self.directory / 'two').mkdir()
        self.file('two/a.conf', '[arm]\nhooks = armv7\n')
        folder = ('--config-dir', str(self.directory / 'two'))

        self.assertEqual(['console'], self.hooks('--config-file', one))
        self.assertEqual(['armv7'], self.hooks(*folder))
        self.assertEqual(['armv7'], self.hooks('--config-file', one, *folder))
        self.assertEqual(['console'],
                         self.hooks(*folder, '--config-file', one))

    def test_a_directory_that_is_not_there(self) -> None:
        self.assert_fails(
            self.run_command('hooks', '--config-dir', '/nonexistent'),
            '/nonexistent')

    def test_preview_reads_them_too(self) -> None:
        self.conf('nova.conf', '[arm]\nhooks = uefi\n')

        ran = self.preview()

        self.assertIn('# uefi: ', ran.stdout)
        self.assertNotIn('# console: ', ran.stdout)

    def test_doctor_names_the_file_that_chooses_the_driver(self) -> None:
        own = self.conf('nova.conf', '[DEFAULT]\n'
                        'compute_driver = arm_ext.ArmLibvirtDriver\n')
        last = self.conf('nova-compute.conf', '[DEFAULT]\n'
                         'compute_driver = libvirt.LibvirtDriver\n')

        ran = self.run_command('doctor', '--json')

        [found] = [one for one in ran.json['checks']
                   if one['check'] == 'driver']
        self.assertEqual('failure', found['status'])
        self.assertIn(f'is libvirt.LibvirtDriver in {last}', found['text'])
        self.assertIn(own, found['text'])

    def test_a_file_that_this_user_may_not_read(self) -> None:
        if os.geteuid() == 0:
            self.skipTest('root may read every file')
        pathlib.Path(self.conf('nova.conf', '')).chmod(0)

        self.assert_fails(self.run_command('hooks'), 'run this as root')


class ConnectionTest(ServiceTestCase):

    def setUp(self) -> None:
        super().setUp()
        if binding.libvirt is None:
            self.skipTest('libvirt-python is not installed')
        self.uri = 'test://' + self.file('node.xml', NODE.format(more=''))

    def test_it_is_that_of_nova_compute(self) -> None:
        self.conf('nova.conf', f'[libvirt]\nconnection_uri = {self.uri}\n')

        for command in ('audit', 'facts', 'explain instance-0000002a'):
            ran = self.run_command(*command.split())

            self.assertEqual((0, ''), (ran.status, ran.stderr))

    def test_every_command_says_which_one_is_silent(self) -> None:
        uri = 'qemu+tcp://127.0.0.1:1/system'
        self.conf('nova.conf', f'[libvirt]\nconnection_uri = {uri}\n')
        backup = self.file('backup', b'')

        for command in ASKING:
            ran = self.run_command(*command.format(file=backup).split(),
                                   '--timeout', '20')

            self.assertEqual(2, ran.status, command)
            if 'restore' not in command:
                self.assert_one_line(ran, f'libvirt at {uri} does not answer')

    def test_connect_takes_precedence(self) -> None:
        self.conf('nova.conf', '[libvirt]\nconnection_uri = qemu+tcp://x/s\n')

        ran = self.run_command('audit', '--connect', self.uri)

        self.assertEqual((0, ''), (ran.status, ran.stderr))

    def test_preview_asks_it(self) -> None:
        ran = self.run_command('preview', '--connect', self.uri,
                               self.document)

        self.assertIn(f'# host facts: from libvirt at {self.uri}\n',
                      ran.stdout)

    def test_a_time_that_is_none(self) -> None:
        for text in ('soon', '0', '-1'):
            self.assert_fails(
                self.run_command('facts', f'--timeout={text}'),
                f"'{text}' is not a number of seconds")

    def test_an_address_of_this_machine_is_local(self) -> None:
        for uri in ('qemu+tcp://127.0.0.1/system', 'qemu+tcp://[::1]/system',
                    'qemu+tls://localhost/system'):
            self.assertTrue(host.is_local(uri), uri)
        for uri in ('qemu+tcp://192.0.2.7/system',
                    'qemu+tcp://no.such.invalid/system'):
            self.assertFalse(host.is_local(uri), uri)


class AuthenticationTest(ServiceTestCase):
    """libvirt's test driver asks for a password."""

    def setUp(self) -> None:
        super().setUp()
        if binding.libvirt is None:
            self.skipTest('libvirt-python is not installed')
        self.useFixture(fixtures.EnvironmentVariable('LIBVIRT_AUTH_FILE'))
        self.uri = 'test://' + self.file('node.xml', NODE.format(
            more='<auth><user password="secret">nova</user></auth>'))

    def auth(self, home: str) -> None:
        folder = self.directory / home / '.config/libvirt'
        folder.mkdir(parents=True)
        (folder / 'auth.conf').write_text(
            '[credentials-nova]\nusername=nova\npassword=secret\n'
            '[auth-test-localhost]\ncredentials=nova\n')

    def test_without_a_password_it_is_one_line(self) -> None:
        self.assert_fails(self.run_command('audit', '--connect', self.uri),
                          f'libvirt at {self.uri} does not answer: ')

    def test_the_password_of_nova_s_user_is_used(self) -> None:
        self.auth('home-of-nova')
        self.useFixture(fixtures.MonkeyPatch('pwd.getpwnam', {
            'nova': types.SimpleNamespace(
                pw_dir=str(self.directory / 'home-of-nova'))}.get))

        ran = self.run_command('audit', '--connect', self.uri)

        self.assertEqual((0, ''), (ran.status, ran.stderr))

    def test_a_password_of_this_user_s_own_is_preferred(self) -> None:
        self.auth('.')

        self.assertIsNone(host._auth_file())


class SourceTest(base.CommandTestCase):

    def test_a_default_comes_from_no_file(self) -> None:
        conf = reading.configuration([])
        host.uri_of(conf)

        self.assertIsNone(
            reading.source_of(conf, 'connection_uri', 'libvirt'))


class TerminalTest(base.CommandTestCase):

    def test_a_command_that_waits_for_a_terminal_says_so(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'tests.unit.cmd.base.Stream.terminal', True))

        ran = self.run_command('preview', '--facts', self.facts,
                               stdin=base.DOCUMENT.encode())

        self.assertEqual(0, ran.status)
        self.assertEqual('Reading domain XML from this terminal; end it with '
                         'Ctrl-D.\n', ran.stderr)
