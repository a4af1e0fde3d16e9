# SPDX-License-Identifier: Apache-2.0
"""ArmLibvirtDriver over Nova's fake libvirt, with this release's own code."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import contextlib
import importlib.metadata
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures
import nova.conf
from nova import context
from nova import exception
from nova import objects
from nova.compute import provider_tree
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import driver as virt_driver
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest as libvirt_guest

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import provenance
from nova_arm_ext.compute import adjustment
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import hotplug
from nova_arm_ext.compute import operation
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.pipeline.run import Pipeline
from tests.support import base

CONF = nova.conf.CONF
CASE = pathlib.Path(__file__).parents[1] / 'data/golden/new-guest'
DOCUMENT = (CASE / 'before.xml').read_text()
X86 = DOCUMENT.replace('aarch64', 'x86_64')
NO_SLOTS = fakelibvirt.libvirtError(
    'internal error: No more available PCI slots')
UUID = 'b7e2f3c4-1c2d-4a5b-8e6f-0123456789ab'


KNOWN = facts.Host(arch='aarch64', libvirt_version=(9, 0, 0),
                   qemu_version=(7, 2, 0), virt_types={'aarch64': ('qemu',)})


class Raising(hooks.Hook):
    """Crashes."""

    def adjust(self, domain, facts, report):
        raise RuntimeError('out of coffee')


class Refusing(hooks.Hook):
    """Refuses."""

    this_host = False

    def adjust(self, domain, facts, report):
        raise errors.Refused('no tea either', this_host=self.this_host)


class RefusingHere(Refusing):
    """Refuses on this host."""

    this_host = True


class Noting(hooks.Hook):
    """Records the facts that it gets."""

    def __init__(self, options):
        super().__init__(options)
        self.seen: list[facts.Facts] = []

    def adjust(self, domain, facts, report):
        self.seen.append(facts)


class DriverTest(nova.test.NoDBTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        self.instance = objects.Instance(
            id=1, uuid=UUID, system_metadata={
                'image_hw_machine_type': 'virt', 'image_arm_mine': 'yes'},
            flavor=objects.Flavor(extra_specs={'arm:mine': 'too'}))
        self.image = objects.ImageMeta.from_dict({'properties': {}})
        self.defined: list[str] = []
        self.stub_out('nova.virt.libvirt.host.Host.write_instance_config',
                      lambda host, xml: self.defined.append(xml))

    def test_its_start_says_version_hooks_and_what_is_off(self) -> None:
        with mock.patch.object(adjustment, 'LOG') as log:
            self.driver._adjustment.announce(nova.conf.CONF)

        [(text, *values)] = [call.args for call in log.info.mock_calls]
        self.assertEqual(
            f'nova-arm-ext {adjustment.VERSION} runs these hooks for Arm '
            f'instances: libvirt_compat, uefi, console, virtio_mmio, armv7, '
            f'pcie_root_ports. Not enabled: cpu_features, [arm_nvram] store, '
            f'[arm_nvram] image_key_file', text % tuple(values))

    def with_hook(self, hook: type[hooks.Hook],
                  **options: str) -> hooks.Hook:
        made = hook(None)
        self.driver._adjustment.pipeline = Pipeline(
            [('mine', made)], **options)
        return made

    def xml(self, document: str = DOCUMENT) -> str:
        with mock.patch.object(libvirt_driver.LibvirtDriver,
                               '_get_guest_xml', return_value=document):
            return self.driver._get_guest_xml(
                context.get_admin_context(), self.instance, None, {},
                self.image)

    def existing(self, *documents: str | None) -> None:
        """Set the domain XML that libvirt returns for the guest."""
        answers = list(documents)

        def get_guest(host, instance):
            answer = answers.pop(0)
            if answer is None:
                raise exception.InstanceNotFound(instance_id=instance.uuid)
            found = mock.Mock(spec=libvirt_guest.Guest)
            found.get_xml_desc.return_value = answer
            return found

        self.stub_out('nova.virt.libvirt.host.Host.get_guest', get_guest)

    def test_nova_makes_it_by_its_name_and_asks_libvirt_nothing(self) -> None:
        def asked(*args, **kwargs):
            raise AssertionError('libvirt was asked')

        self.flags(compute_driver='arm_ext.ArmLibvirtDriver')
        for name in ('openAuth', 'openReadOnly'):
            self.stub_out(f'nova.tests.fixtures.libvirt.{name}', asked)

        made = virt_driver.load_compute_driver(fake.FakeVirtAPI())

        self.assertIs(driver.ArmLibvirtDriver, type(made))

    def test_an_arm_guest_passes_through_the_hooks(self) -> None:
        self.existing(None)

        self.assertNotEqual(DOCUMENT, self.xml())

    def test_the_document_says_who_adjusted_it_and_why(self) -> None:
        record = provenance.read(view.Domain.parse(self.xml()))

        self.assertEqual(importlib.metadata.version('nova-arm-ext'),
                         record.version)
        self.assertEqual(self.driver._adjustment.pipeline.hooks,
                         tuple(hook.name for hook in record.hooks))
        self.assertTrue(any(hook.reasons for hook in record.hooks))

    def test_another_guest_comes_back_as_it_is(self) -> None:
        self.with_hook(Raising)

        self.assertIs(X86, self.xml(X86))

    def test_a_hook_is_told_of_flavor_and_image(self) -> None:
        self.existing(None)
        noting = self.with_hook(Noting)

        self.xml()

        [known] = noting.seen
        self.assertEqual({'arm:mine': 'too'}, known.guest.extra_specs)
        self.assertEqual('yes', known.guest.image_properties['arm_mine'])
        self.assertIsNone(known.guest.previous)

    def test_a_refusal_is_not_tried_on_another_host(self) -> None:
        self.existing(None)
        self.with_hook(Refusing)

        error = self.assertRaises(exception.InvalidInput, self.xml)

        self.assertIn('no tea either', str(error))

    def test_a_refusal_of_this_host_is_tried_on_another(self) -> None:
        self.existing(None)
        self.with_hook(RefusingHere)

        error = self.assertRaises(adjustment.GuestNotAdjusted, self.xml)

        self.assertEqual('no tea either', error.format_message())

    def reboot(self, document: str = DOCUMENT) -> None:
        def hard_reboot(nova_driver, *args, **kwargs):
            self.xml(document)

        with mock.patch.object(libvirt_driver.LibvirtDriver, '_hard_reboot',
                               hard_reboot):
            self.driver._hard_reboot(context.get_admin_context(),
                                     self.instance, None)

    def test_a_reboot_knows_the_document_from_before(self) -> None:
        self.existing(DOCUMENT)
        noting = self.with_hook(Noting)

        self.reboot()

        [known] = noting.seen
        self.assertEqual(DOCUMENT, known.guest.previous)
        self.assertIsNone(operation.current.get())

    def test_a_failed_reboot_leaves_the_guest_defined(self) -> None:
        # before Nova removes it, and after
        self.existing(DOCUMENT, None)
        self.with_hook(Raising)

        error = self.assertRaises(adjustment.GuestNotAdjusted, self.reboot)

        self.assertIn('hook mine failed: RuntimeError: out of coffee',
                      str(error))
        self.assertEqual([DOCUMENT], self.defined)
        self.assertIsNone(operation.current.get())

    def test_a_guest_that_nova_did_not_take_away_is_left_alone(self) -> None:
        self.existing(DOCUMENT, DOCUMENT)
        self.with_hook(Raising)

        self.assertRaises(adjustment.GuestNotAdjusted, self.reboot)

        self.assertEqual([], self.defined)

    def test_a_guest_that_runs_on_undefined_is_defined_again(self) -> None:
        running = mock.Mock(spec=libvirt_guest.Guest)
        running.get_xml_desc.return_value = DOCUMENT
        running.has_persistent_configuration.return_value = False
        self.stub_out('nova.virt.libvirt.host.Host.get_guest',
                      lambda host, instance: running)
        self.with_hook(Raising)

        self.assertRaises(adjustment.GuestNotAdjusted, self.reboot)

        self.assertEqual([DOCUMENT], self.defined)

    def test_a_failed_reboot_of_another_guest_is_novas_business(self) -> None:
        self.existing(X86, None)
        self.stub_out('nova_arm_ext.pipeline.run.Pipeline.run',
                      mock.Mock(side_effect=exception.NovaException('x')))

        self.assertRaises(exception.NovaException, self.reboot, X86)

        self.assertEqual([], self.defined)

    def test_a_refusal_does_not_stop_a_guest_that_exists(self) -> None:
        self.existing(DOCUMENT)
        self.with_hook(Refusing)

        self.reboot()

        self.assertIn('no tea either', self.stdlog.logger.output)

    @contextlib.contextmanager
    def maybe_refused(self, novas: mock.Mock) -> Iterator[None]:
        """If the hook refuses, it does so before Nova's own method."""
        try:
            yield
        except exception.InstanceFaultRollback as e:
            self.assertIsInstance(e.inner_exception, exception.InvalidInput)
            self.assertIn('no tea', str(e))
            novas.assert_not_called()

    def resize(self, flavor: str, **extra_specs: str) -> mock.Mock:
        with (mock.patch.object(libvirt_driver.LibvirtDriver,
                                'migrate_disk_and_power_off') as novas,
              self.maybe_refused(novas)):
            self.driver.migrate_disk_and_power_off(
                None, self.instance, 'b', objects.Flavor(
                    flavorid=flavor, extra_specs=extra_specs), None)
        return novas

    def test_a_resize_is_refused_before_the_disks_are_moved(self) -> None:
        class RefusingTea(hooks.Hook):
            """Refuses what a flavor asks for."""

            def adjust(self, domain, facts, report):
                if (facts.guest.extra_specs or {}).get('arm:tea') == 'yes':
                    raise errors.Refused('no tea')

        self.with_hook(RefusingTea)
        self.existing(*[DOCUMENT] * 20)
        self.stub_out('nova_arm_ext.compute.nvram.migration.Migration.sending',
                      lambda *args: contextlib.nullcontext())
        self.instance.system_metadata = {}
        self.instance.flavor = objects.Flavor(flavorid='old', extra_specs={})
        self.assertFalse(self.resize('new', **{'arm:tea': 'yes'}).called)
        self.assertTrue(self.resize('new').called)
        # a migration, and a guest that has it already
        self.assertTrue(self.resize('old', **{'arm:tea': 'yes'}).called)
        self.instance.flavor.extra_specs = {'arm:tea': 'yes'}
        self.assertTrue(self.resize('new', **{'arm:tea': 'yes'}).called)

    def rebuild(self, *, evacuate: bool = False) -> mock.Mock:
        with (mock.patch.object(libvirt_driver.LibvirtDriver,
                                'rebuild') as novas,
              self.maybe_refused(novas)):
            self.driver.rebuild(None, self.instance, self.image, None,
                                None, None, None, None, None,
                                evacuate=evacuate)
        return novas

    def test_a_rebuild_is_refused_before_the_disks_are_removed(self) -> None:
        class RefusingTea(hooks.Hook):
            """Refuses what an image or a flavor asks for."""

            def adjust(self, domain, facts, report):
                if 'yes' in ((facts.guest.image_properties or {}).get(
                        'arm_tea'), (facts.guest.extra_specs or {}).get(
                            'arm:tea')):
                    raise errors.Refused('no tea', this_host=True)

        self.with_hook(RefusingTea)
        self.existing(*[DOCUMENT] * 20)
        self.assertTrue(self.rebuild().called)
        self.instance.system_metadata['image_arm_tea'] = 'yes'
        self.assertFalse(self.rebuild().called)
        self.assertTrue(self.rebuild(evacuate=True).called)
        # the guest runs with that already
        self.instance.flavor.extra_specs = {'arm:tea': 'yes'}
        self.assertTrue(self.rebuild().called)

    def attach(self, method: str, error: Exception) -> None:
        with mock.patch.object(libvirt_driver.LibvirtDriver, method,
                               side_effect=error):
            getattr(self.driver, method)(
                context.get_admin_context(), mock.sentinel.connection_info,
                self.instance, mock.sentinel.mountpoint)

    def test_an_attach_without_a_free_port_tells_what_gives_more(self) -> None:
        full = DOCUMENT.replace('</devices>', (
            '<controller type="pci" index="1" model="pcie-root-port"/>'
            '<controller type="pci" index="2" model="pcie-root-port"/>'
            '</devices>'))
        for method in ('attach_volume', 'attach_interface'):
            self.existing(full)

            error = self.assertRaises(
                hotplug.NoFreeRootPort, self.attach, method, NO_SLOTS)

            for words in ('All 2 PCIe root ports', 'arm:free_pcie_root_ports',
                          'arm_free_pcie_root_ports',
                          '[arm_pcie_root_ports] free'):
                self.assertIn(words, error.format_message())
            # Nova keeps only this part
            self.assertLess(len(error.format_message()), 255)

    def test_it_is_told_of_an_error_that_nova_has_hidden_too(self) -> None:
        self.existing(DOCUMENT)
        hidden = exception.InterfaceAttachFailed(instance_uuid=UUID)
        hidden.__context__ = NO_SLOTS

        self.assertRaises(hotplug.NoFreeRootPort, self.attach,
                          'attach_interface', hidden)

    def test_other_attach_errors_are_as_they_are(self) -> None:
        for error in (exception.InterfaceAttachFailed(instance_uuid=UUID),
                      fakelibvirt.libvirtError('no such file')):
            self.assertIs(error, self.assertRaises(
                type(error), self.attach, 'attach_volume', error))

    def test_guests_of_others_get_libvirts_own_error(self) -> None:
        self.existing(X86)

        self.assertIs(NO_SLOTS, self.assertRaises(
            fakelibvirt.libvirtError, self.attach, 'attach_volume', NO_SLOTS))

    def test_facts_about_the_host_are_gathered_once(self) -> None:
        self.existing(None, None)
        with mock.patch.object(host_facts.gather, 'host',
                               return_value=KNOWN) as gathered:
            self.xml()
            self.xml()

        gathered.assert_called_once_with(
            self.driver._host.get_connection())

    def test_facts_about_the_host_end_with_the_connection(self) -> None:
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.'
                      '_handle_conn_event', lambda *args: None)
        with mock.patch.object(host_facts.gather, 'host',
                               return_value=KNOWN) as gathered:
            self.driver._facts.now()
            self.driver._handle_conn_event(True, None)
            self.driver._facts.now()
            self.assertEqual(1, gathered.call_count)

            self.driver._handle_conn_event(False, 'lost')
            self.driver._facts.now()

        self.assertEqual(2, gathered.call_count)

    def test_fake_libvirt_tells_the_facts(self) -> None:
        found = self.driver._facts.now()

        self.assertEqual(
            fakelibvirt.FAKE_LIBVIRT_VERSION // 1000000,
            found.libvirt_version[0])
        self.assertIn('x86_64', found.virt_types)


class PluggingTest(nova.test.NoDBTestCase):
    """Devices are attached and detached while some are on virtio-mmio."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        self.defined: list[str] = []
        self.stub_out('nova.virt.libvirt.host.Host.write_instance_config',
                      lambda host, xml: self.defined.append(xml))
        self.done: list[str] = []
        for method in ('attach_volume', 'attach_interface', 'detach_volume',
                       'detach_interface'):
            self.stub_out(f'nova.virt.libvirt.driver.LibvirtDriver.{method}',
                          lambda *args, method=method:
                          self.done.append(method))

    def instance(self, arch: str = 'aarch64') -> objects.Instance:
        return objects.Instance(id=1, uuid=UUID, image_ref='',
                                system_metadata={
                                    'image_hw_architecture': arch})

    @staticmethod
    def document(address: str, *, running: bool = True) -> str:
        number = ' id="1"' if running else ''
        return (f'<domain{number}><os><type arch="aarch64" machine="virt">'
                f'hvm</type></os><devices>'
                f'<disk><target dev="vda" bus="virtio"/>'
                f'<address type="virtio-mmio"/></disk>'
                f'<disk><target dev="vdb" bus="virtio"/>{address}</disk>'
                f'<interface type="bridge"><mac address="52:54:00:00:00:0a"/>'
                f'<model type="virtio"/><address type="virtio-mmio"/>'
                f'</interface></devices></domain>')

    def libvirt_has(self, live: str, stored: str = '') -> None:
        found = mock.Mock(spec=libvirt_guest.Guest)
        found.get_xml_desc.side_effect = (
            lambda dump_inactive=False, dump_sensitive=False:
            stored if dump_inactive else live)
        self.stub_out('nova.virt.libvirt.host.Host.get_guest',
                      lambda host, instance: found)

    MMIO = '<address type="virtio-mmio"/>'
    PCI = '<address type="pci" bus="0x05" slot="0x00" function="0x0"/>'

    def detach(self, disk: str) -> None:
        self.driver.detach_volume(None, {}, self.instance(), f'/dev/{disk}')

    def detach_interface(self) -> None:
        self.driver.detach_interface(
            None, self.instance(), {'address': '52:54:00:00:00:0A'})

    def test_what_cannot_leave_stays_and_the_user_is_told(self) -> None:
        self.libvirt_has(self.document(self.PCI))

        for detach, name in ((lambda: self.detach('vda'), 'vda'),
                             (self.detach_interface, '52:54:00:00:00:0a')):
            error = self.assertRaises(exception.DeviceDetachFailed, detach)
            for words in (name, 'virtio-mmio', 'stop the instance first'):
                self.assertIn(words, str(error))
        self.assertEqual([], self.done)

        self.detach('vdb')

        self.assertEqual(['detach_volume'], self.done)

    def test_a_guest_that_is_stopped_is_novas_business(self) -> None:
        self.libvirt_has(self.document(self.PCI, running=False))

        self.detach('vda')
        self.detach_interface()

        self.assertEqual(['detach_volume', 'detach_interface'], self.done)

    def test_libvirt_is_not_asked_about_guests_of_others(self) -> None:
        self.stub_out('nova.virt.libvirt.host.Host.get_guest', None)
        x86 = self.instance('x86_64')

        self.driver.detach_volume(None, {}, x86, '/dev/vda')
        self.driver.attach_volume(None, {}, x86, '/dev/vdb')

        self.assertEqual(['detach_volume', 'attach_volume'], self.done)

    def test_a_disk_that_is_plugged_in_is_stored_where_it_is(self) -> None:
        self.libvirt_has(self.document(self.PCI), self.document(self.MMIO))

        self.driver.attach_volume(None, {}, self.instance(), '/dev/vdb')

        self.assertEqual([self.document(self.PCI)],
                         [base.compact(view.Domain.parse(xml))
                          for xml in self.defined])

    def test_one_change_at_a_time(self) -> None:
        """Or a device could vanish from the stored domain XML."""
        self.libvirt_has(self.document(self.PCI), self.document(self.PCI))
        now: list[int] = []
        most = []

        def changing(*args: Any, **kwargs: Any) -> None:
            now.append(1)
            most.append(len(now))
            time.sleep(0.05)
            now.pop()

        instance = self.instance()
        for name in ('attach_volume', 'attach_interface', 'detach_volume',
                     'detach_interface'):
            self.stub_out(f'nova.virt.libvirt.driver.LibvirtDriver.{name}',
                          changing)
        threads = [threading.Thread(target=change) for change in (
            lambda: self.driver.attach_volume(None, {}, instance, '/dev/vdb'),
            lambda: self.driver.attach_interface(None, instance, None, None),
            lambda: self.driver.detach_volume(None, {}, instance,
                                              '/dev/vdc'),
            lambda: self.driver.detach_interface(
                None, instance, {'address': '52:54:00:00:00:77'}))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        self.assertEqual([1, 1, 1, 1], most)

    def test_nothing_is_stored_where_nothing_moves(self) -> None:
        for live, stored in ((self.PCI, self.PCI), (self.MMIO, self.MMIO)):
            self.libvirt_has(self.document(live), self.document(stored))

            self.driver.attach_interface(None, self.instance(), None, None)

        self.assertEqual([], self.defined)

    def test_the_device_is_there_whatever_becomes_of_the_document(
            self) -> None:
        self.libvirt_has(self.document(self.PCI), self.document(self.MMIO))
        self.stub_out('nova.virt.libvirt.host.Host.write_instance_config',
                      mock.Mock(side_effect=NO_SLOTS))

        self.driver.attach_volume(None, {}, self.instance(), '/dev/vdb')

        self.assertIn('No more available PCI slots', self.stdlog.logger.output)


NODE = 'compute'


class SchedulingTest(nova.test.NoDBTestCase):
    """What a compute host tells the scheduler about 32-bit guests."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)

    def on(self, able: bool | None, *, arch: str = 'aarch64',
           offered: tuple[str, ...] = ('kvm', 'qemu')) -> None:
        """Set the host."""
        self.driver._facts.forget()
        self.stub_out('nova_arm_ext.compute.gather.host',
                      lambda connection: facts.Host(
                          arch=arch, aarch32_el1=able,
                          virt_types={'armv7l': offered}))
        novas = 'nova.virt.libvirt.driver.LibvirtDriver.'
        self.stub_out('nova_arm_ext.compute.host_facts.HostFacts.'
                      'arch', property(lambda made: arch))
        self.stub_out(novas + '_get_instance_capabilities',
                      lambda nova_driver: [
                          ('aarch64', 'kvm', 'hvm'),
                          ('aarch64', 'qemu', 'hvm'),
                          *(('armv7l', kind, 'hvm') for kind in offered)])
        self.asked: list[tuple[object, ...]] = []
        self.stub_out(novas + 'update_provider_tree',
                      lambda nova_driver, *asked, **more:
                      self.asked.append((*asked, more)))

    def offers_kvm(self) -> bool:
        offered = self.driver._get_instance_capabilities()
        # all others stay
        self.assertEqual(
            [('aarch64', 'kvm', 'hvm'), ('aarch64', 'qemu', 'hvm')],
            offered[:2])
        self.assertIn(('armv7l', 'qemu', 'hvm'), offered)
        return ('armv7l', 'kvm', 'hvm') in offered

    def traits(self, *before: str) -> set[str]:
        tree = provider_tree.ProviderTree()
        tree.new_root(NODE, UUID)
        tree.add_traits(NODE, *before)
        self.driver.update_provider_tree(tree, NODE, allocations={})
        self.assertEqual((tree, NODE, {'allocations': {}}), self.asked[-1])
        return tree.data(NODE).traits

    def test_kvm_is_offered_where_the_cores_can(self) -> None:
        self.on(True)

        self.assertTrue(self.offers_kvm())

    def test_kvm_is_not_offered_on_other_cores_or_where_unknown(self) -> None:
        for able in (False, None):
            self.on(able)
            self.assertFalse(self.offers_kvm())

    def test_kvm_is_not_offered_where_it_is_not_chosen(self) -> None:
        self.on(True)
        self.flags(accel='tcg', group='arm_armv7')
        self.assertFalse(self.offers_kvm())

        self.flags(accel='kvm', group='arm_armv7')
        self.assertTrue(self.offers_kvm())
        self.flags(virt_type='qemu', group='libvirt')
        self.on(True)
        self.assertFalse(self.offers_kvm())

    def test_kvm_is_not_offered_without_the_hook(self) -> None:
        self.on(True)
        self.driver._adjustment.pipeline = Pipeline([])

        self.assertFalse(self.offers_kvm())

    def test_a_32_bit_host_offers_what_libvirt_offers(self) -> None:
        self.on(None, arch='armv7l')

        self.assertTrue(self.offers_kvm())

    def test_the_trait_is_there_where_the_cores_can(self) -> None:
        self.on(True)

        for before in ((), ('CUSTOM_MINE',),
                       ('CUSTOM_MINE', host_facts.AARCH32_EL1)):
            self.assertEqual({*before, 'CUSTOM_ARM_AARCH32_EL1'},
                             self.traits(*before))

    def test_the_trait_goes_elsewhere_and_the_others_stay(self) -> None:
        for able, arch in ((False, 'aarch64'), (None, 'aarch64'),
                           (True, 'x86_64')):
            self.on(able, arch=arch)
            for before in ((), ('CUSTOM_MINE',),
                           ('CUSTOM_MINE', host_facts.AARCH32_EL1)):
                self.assertEqual(set(before) - {host_facts.AARCH32_EL1},
                                 self.traits(*before))

    def test_x86_hosts_are_not_asked_about_arm(self) -> None:
        self.on(None, arch='x86_64', offered=('qemu',))
        self.stub_out('nova_arm_ext.compute.gather.host', mock.Mock(
            side_effect=AssertionError('asked')))

        self.assertFalse(self.offers_kvm())
        self.assertEqual(set(), self.traits())


#: What nova-compute does before it connects to the message bus.
START = """
import sys
import nova.cmd.compute
from nova import config
from nova.virt import driver
config.parse_args(sys.argv)
made = driver.load_compute_driver(None)
print(type(made).__module__, type(made).__name__)
"""


class StartTest(base.TestCase):
    """How nova-compute reads its options and makes its driver.

    The command itself waits for a conductor first.
    """

    def start(self, arm: str,
              before: str = '') -> subprocess.CompletedProcess[str]:
        folder = self.useFixture(fixtures.TempDir()).path
        conf = pathlib.Path(folder, 'nova.conf')
        conf.write_text(
            '[DEFAULT]\ncompute_driver = arm_ext.ArmLibvirtDriver\n'
            f'state_path = {folder}\n{arm}')
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', before + START,
             '--config-file',
             str(conf)], capture_output=True, text=True, timeout=120,
            check=False, stdin=subprocess.DEVNULL, cwd=folder)

    def test_the_driver_is_found_by_its_name(self) -> None:
        ended = self.start('')

        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertEqual('nova_arm_ext.compute.driver ArmLibvirtDriver',
                         ended.stdout.splitlines()[-1])

    def test_without_libvirt_s_binding_it_says_what_to_install(self) -> None:
        ended = self.start('', "import sys; sys.modules['libvirt'] = None\n")

        self.assertNotEqual(0, ended.returncode)
        last = ended.stderr.splitlines()[-1]
        self.assertIn('nova-arm-ext cannot start: the Python module libvirt '
                      'is not installed: install', last)

    def test_bad_configuration_stops_the_start_with_all_faults(self) -> None:
        ended = self.start('[arm]\nhooks = uefi,uefi,mine\n'
                           'hook_warn_ms = -1\n'
                           '[arm_pci]\nskip = 177d\nmax_age = old\n')

        self.assertNotEqual(0, ended.returncode)
        last = ended.stderr.splitlines()[-1]
        self.assertIn('nova-arm-ext cannot start: ', last)
        for fault in ('uefi 2 times', "'mine', which is not installed",
                      "hook_warn_ms is '-1'", "skip: '177d' is not a rule",
                      'vendor:product such as', "max_age is 'old'"):
            self.assertIn(fault, last)
