# SPDX-License-Identifier: Apache-2.0
"""What each method of the driver does around Nova's own, and in which order.

Nova's methods and the driver's collaborators are replaced by mocks.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import inspect
import types
from unittest import mock

import nova.conf
from nova import exception
from nova.tests import fixtures as nova_fixtures
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver

from nova_arm_ext import facts
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import operation
from nova_arm_ext.compute import schema
from nova_arm_ext.compute import seams
from nova_arm_ext.compute import stand_ins
from nova_arm_ext.nvram import Event

CONF = nova.conf.CONF
INSTANCE = types.SimpleNamespace(uuid='one')
#: Attributes of the driver that are replaced.
COLLABORATORS = ('adjustment', 'copying', 'definitions', 'destination',
                 'facts', 'hotplug', 'life', 'machines', 'migration', 'pci',
                 'removal')

#: Nova's method runs while these have the instance.
AROUND = {
    '_cleanup': ('removal.cleaning_up',),
    '_hard_reboot': ('definitions.keeping',),
    'attach_interface': ('hotplug.plugging',),
    'attach_volume': ('hotplug.plugging',),
    'detach_interface': ('hotplug.changing',),
    'detach_volume': ('hotplug.changing',),
    'finish_migration': ('migration.arriving',),
    'finish_revert_migration': ('definitions.keeping',),
    'migrate_disk_and_power_off': ('migration.sending',),
    'rescue': ('definitions.rescuing',),
    'spawn': ('life.spawning', 'machines.forgetting'),
}
#: Called with the instance before Nova's.
BEFORE = {
    '_create_guest': ('life.before_start',),
    'check_can_live_migrate_destination': ('destination.refusal',),
    'destroy': ('removal.before_destroy',),
    'detach_interface': ('hotplug.check_interface',),
    'detach_volume': ('hotplug.check_disk',),
    'migrate_disk_and_power_off': ('machines.record',),
    'rebuild': ('life.rebuilding',),
}
#: Called with the instance after Nova's.
AFTER = {
    '_create_guest': ('definitions.forget_saved',),
    '_create_snapshot_metadata': ('life.into_snapshot',),
    'post_live_migration_at_destination': ('migration.after_live_arrival',),
    'post_live_migration_at_source': ('migration.after_live_migration',),
    'power_off': ('life.after_power_off',),
    'rollback_live_migration_at_destination': (
        'migration.after_live_migration',),
}
#: What Nova's own methods return is of no use to anybody.
RETURN_NOTHING = {
    '_check_cpu_compatibility', '_cleanup', '_handle_conn_event',
    '_update_host_specific_capabilities', 'attach_interface',
    'attach_volume', 'cleanup_host', 'destroy', 'detach_interface',
    'detach_volume', 'init_host', 'post_live_migration_at_destination',
    'post_live_migration_at_source', 'reboot',
    'rollback_live_migration_at_destination', 'snapshot',
    'update_provider_tree'}
#: They have tests of their own below or elsewhere.
OTHERS = {'_get_guest_xml', '_get_pci_passthrough_devices',
          '_get_instance_capabilities'}


class HandingOnTest(nova.test.NoDBTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        self.definitions = self.driver._definitions
        self.all = mock.MagicMock()
        for name in COLLABORATORS:
            self.assertIn(f'_{name}', vars(self.driver))
            setattr(self.driver, f'_{name}', getattr(self.all, name))
        self.all.facts.arch = 'x86_64'
        self.all.facts.runs_kvm_on_arm = False
        self.all.destination.refusal.return_value = None
        self.all.definitions.own.return_value = None
        self.all.removal.keeps_folder.return_value = False
        self.arch = 'x86_64'
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.'
                      '_check_emulation_arch', lambda *args: self.arch)

    def call(self, name: str, **arguments: object) -> object:
        """Call a method with an argument for each that Nova's own has."""
        novas = getattr(libvirt_driver.LibvirtDriver, name)
        self.arguments = {
            one.name: getattr(mock.sentinel, one.name)
            for one in list(inspect.signature(novas).parameters.values())[1:]
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
        if 'instance' in self.arguments:
            self.arguments['instance'] = INSTANCE
        self.arguments.update(arguments)
        self.signature = inspect.signature(novas)
        self.all.nova.reset_mock()
        with mock.patch.object(libvirt_driver.LibvirtDriver, name,
                               lambda *got, **named: self.all.nova(
                                   *got, **named)):
            return getattr(self.driver, name)(**self.arguments)

    def nova_got(self) -> dict[str, object]:
        """The arguments that reached Nova's own method, but for self."""
        self.all.nova.assert_called_once()
        got = self.signature.bind(*self.all.nova.call_args.args,
                                  **self.all.nova.call_args.kwargs).arguments
        got.pop('self')
        return got

    def order(self, name: str) -> list[str]:
        """The calls of collaborators of a method, and Nova's, as made."""
        wanted = (*AROUND.get(name, ()), *BEFORE.get(name, ()),
                  *AFTER.get(name, ()))
        said = []
        for called, args, kwargs in self.all.mock_calls:
            of, _, left = called.partition('()')
            if of == 'nova' and not left:
                said.append('nova')
            elif of in wanted and left in ('', '.__enter__', '.__exit__'):
                if not left:
                    self.assertIn(INSTANCE,
                                  (*args, *kwargs.values()), called)
                said.append(of + left)
        return said

    def test_the_tables_know_each_method(self) -> None:
        names = {name for name, _ in seams.overridden(
            driver.ArmLibvirtDriver)}

        self.assertEqual(set(), {*AROUND, *BEFORE, *AFTER, *RETURN_NOTHING,
                                 *OTHERS} - names)

    def test_novas_own_is_called_with_all_arguments(self) -> None:
        for name, _ in seams.overridden(driver.ArmLibvirtDriver):
            if name in OTHERS:
                continue
            result = self.call(name)

            self.assertEqual(self.arguments, self.nova_got(), name)
            self.assertIs(None if name in RETURN_NOTHING
                          else self.all.nova.return_value, result, name)

    def test_what_is_done_around_before_and_after(self) -> None:
        for name in {**AROUND, **BEFORE, **AFTER}:
            self.all.reset_mock()
            self.call(name)

            around = AROUND.get(name, ())
            entered = [one for of in around
                       for one in (of, f'{of}.__enter__')]
            left = [f'{of}.__exit__' for of in reversed(around)]
            self.assertEqual(
                [*entered, *BEFORE.get(name, ()), 'nova',
                 *AFTER.get(name, ()), *left], self.order(name), name)

    # -- What it is made of --------------------------------------------------

    def test_the_architecture_is_that_which_nova_finds(self) -> None:
        for self.arch, is_arm in (('aarch64', True), ('x86_64', False)):
            self.assertIs(is_arm, self.definitions.is_arm_image(None))

    def test_the_hooks_can_check_libvirts_schema(self) -> None:
        made = []
        load = driver.Pipeline.load
        self.stub_out(
            'nova_arm_ext.compute.driver.Pipeline.load',
            lambda cls, conf, **more:
            made.append(more) or load(conf, **more))

        driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)

        self.assertIs(schema.load, made[0]['schema'])

    # -- The host ------------------------------------------------------------

    def test_facts_are_forgotten_with_the_connection(self) -> None:
        for enabled in (True, False):
            self.call('_handle_conn_event', enabled=enabled)

            self.assertIs(not enabled, self.all.facts.forget.called)

    def test_secure_boot_of_arm_is_that_of_the_firmware(self) -> None:
        self.all.facts.arch = 'aarch64'
        self.all.facts.has_secure_boot.return_value = mock.sentinel.answer
        self.call('_update_host_specific_capabilities')
        self.assertIs(mock.sentinel.answer,
                      self.driver.capabilities['supports_secure_boot'])
        self.all.nova.assert_called_once()

        self.assertIs(mock.sentinel.answer, self.call(
            '_check_secure_boot_support', arch='aarch64'))
        self.all.nova.assert_not_called()
        self.all.facts.has_secure_boot.assert_called_with('aarch64')

    def test_secure_boot_of_others_is_novas_business(self) -> None:
        self.driver.capabilities['supports_secure_boot'] = 'as it was'

        self.call('_update_host_specific_capabilities')

        self.assertEqual('as it was',
                         self.driver.capabilities['supports_secure_boot'])

    def test_what_runs_here_is_logged_first(self) -> None:
        self.call('init_host')

        self.assertEqual(
            ['adjustment.announce', 'nova'],
            [name for name, _, _ in self.all.mock_calls
             if name in ('adjustment.announce', 'nova')])

    def test_guests_are_copied_while_the_service_runs(self) -> None:
        self.call('init_host')
        self.call('cleanup_host')

        self.assertEqual(
            ['nova', 'copying.start', 'copying.stop', 'nova'],
            [name for name, _, _ in self.all.mock_calls
             if name == 'nova' or name.startswith('copying')])

    def test_once_a_minute_the_traits_are_published(self) -> None:
        self.call('update_provider_tree')

        self.all.facts.publish_traits.assert_called_once_with(
            mock.sentinel.provider_tree, mock.sentinel.nodename)

    def test_a_host_tells_of_its_cpu(self) -> None:
        known = cpu.cpu.Cpu(aarch32_el1=True)
        for arch, host, told in (
                ('x86_64', facts.Host(cpu=known), {}),
                ('aarch64', facts.Host(cpu=known),
                 {cpu.KEY: known.to_data()}),
                ('aarch64', facts.Host(),
                 {cpu.KEY: cpu.cpu.Cpu().to_data()})):
            self.all.facts.arch = arch
            self.all.facts.now.return_value = host
            with mock.patch.object(libvirt_driver.LibvirtDriver,
                                   '_get_cpu_info', return_value={}):
                self.assertEqual(told, self.driver._get_cpu_info())

    def test_the_cpu_mode_is_checked_at_the_start(self) -> None:
        for runs_kvm, skip, checked in ((True, False, True),
                                        (True, True, False),
                                        (False, False, False)):
            self.all.facts.runs_kvm_on_arm = runs_kvm
            self.flags(skip_cpu_compare_at_startup=skip,
                       group='workarounds')
            with mock.patch.object(driver.cpu, 'check_mode') as check:
                self.call('_check_cpu_compatibility')

            self.all.nova.assert_called_once()
            self.assertEqual(
                [mock.call(self.driver._host, CONF.libvirt.cpu_mode)]
                if checked else [], check.mock_calls)

    def test_libvirt_compares_no_cpus_of_arm(self) -> None:
        self.all.facts.runs_kvm_on_arm = True
        for instance, checks in ((None, 1), (INSTANCE, 0)):
            with mock.patch.object(driver.cpu, 'check_model') as check:
                self.assertIsNone(self.call(
                    '_compare_cpu', instance=instance,
                    guest_cpu=mock.Mock(model='cortex-a72')))

            self.all.nova.assert_not_called()
            self.assertEqual(checks * [
                mock.call(self.driver._host, 'cortex-a72')],
                check.mock_calls)

    def test_pci_devices_are_those_of_the_inventory(self) -> None:
        self.assertIs(self.all.pci.json.return_value,
                      self.driver._get_pci_passthrough_devices())

    # -- The domain XML ------------------------------------------------------

    def test_the_xml_is_made_for_the_machine_and_then_adjusted(self) -> None:
        result = self.call('_get_guest_xml')

        machines = self.all.machines.asked_for
        machines.assert_called_once_with(INSTANCE,
                                         mock.sentinel.image_meta)
        self.assertEqual(
            {**self.arguments, 'image_meta': machines.return_value},
            self.nova_got())
        self.all.adjustment.adjusted.assert_called_once_with(
            self.all.nova.return_value, INSTANCE,
            machines.return_value)
        self.assertIs(self.all.adjustment.adjusted.return_value, result)

    def uefi(self, arch: str, host: str, *firmware: str) -> object:
        """The Host object that Nova asks about UEFI."""
        self.arch, self.all.facts.arch = arch, host
        self.all.facts.now.return_value = facts.Host(firmware=tuple(
            facts.Firmware(arch=one, machines=(), loader=one, template='')
            for one in firmware) or None)
        self.call('_configure_guest_by_virt_type')
        self.assertEqual(self.arguments, self.nova_got())
        return self.all.nova.call_args.args[0]._host

    def test_an_arm_guest_of_another_host_has_its_own_firmware(self) -> None:
        host = self.uefi('armv7l', 'aarch64', 'aarch64', 'armv7l', 'x86_64')

        self.assertIsInstance(host, stand_ins.HostWithUefi)
        self.assertEqual(['armv7l'], [one.arch for one in host._firmware])

    def test_others_have_that_of_the_host(self) -> None:
        for arch, host, *firmware in (
                ('aarch64', 'aarch64', 'aarch64'),
                ('x86_64', 'aarch64', 'x86_64'),
                ('armv7l', 'aarch64', 'aarch64'), ('armv7l', 'aarch64')):
            self.assertIs(self.driver._host, self.uefi(arch, host, *firmware))

    # -- A guest starts and runs ---------------------------------------------

    def test_a_rebuild_tells_whether_it_evacuates(self) -> None:
        for evacuate in (True, False):
            self.all.reset_mock()
            self.call('rebuild', evacuate=evacuate)

            self.all.life.rebuilding.assert_called_with(
                mock.sentinel.context, INSTANCE, mock.sentinel.image_meta,
                evacuate=evacuate)
            self.assertIs(not evacuate,
                          self.all.adjustment.check_image.called)

    def test_only_a_soft_reboot_looks_for_the_store(self) -> None:
        for kind in ('SOFT', 'HARD'):
            self.all.reset_mock()
            self.call('reboot', reboot_type=kind)

            self.assertEqual(
                [mock.call(mock.sentinel.context, INSTANCE)]
                if kind == 'SOFT' else [],
                self.all.life.before_soft_reboot.mock_calls)
            self.assertEqual(self.arguments, self.nova_got())

    def test_a_hard_reboot_and_a_revert_say_which_they_are(self) -> None:
        for name, event in (('_hard_reboot', Event.HARD_REBOOT),
                            ('finish_revert_migration', Event.REVERT)):
            self.call(name)

            self.all.definitions.keeping.assert_called_with(
                INSTANCE, event)

    def test_a_snapshot_and_a_swap_keep_the_store(self) -> None:
        self.stub_out('nova_arm_ext.compute.stand_ins.keeping_store',
                      lambda one: ('kept', one))
        for name in ('_live_snapshot', '_swap_volume'):
            self.stub_out(f'nova.virt.libvirt.driver.LibvirtDriver.{name}',
                          lambda *args, **kwargs: (args, kwargs))

            self.assertEqual(
                ((self.driver, ('kept', 1), ('kept', 2)), {'three': 3}),
                getattr(self.driver, name)(1, 2, three=3))

    # -- A guest moves and goes ----------------------------------------------

    def test_a_migration_can_be_undone_by_nova(self) -> None:
        self.call('migrate_disk_and_power_off')

        self.all.adjustment.check_flavor.assert_called_once_with(
            INSTANCE, mock.sentinel.flavor)
        self.all.migration.sending.assert_called_once_with(
            INSTANCE, mock.sentinel.dest,
            self.driver._cleanup_remote_migration)

    def test_a_live_migration_is_refused_with_the_reason(self) -> None:
        self.all.destination.refusal.return_value = 'not here'

        error = self.assertRaises(
            exception.MigrationPreCheckError, self.call,
            'check_can_live_migrate_destination')

        self.assertIn('not here', str(error))
        self.all.nova.assert_not_called()
        self.all.destination.refusal.assert_called_once_with(
            INSTANCE, mock.sentinel.src_compute_info)

    def test_a_snapshot_knows_its_image(self) -> None:
        self.call('snapshot')

        self.assertEqual(
            ['life.snapshotting', 'life.snapshotting().__enter__', 'nova',
             'life.snapshotting().__exit__'],
            [name for name, _, _ in self.all.mock_calls])
        self.all.life.snapshotting.assert_called_once_with(
            mock.sentinel.image_id)

    def test_a_rollback_that_fails_leaves_nothing_behind(self) -> None:
        name = 'rollback_live_migration_at_destination'
        with mock.patch.object(libvirt_driver.LibvirtDriver, name,
                               side_effect=ValueError):
            self.assertRaises(ValueError, getattr(self.driver, name), None,
                              INSTANCE, None, None)

        self.all.migration.after_live_migration.assert_called_once_with(
            INSTANCE)

    def test_nothing_is_saved_of_a_guest_that_keeps_its_disks(self) -> None:
        self.call('destroy', destroy_disks=False)

        self.all.removal.before_destroy.assert_not_called()
        self.assertEqual(self.arguments, self.nova_got())

    def test_nova_may_leave_out_what_has_a_default(self) -> None:
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.destroy',
                      self.all.nova)
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.rebuild',
                      self.all.nova)

        self.driver.destroy(None, INSTANCE, None)
        self.driver.rebuild(None, INSTANCE, None)

        self.all.removal.before_destroy.assert_called_once_with(INSTANCE)
        self.all.life.rebuilding.assert_called_once_with(
            None, INSTANCE, None, evacuate=False)
        self.assertEqual([mock.call(None, INSTANCE, None, None, True),
                          mock.call(None, INSTANCE, None, evacuate=False)],
                         self.all.nova.mock_calls)

    def test_a_guest_that_stays_keeps_its_folder(self) -> None:
        self.all.removal.keeps_folder.return_value = True

        self.call('_cleanup', cleanup_instance_dir=True)

        self.assertEqual({**self.arguments, 'cleanup_instance_dir': False},
                         self.nova_got())

    def test_a_cleanup_says_whether_the_disks_go(self) -> None:
        for removed in (True, False):
            self.call('_cleanup', cleanup_instance_disks=removed)

            self.all.removal.cleaning_up.assert_called_with(
                INSTANCE, removed=removed)

    def test_who_undefines_a_guest_asks_whether_its_store_stays(
            self) -> None:
        self.call('_undefine_domain')

        host = self.all.nova.call_args.args[0]._host
        self.assertIsInstance(host, stand_ins.HostOfStores)
        self.assertIs(self.all.removal.undefining.return_value,
                      host._keeps(mock.sentinel.guest))
        self.all.removal.undefining.assert_called_once_with(
            INSTANCE, mock.sentinel.guest)

    def test_an_unrescue_does_not_know_the_guest(self) -> None:
        seen = []
        self.stub_out('nova.virt.libvirt.driver.LibvirtDriver.unrescue',
                      lambda *args: seen.append(operation.on(INSTANCE)))

        self.driver.unrescue(None, INSTANCE)

        self.assertEqual([(Event.UNRESCUE, None)],
                         [(one.event, one.previous) for one in seen])
