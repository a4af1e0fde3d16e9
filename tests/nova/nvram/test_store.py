# SPDX-License-Identifier: Apache-2.0
"""Variable stores of other owners."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import contextlib
import functools
import os
import pathlib
import shutil
from unittest import mock

import nova.conf
from nova.tests import fixtures as nova_fixtures

from nova_arm_ext import errors
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import privileged
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.domain import view
from tests.nova.nvram import base
from tests.support import stores

CONF = nova.conf.CONF


class OwnersTest(base.StoresTestCase):
    """nova-compute is not root, and stores belong to others."""

    NOVA = 64001

    def setUp(self):
        super().setUp()
        if os.geteuid():
            self.skipTest('only root can make files of others')
        self.useFixture(nova_fixtures.PrivsepFixture())
        for name in ('check', 'exists', 'pack', 'put_aside', 'remove',
                     'write'):
            self.stub_out(f'nova_arm_ext.compute.nvram.privileged.{name}',
                          self.as_root(getattr(privileged, name)))
        self.hard_reboot = self.as_nova(self.hard_reboot)
        # modules that are imported on the way may be closed to others
        self.spawn()
        self.stop('1')
        self.hard_reboot()

    @contextlib.contextmanager
    def user(self, uid):
        before = os.geteuid()
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(before)

    def as_root(self, function):
        """What privsep does."""
        @functools.wraps(function)
        def call(*args, **kwargs):
            with self.user(0):
                return function(*args, **kwargs)
        return call

    def as_nova(self, function):
        """Do something as nova-compute's user, who owns all but the stores."""
        @functools.wraps(function)
        def call(*args, **kwargs):
            self.root.parent.chmod(0o755)
            for path in (self.root, *self.root.rglob('*')):
                if path != self.libvirt and path.suffix != '.fd':
                    os.chown(path, self.NOVA, self.NOVA)
            # so it is on Debian and others
            self.libvirt.chmod(0o700)
            with self.user(self.NOVA):
                return function(*args, **kwargs)
        return call

    def boot(self, *args, **kwargs):
        # QEMU runs as whom libvirt gives the file to
        with self.user(0):
            super().boot(*args, **kwargs)

    def owned_by_others(self):
        """The store of a guest, with several other owners."""
        for uid in (0, 64055, 12345):
            with self.subTest(uid=uid):
                self.stop('2')
                os.chown(self.store, uid, uid)
                self.store.chmod(0o600)
                yield uid

    def test_a_store_of_somebody_else_is_kept_and_so_is_its_owner(self):
        for uid in self.owned_by_others():
            self.hard_reboot()

            self.assertEqual(base.variables('2'), self.started)
            self.assertEqual(uid, self.store.stat().st_uid)
        self.assertEqual([], self.notes)

    def test_it_is_looked_at_all_the_same(self):
        for uid in self.owned_by_others():
            damaged = stores.store()[:-1]
            self.store.write_bytes(damaged)
            self.flags(on_damage='fail', group='arm_nvram')
            self.assertRaises(store.StoreNotUsable, self.hard_reboot)
            self.assertEqual(damaged, self.store.read_bytes())

            self.flags(on_damage='fresh', group='arm_nvram')
            self.hard_reboot()

            self.assertEqual(self.template.read_bytes(), self.started)
            [aside] = self.folder.glob(f'{base.STORE}.damaged-*')
            self.assertEqual((uid, damaged),
                             (aside.stat().st_uid, aside.read_bytes()))
            aside.unlink()

    def test_nor_does_root_follow_a_link(self):
        secret = self.root / 'secret.fd'
        secret.write_bytes(base.variables('secret'))
        secret.chmod(0o600)
        self.store.unlink()
        self.store.symlink_to(secret)
        with self.user(self.NOVA):
            self.assertRaises(PermissionError, self.store.read_bytes)

        self.assertRaises(store.StoreNotUsable, self.hard_reboot)

        self.assertEqual(base.variables('secret'), secret.read_bytes())
        self.assertEqual(0, secret.stat().st_uid)

    def test_nor_is_one_used_that_lies_damaged_in_libvirts_folder(self):
        shutil.rmtree(self.folder)
        self.adopt()
        self.store.write_bytes(b'damaged')
        self.store.chmod(0o600)
        self.flags(on_damage='fresh', group='arm_nvram')

        self.hard_reboot()

        self.assertEqual(self.template.read_bytes(), self.started)
        [aside] = self.libvirt.glob(f'{base.NAME}_VARS.fd.damaged-*')
        self.assertEqual(b'damaged', aside.read_bytes())

    def test_it_goes_along_and_replaces_what_lies_there(self):
        self.migrate = self.as_nova(self.migrate)
        self.arrive = self.as_nova(self.arrive)
        for uid in self.owned_by_others():
            self.migrate('b')
            self.at('b')
            self.store.write_bytes(base.variables('of another time'))
            os.chown(self.store, uid, uid)
            self.store.chmod(0o600)

            self.arrive()

            self.assertEqual(base.variables('2'), self.started)
            shutil.rmtree(self.root / 'b')
            del self.domains['b']
            self.at('a')
            pathlib.Path(f'{self.folder}_resize').rename(self.folder)
            self.instance.host = 'a'

    def test_the_copy_takes_the_place_of_one_in_libvirts_folder(self):
        (self.root / 'copies').mkdir(mode=0o700)
        self.flags(store='directory', directory=str(self.root / 'copies'),
                   group='arm_nvram')
        self.load_stores()
        shutil.rmtree(self.folder)
        self.adopt()
        os.chown(self.store, 64055, 64055)
        self.store.chmod(0o600)
        with self.nova('power_off'):
            self.as_nova(self.driver.power_off)(self.instance)
        self.hard_reboot()
        self.assertEqual(base.variables('adopted'), self.started)
        self.store.unlink()

        self.hard_reboot()

        self.assertEqual(base.variables('adopted'), self.started)
        self.assertIn(f'>{self.store}<', self.domains['a'].document)


class PlatformKeyTest(base.StoresTestCase):

    def test_a_store_that_cannot_be_looked_into_says_nothing(self):
        for content, says in (
                (stores.store(stores.variable('PK', b'key')), True),
                (stores.store(), False), (stores.qcow2(), None),
                (b'nothing of the kind', None)):
            (self.root / 'store').write_bytes(content)

            self.assertIs(says, store.has_platform_key(
                places.Place(str(self.root), 'store')))


class StoresTest(base.StoresTestCase):

    def setUp(self):
        super().setUp()
        self.spawn()
        self.stores = self.driver._life._stores

    @property
    def guest(self):
        return view.arm_guest(self.domains['a'].document)

    @property
    def place(self):
        return self.stores.place(self.guest)

    def named(self, path):
        """Have the domain XML name another store."""
        self.define(self.domains['a'].document.replace(
            str(self.store), str(path)))

    def test_the_one_that_is_named_is_the_guest_s_wherever_it_is(self):
        elsewhere = self.root / 'elsewhere.fd'
        elsewhere.write_bytes(base.variables('1'))
        self.named(elsewhere)

        own = self.stores.own(self.instance, self.guest)

        self.assertEqual(str(elsewhere), own.path)

    def test_one_in_a_folder_that_is_not_seen_is_not_another(self):
        self.named(self.root / 'container' / 'store.fd')

        own = self.stores.own(self.instance, self.guest)

        self.assertEqual(self.place, own)

    def test_that_of_a_rescue_is_not_the_one_that_moves(self):
        self.named(f'{self.store}.rescue')

        moved = self.stores.moved(
            self.stores.own(self.instance, self.guest), str(self.folder),
            f'{self.folder}_resize')

        self.assertEqual(f'{self.folder}_resize/{base.STORE}', moved.path)

    def test_one_that_is_written_all_the_time_cannot_be_used(self):
        with mock.patch('nova_arm_ext.compute.nvram.files.read_sound',
                        side_effect=errors.Busy('written all the time')):
            for use in (self.stores.check, self.stores.pack):
                error = self.assertRaises(store.StoreNotUsable, use,
                                          self.place, self.guest)
                self.assertIn('written all the time', str(error))

    def test_one_that_does_not_fit_the_flash_is_damaged(self):
        self.store.write_bytes(stores.store(size=2 * stores.MIB))
        for use in (self.stores.check, self.stores.pack):
            self.assertRaises(store.StoreNotUsable, use, self.place,
                              self.guest)

        self.flags(on_damage='fresh', group='arm_nvram')

        self.assertIsNone(self.stores.check(self.place, self.guest))
        self.assertIsNone(self.stores.pack(self.place, self.guest))

    def test_the_flash_is_known_only_of_a_raw_template_that_is_seen(self):
        self.assertEqual(len(stores.store()), store.flash_size(self.guest))
        self.template.write_bytes(stores.qcow2())
        self.assertIsNone(store.flash_size(self.guest))
        self.template.unlink()
        self.assertIsNone(store.flash_size(self.guest))

    def test_root_is_asked_only_where_it_is_needed(self):
        """On shared storage it may be nobody."""
        with mock.patch.object(privileged, 'exists') as as_root:
            self.assertTrue(store.exists(self.place))
        as_root.assert_not_called()

    def test_what_is_written_is_checked_by_who_writes_it(self):
        before = self.store.read_bytes()

        self.assertRaises(errors.Damaged, privileged.check_and_write,
                          *self.place, varstore.pack(before), 2 * stores.MIB)

        self.assertEqual(before, self.store.read_bytes())

    def test_what_is_written_is_for_who_writes_it(self):
        """libvirt gives it to QEMU's user."""
        self.store.chmod(0o644)

        privileged.check_and_write(
            *self.place, varstore.pack(base.variables('1')), None)

        self.assertEqual(0o600, self.store.stat().st_mode & 0o777)
        self.assertEqual(base.variables('1'), self.store.read_bytes())
