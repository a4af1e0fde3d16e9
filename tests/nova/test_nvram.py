# SPDX-License-Identifier: Apache-2.0
"""Variable stores of guests of the installed Nova, on two hosts of files.

Nova's own methods that move disks and networks are left out; what calls them,
and the files of stores and instance directories, are real.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import random
import re
import shutil
import time
from unittest import mock

import fixtures
import libvirt
import nova.conf
from lxml import etree
from nova import context
from nova import exception
from nova import objects
from nova.compute import task_states
from nova.compute import vm_states
from nova.tests import fixtures as nova_fixtures
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest as libvirt_guest
from oslo_concurrency import processutils
from oslo_utils import timeutils

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import varstore
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import nvram
from nova_arm_ext.compute import privileged
from nova_arm_ext.compute import stand_ins
from nova_arm_ext.domain import view
from tests.data import formats
from tests.support import stores

CONF = nova.conf.CONF
CASE = pathlib.Path(__file__).parents[1] / 'data/golden/new-guest'
DOCUMENT = (CASE / 'before.xml').read_text()
UUID = '916180a7-0b43-5c08-b3c8-c738826880bb'
NAME = 'instance-00000001'
STORE = f'{UUID}_VARS.fd'

KEEP = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
GO = libvirt.VIR_DOMAIN_UNDEFINE_NVRAM


def variables(text):
    """A store with one variable."""
    return stores.store(stores.variable('Probe', text.encode()))


class Domain:
    """A domain of libvirt's."""

    def __init__(self, document):
        self.document = document
        self.undefined = None

    def XMLDesc(self, flags):
        return self.document

    def ID(self):
        return -1

    def UUIDString(self):
        return UUID

    def undefineFlags(self, flags):
        self.undefined = flags & (KEEP | GO)
        [path] = etree.fromstring(self.document).xpath(
            'os/nvram/text()') or [None]
        if path and self.undefined & GO and os.path.exists(path):
            os.unlink(path)


class StoresTest(nova.test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.template = self.root / 'AAVMF_VARS.fd'
        self.template.write_bytes(stores.store())
        self.plain = facts.Firmware(
            arch='aarch64', machines=('virt-*',),
            loader='/usr/share/AAVMF/AAVMF_CODE.fd',
            template=str(self.template))
        self.stub_out(
            'nova_arm_ext.compute.gather.host', lambda connection: facts.Host(
                arch='aarch64', libvirt_version=(9, 0, 0),
                firmware=(self.plain,)))
        self.notes = []
        self.stub_out('nova.compute.utils.EventReporter', self.note)
        self.stub_out('nova.virt.libvirt.utils.copy_image', self.copy)
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        self.domains = {}
        self.stub_out('nova.virt.libvirt.host.Host.get_guest', self.get_guest)
        self.stub_out('nova.virt.libvirt.host.Host.write_instance_config',
                      lambda host, xml: self.define(xml))
        self.instance = objects.Instance(
            id=1, uuid=UUID, host='a', vm_state=vm_states.ACTIVE,
            task_state=None, cleaned=False, image_ref='', launched_at=None,
            system_metadata={'image_hw_machine_type': 'virt'},
            flavor=objects.Flavor(extra_specs={}))
        self.image = objects.ImageMeta.from_dict({'properties': {}})
        self.document = DOCUMENT
        self.arch = 'aarch64'
        self.shared = False
        self.at('a')

    # -- Two hosts --------------------------------------------------------

    def at(self, host):
        """Be on one of the hosts."""
        self.host = host
        self.instances = self.root / ('shared' if self.shared else host)
        self.instances.mkdir(exist_ok=True)
        self.libvirt = self.root / f'{host}-libvirt'
        self.libvirt.mkdir(exist_ok=True)
        self.flags(instances_path=str(self.instances), host=host)
        self.stub_out('nova_arm_ext.compute.nvram.LIBVIRT', str(self.libvirt))
        self.folder = self.instances / UUID
        self.store = self.folder / STORE

    def get_guest(self, host, instance):
        if self.host not in self.domains:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return libvirt_guest.Guest(self.domains[self.host])

    def define(self, document):
        self.domains[self.host] = Domain(document)

    def copy(self, source, target, host=None, **kwargs):
        if host and not self.shared:
            target = target.replace(str(self.root / self.host),
                                    str(self.root / host))
        shutil.copyfile(source, target)

    @contextlib.contextmanager
    def note(self, context, name, host, uuid, **kwargs):
        self.notes.append(name)
        yield

    def load_stores(self):
        """Read the configuration of the variable stores again."""
        made = nvram.Stores.load(CONF)
        self.driver._life._stores = made
        self.driver._definitions._stores = made

    # -- What Nova does -----------------------------------------------------

    def nova(self, name, does=None):
        """Have a method of Nova's driver do no more than this."""
        return mock.patch.object(libvirt_driver.LibvirtDriver, name,
                                 does or (lambda *args, **kwargs: None))

    def start(self, *args, **kwargs):
        """A document is made, and QEMU started with it."""
        ctx = context.get_admin_context()
        self.folder.mkdir(exist_ok=True)
        with self.nova('_get_guest_xml',
                       lambda *args, **kwargs: self.document):
            xml = self.driver._get_guest_xml(ctx, self.instance, None, {},
                                             self.image)
        with self.nova('_create_guest', self.boot):
            self.driver._create_guest(ctx, xml, self.instance)

    def boot(self, ctx, xml, instance, *args, **kwargs):
        self.define(xml)
        written = etree.fromstring(xml).findtext('os/nvram')
        if not written:      # libvirt has a name for it
            return
        path = pathlib.Path(written)
        if not path.exists():
            shutil.copy(self.template, path)
        self.started = path.read_bytes()

    def stop(self, variable):
        """The guest writes a variable, and ends."""
        path = nvram.store_of(view.arm_guest(
            self.domains[self.host].document))
        pathlib.Path(path).write_bytes(variables(variable))

    def clean(self, *, removed=False, **flags):
        def cleanup(nova_driver, ctx, instance, *args, **kwargs):
            self.asked = kwargs
            if kwargs.get('cleanup_instance_dir'):
                shutil.rmtree(self.folder, ignore_errors=True)
            more = ({'keep_nvram': not kwargs['cleanup_instance_disks']}
                    if stand_ins.NOVA_KEEPS else {})
            nova_driver._undefine_domain(instance, **more)
            domain = self.domains.pop(self.host, None)
            self.undefined = domain and domain.undefined

        with self.nova('_cleanup', cleanup):
            self.driver._cleanup(
                None, self.instance, None,
                **{'cleanup_instance_dir': removed,
                   'cleanup_instance_disks': removed, **flags})

    def destroy(self):
        with self.nova('destroy',
                       lambda *args, **kwargs: self.clean(removed=True)):
            self.driver.destroy(None, self.instance, None)

    def spawn(self):
        with self.nova('spawn', self.start):
            self.driver.spawn(None, self.instance, self.image, [], None, {})
        self.instance.launched_at = timeutils.utcnow()

    def hard_reboot(self, **flags):
        def reboot(*args, **kwargs):
            self.clean(**flags)
            self.start()

        self.stub_out('nova.objects.Instance.image_meta', self.image)
        with self.nova('_hard_reboot', reboot), self.nova(
                '_check_emulation_arch', lambda *args: self.arch):
            self.driver._hard_reboot(None, self.instance, None)

    def rescue(self):
        with self.nova('rescue', self.start):
            self.driver.rescue(None, self.instance, None, self.image, None,
                               None)

    def unrescue(self, document):
        with self.nova('unrescue', lambda *args: self.driver._create_guest(
                None, document, self.instance)), \
                self.nova('_create_guest', self.boot):
            self.driver.unrescue(None, self.instance)

    def soft_reboot(self):
        def reboot(nova_driver, instance):
            self.boot(None, self.domains['a'].document, instance)
            return True

        self.stub_out('nova.objects.Instance.image_meta', self.image)
        with self.nova('_soft_reboot', reboot), self.nova(
                '_check_emulation_arch', lambda *args: self.arch):
            self.driver.reboot(None, self.instance, None, 'SOFT')

    def rebuild(self, *, evacuate=False, **properties):
        self.assertRaises(NotImplementedError, self.driver.rebuild, **dict(
            context=None, instance=self.instance, image_meta=None,
            injected_files=None, admin_password=None, allocations=None,
            bdms=None, detach_block_devices=None, attach_block_devices=None,
            evacuate=evacuate))
        self.instance.system_metadata.update(properties)
        self.instance.task_state = task_states.REBUILDING
        if not evacuate:
            self.destroy()
        self.instance.task_state = task_states.REBUILD_SPAWNING
        self.spawn()
        self.instance.task_state = None

    def migrate(self, dest):
        """Nova 29 to 34 rename the instance directory first."""
        def migrate(*args, **kwargs):
            self.folder.rename(f'{self.folder}_resize')
            if self.shared or dest == self.host:
                self.folder.mkdir()
            else:
                (self.root / dest / UUID).mkdir(parents=True, exist_ok=True)
            return '[]'

        (self.root / dest).mkdir(exist_ok=True)
        with self.nova('migrate_disk_and_power_off', migrate):
            self.driver.migrate_disk_and_power_off(
                None, self.instance, dest, None, None)
        self.instance.host = dest

    def arrive(self):
        with self.nova('finish_migration', self.start):
            self.driver.finish_migration(None, None, self.instance, '[]',
                                         None, self.image, True, {})

    def confirm(self):
        def cleanup_resize(nova_driver, ctx, instance, *args):
            shutil.rmtree(f'{self.folder}_resize', ignore_errors=True)
            if instance.host != CONF.host:
                nova_driver._undefine_domain(instance)
                self.undefined = self.domains.pop(self.host).undefined

        with self.nova('_cleanup_resize', cleanup_resize):
            self.driver.confirm_migration(None, None, self.instance, None)

    def revert(self, source, *, disks_are_shared=False):
        """On this host, then on the one where the guest came from."""
        self.instance.task_state = task_states.RESIZE_REVERTING
        self.clean(removed=not (disks_are_shared or self.shared
                                or source == self.host))
        self.instance.host = source
        self.at(source)

        def finish(*args, **kwargs):
            shutil.rmtree(self.folder, ignore_errors=True)
            pathlib.Path(f'{self.folder}_resize').rename(self.folder)
            self.start()

        with self.nova('finish_revert_migration', finish):
            self.driver.finish_revert_migration(None, self.instance, None,
                                                None)
        self.instance.task_state = None

    def offload(self):
        self.instance.task_state = task_states.SHELVING_OFFLOADING
        self.destroy()
        self.instance.vm_state = vm_states.SHELVED_OFFLOADED
        self.instance.host = None
        self.instance.task_state = task_states.SPAWNING

    def adopt(self):
        """Have a guest that Nova alone has made."""
        self.folder.mkdir()
        self.store = self.libvirt / f'{NAME}_VARS.fd'
        self.define(DOCUMENT.replace(
            '<os firmware="efi">', '<os>').replace(
            '<loader secure="no"/>',
            '<loader type="pflash" readonly="yes">'
            '/usr/share/AAVMF/AAVMF_CODE.fd</loader>'
            f'<nvram template="{self.template}">{self.store}</nvram>'))
        self.store.write_bytes(variables('adopted'))
        self.instance.launched_at = timeutils.utcnow()

    def starts(self):
        """Ways to start a guest whose store was removed meanwhile."""
        def unrescue():
            own = self.domains['a'].document
            with mock.patch.object(self.driver._life._stores, '_clear'):
                self.rescue()
            self.unrescue(own)

        return self.hard_reboot, self.soft_reboot, unrescue

    def assert_nothing_left(self, host, *, but=()):
        self.assertEqual(sorted(but), sorted(
            path.name for folder in (host, f'{host}-libvirt')
            for path in (self.root / folder).rglob('*') if path.is_file()))


class OneHostTest(StoresTest):

    def test_a_new_guest_has_its_store_in_its_directory(self):
        self.spawn()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertTrue(self.store.exists())
        [nvram_] = etree.fromstring(
            self.domains['a'].document).findall('os/nvram')
        self.assertEqual((str(self.store), str(self.template)),
                         (nvram_.text, nvram_.get('template')))

    def test_what_lies_in_the_place_of_a_new_store_is_put_aside(self):
        self.folder.mkdir()
        self.store.write_bytes(variables('of another time'))

        self.spawn()

        self.assertEqual(self.template.read_bytes(), self.started)
        [aside] = self.folder.glob(f'{STORE}.damaged-*')
        self.assertEqual(variables('of another time'), aside.read_bytes())

    def test_a_hard_reboot_keeps_the_store_and_its_path(self):
        self.spawn()
        for number in ('1', '2'):
            self.stop(number)
            self.hard_reboot()
            self.assertEqual(KEEP, self.undefined)
            self.assertEqual(variables(number), self.started)
        self.assertFalse((self.folder / nvram.DOCUMENT).exists())
        self.assertEqual([], self.notes)

    def test_nor_does_ceph_s_workaround_take_it_away(self):
        self.spawn()
        self.stop('1')

        self.hard_reboot(cleanup_instance_dir=True)

        self.assertFalse(self.asked['cleanup_instance_dir'])
        self.assertEqual(variables('1'), self.started)

    def test_an_adopted_guest_keeps_its_path(self):
        self.adopt()

        self.hard_reboot()

        self.assertEqual(KEEP, self.undefined)
        self.assertEqual(variables('adopted'), self.started)
        self.assertIn(f'>{self.store}<', self.domains['a'].document)
        self.assertFalse((self.folder / STORE).exists())

    def test_a_guest_that_is_defined_nowhere_finds_its_store(self):
        """As after a reboot that ended between undefine and define."""
        self.adopt()
        self.driver._life._stores.write_document(
            str(self.folder), self.domains.pop('a').document)

        self.hard_reboot()

        self.assertEqual(variables('adopted'), self.started)

    def test_a_rescue_runs_on_a_copy(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.domains.clear()
                self.at('a')
                prepare()
                self.stop('own')

                self.rescue()
                self.assertEqual(variables('own'), self.started)
                self.stop("the rescue's")

                self.assertEqual(variables('own'), self.store.read_bytes())
                # by this name Nova removes it
                self.assertTrue(
                    (self.folder / f'{STORE}.rescue').exists())

    def test_a_rescued_guest_that_starts_with_the_host_has_its_own(self):
        self.spawn()
        self.stop('own')
        self.rescue()
        self.stop("the rescue's")

        self.hard_reboot()

        self.assertEqual(variables('own'), self.started)

    def test_a_rebuilt_guest_starts_with_a_new_store(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                shutil.rmtree(self.folder, ignore_errors=True)
                prepare()
                self.stop('old')

                self.rebuild()

                self.assertEqual(self.template.read_bytes(), self.started)
                self.assert_nothing_left(
                    'a', but=(STORE, f'{UUID}_VARS.host'))
                self.domains.clear()

    def test_a_rebuilt_guest_keeps_its_store_where_it_is_told_to(self):
        self.spawn()
        self.stop('old')
        self.rebuild(image_arm_nvram_on_rebuild='keep')
        self.assertEqual(variables('old'), self.started)

        self.flags(on_rebuild='keep', group='arm_nvram')
        self.rebuild(image_arm_nvram_on_rebuild='else')
        self.assertEqual(variables('old'), self.started)
        self.rebuild(image_arm_nvram_on_rebuild='reset')
        self.assertEqual(self.template.read_bytes(), self.started)

    def test_nothing_is_left_of_a_guest_that_is_deleted(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                prepare()
                self.rescue()

                self.instance.task_state = task_states.DELETING
                self.clean(removed=True)

                self.assert_nothing_left('a')
                self.instance.task_state = None

    def test_guests_of_others_are_undefined_as_nova_does(self):
        self.define(DOCUMENT.replace('aarch64', 'x86_64').replace(
            '<loader secure="no"/>', '<nvram>/nowhere</nvram>'))

        self.clean()

        self.assertEqual(KEEP if stand_ins.NOVA_KEEPS else GO, self.undefined)

    def test_a_snapshot_leaves_the_store_of_a_running_guest(self):
        self.spawn()
        guest = libvirt_guest.Guest(self.domains['a'])

        def undefine(nova_driver, found, *args):
            if stand_ins.NOVA_KEEPS:
                found.delete_configuration(keep_nvram=True)
            else:
                found.delete_configuration()

        with self.nova('_swap_volume', undefine):
            self.driver._swap_volume(guest, 'vdb', None, 1)

        self.assertEqual(KEEP, self.domains['a'].undefined)
        self.assertTrue(self.store.exists())

    def test_a_damaged_store_stops_the_start_and_stays(self):
        self.spawn()
        self.store.write_bytes(b'nothing of the kind')

        error = self.assertRaises(nvram.StoreNotUsable, self.hard_reboot)

        self.assertIn(f'{self.store} cannot be used: ',
                      error.format_message())
        self.assertIn('[arm_nvram] on_damage = fresh', str(error))
        self.assertEqual(b'nothing of the kind', self.store.read_bytes())
        self.assertIn('a', self.domains)

    def test_a_damaged_store_is_put_aside_if_so_chosen(self):
        self.flags(on_damage='fresh', group='arm_nvram')
        self.spawn()
        good = stores.store()
        flipped = good[:40] + bytes([good[40] ^ 1]) + good[41:]
        for damaged in (b'nothing of the kind', good[:-1], good + b'\0',
                        flipped):
            self.store.write_bytes(damaged)

            self.hard_reboot()

            self.assertEqual(self.template.read_bytes(), self.started)
            self.assertIn(damaged, [
                path.read_bytes() for path
                in self.folder.glob(f'{STORE}.damaged-*')])
        self.assertEqual(['arm_nvram_lost'] * 4, self.notes)

    def test_a_store_that_somebody_removed_is_told(self):
        for start, prepare in itertools.product(
                self.starts(), (self.spawn, self.adopt)):
            with self.subTest(start.__name__, prepare=prepare.__name__):
                self.domains.clear()
                self.notes.clear()
                shutil.rmtree(self.folder, ignore_errors=True)
                self.at('a')
                prepare()
                self.stop('1')
                self.store.unlink()

                start()

                self.assertEqual(self.template.read_bytes(), self.started)
                self.assertEqual(['arm_nvram_lost'], self.notes)
                self.assertRegex(
                    self.stdlog.logger.output,
                    rf'WARNING .* are lost .* a new store, {self.store}\. .*: '
                    rf'nova-arm-ext nvram restore {UUID} FILE\n')
                self.hard_reboot()
                self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_guest_that_never_ran_with_a_store_loses_none(self):
        bios = DOCUMENT.replace('<os firmware="efi">', '<os>').replace(
            '<loader secure="no"/>', '')
        stateless = DOCUMENT.replace('<loader secure="no"/>',
                                     '<loader stateless="yes"/>')
        for had, launched in ((DOCUMENT, None), (bios, timeutils.utcnow()),
                              (stateless, timeutils.utcnow())):
            for store in self.root.glob('a*/**/*_VARS.fd'):
                store.unlink()
            self.define(had)
            self.instance.launched_at = launched

            self.hard_reboot()

            self.assertIsNotNone(nvram.store_of(
                view.arm_guest(self.domains['a'].document)))
        self.assertEqual([], self.notes)

    def test_a_guest_whose_domain_is_gone_too_is_told(self):
        self.spawn()
        self.store.unlink()
        self.domains.clear()

        self.hard_reboot()

        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_store_that_libvirt_has_in_its_own_container_is_not_lost(self):
        self.adopt()
        elsewhere = self.root / 'elsewhere'
        self.libvirt.rename(elsewhere)

        def boot(nova_driver, *args, real=self.boot):
            elsewhere.rename(self.libvirt)
            real(*args)

        with mock.patch.object(self, 'boot', boot):
            self.hard_reboot()

        self.assertEqual(variables('adopted'), self.started)
        self.assertEqual([], self.notes)

    def test_a_link_is_not_followed(self):
        self.spawn()
        self.stop('own')
        target = self.root / 'target'
        self.store.rename(target)
        self.store.symlink_to(target)

        self.assertRaises(nvram.StoreNotUsable, self.hard_reboot)
        self.flags(on_damage='fresh', group='arm_nvram')
        self.hard_reboot()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(variables('own'), target.read_bytes())


class OwnersTest(StoresTest):
    """nova-compute is not root, and stores belong to others."""

    NOVA = 64001

    def setUp(self):
        super().setUp()
        if os.geteuid():
            self.skipTest('only root can make files of others')
        self.useFixture(nova_fixtures.PrivsepFixture())
        for name in ('check', 'exists', 'pack', 'put_aside', 'remove',
                     'write'):
            self.stub_out(f'nova_arm_ext.compute.privileged.{name}',
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
        """Do something as nova-compute's user, whose all but stores is."""
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
        """The store of a guest, as several others own it."""
        for uid in (0, 64055, 12345):
            with self.subTest(uid=uid):
                self.stop('2')
                os.chown(self.store, uid, uid)
                self.store.chmod(0o600)
                yield uid

    def test_a_store_of_somebody_else_is_kept_and_so_is_its_owner(self):
        for uid in self.owned_by_others():
            self.hard_reboot()

            self.assertEqual(variables('2'), self.started)
            self.assertEqual(uid, self.store.stat().st_uid)
        self.assertEqual([], self.notes)

    def test_it_is_looked_at_all_the_same(self):
        for uid in self.owned_by_others():
            damaged = stores.store()[:-1]
            self.store.write_bytes(damaged)
            self.flags(on_damage='fail', group='arm_nvram')
            self.assertRaises(nvram.StoreNotUsable, self.hard_reboot)
            self.assertEqual(damaged, self.store.read_bytes())

            self.flags(on_damage='fresh', group='arm_nvram')
            self.hard_reboot()

            self.assertEqual(self.template.read_bytes(), self.started)
            [aside] = self.folder.glob(f'{STORE}.damaged-*')
            self.assertEqual((uid, damaged),
                             (aside.stat().st_uid, aside.read_bytes()))
            aside.unlink()

    def test_nor_does_root_follow_a_link(self):
        secret = self.root / 'secret.fd'
        secret.write_bytes(variables('secret'))
        secret.chmod(0o600)
        self.store.unlink()
        self.store.symlink_to(secret)
        with self.user(self.NOVA):
            self.assertRaises(PermissionError, self.store.read_bytes)

        self.assertRaises(nvram.StoreNotUsable, self.hard_reboot)

        self.assertEqual(variables('secret'), secret.read_bytes())
        self.assertEqual(0, secret.stat().st_uid)

    def test_it_goes_along_and_replaces_what_lies_there(self):
        self.migrate = self.as_nova(self.migrate)
        self.arrive = self.as_nova(self.arrive)
        for uid in self.owned_by_others():
            self.migrate('b')
            self.at('b')
            self.store.write_bytes(variables('of another time'))
            os.chown(self.store, uid, uid)
            self.store.chmod(0o600)

            self.arrive()

            self.assertEqual(variables('2'), self.started)
            shutil.rmtree(self.root / 'b')
            del self.domains['b']
            self.at('a')
            pathlib.Path(f'{self.folder}_resize').rename(self.folder)
            self.instance.host = 'a'

    def test_the_copy_takes_the_place_of_one_in_libvirts_folder(self):
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
        self.assertEqual(variables('adopted'), self.started)
        self.store.unlink()

        self.hard_reboot()

        self.assertEqual(variables('adopted'), self.started)
        self.assertIn(f'>{self.store}<', self.domains['a'].document)


class TwoHostsTest(StoresTest):

    def places(self):
        """Guests made here, and by Nova alone, on disks of their own and on
        shared ones."""
        for shared in (False, True):
            for prepare in (self.spawn, self.adopt):
                with self.subTest(prepare.__name__, shared=shared):
                    self.domains.clear()
                    for host in self.root.iterdir():
                        if host.is_dir():
                            shutil.rmtree(host)
                    self.shared = shared
                    self.instance.host = 'a'
                    self.at('a')
                    prepare()
                    self.stop('1')
                    yield prepare

    def assert_one_store(self, host):
        folder = 'shared' if self.shared else host
        self.assert_nothing_left(folder, but=(STORE, f'{UUID}_VARS.host'))
        other = 'a' if host == 'b' else 'b'
        self.assert_nothing_left(f'{other}-libvirt')
        if not self.shared:
            self.assert_nothing_left(other)

    def test_the_store_goes_along_and_is_confirmed(self):
        for _ in self.places():
            self.migrate('b')
            self.at('b')
            self.arrive()
            self.assertEqual(variables('1'), self.started)
            self.assertEqual(self.store.read_bytes(), self.started)
            self.stop('2')

            self.at('a')
            self.confirm()

            self.at('b')
            self.assertEqual(variables('2'), self.store.read_bytes())
            self.assert_one_store('b')

    def test_a_revert_goes_back_to_the_store_of_before(self):
        for prepare in self.places():
            self.migrate('b')
            self.at('b')
            self.arrive()
            self.stop('2')

            self.revert('a')

            self.assertEqual(variables('1'), self.started)
            if prepare == self.spawn:
                self.assert_one_store('a')

    def test_what_lies_at_the_destination_is_replaced(self):
        self.spawn()
        self.stop('1')
        self.at('b')
        self.folder.mkdir()
        self.store.write_bytes(variables('of another time'))
        (self.folder / f'{UUID}_VARS.packed').write_bytes(b'torn')

        self.at('a')
        self.migrate('b')
        self.at('b')
        self.arrive()

        self.assertEqual(variables('1'), self.started)

    def test_without_a_store_from_the_source_none_is_taken(self):
        self.at('b')
        self.instance.host = 'b'
        self.folder.mkdir()
        self.store.write_bytes(variables('of another time'))

        self.arrive()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_resize_on_one_host_keeps_the_store_and_can_be_reverted(self):
        for prepare in self.places():
            self.migrate('a')
            self.arrive()
            self.assertEqual(variables('1'), self.started)
            self.stop('2')

            self.revert('a')

            # libvirt's folder is not part of what Nova renames
            self.assertEqual(
                variables('1' if prepare == self.spawn else '2'),
                self.started)

    def test_the_document_goes_along_too(self):
        self.spawn()
        known = self.domains['a'].document.replace(
            '<target dev="vda" bus="virtio"/>',
            '<target dev="vda" bus="virtio"/><address type="pci" '
            'domain="0x0000" bus="0x00" slot="0x09" function="0x0"/>')
        self.define(known)
        self.migrate('b')
        self.at('b')

        self.arrive()

        self.assertIn('slot="0x09"', self.domains['b'].document)
        self.assertFalse((self.folder / nvram.DOCUMENT).exists())

    def test_a_guest_with_a_kernel_of_its_own_arrives_once(self):
        self.document = DOCUMENT.replace(
            '<os firmware="efi">', '<os>').replace(
            '<loader secure="no"/>', '<kernel>/vmlinuz</kernel>')
        self.spawn()
        self.migrate('b')
        self.at('b')
        self.assertTrue((self.folder / f'{UUID}_VARS.packed').exists())

        self.arrive()

        # or each later hard reboot would be an arrival again
        self.assert_nothing_left('b')

    def test_what_each_version_has_sent_arrives(self):
        for version in formats.versions():
            left = formats.left(version)
            self.at('b')
            self.instance.host = 'b'
            self.folder.mkdir()
            (self.folder / nvram.DOCUMENT).write_text(left.domain)
            (self.folder / f'{UUID}_VARS.packed').write_bytes(left.packed)

            self.arrive()

            self.assertEqual(formats.store(), self.started, version)
            [address] = set(re.findall(
                '<target dev="vda".*?<address (.*?)/>',
                self.domains['b'].document, re.DOTALL))
            self.assertIn(address, left.domain.replace("'", '"'))
            self.assert_nothing_left(
                'b', but=(STORE, f'{UUID}_VARS.host'))
            self.destroy()
            self.domains.clear()

    def test_a_revert_that_was_cut_off_ends_with_a_hard_reboot(self):
        for another_attempt in (False, True):
            with self.subTest(another_attempt=another_attempt):
                self.at('a')
                self.spawn()
                self.stop('1')
                self.migrate('b')
                self.instance.host = 'a'
                if another_attempt:
                    self.folder.mkdir()

                self.hard_reboot()

                self.assertEqual(variables('1'), self.started)
                self.assertEqual([self.folder], list(self.instances.iterdir()))
                self.destroy()
                shutil.rmtree(self.root / 'b')

    def test_one_of_a_guest_of_another_architecture_is_left_to_nova(self):
        self.arch = 'x86_64'
        self.spawn()
        self.migrate('b')
        self.instance.host = 'a'

        self.hard_reboot()

        self.assertTrue(pathlib.Path(f'{self.folder}_resize').exists())

    def test_nothing_is_taken_from_a_migration_that_goes_on(self):
        self.spawn()
        self.stop('1')
        self.migrate('a')
        self.arrive()
        self.stop('2')

        self.hard_reboot()

        self.assertEqual(variables('2'), self.started)
        self.revert('a')
        self.assertEqual(variables('1'), self.started)

    def test_a_store_that_was_torn_on_its_way_stops_the_migration(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        packed = self.folder / f'{UUID}_VARS.packed'
        packed.write_bytes(packed.read_bytes()[:-1])

        self.assertRaises(nvram.StoreNotUsable, self.arrive)

        self.assertEqual(
            variables('1'),
            (self.root / 'a' / f'{UUID}_resize' / STORE).read_bytes())

    def cut_off(self, event):
        """Arrive, and have nova-compute end as this method is entered."""
        with mock.patch.object(nvram.Stores, event,
                               side_effect=SystemExit):
            self.assertRaises(SystemExit, self.arrive)

    def test_an_arrival_that_was_cut_off_ends_with_a_hard_reboot(self):
        for step in ('before_start', 'mark', '_remove'):
            for _ in self.places():
                self.migrate('b')
                self.at('b')
                self.store.write_bytes(variables('of another time'))
                self.cut_off(step)

                self.hard_reboot()

                self.assertEqual(variables('1'), self.started, step)
                self.stop('2')
                self.hard_reboot()
                self.assertEqual(variables('2'), self.started, step)
                self.at('a')
                self.confirm()
                self.assert_one_store('b')

    def test_it_ends_so_without_a_store_too(self):
        self.spawn()
        self.store.unlink()
        self.migrate('b')
        self.at('b')
        self.store.write_bytes(variables('of another time'))
        self.cut_off('before_start')

        self.hard_reboot()

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_an_adopted_guest_moves_although_its_arrival_was_cut_off(self):
        self.adopt()
        self.migrate('b')
        self.at('b')
        (self.libvirt / f'{NAME}_VARS.fd').write_bytes(
            variables('of another time'))
        self.cut_off('before_start')

        self.hard_reboot()

        self.assertEqual(variables('adopted'), self.started)
        self.assertTrue(self.store.exists())

    def test_a_damaged_store_stops_a_migration_before_it_begins(self):
        self.spawn()
        self.store.write_bytes(b'')

        self.assertRaises(nvram.StoreNotUsable, self.migrate, 'b')

        self.assertTrue(self.folder.exists())

    def test_a_store_that_cannot_be_sent_leaves_the_guest_here(self):
        self.spawn()
        self.stop('1')
        self.stub_out('nova.virt.libvirt.utils.copy_image',
                      mock.Mock(side_effect=OSError('no space left')))
        with self.nova('_cleanup_remote_migration') as cleaned:
            error = self.assertRaises(nvram.StoreNotUsable, self.migrate,
                                      'b')

        self.assertIn('no space left', str(error))
        self.assertTrue(cleaned is not None)
        self.assertEqual('a', self.instance.host)
        self.assertEqual([], list(self.root.glob('a/*/*.packed')))

    def test_the_fault_has_room_for_why_a_store_cannot_be_sent(self):
        why = 'ssh: connect to host 192.0.2.11 port 22: Connection refused'
        self.spawn()
        self.stop('1')
        self.stub_out('nova.virt.libvirt.utils.copy_image', mock.Mock(
            side_effect=processutils.ProcessExecutionError(
                cmd=f'scp -C -r {self.store} 192.0.2.11:{self.store}',
                exit_code=255, stderr=why)))
        with self.nova('_cleanup_remote_migration'):
            error = self.assertRaises(nvram.StoreNotUsable, self.migrate,
                                      'b')

        # What Nova keeps of it for the API (compute/utils.py, 29 to 34).
        self.assertIn(why, str(error)[:255])

    def test_a_store_that_cannot_be_written_can_be_later(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        with mock.patch('os.pwrite', side_effect=OSError('no space left')):
            error = self.assertRaises(nvram.StoreNotUsable, self.arrive)
        self.assertIn('no space left', str(error))
        self.assertFalse(self.store.exists())

        self.hard_reboot()

        self.assertEqual(variables('1'), self.started)

    def test_disks_in_ceph_leave_a_directory_and_no_store(self):
        self.spawn()
        self.stop('1')
        self.migrate('b')
        self.at('b')
        self.arrive()

        self.revert('a', disks_are_shared=True)

        self.assert_nothing_left('b')
        self.assert_one_store('a')

    def evacuate(self, *, ceph=False):
        backend = mock.Mock()
        backend.is_shared_block_storage.return_value = ceph
        self.driver.image_backend = mock.Mock()
        self.driver.image_backend.backend.return_value = backend
        self.at('b')
        self.rebuild(evacuate=True)
        self.instance.host = 'b'

    def return_(self):
        self.at('a')
        self.clean(removed=False)

    def test_an_evacuated_guest_finds_its_store_on_shared_storage(self):
        self.shared = True
        self.at('a')
        self.spawn()
        self.stop('1')

        self.evacuate()
        self.assertEqual(variables('1'), self.started)
        self.return_()

        self.assertEqual(KEEP, self.undefined)
        self.assertTrue((self.root / 'shared' / UUID / STORE).exists())
        self.assertEqual([], self.notes)

    def test_an_evacuated_guest_without_its_store_is_told_so(self):
        self.spawn()

        self.evacuate(ceph=True)

        self.assertEqual(self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)
        self.assertIn('are lost (evacuate)', self.stdlog.logger.output)

        self.return_()
        self.assert_nothing_left('a')

    def test_an_adopted_store_is_gone_when_its_host_returns(self):
        self.adopt()
        self.evacuate(ceph=True)

        self.return_()

        self.assertEqual(GO, self.undefined)
        self.assert_nothing_left('a-libvirt')

    def test_the_store_of_an_earlier_stay_is_not_evacuated_to(self):
        self.spawn()
        self.stop('old')
        self.domains.clear()
        self.instance.host = 'b'

        backend = mock.Mock()
        backend.is_shared_block_storage.return_value = True
        self.driver.image_backend = mock.Mock()
        self.driver.image_backend.backend.return_value = backend
        self.rebuild(evacuate=True)

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_live_migration_leaves_nothing_in_libvirts_folder(self):
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.'
                      '_check_emulation_arch', lambda *args: 'aarch64')
        self.stub_out('nova.objects.Instance.name', NAME)
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        for method in ('post_live_migration_at_source',
                       'rollback_live_migration_at_destination'):
            left = self.libvirt / f'{NAME}_VARS.fd'
            left.write_bytes(b'')
            with self.nova(method):
                getattr(self.driver, method)(None, self.instance, None, None)
            self.assertFalse(left.exists())


class CopiesTest(StoresTest):

    def setUp(self):
        super().setUp()
        self.flags(store='directory', directory=str(self.root / 'copies'),
                   group='arm_nvram')
        self.load_stores()

    def test_a_guest_that_is_offloaded_gets_its_variables_back(self):
        for prepare in (self.spawn, self.adopt):
            with self.subTest(prepare.__name__):
                self.instance.vm_state = vm_states.ACTIVE
                self.instance.task_state = None
                self.instance.host = 'a'
                shutil.rmtree(self.folder, ignore_errors=True)
                self.at('a')
                prepare()
                self.stop('1')
                self.offload()
                self.assert_nothing_left('a')
                self.at('b')
                self.spawn()
                self.assertEqual(variables('1'), self.started)
                shutil.rmtree(self.folder)
                self.domains.clear()

    def test_an_evacuated_guest_gets_the_copy_of_its_last_power_off(self):
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.at('b')

        self.rebuild(evacuate=True)

        self.assertEqual(variables('1'), self.started)

    def test_a_store_that_somebody_removed_comes_from_the_copy(self):
        for start in self.starts():
            with self.subTest(start.__name__):
                self.domains.clear()
                self.spawn()
                self.stop('1')
                with self.nova('power_off'):
                    self.driver.power_off(self.instance)
                self.store.unlink()

                start()

                self.assertEqual(variables('1'), self.started)
                self.assertEqual([], self.notes)
                self.assertIn(f'{self.store} of this guest was not there. The '
                              f'copy in the store', self.stdlog.logger.output)

    def test_a_copy_of_before_a_rebuild_does_not_come_back(self):
        for told in ({}, {'image_arm_nvram_on_rebuild': 'keep'}):
            self.spawn()
            self.stop('1')
            with self.nova('power_off'):
                self.driver.power_off(self.instance)
            self.rebuild(**told)
            self.store.unlink()

            self.hard_reboot()

            self.assertEqual(variables('1') if told
                             else self.template.read_bytes(), self.started)
        self.assertEqual(['arm_nvram_lost'], self.notes)

    def test_a_copy_of_another_time_is_no_store_for_a_guest_that_has_one(
            self):
        self.spawn()
        self.stop('1')
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.stop('2')

        self.hard_reboot()

        self.assertEqual(variables('2'), self.started)

    def test_running_guests_are_copied_now_and_then(self):
        self.spawn()
        self.stop('1')
        self.stub_out('nova.virt.libvirt.host.Host.list_guests',
                      lambda host: [libvirt_guest.Guest(self.domains['a'])])
        copies = self.root / 'copies'

        self.driver._life._last_copies = 0
        self.driver._life.copy_running()
        self.assertFalse(copies.exists())

        self.flags(copy_interval=3600, group='arm_nvram')
        self.driver._life._last_copies = time.monotonic() - 3600
        self.driver._life.copy_running()
        [copy] = copies.iterdir()
        self.assertEqual(variables('1'), varstore.unpack(copy.read_bytes()))

        copy.unlink()
        self.driver._life.copy_running()
        self.assertEqual([], list(copies.iterdir()))

    def test_a_guest_is_not_offloaded_where_its_variables_cannot_be_saved(
            self):
        self.spawn()
        self.store.write_bytes(b'')

        self.assertRaises(nvram.StoreNotUsable, self.offload)

        self.assertIn('a', self.domains)
        self.assertTrue(self.store.exists())

    def test_a_store_that_fails_stops_an_offload_and_no_power_off(self):
        self.spawn()
        self.stop('1')
        # a file where its folder should be
        (self.root / 'copies').write_text('')

        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        self.assertIn('could not be copied to the store',
                      self.stdlog.logger.output)
        self.assertRaises(OSError, self.offload)

        self.assertEqual(variables('1'), self.store.read_bytes())

    def test_a_copy_goes_with_the_guest(self):
        self.spawn()
        with self.nova('power_off'):
            self.driver.power_off(self.instance)
        [_] = (self.root / 'copies').iterdir()

        self.instance.task_state = task_states.DELETING
        self.clean(removed=True)

        self.assertEqual([], list((self.root / 'copies').iterdir()))

    def test_a_driver_that_is_not_there_is_told_at_the_start(self):
        self.flags(store='tape', group='arm_nvram')

        error = self.assertRaises(errors.ConfigurationError, nvram.load_store,
                                  CONF)

        self.assertIn("'tape', which is not installed; installed are: "
                      'directory', str(error))


class ImagesTest(StoresTest):
    """Snapshots carry the stores of their guests."""

    IMAGE = '7a0c1a51-3a3b-4a92-8a8a-6d5b2f6f0f0d'

    def setUp(self):
        super().setUp()
        self.key = self.root / 'key'
        self.write_key('k' * 32)
        self.properties = {}
        self.stub_out('nova.image.glance.API.get', lambda api, context, image:
                      {'id': image, 'properties': self.properties})
        self.instance.update(dict(kernel_id='', ramdisk_id='', os_type=None,
                                  project_id='project'))

    def write_key(self, key):
        self.key.write_text(key + '\n')
        self.key.chmod(0o640)
        self.flags(image_key_file=str(self.key), group='arm_nvram')
        self.load_stores()

    def snapshot(self):
        self.properties = self.driver._create_snapshot_metadata(
            self.image, self.instance, 'qcow2', 'a snapshot')['properties']

    def take_it(self):
        self.image = objects.ImageMeta.from_dict(
            {'id': self.IMAGE, 'properties': {'hw_architecture': 'aarch64'}})

    def spawn_from_it(self):
        self.take_it()
        self.spawn()

    def spawned_and_gone(self):
        """A guest is made, its snapshot is taken, and it goes."""
        self.spawn()
        self.stop('1')
        self.snapshot()
        self.destroy()
        self.at('b')

    def test_a_guest_of_a_snapshot_has_the_variables_of_the_first(self):
        self.spawned_and_gone()
        self.assertLess(len(self.properties['arm_nvram_store']), 60 * 1024)

        self.spawn_from_it()

        self.assertEqual(variables('1'), self.started)
        self.assertEqual(variables('1'), self.store.read_bytes())

    def test_a_guest_that_is_unshelved_has_its_own_again(self):
        self.spawned_and_gone()
        self.instance.vm_state = vm_states.SHELVED_OFFLOADED

        self.spawn_from_it()

        self.assertEqual(variables('1'), self.started)
        self.assertEqual([], self.notes)

    def test_a_guest_that_is_rebuilt_with_a_snapshot_has_what_it_carries(
            self):
        self.spawn()
        self.stop('1')
        self.snapshot()
        self.stop('2')
        self.take_it()

        self.rebuild()

        self.assertEqual(variables('1'), self.started)

    def test_an_evacuated_guest_does_not_go_back_to_its_image(self):
        self.spawned_and_gone()
        self.take_it()

        self.rebuild(evacuate=True)

        self.assertEqual(self.template.read_bytes(), self.started)

    def test_what_somebody_else_has_written_stops_the_start(self):
        self.spawned_and_gone()
        value = self.properties['arm_nvram_store']

        for wrong, why in ((value[:255], 'is not whole'),
                           (value[:-6] + 'AAAA==', 'is not whole'),
                           ('1:\u00e4', 'is not whole'),
                           ('x' * 10, 'is no variable store'),
                           ('1:' + 'A' * 61440, 'is no variable store')):
            self.properties = {'arm_nvram_store': wrong}
            error = self.assertRaises(nvram.StoreNotUsable,
                                      self.spawn_from_it)
            self.assertIn(why, str(error))
            self.assertIn(self.IMAGE, str(error))
        self.assertNotIn('b', self.domains)

        self.flags(on_damage='fresh', group='arm_nvram')
        self.spawn_from_it()
        self.assertEqual(self.template.read_bytes(), self.started)

    def test_so_does_another_key(self):
        self.spawned_and_gone()
        self.write_key('l' * 32)

        error = self.assertRaises(nvram.StoreNotUsable, self.spawn_from_it)

        self.assertIn('another key', str(error))

    def test_a_guest_that_is_unshelved_has_its_copy_whatever_the_image_has(
            self):
        self.flags(store='directory', directory=str(self.root / 'copies'),
                   group='arm_nvram')
        self.load_stores()
        self.spawn()
        self.stop('1')
        self.properties = {'arm_nvram_store': 'of somebody else'}
        self.offload()
        self.at('b')

        self.spawn_from_it()

        self.assertEqual(variables('1'), self.started)
        self.assertEqual([], self.notes)
        self.assertRegex(
            self.stdlog.logger.output,
            f'WARNING .* of image {self.IMAGE} cannot be used: .* Remove the '
            f'property from the image. The guest gets the copy')
        self.driver._life._stores.remove_copies(UUID)
        self.assertRaises(nvram.StoreNotUsable, self.spawn_from_it)

    def test_without_a_key_nothing_is_carried_nor_used(self):
        self.spawned_and_gone()
        self.flags(image_key_file='', group='arm_nvram')
        self.load_stores()

        self.spawn_from_it()
        self.assertEqual(self.template.read_bytes(), self.started)

        self.snapshot()
        self.assertNotIn('arm_nvram_store', self.properties)

    def test_a_store_without_keys_is_not_carried_to_secure_boot(self):
        secure = dataclasses.replace(
            self.plain, loader='/usr/share/AAVMF/AAVMF_CODE.ms.fd',
            secure_boot=True, enrolled_keys=True)
        self.driver._facts.forget()
        self.stub_out('nova_arm_ext.compute.gather.host',
                      lambda connection: facts.Host(
                          arch='aarch64', libvirt_version=(9, 0, 0),
                          firmware=(secure, self.plain)))
        asked = DOCUMENT.replace('enabled="no"', 'enabled="yes"')
        for first, then in ((DOCUMENT, asked), (asked, DOCUMENT)):
            self.at('a')
            self.properties = {}
            self.document = first
            self.spawned_and_gone()
            self.document = then
            self.spawn_from_it()
            self.assertEqual(self.template.read_bytes(), self.started)
            self.assertEqual(['arm_nvram_lost'], self.notes)
            self.destroy()
            self.notes.clear()
            self.document = first
            self.spawn_from_it()
            self.assertEqual(variables('1'), self.started)
            self.destroy()
        self.assertEqual([], self.notes)

    def test_what_is_too_much_for_an_image_is_told(self):
        self.spawned_and_gone()
        self.instance.system_metadata['image_arm_nvram_store'] = (
            self.properties['arm_nvram_store'][:255])
        self.spawn_from_it()
        self.store.write_bytes(stores.store(stores.variable(
            'Noise', random.Random(1).randbytes(50000))))

        self.snapshot()

        self.assertEqual('', self.properties['arm_nvram_store'])
        self.assertIn('a property may have 61440', self.stdlog.logger.output)
        self.destroy()
        self.spawn_from_it()
        self.assertEqual(self.template.read_bytes(), self.started)

    def test_a_key_that_is_none_is_told_at_the_start(self):
        self.flags(store='tape', group='arm_nvram')

        def faults():
            error = self.assertRaises(errors.ConfigurationError,
                                      nvram.Stores.load, CONF)
            self.assertIn('tape', str(error))
            return str(error)

        self.key.write_text('short')
        self.assertIn('has 5 bytes, and a secret needs 32', faults())
        self.key.chmod(0o644)
        self.assertIn('has the permissions 644', faults())
        self.key.unlink()
        self.assertIn('No such file or directory', faults())


class FirmwareTest(StoresTest):

    def setUp(self):
        super().setUp()
        self.stub_out('nova_arm_ext.compute.host_facts.HostFacts.'
                      'arch', property(lambda made: 'aarch64'))

    def having(self, *firmware):
        self.driver._facts.forget()
        self.stub_out('nova_arm_ext.compute.gather.host',
                      lambda connection: facts.Host(
                          arch='aarch64', libvirt_version=(9, 0, 0),
                          firmware=firmware))

    def firmware(self, loader, **features):
        path = self.root / loader
        path.touch()
        return facts.Firmware(
            arch='aarch64', machines=('virt-*',), loader=str(path),
            template=str(self.template), **features)

    def test_secure_boot_is_there_with_firmware_and_keys(self):
        for features, there in (({}, False), ({'secure_boot': True}, False), (
                {'secure_boot': True, 'enrolled_keys': True}, True)):
            self.having(self.firmware('code', **features))
            with self.nova('_update_host_specific_capabilities'):
                self.driver._update_host_specific_capabilities()

            self.assertIs(there, self.driver.capabilities[
                'supports_secure_boot'])
            self.assertIs(there, self.driver._check_secure_boot_support(
                'aarch64', 'virt', 'uefi'))
            self.assertFalse(self.driver._check_secure_boot_support(
                'x86_64', 'pc', 'uefi'))

    def test_a_store_without_keys_is_no_store_for_secure_boot(self):
        plain = self.firmware('plain')
        secure = self.firmware('secure', secure_boot=True,
                               enrolled_keys=True)
        self.having(secure, plain)
        self.spawn()
        self.stop('1')

        self.document = DOCUMENT.replace('enabled="no"', 'enabled="yes"')
        self.migrate('b')
        self.at('b')
        self.arrive()
        self.assertIn(secure.loader, self.domains['b'].document)
        self.assertEqual(self.template.read_bytes(), self.started)

        self.stop('2')
        self.hard_reboot()
        self.assertEqual(variables('2'), self.started)

        # a successor is no other firmware
        os.unlink(secure.loader)
        self.having(plain, self.firmware('renamed', secure_boot=True,
                                         enrolled_keys=True))
        self.hard_reboot()
        self.assertIn('/renamed<', self.domains['b'].document)
        self.assertEqual(variables('2'), self.started)

    def test_a_loader_that_is_gone_is_told_and_replaced(self):
        old, new = self.firmware('old'), self.firmware('new')
        self.having(old, new)
        self.spawn()
        self.stop('1')
        self.assertIn(old.loader, self.domains['a'].document)

        os.unlink(old.loader)
        self.having(new)
        self.hard_reboot()

        self.assertIn(f'>{new.loader}</loader>', self.domains['a'].document)
        self.assertEqual(variables('1'), self.started)
        self.assertIn(f'{old.loader} is not on this host any more',
                      self.stdlog.logger.output)

    def test_a_loader_that_only_libvirt_sees_stays(self):
        self.spawn()
        self.having(facts.Firmware(
            arch='aarch64', machines=('virt-*',), loader='/not/here',
            template=str(self.template)))

        self.hard_reboot()

        self.assertIn('>/usr/share/AAVMF/AAVMF_CODE.fd</loader>',
                      self.domains['a'].document)
