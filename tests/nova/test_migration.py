# SPDX-License-Identifier: Apache-2.0
"""Live migration between Arm hosts, through the API of a whole service.

API, scheduler, conductor, placement and two nova-compute run in this process,
over Nova's fake libvirt, which answers here as libvirt does on AArch64. The
CPUs of the hosts are read from files of real ones.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # noqa: F401  isort: skip

import dataclasses
import json
import pathlib
from typing import Any

import fixtures
from lxml import etree
from nova import context
from nova import exception
from nova import objects
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.api import client
from nova.tests.functional.libvirt import base as nova_base
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host
from nova.virt.libvirt import machine_type_utils
from nova.virt.libvirt import utils

# here, as libvirt may not be imported while Nova's fixtures are in place
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import driver
from tests.data import cpus
from tests.support import paste

ARM = f'arm_ext.{driver.ArmLibvirtDriver.__name__}'
STOCK = 'libvirt.LibvirtDriver'
#: VIR_ERR_OPERATION_UNSUPPORTED, libvirt 9.0.0 and 11.3.0
UNSUPPORTED = 84
READ = cpu.read


def read(connection: Any, **known: Any) -> Any:
    return READ(connection, **known, device='/nowhere',
                root=str(cpus.FOLDER / connection.arm_cpu))


class ArmServiceTest(nova_base.LibvirtMigrationMixin,
                     nova_base.ServersTestBase):

    microversion = 'latest'
    ADMIN_API = True
    #: whether one thread of a service waits for another
    needs_threads = False

    def setUp(self) -> None:
        with paste.InstalledPaste():
            super().setUp()
        if not self.needs_threads and hasattr(
                nova_fixtures, 'SynchronousThreadPoolExecutorFixture'):
            # Up to Nova 31 green threads would share database transactions,
            # because other tests of this process have imported the unpatched
            # threading
            self.useFixture(
                nova_fixtures.SynchronousThreadPoolExecutorFixture())
            self.useFixture(nova_fixtures.SpawnIsSynchronousFixture())
        self.libvirt.mock_uname.return_value = fakelibvirt.os_uname(
            'Linux', '', '5.4.0-0-generic', '', 'aarch64')
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.gather.cpu.read', read))

    def _get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """A libvirt of an AArch64 host with KVM."""
        connection = super()._get_connection(*args, **kwargs)
        connection.arm_cpu = self.cpu_name
        capabilities = connection.getCapabilities
        domain_capabilities = connection.getDomainCapabilities

        def get_capabilities() -> str:
            before, arch, after = capabilities().partition(
                "<arch name='aarch64'>")
            return before + arch + after.replace(
                "<domain type='qemu'/>",
                "<domain type='qemu'/><domain type='kvm'/>", 1)

        def get_domain_capabilities(emulator: Any, arch: str, machine: Any,
                                    virt_type: str, flags: int) -> str:
            answer = domain_capabilities(emulator, arch, machine, virt_type,
                                         flags)
            if arch != 'aarch64' or virt_type != 'kvm':
                return answer
            return answer.replace('<domain>qemu', '<domain>kvm').replace(
                "'host-passthrough' supported='no'",
                "'host-passthrough' supported='yes'")

        def compare(*args: Any) -> None:
            raise fakelibvirt.make_libvirtError(
                libvirt_host.libvirt.libvirtError,
                'Operation not supported: comparing with the hypervisor CPU '
                'is not supported for arch aarch64', error_code=UNSUPPORTED)

        connection.getCapabilities = get_capabilities
        connection.getDomainCapabilities = get_domain_capabilities
        connection.compareHypervisorCPU = compare
        return connection

    def start(self, name: str, cpu_name: str, driver_name: str = ARM) -> Any:
        self.cpu_name = cpu_name
        self.flags(compute_driver=driver_name)
        self.start_compute(name)
        return self.computes[name]

    def start_two(self, source: str, destination: str,
                  driver_name: str = ARM) -> None:
        self.src = self.start('src', source, driver_name)
        self.dest = self.start('dest', destination, driver_name)

    def boot(self, properties: dict[str, str] | None = None,
             **more: Any) -> None:
        if not hasattr(self, 'image'):
            self.image = self._create_image(
                {'hw_architecture': 'aarch64', **(properties or {})})
        self.server = self._create_server(
            networks='none', image_uuid=self.image['id'], **more)

    def migrate(self, expected: str = 'completed') -> None:
        try:
            self._live_migrate(self.server, expected, 'ACTIVE')
        except client.OpenStackApiException:
            # only Nova's test base waits for the conductor
            self.assertEqual('error', expected)
        else:
            self.assertEqual('completed', expected)

    def host(self) -> str:
        host: str = self.api.get_server(
            self.server['id'])['OS-EXT-SRV-ATTR:host']
        return host

    def why(self) -> str:
        """The error that an administrator sees in the server's actions."""
        place = f'/servers/{self.server["id"]}/os-instance-actions'
        [action] = [one for one in self.api.api_get(place).body[
            'instanceActions'] if one['action'] == 'live-migration']
        events = self.api.api_get(f'{place}/{action["request_id"]}').body[
            'instanceAction']['events']
        return ' '.join(event['details'] or '' for event in events)

    def instance(self) -> objects.Instance:
        return objects.Instance.get_by_uuid(
            context.get_admin_context(), self.server['id'])

    def traits(self, name: str) -> set[str]:
        return set(self.placement.get(
            f'/resource_providers/{self.compute_rp_uuids[name]}/traits',
            version='1.6').body['traits'])


class MigrationTest(ArmServiceTest):

    def test_a_guest_moves_between_equal_hosts_and_back(self) -> None:
        # both are Neoverse N1 r3p1
        self.start_two('altra', 'graviton2')
        self.boot(host='src')

        self.migrate()

        self.assertEqual('dest', self.host())
        self.src, self.dest = self.dest, self.src
        self.migrate()
        self.assertEqual('src', self.host())

    def test_with_stock_nova_it_moves_between_no_two_hosts(self) -> None:
        self.start_two('altra', 'altra', STOCK)
        self.boot(host='src')

        self.migrate('error')

        self.assertEqual('src', self.host())
        self.assertIn('Operation not supported',
                      self.stdlog.logger.output)

    def test_an_unlike_host_is_refused_and_the_difference_named(
            self) -> None:
        self.start_two('graviton3', 'altra')
        self.boot(host='src')

        self.migrate('error')

        self.assertEqual('src', self.host())
        for words in ('the core is Arm Neoverse-N1 r3p1 (MIDR 0x413fd0c1)',
                      "the source's Arm Neoverse-V1 r1p1",
                      'it has no asimdfhm, bf16'):
            self.assertIn(words, self.stdlog.logger.output)
        self.assertIn('[arm_cpu] compare = compatible', self.why())

    def test_so_it_is_in_the_other_direction(self) -> None:
        self.start_two('altra', 'graviton3')
        self.boot(host='src')

        self.migrate('error')

        self.assertIn('the core is Arm Neoverse-V1 r1p1', self.why())

    def test_novas_workaround_does_not_switch_the_comparison_off(
            self) -> None:
        # Kolla-Ansible sets it on all hosts
        self.flags(skip_cpu_compare_on_dest=True, group='workarounds')
        self.start_two('thunderx2', 'kunpeng-920')
        self.boot(host='src')

        self.migrate('error')

        self.assertIn('Kunpeng 920', self.why())

    def test_compare_warn_and_off_let_everything_pass(self) -> None:
        self.start_two('thunderx2', 'kunpeng-920')
        self.boot(host='src')
        self.flags(compare='warn', group='arm_cpu')

        self.migrate()

        self.assertEqual('dest', self.host())
        self.assertIn("differs from the source's: the core is HiSilicon",
                      self.stdlog.logger.output)
        said = self.stdlog.logger.output.count("differs from the source's")
        self.flags(compare='off', group='arm_cpu')
        self.src, self.dest = self.dest, self.src
        self.migrate()
        self.assertEqual('src', self.host())
        self.assertEqual(said, self.stdlog.logger.output.count(
            "differs from the source's"))

    def test_a_source_that_tells_nothing_is_unknown(self) -> None:
        self.src = self.start('src', 'altra', STOCK)
        self.dest = self.start('dest', 'altra')
        self.boot(host='src')
        self.flags(compare='strict', group='arm_cpu')

        self.migrate('error')

        self.assertIn('the core of the source is unknown', self.why())
        self.flags(compare='compatible', group='arm_cpu')
        self.migrate()
        self.assertEqual('dest', self.host())

    def test_the_api_shows_administrators_what_a_host_told(self) -> None:
        self.start('src', 'altra')

        node = objects.ComputeNode.get_first_node_by_host_for_old_compat(
            context.get_admin_context(), 'src')

        told = json.loads(node.cpu_info)
        self.assertEqual('aarch64', told['arch'])
        self.assertEqual([{'midr': '0x413fd0c1', 'revidr': '0x0'}],
                         told['arm']['cores'])
        # the API of 2.87 shows it as it is
        self.api.microversion = '2.87'
        [shown] = self.api.api_get('/os-hypervisors/detail').body[
            'hypervisors']
        self.assertEqual(told['arm'], shown['cpu_info']['arm'])


class MachineTest(ArmServiceTest):
    """The machine of a guest; QEMU in Nova's fixture has up to virt-5.1."""

    needs_threads = True       # a cold migration does

    def setUp(self) -> None:
        super().setUp()
        self.defined: list[str] = []
        # as libvirt expands it; Nova's fixture does not
        self.libvirt_gave = 'pc-0.12'
        described = fakelibvirt.Domain.XMLDesc
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.libvirt.Domain.XMLDesc',
            lambda domain, flags: described(domain, flags).replace(
                'pc-0.12', self.libvirt_gave)))
        original = libvirt_guest.Guest.create.__func__
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.guest.Guest.create',
            classmethod(lambda cls, xml, host:
                        self.defined.append(xml) or original(cls, xml, host))))

    def machine(self) -> str:
        """The machine in the last domain XML."""
        found: str = etree.fromstring(self.defined[-1]).find(
            'os/type').get('machine')
        return found

    def recorded(self) -> str:
        found: str = self.instance().system_metadata['image_hw_machine_type']
        return found

    def upgrade(self, compute: Any, newest: str = 'virt-9.9') -> None:
        """Use another QEMU, in which the alias means another machine."""
        connection = compute.driver._host.get_connection()
        capabilities = connection.getCapabilities
        connection.getCapabilities = lambda: capabilities().replace(
            "canonical='virt-5.1'", f"canonical='{newest}'").replace(
            '>virt-5.1<', f'>virt-5.1</machine><machine>{newest}<')
        compute.driver._host._caps = None

    def reboot(self) -> None:
        self._reboot_server(self.server, hard=True)

    def test_a_new_guest_has_the_versioned_machine_for_life(self) -> None:
        compute = self.start('src', 'altra')
        self.boot()
        self.assertEqual(('virt-5.1', 'virt-5.1'),
                         (self.machine(), self.recorded()))
        self.libvirt_gave = 'virt-5.1'
        self.upgrade(compute)

        self.reboot()

        self.assertEqual(('virt-5.1', 'virt-5.1'),
                         (self.machine(), self.recorded()))
        self.boot()
        self.assertEqual('virt-9.9', self.machine())

    def test_an_image_that_names_the_alias_is_no_other(self) -> None:
        self.start('src', 'altra')
        self.boot(properties={'hw_machine_type': 'virt'})

        self.assertEqual(('virt-5.1', 'virt-5.1'),
                         (self.machine(), self.recorded()))

    def test_an_image_that_names_a_machine_has_it(self) -> None:
        self.start('src', 'altra')
        self.boot(properties={'hw_machine_type': 'virt-4.2'})

        self.assertEqual(('virt-4.2', 'virt-4.2'),
                         (self.machine(), self.recorded()))

    def test_with_stock_nova_an_upgrade_changes_the_machine(self) -> None:
        compute = self.start('src', 'altra', STOCK)
        self.boot()
        self.libvirt_gave = 'virt-5.1'
        self.upgrade(compute)

        self.reboot()

        # the alias, and with it virt-9.9
        self.assertEqual(('virt', 'virt'), (self.machine(), self.recorded()))

    def existing(self) -> Any:
        """A guest from Nova's own driver when QEMU had virt-4.2."""
        compute = self.start('src', 'altra')
        with fixtures.MonkeyPatch(
                'nova_arm_ext.compute.machine.Machines.'
                'asked_for', lambda made, instance, image: image):
            self.boot()
        self.assertEqual('virt', self.recorded())
        self.libvirt_gave = 'virt-4.2'
        return compute

    def test_a_guest_that_exists_keeps_what_it_has(self) -> None:
        self.existing()

        self.reboot()

        self.assertEqual(('virt-4.2', 'virt-4.2'),
                         (self.machine(), self.recorded()))

    def test_it_keeps_it_on_another_host(self) -> None:
        def migrate(nova_driver: Any, ctxt: Any, instance: Any,
                    *args: Any, **kwargs: Any) -> str:
            # as on shared storage: the directory has both names
            folder = pathlib.Path(utils.get_instance_path(instance))
            folder.mkdir(exist_ok=True)
            folder.with_name(f'{folder.name}_resize').mkdir()
            return '{}'

        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.driver.LibvirtDriver.'
            'migrate_disk_and_power_off', migrate))
        self.existing()
        self.start('dest', 'altra')

        self._migrate_server(self.server)

        self.assertEqual('dest', self.host())
        self.assertEqual(('virt-4.2', 'virt-4.2'),
                         (self.machine(), self.recorded()))

    def test_what_qemu_no_longer_has_cannot_be_kept(self) -> None:
        self.existing()
        self.libvirt_gave = 'virt-1.0'

        self.reboot()

        self.assertEqual(('virt', 'virt'), (self.machine(), self.recorded()))
        self.assertIn('does not have the machine virt-1.0',
                      self.stdlog.logger.output)

    def test_a_spawn_that_fails_records_nothing(self) -> None:
        compute = self.start('src', 'altra')
        self.boot()
        instance = self.instance()
        instance.system_metadata['image_hw_machine_type'] = 'virt'

        def spawn(nova_driver: Any, ctxt: Any, spawned: Any,
                  image_meta: Any) -> None:
            spawned.system_metadata['image_hw_machine_type'] = 'virt-5.1'
            raise exception.InternalError('no')

        for before in ('virt', None):
            if before is None:
                del instance.system_metadata['image_hw_machine_type']
            with fixtures.MonkeyPatch('nova.virt.libvirt.driver.'
                                      'LibvirtDriver.spawn', spawn):
                self.assertRaises(
                    exception.InternalError, compute.driver.spawn,
                    context.get_admin_context(), instance,
                    instance.image_meta)
            self.assertEqual(before, instance.system_metadata.get(
                'image_hw_machine_type'))

    def test_nova_manage_goes_on_working(self) -> None:
        compute = self.start('src', 'altra')
        self.boot()
        self.upgrade(compute, 'virt-6.2')
        ctxt, uuid = context.get_admin_context(), self.server['id']
        self.assertEqual('virt-5.1',
                         machine_type_utils.get_machine_type(ctxt, uuid))
        self._stop_server(self.server)

        machine_type_utils.update_machine_type(ctxt, uuid, 'virt-6.2')

        self._start_server(self.server)
        self.assertEqual(('virt-6.2', 'virt-6.2'),
                         (self.machine(), self.recorded()))
        self.assertEqual([], machine_type_utils.get_instances_without_type(
            ctxt))

    def test_a_host_without_the_machine_is_refused_for_a_migration(
            self) -> None:
        self.src = self.start('src', 'altra')
        self.upgrade(self.src)
        self.boot(host='src')
        self.assertEqual('virt-9.9', self.recorded())
        self.dest = self.start('dest', 'altra')

        self.migrate('error')

        self.assertIn('the machine virt-9.9, which QEMU on this host does '
                      'not have', self.why())


class FirmwareTest(ArmServiceTest):

    def test_a_host_without_firmware_is_refused_for_a_migration(
            self) -> None:
        self.start_two('altra', 'altra')
        self.boot(host='src')
        found = self.dest.driver._facts.now()
        self.dest.driver._facts.now = lambda: dataclasses.replace(
            found, firmware=())

        self.migrate('error')

        self.assertIn('this host has no UEFI firmware for aarch64 guests',
                      self.why())


class TraitsTest(ArmServiceTest):

    def test_placement_knows_core_and_features(self) -> None:
        self.start('src', 'ampereone')

        traits = self.traits('src')

        self.assertLessEqual(
            {'HW_ARCH_AARCH64', 'HW_CPU_AARCH64_SHA512', 'CUSTOM_ARM_PAUTH',
             'CUSTOM_ARM_MIDR_C0_AC4', 'CUSTOM_ARM_MIDR_C0_AC4_R0P0',
             'CUSTOM_ARM_GIC_V3'}, traits)
        self.assertNotIn('HW_CPU_AARCH64_SVE', traits)

    def test_what_a_host_loses_goes_and_what_others_set_stays(self) -> None:
        compute = self.start('src', 'graviton3')
        before = self.traits('src')
        self.assertIn('HW_CPU_AARCH64_SVE', before)
        self.placement.put('/traits/CUSTOM_MINE', {}, version='1.6')
        provider = self.placement.get(
            f'/resource_providers/{self.compute_rp_uuids["src"]}').body
        self.placement.put(
            f'/resource_providers/{self.compute_rp_uuids["src"]}/traits',
            {'resource_provider_generation': provider['generation'],
             'traits': sorted(before | {'CUSTOM_MINE'})}, version='1.6')
        # another CPU in the same board, and another libvirtd
        compute.driver._host.get_connection().arm_cpu = 'altra'
        compute.driver._facts.forget()
        # Nova reads Placement again after five minutes
        compute.manager.reportclient.clear_provider_cache()

        self._run_periodics()

        after = self.traits('src')
        self.assertIn('CUSTOM_MINE', after)
        self.assertIn('CUSTOM_ARM_MIDR_41_D0C', after)
        for gone in ('HW_CPU_AARCH64_SVE', 'CUSTOM_ARM_MIDR_41_D40',
                     'CUSTOM_ARM_PAUTH'):
            self.assertNotIn(gone, after)

    def test_a_flavor_finds_the_host(self) -> None:
        self.start('src', 'altra')
        self.start('dest', 'graviton3')
        flavor = self._create_flavor(extra_spec={
            'trait:CUSTOM_ARM_MIDR_41_D40': 'required',
            'trait:HW_CPU_AARCH64_SVE': 'required'})

        self.boot(flavor_id=flavor)

        self.assertEqual('dest', self.host())

    def test_emulating_hosts_and_x86_ones_have_none(self) -> None:
        self.flags(virt_type='qemu', group='libvirt')
        self.start('src', 'graviton3')
        self.libvirt.mock_uname.return_value = fakelibvirt.os_uname(
            'Linux', '', '5.4.0-0-generic', '', 'x86_64')
        self.flags(virt_type='kvm', group='libvirt')
        self.start('dest', 'graviton3')

        for name in ('src', 'dest'):
            self.assertEqual([], [
                trait for trait in self.traits(name)
                if trait.startswith(('HW_CPU_AARCH64', 'CUSTOM_ARM'))])


class StartTest(ArmServiceTest):
    """The [libvirt] cpu_mode with which a host starts."""

    def modes(self, mode: str, *models: str) -> None:
        self.flags(cpu_mode=mode, cpu_models=list(models), group='libvirt')

    def test_what_libvirt_supports_starts(self) -> None:
        for name, mode, *models in (
                ('one', 'host-passthrough'), ('two', 'none'),
                ('three', 'custom', 'cortex-a57', 'cortex-a72')):
            self.modes(mode, *models)
            self.start(name, 'altra')

        self.assertEqual({'one', 'two', 'three'}, set(self.computes))

    def test_with_stock_nova_no_custom_model_starts(self) -> None:
        self.modes('custom', 'cortex-a57')

        error = self.assertRaises(exception.InvalidCPUInfo, self.start,
                                  'one', 'altra', STOCK)

        self.assertIn('Operation not supported', str(error))

    def test_what_it_does_not_is_refused_with_a_sentence(self) -> None:
        for mode, models, words in (
                ('host-model', (), '[libvirt] cpu_mode is host-model, and '
                 'libvirt supports custom, host-passthrough for AArch64 '
                 'guests with KVM'),
                ('custom', ('neoverse-n9',), 'libvirt does not offer the CPU '
                 'model neoverse-n9')):
            self.modes(mode, *models)

            error = self.assertRaises(exception.InvalidCPUInfo, self.start,
                                      'one', 'altra')

            self.assertIn(words, str(error))
