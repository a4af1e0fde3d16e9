# SPDX-License-Identifier: Apache-2.0
"""Variable stores of guests of the installed Nova, on two simulated hosts.

Nova's own methods that move disks and networks are replaced. Their callers,
and the files of stores and instance directories, are real.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import contextlib
import os
import pathlib
import shutil
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
from oslo_utils import timeutils

from nova_arm_ext import facts
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import stand_ins
from nova_arm_ext.compute.nvram import copies
from nova_arm_ext.compute.nvram import images
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.domain import view
from tests.support import stores

CONF = nova.conf.CONF
CASE = pathlib.Path(__file__).parents[2] / 'data/golden/new-guest'
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

    def isPersistent(self):
        return True

    def UUIDString(self):
        return UUID

    def undefineFlags(self, flags):
        self.undefined = flags & (KEEP | GO)
        [path] = etree.fromstring(self.document).xpath(
            'os/nvram/text()') or [None]
        if path and self.undefined & GO and os.path.exists(path):
            os.unlink(path)


class StoresTestCase(nova.test.NoDBTestCase):

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
        """Act as one of the hosts."""
        self.host = host
        self.instances = self.root / ('shared' if self.shared else host)
        self.instances.mkdir(exist_ok=True)
        self.libvirt = self.root / f'{host}-libvirt'
        self.libvirt.mkdir(exist_ok=True)
        self.flags(instances_path=str(self.instances), host=host)
        self.stub_out('nova_arm_ext.compute.nvram.places.LIBVIRT',
                      str(self.libvirt))
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
        made = self.driver._life
        made._copies._driver = copies.load_store(CONF)
        made._images._keys = images.load_keys(CONF)

    def keep_copies(self):
        """Have a store for copies."""
        folder = self.root / 'copies'
        folder.mkdir(mode=0o700)
        self.flags(store='directory', directory=str(folder),
                   group='arm_nvram')
        self.load_stores()

    # -- What Nova does -----------------------------------------------------

    def nova(self, name, does=None):
        """Replace a method of Nova's driver."""
        return mock.patch.object(libvirt_driver.LibvirtDriver, name,
                                 does or (lambda *args, **kwargs: None))

    def start(self, *args, **kwargs):
        """Generate domain XML, and start QEMU with it."""
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
        path = places.store_of(view.arm_guest(
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
        # by the API, before it asks a compute host
        self.instance.system_metadata.update(properties)
        self.assertRaises(NotImplementedError, self.driver.rebuild, **dict(
            context=None, instance=self.instance, image_meta=self.image,
            injected_files=None, admin_password=None, allocations=None,
            bdms=None, detach_block_devices=None, attach_block_devices=None,
            evacuate=evacuate))
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
        """Revert on this host, then on the source."""
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
        """Make a guest with Nova's own driver."""
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
            with mock.patch.object(self.driver._life._stores, 'clear'):
                self.rescue()
            self.unrescue(own)

        return self.hard_reboot, self.soft_reboot, unrescue

    def assert_nothing_left(self, host, *, but=()):
        self.assertEqual(sorted(but), sorted(
            path.name for folder in (host, f'{host}-libvirt')
            for path in (self.root / folder).rglob('*') if path.is_file()))
