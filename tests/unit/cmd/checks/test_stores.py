# SPDX-License-Identifier: Apache-2.0
"""Faults of variable stores and their folders."""

import os
import time
from unittest import mock

import testtools

from nova_arm_ext.cmd import stores as found
from nova_arm_ext.cmd.checks import stores
from tests.unit.cmd.checks import base

is_root = testtools.skipUnless(os.geteuid() == 0, 'files get other owners')


class StoresTest(base.ChecksTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.nvram = self.directory / 'nvram'
        self.domains = []
        self.useFixture(base.fixtures.MockPatchObject(
            found, 'domains', lambda *args: self.domains))

    def free(self, mebibytes: int, inodes: int = 1000) -> None:
        real = os.statvfs(self.directory)
        changed = mock.Mock(
            wraps=real, f_bavail=mebibytes * base.MIB // real.f_frsize,
            f_frsize=real.f_frsize, f_favail=inodes, f_files=10000)
        self.useFixture(base.fixtures.MockPatchObject(
            os, 'statvfs', lambda path: changed))

    def test_nothing_is_found_where_nothing_is_wrong(self) -> None:
        self.store('instance-00000001')

        for check in (stores.folder, stores.free_space, stores.unowned):
            self.assert_ok(check)

    @is_root
    def test_a_folder_of_a_wrong_owner(self) -> None:
        self.qemu_user = 64055
        os.chown(self.nvram, 1000, 1000)

        self.assert_finds('failure', stores.folder, 'belongs to user 1000',
                          'QEMU runs as 64055', 'chown 64055:64055')

    def test_a_folder_that_all_may_write(self) -> None:
        self.nvram.chmod(0o777)

        self.assert_finds('failure', stores.folder,
                          'everybody can write', 'chmod o-w')

    def test_a_folder_that_is_closed_to_qemu(self) -> None:
        self.qemu_user = 64055
        self.directory.chmod(0o700)

        self.assert_finds('failure', stores.folder,
                          f'{self.directory} is closed', 'chmod o+x')

    @is_root
    def test_a_libvirt_that_gives_qemu_no_files(self) -> None:
        """QEMU can only open files of its own user then."""
        self.file('qemu.conf', '#dynamic_ownership = 1\n'
                               'dynamic_ownership = 0\n')
        for owner, qemu_user in ((1000, 0), (64055, 64055)):
            self.qemu_user = qemu_user
            os.chown(self.directory / 'instances', owner, 0)
            self.assert_ok(stores.folder)

        os.chown(self.directory / 'instances', 1000, 0)
        self.assert_finds('failure', stores.folder, 'dynamic_ownership = 0',
                          'QEMU runs as 64055', 'runs as 1000',
                          'restart libvirt')

        for conf in ('#dynamic_ownership = 0\n',
                     ' dynamic_ownership=1\n', ''):
            self.file('qemu.conf', conf)
            self.assert_ok(stores.folder)

    def test_no_folder_yet(self) -> None:
        self.nvram.rmdir()
        place = self.place()
        place.folders = found.Folders(
            nvram=str(self.nvram), instances='/', name_template='')

        self.assert_ok(stores.folder, place)

    def test_a_container_without_libvirts_folder(self) -> None:
        place = self.place()
        place.folders = found.Folders(
            nvram='/nonexistent/qemu/nvram', instances='/', name_template='')

        self.assert_finds('warning', stores.folder,
                          '/nonexistent/qemu does not exist',
                          'mount /var/lib/libvirt', place=place)

    def test_a_file_in_its_place(self) -> None:
        self.nvram.rmdir()
        place = self.place()
        place.folders = found.Folders(
            nvram=self.file('nvram', ''), instances='/', name_template='')

        self.assert_finds('failure', stores.folder, 'is not a directory',
                          place=place)

    def test_a_planted_link(self) -> None:
        os.symlink('/etc/hostname', self.nvram / 'instance-00000001_VARS.fd')

        self.assert_finds('failure', stores.folder, '1 stores are links',
                          'instance-00000001_VARS.fd')

    def test_scarce_space(self) -> None:
        self.free(500)

        self.assertEqual(['warning', 'warning'], [
            status for status, _ in self.found(stores.free_space)])

    def test_no_space(self) -> None:
        self.free(63)

        self.assertIn(('failure', f'63 MiB are free in {self.nvram}, and a '
                                  f'store needs up to 64 MiB; free some '
                                  f'space'),
                      self.found(stores.free_space))

    def test_no_inodes(self) -> None:
        self.free(50000, inodes=0)

        self.assertIn('no free inodes',
                      self.found(stores.free_space)[0][1])

    def test_stores_that_no_guest_has(self) -> None:
        for number in range(5):
            path = self.store(f'instance-0000000{number}')
            os.utime(path, (0, 0))
        later = time.time() + 2 * stores.DAY
        self.useFixture(base.fixtures.MockPatchObject(
            found.time, 'time', lambda: later))

        self.assert_finds('warning', stores.unowned,
                          '5 stores belong to no instance', 'and 2 more',
                          'nvram orphans --yes')


class CopiesTest(base.ChecksTestCase):
    """The store for copies."""

    def setUp(self) -> None:
        super().setUp()
        self.copies = self.directory / 'copies'
        self.copies.mkdir(mode=0o700)
        # the folder of a test is on this machine, whatever it stands for
        self.useFixture(base.fixtures.MockPatchObject(
            found, 'is_local', lambda path: self.is_local))
        self.is_local = False

    def asked(self, store: str = 'directory') -> base.checks.Surroundings:
        return self.place(f'[arm_nvram]\nstore = {store}\n'
                          f'directory = {self.copies}\n')

    def test_nothing_is_found_where_nothing_is_wrong(self) -> None:
        self.assert_ok(stores.copies, self.asked())

    def test_none_is_asked_for(self) -> None:
        self.assert_finds('not applicable', stores.copies,
                          '[arm_nvram] store is not set')

    def test_a_driver_that_is_not_installed(self) -> None:
        self.assert_finds('failure', stores.copies,
                          "names 'tape', which is not installed",
                          'install the package', place=self.asked('tape'))

    def test_no_nova(self) -> None:
        place = self.asked()

        with mock.patch('importlib.util.find_spec', return_value=None):
            self.assert_finds('not applicable', stores.copies,
                              'Nova is not installed', place=place)

    def test_storage_that_is_not_mounted(self) -> None:
        self.copies.rmdir()

        self.assert_finds('failure', stores.copies,
                          f'cannot access {self.copies}', 'mount storage',
                          place=self.asked())

    def test_a_folder_beneath_a_mount_that_is_gone(self) -> None:
        self.is_local = True

        self.assert_finds('warning', stores.copies,
                          'local file system of this host', 'mount',
                          place=self.asked())

    def test_a_mount_for_reading(self) -> None:
        real = os.statvfs(self.copies)
        self.useFixture(base.fixtures.MockPatchObject(
            os, 'statvfs', lambda path: mock.Mock(
                wraps=real, f_flag=real.f_flag | os.ST_RDONLY)))

        self.assert_finds('failure', stores.copies, 'mounted read-only',
                          place=self.asked())

    def test_a_file_in_its_place(self) -> None:
        self.copies.rmdir()
        self.file('copies', '')

        self.assert_finds('failure', stores.copies, 'is not a directory',
                          place=self.asked())

    @is_root
    def test_an_owner_who_is_not_nova_compute(self) -> None:
        os.chown(self.directory / 'instances', 42436, 42436)

        self.assert_finds('failure', stores.copies,
                          'belongs to user 0, and nova-compute runs as user '
                          '42436',
                          f'chown 42436 {self.copies}', place=self.asked())

    def test_a_folder_that_others_may_write(self) -> None:
        self.copies.chmod(0o770)

        self.assert_finds('failure', stores.copies, 'others than its owner',
                          'drwxrwx---', 'chmod 700', place=self.asked())


class ImageKeyTest(base.ChecksTestCase):
    """The secret for stores in images."""

    def asked(self, key: str) -> base.checks.Surroundings:
        path = self.directory / 'key'
        path.write_text(key)
        path.chmod(0o640)
        return self.place(f'[arm_nvram]\nimage_key_file = {path}\n')

    def test_nothing_is_found_where_nothing_is_wrong(self) -> None:
        self.assert_ok(stores.image_key, self.asked('k' * 32))

    def test_none_is_asked_for(self) -> None:
        self.assert_finds('not applicable', stores.image_key,
                          '[arm_nvram] image_key_file is not set')

    def test_a_file_that_is_not_there(self) -> None:
        self.assert_finds(
            'failure', stores.image_key, '/nowhere/key: No such file',
            'all compute hosts', place=self.place(
                '[arm_nvram]\nimage_key_file = /nowhere/key\n'))

    def test_a_secret_that_is_short(self) -> None:
        self.assert_finds('failure', stores.image_key, '31 bytes',
                          '/dev/urandom', place=self.asked('k' * 31))

    def test_a_secret_that_others_may_read(self) -> None:
        place = self.asked('k' * 32)
        (self.directory / 'key').chmod(0o644)

        self.assert_finds('failure', stores.image_key,
                          'the permissions 644', 'chmod 0640', place=place)

    def test_no_nova(self) -> None:
        place = self.asked('k' * 32)

        with mock.patch('importlib.util.find_spec', return_value=None):
            self.assert_finds('not applicable', stores.image_key,
                              'Nova is not installed', place=place)
