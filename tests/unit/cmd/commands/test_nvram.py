# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext nvram` with real stores and libvirt's test driver."""

import json
import os
import pathlib
import shutil
import subprocess
import time
from xml.sax.saxutils import escape

import fixtures
import testtools

from nova_arm_ext import varstore
from nova_arm_ext.cmd import stores as cmd_stores
from nova_arm_ext.compute.nvram import files
from tests.support import base as tests_base
from tests.support import stores
from tests.unit.cmd import base

AAVMF = pathlib.Path('/usr/share/AAVMF')
needs_aavmf = testtools.skipUnless(
    (AAVMF / 'AAVMF_VARS.ms.fd').is_file(),
    'qemu-efi-aarch64 is not installed')

UUIDS = [f'8d5e4b6a-93c1-4e07-8f6e-3f2b1c9a7d1{number}'
         for number in range(10)]

TEST = 'http://libvirt.org/schemas/domain/test/1.0'

OLD = stores.store(stores.variable('Boots', b'\1'))
NEW = stores.store(stores.variable('Boots', b'\2'))


class NvramTestCase(base.CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.nvram = self.directory / 'nvram'
        self.instances = self.directory / 'instances'
        for folder in (self.nvram, self.instances):
            folder.mkdir()
        self.template = self.directory / 'template.fd'
        self.template.write_bytes(bytes(stores.MIB))
        self.guests: list[str] = []

    def guest(self, number: int, *, path: pathlib.Path | None = None,
              running: bool = False, suspended: bool = False,
              template: bool = True, server: str | None = None) -> str:
        """Define a domain; its store need not exist.

        :returns: its name
        """
        name = f'instance-{number:08x}'
        metadata = '' if server is None else (
            '<metadata><nova:instance xmlns:nova="http://openstack.org/xmlns/'
            f'libvirt/nova/1.1"><nova:name>{escape(server)}</nova:name>'
            f'</nova:instance></metadata>')
        attribute = f" template='{self.template}'" if template else ''
        self.guests.append(
            f"<domain type='test' xmlns:test='{TEST}'><name>{name}</name>"
            f'<uuid>{UUIDS[number]}</uuid>{metadata}<memory>8192</memory>'
            f"<os><type>hvm</type><loader readonly='yes' type='pflash'>"
            f'/usr/share/AAVMF/AAVMF_CODE.fd</loader>'
            f'<nvram{attribute}>'
            f'{path or self.nvram / f"{name}_VARS.fd"}</nvram>'
            f'</os><test:runstate>{1 if running else 5}</test:runstate>'
            + '<test:hasmanagedsave>1</test:hasmanagedsave>' * suspended
            + '</domain>')
        return name

    def store(self, name: str, data: bytes = OLD,
              age: float = 0.0) -> pathlib.Path:
        path = self.nvram / f'{name}_VARS.fd'
        path.write_bytes(data)
        if age:
            os.utime(path, (time.time() - age,) * 2)
        return path

    def instance(self, uuid: str) -> pathlib.Path:
        folder = self.instances / uuid
        folder.mkdir()
        return folder

    def nvram_command(self, command: str, *arguments: str,
                      stdin: bytes = b'') -> base.Ran:
        if command in ('restore', 'reset'):
            arguments = ('--yes', *arguments)
        return self.asked(command, *arguments, stdin=stdin)

    def asked(self, command: str, *arguments: str,
              stdin: bytes = b'') -> base.Ran:
        """Run a command that may ask."""
        uri = 'test://' + self.file(
            'node.xml', f'<node>{"".join(self.guests)}</node>')
        return self.run_command(
            'nvram', command, '--connect', uri, '--nvram-dir',
            str(self.nvram), '--instances-dir', str(self.instances),
            *arguments, stdin=stdin)

    def rows(self, *arguments: str) -> list[dict[str, str]]:
        ran = self.nvram_command(*arguments, '-f', 'json')
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return json.loads(ran.stdout)

    def shown(self, *arguments: str) -> str:
        ran = self.nvram_command(*arguments)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return ran.stdout

    def assert_has(self, path: pathlib.Path, data: bytes) -> None:
        # assertEqual would print it
        self.assertTrue(path.read_bytes() == data)


class ListTest(NvramTestCase):

    def test_a_store_with_its_guest_size_and_age(self) -> None:
        name = self.guest(1, running=True)
        self.store(name)

        [row] = self.rows('list')

        self.assertLess(row.pop('Age'), 60)
        self.assertEqual({
            'Store': f'{self.nvram}/{name}_VARS.fd', 'Guest': name,
            'UUID': UUIDS[1], 'State': 'running', 'Size': stores.MIB,
            'On disk': (self.nvram / f'{name}_VARS.fd').stat().st_blocks
            * 512, 'Where': 'libvirt', 'Template': str(self.template)}, row)

    def test_sizes_and_ages_are_for_people_in_a_table(self) -> None:
        self.store(self.guest(1))

        table = self.shown('list')

        self.assertIn('1 MiB', table)
        self.assertRegex(table, r'\| \d+ s +\|')

    def test_each_kind_of_store_is_told(self) -> None:
        self.store(self.guest(1))
        self.guest(2, suspended=True)
        home = self.instance(UUIDS[3])
        self.guest(3, path=home / f'{UUIDS[3]}_VARS.fd')
        (home / f'{UUIDS[3]}_VARS.fd').write_bytes(OLD)
        self.guest(4, path=self.directory / 'mine.fd')
        self.store('instance-00000009')
        files.put_aside(str(self.nvram), self.store(
            'instance-00000001').name)
        resized = self.instance(f'{UUIDS[5]}_resize')
        (resized / f'{UUIDS[5]}_VARS.qcow2').write_bytes(OLD)
        (self.nvram / 'README').write_text('no store')

        found = {(row['Guest'], row['State'], row['Where'],
                  row['Size'] is not None) for row in self.rows('list')}

        self.assertEqual({
            ('instance-00000001', 'put aside', 'libvirt', True),
            ('instance-00000001', 'shut off', 'libvirt', False),
            ('instance-00000002', 'suspended', 'libvirt', False),
            ('instance-00000003', 'shut off', 'instance', True),
            ('instance-00000004', 'shut off', 'elsewhere', False),
            (None, 'no domain', 'libvirt', True),
            (None, 'no domain', 'instance', True)}, found)

    def test_folders_come_from_the_configuration(self) -> None:
        home = self.instance(UUIDS[1])
        (home / f'{UUIDS[1]}_VARS.fd').write_bytes(OLD)
        uri = 'test://' + self.file('node.xml', '<node/>')
        for conf in (f'state_path = {self.directory}',
                     f'instances_path = {self.instances}'):
            ran = self.run_command(
                'nvram', 'list', '--connect', uri, '--nvram-dir',
                str(self.nvram), '-f', 'value', '-c', 'Store',
                '--config-file', self.file('nova.conf',
                                           f'[DEFAULT]\n{conf}\n'))

            self.assertEqual(f'{home}/{UUIDS[1]}_VARS.fd\n', ran.stdout)

    def test_a_folder_that_is_not_there_or_not_readable_is_one_line(
            self) -> None:
        self.assert_fails(self.nvram_command(
            'list', '--nvram-dir', '/no/such'), "no directory '/no/such'")

        def refuse(folder):
            raise PermissionError(13, 'Permission denied', folder)

        with fixtures.MonkeyPatch('os.listdir', refuse):
            self.assert_fails(self.nvram_command('list'), str(self.nvram),
                              'Permission denied', 'as root')

    def test_a_libvirt_that_is_silent_is_one_line(self) -> None:
        for command in ('list', 'orphans'):
            self.assert_fails(self.run_command('nvram', command),
                              'does not answer')


class ShowTest(NvramTestCase):

    def write(self, *variables: bytes) -> str:
        """Write a store with these variables, without libvirt."""
        return self.file('VARS.fd', stores.store(*variables))

    def json(self, path: str) -> dict:
        ran = self.run_command('nvram', 'show', '--json', path)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return ran.json

    def text(self, path: str) -> str:
        ran = self.run_command('nvram', 'show', path)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return ran.stdout

    @needs_aavmf
    def test_the_keys_of_debian_s_enrolled_template(self) -> None:
        path = str(AAVMF / 'AAVMF_VARS.ms.fd')

        found = self.json(path)['secure_boot']

        self.assertEqual((True, False),
                         (found['enabled'], found['setup_mode']))
        self.assertEqual({
            'certificates': ['Microsoft Windows Production PCA 2011',
                             'Microsoft Corporation UEFI CA 2011'],
            'sha256': 0, 'others': 0, 'fault': None}, found['keys']['db'])
        text = self.text(path)
        self.assertIn('Secure Boot: on', text)
        self.assertIn('  PK: Debian UEFI Secure Boot (PK/KEK key)\n', text)
        self.assertIn('  dbx: 1 hashes\n', text)

    @needs_aavmf
    def test_boot_options_that_virt_firmware_wrote(self) -> None:
        from virt.firmware.efi import devpath
        from virt.firmware.varstore import edk2
        written = edk2.Edk2VarStore(str(AAVMF / 'AAVMF_VARS.ms.fd'))
        variables = written.get_varlist()
        variables.set_boot_entry(3, 'debian', devpath.DevicePath.filepath(
            '\\EFI\\debian\\shimaa64.efi'), b'more')
        variables.append_boot_order(3)
        variables.append_boot_order(0)
        variables.set_boot_next(1)
        path = str(self.directory / 'booted.fd')
        written.write_varstore(path, variables)

        boot = self.json(path)['boot']

        self.assertEqual(['0003', '0000'], boot['order'])
        self.assertEqual(('0001', 5), (boot['next'], boot['timeout']))
        self.assertEqual(
            {'number': '0003', 'in_order': True, 'active': True,
             'description': 'debian', 'data_size': 4, 'fault': None,
             'path': 'FilePath(\\EFI\\debian\\shimaa64.efi)'},
            boot['options'][0])
        self.assertEqual(['0003', '0000', '0001', '0002'],
                         [one['number'] for one in boot['options']])
        text = self.text(path)
        self.assertIn('Boot order: 0003 0000\nNext boot: 0001\n', text)
        self.assertIn('  0003 debian: FilePath(\\EFI\\debian\\shimaa64.efi)\n',
                      text)
        self.assertIn('0001 UEFI Misc Device: PciRoot()/PCI(dev=01:0) '
                      '(not in the boot order)', text)

    def test_a_store_that_was_never_written_says_so(self) -> None:
        path = self.file('VARS.fd', bytes(stores.MIB))

        text = self.text(path)

        self.assertIn('Nothing has been written to this store yet.', text)
        self.assertIn('off, in setup mode', text)
        self.assertIn('Boot order: none', text)
        self.assertTrue(text.endswith('Variables: none\n'), text)
        self.assertTrue(self.json(path)['blank'])

    def test_keys_may_be_there_and_secure_boot_off(self) -> None:
        from nova_arm_ext.cmd import variables
        path = self.write(
            stores.variable('PK', b'x'),
            stores.variable('SecureBootEnable', b'\0',
                            guid=variables.ENABLE))

        self.assertIn('Secure Boot: off, although there are keys',
                      self.text(path))

    def test_variables_by_name_and_no_value_of_theirs(self) -> None:
        path = self.write(stores.variable('Label', b'my secret'))

        ran = self.run_command('nvram', 'show', '--json', path)

        self.assertEqual([{
            'name': 'Label', 'guid': str(stores.GLOBAL),
            'vendor': 'EfiGlobalVariable', 'attributes': ['NV', 'BS', 'RT'],
            'size': 9}], ran.json['variables'])
        self.assertNotIn(b'secret', ran.out)
        self.assertNotIn(b'my secret'.hex().encode(), ran.out)

    def test_what_a_guest_wrote_wrongly_is_said_of_that_alone(self) -> None:
        from nova_arm_ext.cmd import variables
        path = self.write(
            stores.variable('BootOrder', b'\1\0\2\0\3'),
            stores.variable('Boot0001', b'\1'),
            stores.variable('Boot0002', b'\1' * 20_000),
            stores.variable('Boot0003', b'\1\0\0\0\0\0o\0k\0\0\0'),
            # virt-firmware would go on forever
            stores.variable('MokList', variables.X509.bytes_le
                            + b'\xff\xff\0\0\0\0\0\0\0\0\0\0' + bytes(65536),
                            guid=variables.SHIM),
            stores.variable('db', b'short', guid=variables.SECURITY))

        found = self.json(path)

        faults = {one['number']: one['fault']
                  for one in found['boot']['options']}
        self.assertIn('cannot be read', faults['0001'])
        self.assertIn('it has 20000 bytes', faults['0002'])
        self.assertIsNone(faults['0003'])
        keys = found['secure_boot']['keys']
        self.assertIn('sizes that do not fit', keys['MokList']['fault'])
        self.assertIn('ends inside a list', keys['db']['fault'])
        self.assertIn('0001 it cannot be read', self.text(path))

    def test_nothing_that_a_guest_wrote_steers_the_terminal(self) -> None:
        path = self.write(
            stores.variable('\x1b[2J\nevil', b''),
            stores.variable('Boot0001', b'\1\0\0\0\0\0'
                            + '\x1b]0;evil\x07\0'.encode('utf-16-le')))

        text = self.text(path)

        self.assertNotIn('\x1b', text)
        self.assertNotIn('\nevil', text)

    def test_a_file_of_this_folder_needs_a_slash(self) -> None:
        self.useFixture(fixtures.MonkeyPatch('os.path.isfile',
                                             lambda path: path == 'b1.bak'))

        self.assert_fails(self.nvram_command('show', 'b1.bak'),
                          'for the file of this name, write ./b1.bak')

    def test_a_server_is_found_by_its_name_if_no_other_has_it(self) -> None:
        for number in (1, 2, 3):
            self.store(self.guest(
                number, server='web & co' if number < 3 else 'Acme <1>'))

        self.assertIn(UUIDS[3], self.shown('show', 'Acme <1>'))
        self.assert_fails(self.nvram_command('show', 'web & co'),
                          "2 servers have the name 'web & co'", UUIDS[1],
                          UUIDS[2])

    def test_the_guest_of_a_store_is_found_by_name_and_uuid(self) -> None:
        name = self.guest(1, running=True)
        self.store(name)
        for guest in (name, UUIDS[1], UUIDS[1].upper(), '1'):
            self.assertIn(f'Guest: {name} ({UUIDS[1]}), running\n',
                          self.shown('show', guest))
        self.assert_fails(self.nvram_command('show', 'instance-00000007'),
                          "'instance-00000007' has no variable store")

    def test_a_damaged_store_is_one_line_with_its_place(self) -> None:
        name = self.guest(1)
        path = self.store(name, OLD[:5000])

        self.assert_fails(self.nvram_command('show', name), str(path),
                          'it ends at byte 5000')

    def test_a_link_is_not_followed(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        path.rename(self.directory / 'target')
        path.symlink_to(self.directory / 'target')

        for guest in (name, str(path)):
            self.assert_fails(self.nvram_command('show', guest), str(path),
                              'a link')

    def test_what_is_missing_or_a_folder_is_one_line(self) -> None:
        self.assert_fails(self.run_command('nvram', 'show', '/no/such'),
                          "cannot read '/no/such'")
        self.assert_fails(self.run_command(
            'nvram', 'show', str(self.directory)), 'no plain file')

    def test_without_virt_firmware_the_extra_is_named(self) -> None:
        (self.directory / 'path').mkdir()
        (self.directory / 'path/virt.py').write_text('')

        ran = self.run_process(
            'nvram', 'show', self.write(),
            PYTHONPATH=os.pathsep.join(filter(None, (
                str(self.directory / 'path'), os.environ.get('PYTHONPATH')))))

        self.assert_fails(ran, "pip install 'nova-arm-ext[nvram]'")

    @testtools.skipUnless(shutil.which('qemu-img'), 'needs qemu-utils')
    def test_a_qcow2_store_is_read_by_qemu_img(self) -> None:
        raw = self.write(stores.variable('BootOrder', b'\7\0'))
        path = str(self.directory / 'VARS.qcow2')
        subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2',
                        raw, path], check=True)

        self.assertEqual(['0007'], self.json(path)['boot']['order'])
        with fixtures.EnvironmentVariable('PATH', '/nonexistent'):
            self.assert_fails(self.run_command('nvram', 'show', path),
                              'qcow2 image', 'qemu-utils')

    @testtools.skipUnless(shutil.which('qemu-img'), 'needs qemu-utils')
    def test_a_qcow2_store_that_names_another_file_is_not_read(self) -> None:
        path = str(self.directory / 'VARS.qcow2')
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-F',
                        'raw', '-b', '/etc/shadow', path, '1M'], check=True)

        self.assert_fails(self.run_command('nvram', 'show', path),
                          'names another file')


class BackupTest(NvramTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.backup = self.directory / 'backup'

    def back_up(self, data: bytes) -> None:
        self.backup.write_bytes(varstore.pack(data))

    @needs_aavmf
    def test_what_was_backed_up_comes_back_byte_for_byte(self) -> None:
        data = (AAVMF / 'AAVMF_VARS.ms.fd').read_bytes()
        self.template.write_bytes(data)
        name = self.guest(1)
        path = self.store(name, data)
        path.chmod(0o640)

        said = self.shown('backup', name, str(self.backup))
        path.write_bytes(OLD)
        restored = self.shown('restore', name, str(self.backup))

        self.assertIn('67108864 bytes, written to', said)
        self.assertLess(self.backup.stat().st_size, 8192)
        self.assertEqual(0o600, self.backup.stat().st_mode & 0o777)
        self.assert_has(path, data)
        self.assertEqual(0o640, path.stat().st_mode & 0o777)
        kept = f'{path}.before-restore'
        self.assertEqual(
            f'{path} now has the content of {self.backup}\n'
            f'The old store is kept as {kept}; to get it back: '
            f'nova-arm-ext nvram restore {name} {kept}\n', restored)
        self.assertIn('Debian UEFI', self.shown('show', str(self.backup)))

    def test_standard_output_and_input_are_files_too(self) -> None:
        name = self.guest(1)
        path = self.store(name)

        ran = self.nvram_command('backup', name, '-')
        path.write_bytes(NEW)
        shown = self.run_command('nvram', 'show', '-', stdin=ran.out)
        self.nvram_command('restore', name, '-', stdin=ran.out)

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertTrue(varstore.unpack(ran.out) == OLD)
        self.assertIn('Store: standard input\n', shown.stdout)
        self.assert_has(path, OLD)
        self.assertFalse(pathlib.Path('-').exists())

    def test_a_backup_is_not_written_to_a_terminal(self) -> None:
        name = self.guest(1)
        self.store(name)
        self.useFixture(fixtures.MonkeyPatch(
            'tests.unit.cmd.base.Stream.terminal', True))

        self.assert_fails(self.nvram_command('backup', name, '-'),
                          'redirect it')

    def test_a_running_guest_can_be_backed_up(self) -> None:
        name = self.guest(1, running=True)
        self.store(name)

        self.shown('backup', name, str(self.backup))

        self.assertTrue(varstore.unpack(self.backup.read_bytes()) == OLD)

    def test_no_file_is_overwritten(self) -> None:
        name = self.guest(1)
        self.store(name)
        self.backup.write_text('mine')

        self.assert_fails(self.nvram_command(
            'backup', name, str(self.backup)), 'already exists')
        self.assert_fails(self.nvram_command(
            'backup', name, '/no/such/folder'), "write '/no/such/folder'")

        self.assertEqual('mine', self.backup.read_text())

    def test_a_damaged_store_is_not_backed_up(self) -> None:
        name = self.guest(1)
        self.store(name, b'nonsense')

        self.assert_fails(self.nvram_command(
            'backup', name, str(self.backup)), '_VARS.fd: it ends at byte 8')

        self.assertFalse(self.backup.exists())

    def test_a_lost_store_comes_back(self) -> None:
        name = self.guest(1)
        self.back_up(OLD)

        self.shown('restore', name, str(self.backup))

        self.assert_has(self.nvram / f'{name}_VARS.fd', OLD)

    def test_a_damaged_store_is_replaced(self) -> None:
        name = self.guest(1)
        path = self.store(name, b'nonsense')
        self.back_up(OLD)

        self.shown('restore', UUIDS[1], str(self.backup))

        self.assert_has(path, OLD)

    def test_a_guest_that_runs_or_is_suspended_is_left_alone(self) -> None:
        self.back_up(NEW)
        running = self.guest(1, running=True)
        suspended = self.guest(2, suspended=True)
        for name, part in ((running, 'is running: stop it first'),
                           (suspended, 'resume it, then stop it')):
            path = self.store(name)
            for command in (('restore', name, str(self.backup)),
                            ('restore', str(path), str(self.backup)),
                            ('reset', name)):
                self.assert_fails(self.nvram_command(*command), name, part)
            self.assert_has(path, OLD)

    def test_the_copy_of_a_rescue_is_left_alone(self) -> None:
        home = self.instance(UUIDS[1])
        for ending in ('', '.rescue'):
            (home / f'{UUIDS[1]}_VARS.fd{ending}').write_bytes(OLD)
        name = self.guest(1, path=home / f'{UUIDS[1]}_VARS.fd.rescue')
        self.back_up(NEW)

        self.assert_fails(self.nvram_command(
            'restore', name, str(self.backup)), 'unrescue the instance')

        self.assertIn('shut off', {
            row['State'] for row in self.rows('list')
            if row['Store'].endswith('.rescue')})

    @testtools.skipUnless(shutil.which('qemu-system-aarch64'),
                          'needs qemu-system-arm')
    def test_a_qemu_that_libvirt_does_not_know_of_is_seen(self) -> None:
        name = self.guest(1)
        self.back_up(NEW)
        path = self.store(name)
        os.truncate(path, 64 * stores.MIB)
        qemu = subprocess.Popen(
            ['qemu-system-aarch64', '-machine', 'virt', '-m', '64', '-S',
             '-display', 'none', '-serial', 'none', '-monitor', 'stdio',
             '-drive', f'if=pflash,unit=1,format=raw,file={path}'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(qemu.communicate)
        self.addCleanup(qemu.kill)
        qemu.stdout.read(10)     # its prompt: all files are open

        self.assert_fails(self.nvram_command(
            'restore', name, str(self.backup)), 'has it open')

    def test_a_backup_that_is_not_whole_changes_nothing(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        self.back_up(NEW)
        packed = self.backup.read_bytes()
        for content in (packed[:-1], b'', NEW[:100], packed + b'x',
                        varstore.pack(b'no store')):
            self.backup.write_bytes(content)

            self.assert_fails(self.nvram_command(
                'restore', name, str(self.backup)), str(self.backup))

            self.assert_has(path, OLD)

    def test_a_backup_for_other_flash_or_form_changes_nothing(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        for data, part in ((NEW + bytes(4096), 'made for 1048576'),
                           (stores.qcow2(size=stores.MIB),
                            'is qcow2 and')):
            self.back_up(data)

            self.assert_fails(self.nvram_command(
                'restore', name, str(self.backup)), part)

            self.assert_has(path, OLD)

    def test_a_full_disk_is_one_line_and_changes_nothing(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        self.back_up(NEW)

        def full(*_):
            raise OSError(28, 'No space left on device')

        with fixtures.MonkeyPatch('os.fsync', full):
            self.assert_fails(self.nvram_command(
                'restore', name, str(self.backup)),
                f"cannot write '{path}.before-restore': No space left on "
                f'device')

        self.assert_has(path, OLD)
        self.assertEqual([path], list(self.nvram.iterdir()))


class ResetTest(NvramTestCase):

    def test_the_template_of_the_domain_takes_its_place(self) -> None:
        name = self.guest(1)
        path = self.store(name)

        said = self.shown('reset', name)

        self.assert_has(path, bytes(stores.MIB))
        self.assertIn(f'{path} now has the content of {self.template}\n',
                      said)

    def test_the_old_store_is_kept_and_comes_back(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        kept = pathlib.Path(f'{path}.before-reset')

        said = self.shown('reset', name)

        self.assertIn(f'The old store is kept as {kept}; to get it back: '
                      f'nova-arm-ext nvram restore {name} {kept}\n', said)
        self.assertEqual(['kept'], [row['State'] for row in self.rows('list')
                                    if row['Store'] == str(kept)])
        self.shown('restore', name, str(kept))
        self.assert_has(path, OLD)

    def test_what_was_kept_is_never_replaced(self) -> None:
        name = self.guest(1)
        path = self.store(name)

        for _ in range(3):
            self.shown('reset', name)

        self.assertEqual(
            [path.name, *(f'{path.name}.before-reset{ending}'
                          for ending in ('', '-2', '-3'))],
            sorted(file.name for file in self.nvram.iterdir()))
        self.assertTrue(varstore.unpack(pathlib.Path(
            f'{path}.before-reset').read_bytes()) == OLD)

    def test_a_damaged_store_is_kept_as_it_is(self) -> None:
        name = self.guest(1)
        path = self.store(name, b'nonsense')

        self.shown('reset', name)

        self.assert_has(pathlib.Path(f'{path}.before-reset'), b'nonsense')

    def test_nothing_is_kept_where_the_new_one_cannot_be_written(
            self) -> None:
        name = self.guest(1)
        path = self.store(name)
        real = files.write_atomic

        def write(folder, name, data):
            if '.before-' not in name:
                raise OSError(5, 'Input/output error')
            real(folder, name, data)

        with fixtures.MonkeyPatch(
                'nova_arm_ext.compute.nvram.files.write_atomic', write):
            self.assert_fails(self.nvram_command('reset', name),
                              'Input/output error')

        self.assertEqual([path], list(self.nvram.iterdir()))

    def test_a_script_has_to_give_yes(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        backup = self.file('backup', varstore.pack(NEW))

        for command in (('reset', name), ('restore', name, backup)):
            self.assert_fails(self.asked(*command), str(path), name,
                              'give --yes', 'nothing was changed')

        self.assert_has(path, OLD)
        self.assertEqual([path], list(self.nvram.iterdir()))

    def test_a_terminal_is_asked(self) -> None:
        name = self.guest(1)
        path = self.store(name)
        self.useFixture(fixtures.MonkeyPatch(
            'tests.unit.cmd.base.Stream.terminal', True))

        for answer in (b'\n', b'n\n', b''):
            ran = self.asked('reset', name, stdin=answer)
            self.assertEqual(2, ran.status)
            self.assertIn('Continue? [y/N] ', ran.stderr)
            self.assertIn('nothing was changed', ran.stderr)
            self.assert_has(path, OLD)
        ran = self.asked('reset', name, stdin=b'y\n')

        self.assertEqual(0, ran.status)
        self.assertIn(f'{path} of {name} ({UUIDS[1]}) gets the content of '
                      f'{self.template}, and loses its variables. Continue? ',
                      ran.stderr)
        self.assert_has(path, bytes(stores.MIB))

    def test_another_template_can_be_named(self) -> None:
        name = self.guest(1, template=False)
        path = self.store(name)

        self.assert_fails(self.nvram_command('reset', name),
                          'give it with --template')
        self.shown('reset', name, '--template', self.file('new.fd', NEW))

        self.assert_has(path, NEW)

    def test_a_template_that_is_missing_or_damaged_changes_nothing(
            self) -> None:
        name = self.guest(1)
        path = self.store(name)
        for content, part in ((b'nonsense', 'it ends at byte 8'),
                              (None, 'No such file')):
            self.template.unlink()
            if content:
                self.template.write_bytes(content)

            self.assert_fails(self.nvram_command('reset', name),
                              str(self.template), part)

        self.assert_has(path, OLD)

    def test_a_path_that_nobody_has_is_not_written(self) -> None:
        path = self.file('somewhere.fd', OLD)

        self.assert_fails(self.nvram_command(
            'reset', path, '--template', self.file('new.fd', NEW)), path,
            'no domain names it')

        self.assert_has(pathlib.Path(path), OLD)


class OrphansTest(NvramTestCase):

    def setUp(self) -> None:
        super().setUp()
        # a test cannot make a file old: the change of its owner counts
        self.now = time.time()
        self.later(2 * 86400)

    def later(self, seconds: float) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.stores.time',
            type('clock', (), {'time': lambda: self.now + seconds})))

    def outcomes(self, *arguments: str) -> dict[str, str]:
        return {os.path.basename(row['Store']): row['Outcome']
                for row in self.rows('orphans', *arguments)}

    def names(self) -> list[str]:
        return sorted(path.name for path in self.nvram.iterdir())

    def test_what_nothing_accounts_for_is_listed_and_not_removed(
            self) -> None:
        self.store(self.guest(1))
        self.store('instance-00000007')

        self.assertEqual({'instance-00000007_VARS.fd': 'orphan'},
                         self.outcomes())
        self.assertEqual(2, len(self.names()))

    def test_yes_removes_them_and_nothing_else(self) -> None:
        self.store(self.guest(1))
        self.store('instance-00000007')
        temporary = self.nvram / '.instance-00000008_VARS.fd.new'
        temporary.write_bytes(b'begun')
        files.put_aside(str(self.nvram), self.store(
            'instance-00000006').name)
        self.store('my-own-guest')
        self.store(UUIDS[5])
        self.store(UUIDS[4])
        self.guest(4)
        (self.nvram / 'README').write_text('no store')

        outcomes = self.outcomes('--yes')

        self.assertEqual({'removed'}, set(outcomes.values()))
        self.assertEqual(4, len(outcomes))
        self.assertEqual([f'{UUIDS[4]}_VARS.fd', 'README',
                          'instance-00000001_VARS.fd',
                          'my-own-guest_VARS.fd'], self.names())
        self.assertEqual({}, self.outcomes('--yes'))

    def test_what_was_used_lately_is_left_out(self) -> None:
        self.store('instance-00000007', age=30 * 86400)
        self.later(3600)

        self.assertEqual({}, self.outcomes('--yes'))
        self.assertEqual(1, len(self.outcomes('--older-than', '30m')))
        self.assertEqual({}, self.outcomes('--older-than', '61m'))

    def test_the_folder_of_an_instance_accounts_for_its_store(self) -> None:
        self.store(UUIDS[1])
        self.store(UUIDS[2])
        self.instance(UUIDS[1])
        resized = self.instance(f'{UUIDS[2]}_resize')
        (resized / f'{UUIDS[2]}_VARS.fd').write_bytes(OLD)

        self.assertEqual({}, self.outcomes('--yes'))

    def test_what_may_be_that_of_an_instance_without_a_domain_is_kept(
            self) -> None:
        self.store('instance-00000007')
        self.instance(UUIDS[7])

        local = self.outcomes('--yes')
        with fixtures.MonkeyPatch('nova_arm_ext.cmd.stores.is_local',
                                  lambda folder: False):
            shared = self.outcomes()

        [outcome] = local.values()
        self.assertIn(f'kept: it may belong to {UUIDS[7]}', outcome)
        self.assertEqual({'instance-00000007_VARS.fd': 'orphan'}, shared)

    def test_nothing_is_removed_where_a_mount_cannot_be_asked_for(
            self) -> None:
        self.store(UUIDS[7])
        self.store('instance-00000007')
        with fixtures.MonkeyPatch('nova_arm_ext.cmd.stores.is_local',
                                  lambda folder: None):
            outcomes = self.outcomes('--yes')

        self.assertEqual(2, len(outcomes))
        for outcome in outcomes.values():
            self.assertIn('kept: it is not known where', outcome)
        self.assertEqual(2, len(self.names()))

    def test_the_last_line_says_what_was_left_out(self) -> None:
        self.store('instance-00000001')

        young = self.shown('orphans', '--older-than', '7d')
        listed = self.shown('orphans', '--older-than', '0m')
        removed = self.shown('orphans', '--older-than', '0m', '--yes')

        self.assertEqual('0 without an instance, 0 B; 1 younger than 7 d',
                         young.splitlines()[-1])
        self.assertRegex(
            listed.splitlines()[-1], r'^1 without an instance, \d.*B; '
            r'nothing was removed: add --yes$')
        self.assertNotIn('add --yes', removed)

    def test_a_guest_that_comes_back_meanwhile_keeps_its_store(self) -> None:
        self.store('instance-00000001')
        self.guest(1)
        real, asked = cmd_stores.domains, []

        def domains(uri, seconds):
            asked.append(uri)
            return [] if len(asked) == 1 else real(uri, seconds)

        with fixtures.MonkeyPatch('nova_arm_ext.cmd.stores.domains', domains):
            outcomes = self.outcomes('--yes')

        self.assertEqual({'instance-00000001_VARS.fd':
                          'kept: it is in use again'}, outcomes)
        self.assertEqual(1, len(self.names()))

    def test_one_that_a_qemu_has_open_is_kept(self) -> None:
        self.store('instance-00000007')
        with fixtures.MonkeyPatch(
                'nova_arm_ext.compute.nvram.files.in_use', lambda *_: True):
            self.assertEqual({'instance-00000007_VARS.fd':
                              'kept: a QEMU process has it open'},
                             self.outcomes('--yes'))

    def test_a_link_is_removed_and_what_it_names_stays(self) -> None:
        target = self.directory / 'target'
        target.write_bytes(OLD)
        (self.nvram / 'instance-00000007_VARS.fd').symlink_to(target)

        self.assertEqual({'instance-00000007_VARS.fd': 'removed'},
                         self.outcomes('--yes'))
        self.assert_has(target, OLD)

    def test_what_cannot_be_removed_is_told_and_the_rest_goes(self) -> None:
        self.store('instance-00000007')
        (self.nvram / 'instance-00000006_VARS.fd').mkdir()

        ran = self.nvram_command('orphans', '--yes')

        self.assertEqual(2, ran.status)
        self.assert_one_line(ran, '1 of the stores could not be removed')
        self.assertIn('NOT REMOVED', ran.stdout)
        self.assertEqual(['instance-00000006_VARS.fd'], self.names())

    def test_names_follow_the_template_of_the_configuration(self) -> None:
        self.store('instance-00000007')
        self.store('vm-7-x')
        conf = self.file(
            'nova.conf', '[DEFAULT]\ninstance_name_template = vm-%d-x\n')

        self.assertEqual({'vm-7-x_VARS.fd': 'orphan'},
                         self.outcomes('--config-file', conf))

    def test_a_time_that_is_none_is_one_line(self) -> None:
        self.assert_fails(self.nvram_command(
            'orphans', '--older-than', '1 week'), "'1 week' is not a time")


class FoldersTest(tests_base.TestCase):

    folders = cmd_stores.Folders(
        nvram='/v/nvram', instances='/i', name_template='instance-%08x')

    def test_what_lies_beneath_a_known_folder_is_split_there(self) -> None:
        for path, expected in {
                '/i/u/u_VARS.fd': ('/i', 'u/u_VARS.fd'),
                '/v/nvram/a_VARS.fd': ('/v/nvram', 'a_VARS.fd'),
                '/v/nvram/../x/y': ('/v/x', 'y'),
                '/other/y': ('/other', 'y')}.items():
            self.assertEqual(expected, self.folders.split(path))

    def test_names_of_nova(self) -> None:
        for name, expected in {
                'instance-0000002a': True, UUIDS[0]: True,
                'instance-': False, 'my-instance-0000002a': False,
                'instance-0000002a.old': False}.items():
            self.assertEqual(expected, self.folders.are_names_of_nova(name))

    def test_a_folder_of_this_host_is_local(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path

        self.assertTrue(cmd_stores.is_local(folder))
        self.assertFalse(cmd_stores.is_local('/proc'))

    def test_where_no_mount_is_listed_nobody_knows(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path
        listed = pathlib.Path(folder, 'mountinfo')
        listed.write_text('36 35 98:0 / /proc rw - proc proc rw\n')

        self.assertIsNone(cmd_stores.is_local(folder, str(listed)))
        self.assertIsNone(cmd_stores.is_local(folder, f'{folder}/none'))
        self.assertFalse(cmd_stores.is_local('/proc', str(listed)))
