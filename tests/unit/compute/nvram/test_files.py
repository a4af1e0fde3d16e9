# SPDX-License-Identifier: Apache-2.0
"""The files of variable stores: replaced as a whole, never through a link."""

import errno
import fcntl
import multiprocessing
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import textwrap

import fixtures
import testtools

from nova_arm_ext import errors
from nova_arm_ext.compute.nvram import files
from tests.support import base
from tests.support import stores

OLD = stores.store(stores.variable('Boots', b'\1'))
NEW = stores.store(stores.variable('Boots', b'\2'), size=2 * stores.MIB)
NAME = 'guest/guest_VARS.fd'

#: All that writing, putting aside and removing ask the kernel for.
STEPS = ('open', 'close', 'stat', 'fstat', 'pwrite', 'ftruncate', 'fchown',
         'fchmod', 'fsync', 'rename', 'unlink', 'getxattr')


class StoreFilesTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path
        self.guest = pathlib.Path(self.folder, 'guest')
        self.guest.mkdir()
        self.file = self.guest / 'guest_VARS.fd'

    def names(self) -> list[str]:
        return sorted(path.name for path in self.guest.iterdir())

    def write(self, data: bytes = NEW, **more) -> None:
        files.write_atomic(self.folder, NAME, data, **more)

    def read(self) -> bytes:
        return files.read(self.folder, NAME)

    def assert_has(self, data: bytes) -> None:
        # assertEqual would print it
        self.assertTrue(data == self.file.read_bytes())
        self.assertEqual(['guest_VARS.fd'], self.names())

    def fault(self, kind: type[Exception], function, *arguments) -> str:
        return str(self.assertRaises(kind, function, *arguments))


class WriteTest(StoreFilesTestCase):

    def test_a_new_file_is_for_this_process_alone(self) -> None:
        self.write(OLD)

        self.assert_has(OLD)
        self.assertTrue(self.read() == OLD)
        found = self.file.stat()
        self.assertEqual((0o600, os.geteuid()),
                         (stat.S_IMODE(found.st_mode), found.st_uid))

    def test_blocks_of_zeros_take_no_space(self) -> None:
        data = OLD.ljust(64 * stores.MIB, b'\0')

        self.write(data)

        self.assertEqual(len(data), self.file.stat().st_size)
        self.assertLessEqual(self.file.stat().st_blocks * 512,
                             stores.VOLUME + 4096)
        self.assertTrue(data == self.read())

    def test_every_size_comes_back(self) -> None:
        for data in (b'', b'\0', b'a', b'\0' * 4096, b'\0' * 4097,
                     b'a' * 4095 + b'\0' * 2, b'\0' * 8191 + b'a'):
            self.write(data)

            self.assertEqual(data, self.read())

    def test_the_old_one_s_owner_and_permissions_are_kept(self) -> None:
        self.write(OLD)
        self.file.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(self.file, 64055, 107)
        before = files.access_to(self.folder, NAME)

        self.write(NEW)

        self.assert_has(NEW)
        self.assertEqual(before, files.access_to(self.folder, NAME))
        self.assertEqual(0o640, before.mode)

    def test_an_owner_that_is_given_is_the_one(self) -> None:
        self.write(OLD)
        access = files.Access(
            uid=os.geteuid(), gid=os.getegid(), mode=0o604)

        self.write(NEW, access=access)

        self.assertEqual(0o604, stat.S_IMODE(self.file.stat().st_mode))

    def test_what_belongs_to_somebody_else_is_replaced_unread(self) -> None:
        if os.geteuid():
            self.skipTest('only root can make a file of somebody else')
        self.write(OLD)
        os.chmod(self.folder, 0o755)
        nova, other = 64001, 64002
        os.chown(self.guest, nova, nova)
        os.chown(self.file, other, other)
        self.addCleanup(os.seteuid, 0)
        os.seteuid(nova)

        self.assertRaises(PermissionError, self.write)
        self.write(NEW, access=files.own())
        self.assertEqual(nova, self.file.stat().st_uid)
        self.file.unlink()
        self.file.symlink_to('/etc/passwd')
        self.assertRaises(errors.Damaged, self.write,
                          access=files.own())

        os.seteuid(0)
        self.file.unlink()

    def test_a_label_is_kept(self) -> None:
        self.write(OLD)
        labels = {self.file.stat().st_ino: b'svirt_image_t\0'}
        self.useFixture(fixtures.MonkeyPatch(
            'os.getxattr', lambda file, name: labels[os.fstat(file).st_ino]))
        self.useFixture(fixtures.MonkeyPatch(
            'os.setxattr', lambda file, name, value: labels.update(
                {os.fstat(file).st_ino: value})))

        self.write(NEW)

        self.assertEqual(b'svirt_image_t\0',
                         files.access_to(self.folder, NAME).label)

    def test_content_is_on_the_disk_before_the_name_and_then_the_name(
            self) -> None:
        steps = []

        def fsync(file):
            steps.append('folder' if stat.S_ISDIR(os.fstat(file).st_mode)
                         else f'{os.fstat(file).st_size} bytes')

        def rename(*args, real=os.rename, **kwargs):
            steps.append('rename')
            real(*args, **kwargs)

        with (fixtures.MonkeyPatch('os.fsync', fsync),
              fixtures.MonkeyPatch('os.rename', rename)):
            self.write(b'new')
            aside = files.put_aside(self.folder, NAME)
            files.remove(self.folder, aside)
            # nothing to remove is nothing to write
            files.remove(self.folder, aside)

        self.assertEqual(['3 bytes', 'rename', 'folder', 'rename', 'folder',
                          'folder'], steps)

    def test_what_was_put_aside_can_be_removed_too(self) -> None:
        self.write(b'new')
        files.put_aside(self.folder, NAME)
        self.write(b'new')
        files.put_aside(self.folder, NAME)
        (self.guest.parent / f'{NAME}{files.BEFORE}reset').write_bytes(b'')
        other = f'{NAME}1{files.ASIDE}x'
        (self.guest.parent / other).write_bytes(b'')

        self.assertTrue(files.remove_all(self.folder, NAME))

        self.assertFalse(files.remove_all(self.folder, NAME))
        self.assertFalse(files.remove_all(self.folder, 'no/such'))
        self.assertEqual([pathlib.Path(other).name],
                         os.listdir(self.guest))

    def test_a_missing_folder_is_not_made(self) -> None:
        shutil.rmtree(self.guest)

        self.assertRaises(FileNotFoundError, self.write)

        self.assertEqual([], os.listdir(self.folder))


class FaultTest(StoreFilesTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.write(OLD)

    def test_each_step_that_fails_leaves_the_old_one_and_nothing_else(
            self) -> None:
        def fail(*args, **kwargs):
            raise OSError(errno.ENOSPC, 'No space left on device')

        for name in ('pwrite', 'ftruncate', 'fchown', 'fchmod', 'fsync',
                     'rename'):
            with fixtures.MonkeyPatch(f'os.{name}', fail):
                self.assertRaises(OSError, self.write)
            self.assert_has(OLD)

    def test_a_full_disk_leaves_the_old_one_and_nothing_else(self) -> None:
        script = textwrap.dedent("""\
            import os, subprocess, sys
            from nova_arm_ext.compute.nvram import files
            folder = sys.argv[1]
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=512k',
                            'tmpfs', folder], check=True)
            files.write_atomic(folder, 'VARS.fd', b'old' * 1000)
            try:
                files.write_atomic(folder, 'VARS.fd', b'new' * 300000)
            except OSError as e:
                print(e.strerror)
            print(os.listdir(folder))
            print(files.read(folder, 'VARS.fd') == b'old' * 1000)
            """)
        if subprocess.run(['unshare', '--map-root-user', '--mount', 'true'],
                          capture_output=True).returncode:
            self.skipTest('there are no mount namespaces')

        done = subprocess.run(
            ['unshare', '--map-root-user', '--mount', sys.executable, '-c',
             script, self.folder], text=True, capture_output=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})

        self.assertEqual('', done.stderr)
        self.assertEqual(['No space left on device', "['VARS.fd']", 'True'],
                         done.stdout.splitlines())

    def killed_at(self, number: int, work) -> bool:
        """Run something in a process that is killed at a step.

        :param number: the number of steps before
        :returns: whether it was killed; False if there were fewer steps
        """
        def step(real):
            def wrapped(*args, **kwargs):
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real(*args, **kwargs)
            return wrapped

        def child():
            for name in STEPS:
                setattr(os, name, step(getattr(os, name)))
            work()
            os._exit(0)

        left = number
        process = multiprocessing.get_context('fork').Process(target=child)
        process.start()
        process.join(30)
        self.assertIn(process.exitcode, (0, -signal.SIGKILL))
        return process.exitcode != 0

    def test_killed_at_any_step_the_old_or_the_new_one_is_there(self) -> None:
        # one block of data, so that there are not hundreds of steps
        old, new = b'old' * 1000, b'new' * 1000
        number, found = 0, set()
        self.write(old)
        while self.killed_at(number, lambda: self.write(new)):
            found.add(self.read()[:3])
            self.assertIn(self.read(), (old, new))
            self.assertLessEqual(len(self.names()), 2)

            # the next one is not disturbed, and leaves nothing behind
            self.write(old)
            self.assert_has(old)
            number += 1

        self.assert_has(new)
        self.assertEqual({b'old', b'new'}, found)
        self.assertGreater(number, 10)

    def test_killed_when_put_aside_it_is_here_or_there(self) -> None:
        number = 0
        while self.killed_at(number, lambda: files.put_aside(
                self.folder, NAME)):
            whole = [path for path in self.guest.iterdir()
                     if path.read_bytes() == OLD]
            self.assertEqual(1, len(whole))
            for path in self.guest.iterdir():
                path.unlink()
            self.write(OLD)
            number += 1

        self.assertGreater(number, 4)

    def test_two_writers_do_not_meet(self) -> None:
        temporary = self.guest / files.temporary_name(self.file.name)
        with open(temporary, 'w') as other:
            fcntl.flock(other, fcntl.LOCK_EX)

            said = self.fault(errors.Busy, self.write)

            self.assertIn(f'{self.file} is being written by another', said)
            self.assertTrue(temporary.exists())
            self.assertTrue(self.read() == OLD)

        self.write(NEW)
        self.assert_has(NEW)

    def test_a_lock_on_what_became_the_store_meanwhile_is_none(self) -> None:
        temporary = self.guest / files.temporary_name(self.file.name)

        def flock(*args, real=fcntl.flock):
            # whoever had the lock is done, and somebody else begins
            temporary.rename(self.file)
            temporary.write_bytes(b'of another')
            real(*args)

        temporary.write_bytes(b'done')
        with fixtures.MonkeyPatch('fcntl.flock', flock):
            self.assertRaises(errors.Busy, self.write)

        self.assertEqual(b'done', self.file.read_bytes())
        self.assertEqual(b'of another', temporary.read_bytes())

    def test_many_writers_at_once_leave_one_whole_store(self) -> None:
        def child(number: int) -> None:
            for _ in range(20):
                try:
                    self.write(bytes([number]) * 100_000)
                except errors.Busy:
                    continue
            os._exit(0)

        context = multiprocessing.get_context('fork')
        children = [context.Process(target=child, args=(number,))
                    for number in range(1, 5)]
        for one in children:
            one.start()
        for one in children:
            one.join(60)

        self.assertEqual([0] * 4, [one.exitcode for one in children])
        data = self.read()
        self.assertEqual((100_000, 1), (len(data), len(set(data))))
        self.assertEqual(['guest_VARS.fd'], self.names())


class PlantedTest(StoreFilesTestCase):
    """What others may have put in place of a store."""

    def setUp(self) -> None:
        super().setUp()
        self.secret = pathlib.Path(self.folder, 'secret')
        self.secret.write_bytes(b'secret')

    def assert_refused(self, *parts: str) -> None:
        for work in (self.read, self.write,
                     lambda: files.access_to(self.folder, NAME)):
            said = self.fault(errors.Damaged, work)
            for part in parts:
                self.assertIn(part, said)
        self.assertEqual(b'secret', self.secret.read_bytes())
        self.assertNotIn('.guest_VARS.fd.new', self.names())

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        for target in (self.secret, 'nowhere', self.folder):
            self.file.symlink_to(target)
            self.assert_refused(f'{self.file} is a link or no plain file')
            self.file.unlink()

    def test_a_link_on_the_way_is_not_followed(self) -> None:
        self.write(OLD)
        moved = self.guest.rename(pathlib.Path(self.folder, 'moved'))
        self.guest.symlink_to(moved)

        self.assertIn("'guest' in the path", self.fault(
            errors.Damaged, self.read))
        self.assertIn("'guest' in the path", self.fault(
            errors.Damaged, self.write))
        self.assertIn("'guest' in the path", self.fault(
            errors.Damaged, files.remove, self.folder, NAME))

    def test_a_hard_link_is_refused(self) -> None:
        os.link(self.secret, self.file)

        self.assert_refused(f'{self.file} has 2 names (hard links)')

    def test_a_pipe_a_folder_and_a_socket_are_refused_at_once(self) -> None:
        os.mkfifo(self.file)
        self.assert_refused('no plain file')
        self.file.unlink()
        self.file.mkdir()
        self.assert_refused('no plain file')
        self.file.rmdir()
        os.mknod(self.file, stat.S_IFSOCK | 0o600)
        self.assert_refused('no plain file')

    def test_a_link_in_the_place_of_the_temporary_file_is_refused(
            self) -> None:
        self.write(OLD)
        temporary = self.guest / files.temporary_name(self.file.name)
        temporary.symlink_to(self.secret)

        self.assertRaises(errors.Damaged, self.write)

        self.assertEqual(b'secret', self.secret.read_bytes())
        self.assertTrue(self.read() == OLD)

    def test_who_has_the_temporary_file_open_reads_nothing(self) -> None:
        temporary = self.guest / files.temporary_name(self.file.name)
        with open(temporary, 'w+b') as planted:
            self.write(NEW)

            self.assertEqual(b'', planted.read())
        self.assert_has(NEW)

    def test_a_path_that_leads_elsewhere_is_an_error_of_the_caller(
            self) -> None:
        for name in ('../secret', '/etc/passwd', 'guest//x', '.', '',
                     'guest/..', 'guest/'):
            self.assertRaises(
                ValueError, files.read, self.folder, name)

    def test_no_more_than_the_limit_is_read(self) -> None:
        self.write(b'a' * 101)

        said = self.fault(errors.Damaged, files.read, self.folder,
                          NAME, 100)

        self.assertIn('has 101 bytes, more than the 100', said)
        os.truncate(self.file, 1 << 40)
        self.assertIn('1099511627776', self.fault(errors.Damaged, self.read))


class InUseTest(StoreFilesTestCase):

    def test_nobody_s_lock_is_no_use(self) -> None:
        self.write(OLD)

        self.assertFalse(files.in_use(self.folder, NAME))
        self.assertRaises(FileNotFoundError, files.in_use,
                          self.folder, 'guest/other')

    @testtools.skipUnless(shutil.which('qemu-system-aarch64'),
                          'qemu-system-arm is not installed')
    def test_a_qemu_that_has_it_open_uses_it(self) -> None:
        self.write(OLD.ljust(64 * stores.MIB, b'\0'))
        qemu = subprocess.Popen(
            ['qemu-system-aarch64', '-machine', 'virt', '-m', '64', '-S',
             '-display', 'none', '-serial', 'none', '-monitor', 'stdio',
             '-drive', f'if=pflash,unit=1,format=raw,file={self.file}'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(qemu.communicate)
        self.addCleanup(qemu.kill)
        # the prompt comes when all drives are open
        qemu.stdout.read(10)

        self.assertTrue(files.in_use(self.folder, NAME))

        qemu.kill()
        qemu.wait()
        self.assertFalse(files.in_use(self.folder, NAME))


class ReadSoundTest(StoreFilesTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.write(OLD)
        self.slept: list[float] = []
        #: what the guest writes while somebody waits
        self.contents: list[bytes] = []
        self.useFixture(fixtures.MonkeyPatch('time.sleep', self.sleep))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.contents:
            self.file.write_bytes(self.contents.pop(0))

    def runs(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.nvram.files.in_use', lambda *_: True))

    def test_a_stopped_guest_s_store_is_read_at_once(self) -> None:
        self.assertTrue(files.read_sound(
            self.folder, NAME, stores.MIB) == OLD)

        self.assertEqual([], self.slept)

    def test_a_running_guest_s_is_read_when_nobody_writes(self) -> None:
        self.runs()
        # erased, and then with fewer variables than before
        self.contents = [b'\xff' * 4096 + OLD[4096:],
                         stores.store(), NEW, NEW]

        self.assertTrue(files.read_sound(self.folder, NAME) == NEW)

        self.assertEqual([0.5] * 4, self.slept)

    def test_a_file_system_without_locks_is_read_with_care(self) -> None:
        def no_locks(*args):
            raise OSError(errno.ENOLCK, 'No locks available')

        self.useFixture(fixtures.MonkeyPatch('fcntl.fcntl', no_locks))

        self.assertTrue(files.read_sound(self.folder, NAME) == OLD)

        self.assertEqual([0.5], self.slept)

    def test_a_guest_that_stands_still_within_a_write_is_waited_for(
            self) -> None:
        self.runs()
        torn = OLD[:stores.FIRST] + b'\x12\x34' + OLD[stores.FIRST + 2:]
        self.contents = [torn, torn, torn, NEW, NEW]

        self.assertTrue(files.read_sound(self.folder, NAME) == NEW)

    def test_one_that_is_always_written_is_busy(self) -> None:
        self.runs()
        self.contents = [NEW, OLD] * 50

        said = self.fault(errors.Busy, files.read_sound,
                          self.folder, NAME)

        self.assertIn(f'{self.file} is written by its guest', said)

    def test_what_stays_damaged_is_damaged(self) -> None:
        self.runs()
        self.write(OLD[:5000])

        self.assertIn('ends at byte 5000', self.fault(
            errors.Damaged, files.read_sound, self.folder, NAME))
        self.write(OLD)
        self.assertIn('is made for 7', self.fault(
            errors.Damaged, files.read_sound, self.folder, NAME, 7))


class PutAsideTest(StoreFilesTestCase):

    def test_it_keeps_its_content_beneath_another_name(self) -> None:
        self.write(OLD)

        aside = files.put_aside(self.folder, NAME)

        self.assertThat(aside, testtools.matchers.MatchesRegex(
            r'guest/guest_VARS\.fd\.damaged-\d{8}T\d{6}Z$'))
        self.assertEqual([os.path.basename(aside)], self.names())
        self.assertTrue(files.read(self.folder, aside) == OLD)

    def test_nothing_is_replaced(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'time.strftime', lambda *_: '20260102T030405Z'))
        for content in (b'a', b'b', b'c'):
            self.write(content)
            files.put_aside(self.folder, NAME)

        stem = 'guest_VARS.fd.damaged-20260102T030405Z'
        self.assertEqual([stem, f'{stem}-1', f'{stem}-2'], self.names())
        self.assertEqual([b'a', b'b', b'c'], [
            (self.guest / name).read_bytes() for name in self.names()])

    def test_a_link_is_put_aside_itself(self) -> None:
        target = pathlib.Path(self.folder, 'target')
        target.write_bytes(b'target')
        self.file.symlink_to(target)

        aside = files.put_aside(self.folder, NAME)

        self.assertTrue(pathlib.Path(self.folder, aside).is_symlink())
        self.assertEqual(b'target', target.read_bytes())

    def test_what_is_not_there_leaves_nothing(self) -> None:
        self.assertRaises(FileNotFoundError, files.put_aside,
                          self.folder, NAME)

        self.assertEqual([], self.names())


class RemoveTest(StoreFilesTestCase):

    def test_it_says_whether_there_was_one(self) -> None:
        self.write(OLD)

        self.assertTrue(files.remove(self.folder, NAME))
        self.assertFalse(files.remove(self.folder, NAME))

        self.assertEqual([], self.names())
        self.assertFalse(files.remove(self.folder, 'no/such'))

    def test_what_a_killed_writer_left_goes_too(self) -> None:
        temporary = self.guest / files.temporary_name(self.file.name)
        temporary.write_bytes(b'new')

        self.assertFalse(files.remove(self.folder, NAME))

        self.assertEqual([], self.names())

    def test_a_link_goes_and_not_what_it_names(self) -> None:
        target = pathlib.Path(self.folder, 'target')
        target.write_bytes(b'target')
        self.file.symlink_to(target)

        self.assertTrue(files.remove(self.folder, NAME))

        self.assertEqual(b'target', target.read_bytes())


class EdgeTest(base.TestCase):
    """What happens in the middle of a read or a write."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.path = self.folder / 'store'
        self.path.write_bytes(OLD)

    def instead(self, name: str, function: object) -> None:
        self.useFixture(fixtures.MonkeyPatch(name, function))

    def test_what_is_written_for_this_process_is_closed_to_others(self):
        files.write_atomic(str(self.folder), 'new', NEW, files.own())

        found = (self.folder / 'new').stat()
        self.assertEqual((os.geteuid(), os.getegid(), 0o600), (
            found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)))

    def test_whether_anything_is_there(self):
        for name, there in (('store', True), ('other', False),
                            ('no/folder', False)):
            self.assertIs(there, files.exists(str(self.folder), name), name)

    def test_a_file_may_have_as_much_as_is_read(self):
        read = files.read(str(self.folder), 'store', limit=len(OLD))

        self.assertEqual(OLD, read)

    def test_a_file_that_shrinks_while_it_is_read_is_not_whole(self):
        plain = files._plain

        def shrink(*args):
            found = plain(*args)
            os.truncate(self.path, 10)
            return found

        self.instead('nova_arm_ext.compute.nvram.files._plain', shrink)

        error = self.assertRaises(errors.Damaged, files.read,
                                  str(self.folder), 'store')

        self.assertIn('has changed while it was read', str(error))

    def test_a_disk_that_takes_a_few_bytes_at_once_gets_all(self):
        pwrite = os.pwrite
        self.instead('os.pwrite', lambda file, data, offset: pwrite(
            file, data[:1000], offset))

        files.write_atomic(str(self.folder), 'store', NEW)

        self.assertEqual(NEW, self.path.read_bytes())

    def test_what_cannot_be_renamed_leaves_no_other_name(self):
        def fail(*args, **kwargs):
            raise OSError(errno.EIO, 'injected')

        self.instead('os.rename', fail)

        self.assertRaises(OSError, files.put_aside, str(self.folder), 'store')

        self.assertEqual(['store'], os.listdir(self.folder))
