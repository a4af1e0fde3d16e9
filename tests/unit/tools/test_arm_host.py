# SPDX-License-Identifier: Apache-2.0
"""tools/arm-host without an Arm host: its images, its refusals, its end."""

import configparser
import contextlib
import datetime
import fcntl
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import typing
from collections.abc import Iterator

import fixtures

from tests.hosts.kvm import command
from tests.hosts.kvm import emulator
from tests.hosts.kvm import errors
from tests.hosts.kvm import host as hosts
from tests.hosts.kvm import image as images
from tests.hosts.kvm import initrd
from tests.hosts.kvm import record
from tests.hosts.kvm import root
from tests.hosts.kvm import start
from tests.support import base

_QEMU = """\
#!/bin/sh
case "$1" in
    --version) echo 'QEMU emulator version {version} (Debian 1)' ;;
    -M) echo '  {option}=<bool>  - ...' ;;
esac
"""
_DEPENDENCIES = """\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko
kernel/lib/crc16.ko:
kernel/fs/mbcache.ko:
kernel/virtio_pci.ko.xz: kernel/modern.ko.xz kernel/virtio.ko.xz
kernel/modern.ko.xz: kernel/virtio.ko.xz
kernel/virtio.ko.xz:
"""


class ArmHostTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.place = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.EnvironmentVariable(
            'NOVA_ARM_EXT_CACHE', str(self.place / 'cache')))

    def main(self, *arguments: str) -> tuple[int, str, str]:
        """The status of the command, and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command.main(arguments)
        return status, out.getvalue(), err.getvalue()

    def host(self, name: str, pid: int) -> hosts.Host:
        """A host that is up as far as its folder tells."""
        folder = hosts.running() / name
        folder.mkdir(parents=True)
        (folder / 'host.json').write_text(json.dumps({
            'pid': pid, 'port': 1, 'core': 'max',
            'image': str(images.place('bookworm'))}))
        return hosts.Host(folder)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """A process that looks like the QEMU of a host."""
        process = subprocess.Popen(
            (sys.executable, '-c', 'import time; print(flush=True); '
             'time.sleep(600)', str(hosts.running() / name / 'disk.qcow2')),
            stdout=subprocess.PIPE)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout.readline()
        return process


class CommandTest(ArmHostTestCase):

    def test_a_host_that_is_not_up_is_named(self) -> None:
        for verb in ('run', 'down'):
            self.assertEqual(
                (1, '', 'arm-host: the host other is not up\n'),
                self.main(verb, '--name', 'other'))

    def test_a_host_that_runs_is_not_started_again(self) -> None:
        self.host('arm', self.process('arm').pid)

        status, _, said = self.main('up')

        self.assertEqual(1, status)
        self.assertEqual('arm-host: the host arm runs already: tools/arm-host '
                         'down --name arm ends it\n', said)

    def test_down_ends_its_process_and_leaves_nothing(self) -> None:
        process = self.process('arm')
        host = self.host('arm', process.pid)

        self.assertEqual((0, '', ''), self.main('down'))

        self.assertFalse(pathlib.Path(f'/proc/{process.pid}').exists())
        self.assertFalse(host.folder.exists())

    def test_another_process_of_that_number_is_left_alone(self) -> None:
        process = self.process('another')
        host = self.host('arm', process.pid)

        self.assertFalse(host.runs)
        self.assertEqual((0, '', ''), self.main('down'))

        self.assertIsNone(process.poll())
        self.assertFalse(host.folder.exists())

    def test_a_host_that_has_ended_says_so(self) -> None:
        process = self.process('arm')
        self.host('arm', process.pid)
        process.kill()
        process.wait()

        _, listed, _ = self.main('list')
        status, _, said = self.main('run', 'true')

        self.assertIn('arm  max  bookworm  has ended\n', listed)
        self.assertEqual(1, status)
        self.assertIn('tools/arm-host down --name arm', said)

    def test_a_name_that_would_be_a_path_is_refused(self) -> None:
        with (contextlib.redirect_stderr(io.StringIO()) as said,
              self.assertRaises(SystemExit)):
            command.main(('down', '--name', '../arm'))

        self.assertIn("'../arm' is not a host name", said.getvalue())

    def test_an_arm_machine_with_kvm_needs_no_other(self) -> None:
        self.useFixture(fixtures.MockPatchObject(
            hosts, 'has_own_kvm', return_value=True))

        status, _, said = self.main('up')

        self.assertEqual(1, status)
        self.assertIn('this machine is an Arm host with KVM', said)


class ShellTest(ArmHostTestCase):

    def test_this_machine_runs_commands_itself(self) -> None:
        here = hosts.Here()

        here.write(f'{self.place}/below/file', b'one\ntwo\n')

        self.assertEqual('two\n', here.run('tail', '-n', '1',
                                           f'{self.place}/below/file'))

    def test_a_command_that_fails_is_named_with_what_it_said(self) -> None:
        error = self.assertRaises(
            errors.CommandFailed, hosts.Here().run, 'sh', '-c',
            'echo sorry >&2\nexit 3')

        self.assertEqual("sh -c 'echo sorry >&2 ended with 3: sorry",
                         str(error))

    def test_a_command_that_does_not_end_is_ended(self) -> None:
        error = self.assertRaises(
            errors.HostError, hosts.Here().run, 'sleep', '600', timeout=0.1)

        self.assertEqual('sleep 600 did not end within 0 s', str(error))
        self.assertNotIsInstance(error, errors.CommandFailed)

    def test_a_host_finds_the_entry_points_of_this_tree(self) -> None:
        written = {}

        class Kept(hosts.Host):

            def write(self, path: str, data: bytes) -> None:
                written[path.rpartition('/')[2]] = data.decode()

        Kept(self.host('arm', 0).folder).install()

        read = configparser.RawConfigParser()
        read.read_string(written['entry_points.txt'])
        self.assertIn('armv7', read['nova_arm_ext.hooks'])
        self.assertIn('facts', read['nova_arm_ext.cmd'])
        self.assertIn('Name: nova-arm-ext\n', written['METADATA'])


class RefusalTest(ArmHostTestCase):

    def test_a_port_that_is_taken(self) -> None:
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            port = taken.getsockname()[1]

            error = self.assertRaises(errors.HostError, start.check_port, port)

        self.assertIn(f'port {port} of 127.0.0.1', str(error))

    def test_too_little_memory(self) -> None:
        error = self.assertRaises(errors.Unsuitable, start.check_memory,
                                  1 << 40)

        self.assertIn('MiB are free', str(error))

    def test_too_little_room(self) -> None:
        error = self.assertRaises(errors.Unsuitable, images.check_room,
                                  self.place, 1 << 60, 'this')

        self.assertIn(f'GiB in {self.place}, where', str(error))

    def test_a_user_who_cannot_make_an_image(self) -> None:
        self.useFixture(fixtures.MockPatchObject(os, 'geteuid',
                                                 return_value=1000))

        status, _, said = self.main('make')

        self.assertEqual(1, status)
        self.assertIn('needs root', said)

    def test_tools_that_are_missing(self) -> None:
        self.useFixture(fixtures.MockPatchObject(os, 'geteuid',
                                                 return_value=0))
        self.useFixture(fixtures.MockPatchObject(
            root, 'search_path', return_value=str(self.place)))

        error = self.assertRaises(errors.Unsuitable, images.check_tools)

        self.assertIn('cpio e2fsprogs kmod mmdebstrap', str(error))


class EmulatorTest(ArmHostTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', f'{self.place}:{os.environ["PATH"]}'))

    def own(self, version: str, option: str = 'virtualization') -> None:
        program = self.place / 'qemu-system-aarch64'
        program.write_text(_QEMU.format(version=version, option=option))
        program.chmod(0o755)

    def test_the_machine_s_own_is_taken_when_it_is_new_enough(self) -> None:
        self.own('10.1.2')

        found = emulator.find(command.silent)

        self.assertEqual((str(self.place / 'qemu-system-aarch64'),),
                         found.command)
        self.assertEqual(10, found.release)

    def test_an_older_one_is_named_when_there_is_no_other(self) -> None:
        self.own('7.2.22')
        self.useFixture(fixtures.MockPatchObject(os, 'geteuid',
                                                 return_value=1000))

        error = self.assertRaises(errors.Unsuitable, emulator.find,
                                  command.silent)

        self.assertIn('needs QEMU 10 or newer for AArch64, which is 7.2.22 '
                      'here', str(error))

    def test_one_without_the_hypervisor_mode_is_refused(self) -> None:
        self.own('10.0.0', option='secure')

        error = self.assertRaises(errors.Unsuitable, emulator.find,
                                  command.silent)

        self.assertIn('has no virtualization=on', str(error))


class StartTest(ArmHostTestCase):

    def line(self, **wanted: typing.Any) -> list[str]:
        found = emulator.Emulator(command=('qemu',), environment={},
                                  version='10.0')
        image = images.Image(place=images.place('bookworm'))
        return start.line(start.Wanted(**wanted), image, found, self.place,
                          2222)

    def test_the_machine_has_a_hypervisor_mode_and_the_core(self) -> None:
        line = ' '.join(self.line(core='neoverse-n1', memory=3000))

        self.assertIn('-M virt,virtualization=on,gic-version=3', line)
        self.assertIn('-cpu neoverse-n1 -smp 2 -m 3000 ', line)
        self.assertIn('hostfwd=tcp:127.0.0.1:2222-:22', line)

    def test_only_a_host_that_is_kept_outlives_its_parent(self) -> None:
        self.assertEqual('setpriv', self.line()[0])
        self.assertEqual('qemu', self.line(keeps=True)[0])

    def test_the_folders_of_this_machine_are_read_only(self) -> None:
        shared = [word for word in self.line() if word.startswith('local,')]

        self.assertEqual(2, len(shared))
        for words in shared:
            self.assertTrue(words.endswith(',readonly=on'), words)

    def test_hosts_have_uuids_of_their_own(self) -> None:
        one, other = (' '.join(self.line(name=name)) for name in ('a', 'b'))

        self.assertNotEqual(one.partition('uuid=')[2].split()[0],
                            other.partition('uuid=')[2].split()[0])

    def test_a_qemu_that_ends_is_told_and_nothing_is_left(self) -> None:
        image = images.Image(place=images.place('bookworm'))
        image.place.mkdir(parents=True)
        subprocess.run(('qemu-img', 'create', '-q', '-f', 'qcow2',
                        image.warm('max'), '1M'),
                       check=True)
        broken = self.place / 'qemu'
        broken.write_text('#!/bin/sh\necho "qemu: no such thing" >&2\nexit 3')
        broken.chmod(0o755)
        self.useFixture(fixtures.MockPatchObject(
            emulator, 'find', return_value=emulator.Emulator(
                command=(str(broken),), environment={}, version='10.0')))
        self.useFixture(fixtures.MockPatchObject(start, 'check_memory'))
        folder = self.place / 'host'

        error = self.assertRaises(
            errors.HostError, start.start, start.Wanted(core='max'), image,
            folder, command.silent)

        self.assertEqual('QEMU ended with 3 while the Arm host booted: qemu: '
                         'no such thing', str(error))
        self.assertFalse(folder.exists())


class ImageTest(ArmHostTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(images, 'check_tools'))
        self.useFixture(fixtures.MockPatchObject(images, 'check_room'))
        self.useFixture(fixtures.MockPatchObject(images, 'mirror'))

    def test_an_interruption_leaves_nothing_that_looks_complete(self) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with fixtures.MockPatchObject(root, 'unpack', interrupted):
            self.assertRaises(KeyboardInterrupt, images.ensure, 'bookworm',
                              command.silent)

        self.assertIsNone(images.cached('bookworm'))

    def test_it_is_made_once_and_by_what_was_interrupted_too(self) -> None:
        made = []

        def make(suite: str, folder: pathlib.Path, step: images.Step) -> None:
            self.assertEqual([], list(folder.iterdir()))
            made.append(suite)

        old = images.place('bookworm')
        old = old.with_name(f'.{old.name}.unfinished')
        old.mkdir(parents=True)
        (old / 'disk.img').touch()
        self.useFixture(fixtures.MockPatchObject(images, '_make', make))

        first = images.ensure('bookworm', command.silent)
        second = images.ensure('bookworm', command.silent)

        self.assertEqual(['bookworm'], made)
        self.assertEqual(first, second)
        self.assertEqual('bookworm', first.suite)

    def test_a_step_that_fails_names_its_log(self) -> None:
        def fails(*_: object) -> None:
            raise subprocess.CalledProcessError(25, ('unshare', 'mmdebstrap'))

        self.useFixture(fixtures.MockPatchObject(root, 'unpack', fails))

        error = self.assertRaises(errors.HostError, images.ensure, 'bookworm',
                                  command.silent)

        self.assertIn('ended with 25', str(error))

    def test_modules_come_after_what_they_need(self) -> None:
        order = initrd.module_order(
            ('virtio_pci', 'virtio-blk', 'ext4'), _DEPENDENCIES,
            'kernel/drivers/virtio_blk.ko\n')

        self.assertEqual(
            ['kernel/virtio.ko.xz', 'kernel/modern.ko.xz',
             'kernel/virtio_pci.ko.xz', 'kernel/fs/mbcache.ko',
             'kernel/lib/crc16.ko', 'kernel/fs/ext4/ext4.ko'], order)

    def test_versions_are_those_of_the_unpacked_files(self) -> None:
        (self.place / 'packages').write_text(
            'lock\nqemu-system-arm_1%3a7.2+dfsg-7_arm64.deb\n')

        self.assertEqual({'qemu-system-arm': '1:7.2+dfsg-7'},
                         root.versions(self.place))


class WaitingTest(ArmHostTestCase):

    def test_who_waits_for_another_process_is_told(self) -> None:
        told = []
        lock = self.place / 'lock'
        with lock.open('w') as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)

            @contextlib.contextmanager
            def step(name: str) -> Iterator[typing.IO[str]]:
                told.append(name)
                fcntl.flock(holder, fcntl.LOCK_UN)
                with command.silent(name) as out:
                    yield out

            with images.locked(lock, step):
                self.assertEqual(
                    ['waiting for another process that makes it'], told)


class RecordTest(ArmHostTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(
            record, 'FOLDER', self.place / 'recorded'))
        self.useFixture(fixtures.MockPatchObject(
            emulator, 'find', return_value=emulator.Emulator(
                command=(), environment={}, version='10.0.1')))
        self.answering = self.host('arm', 0)
        self.answering.image.place.mkdir(parents=True)
        (self.answering.image.place / 'packages.json').write_text(json.dumps(
            dict.fromkeys(record._PACKAGES, '1.0')))
        self.useFixture(fixtures.MockPatchObject(
            self.answering, 'facts', return_value='{}\n'))

    def record(self) -> pathlib.Path:
        return record.record(self.answering, command.silent,
                             today=datetime.date(2026, 1, 2))

    def test_each_recording_says_that_its_host_is_emulated(self) -> None:
        self.useFixture(fixtures.MockPatchObject(
            self.answering, 'run', return_value='<answer/>\n'))

        folder = self.record()

        self.assertEqual('max-bookworm', folder.name)
        self.assertEqual({*record.COMMANDS, 'facts.json', 'host.json'},
                         {path.name for path in folder.iterdir()})
        said = json.loads((folder / 'host.json').read_text())
        self.assertIs(True, said['emulated'])
        self.assertEqual(('QEMU 10.0.1', '2026-01-02'),
                         (said['emulator'], said['date']))

    def test_what_a_host_refuses_is_recorded_as_its_error(self) -> None:
        self.useFixture(fixtures.MockPatchObject(
            self.answering, 'run',
            side_effect=errors.CommandFailed('no such thing')))

        folder = self.record()

        self.assertFalse((folder / 'capabilities.xml').exists())
        self.assertEqual('no such thing\n',
                         (folder / 'capabilities.xml.error').read_text())

    def test_a_host_that_does_not_answer_in_time_is_not_recorded(self) -> None:
        self.useFixture(fixtures.MockPatchObject(
            self.answering, 'run', side_effect=errors.HostError('slow')))

        self.assertRaises(errors.HostError, self.record)

        self.assertFalse(record.FOLDER.exists())

    def test_an_interruption_leaves_the_earlier_recording(self) -> None:
        earlier = self.place / 'recorded/max-bookworm/capabilities.xml'
        earlier.parent.mkdir(parents=True)
        earlier.touch()
        self.useFixture(fixtures.MockPatchObject(
            self.answering, 'run', side_effect=KeyboardInterrupt))

        self.assertRaises(KeyboardInterrupt, self.record)

        self.assertTrue(earlier.exists())
