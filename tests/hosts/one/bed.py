# SPDX-License-Identifier: Apache-2.0
"""Nova's API, scheduler, conductor and compute in one process.

Nova's own functional test base starts them. The libvirt driver, libvirtd, QEMU
and the guest are real. Only for use in the sandbox: nothing is stopped here,
because the sandbox ends everything at once.
"""

import collections.abc
import contextlib
import logging
import pathlib
import platform
import sys
import time
import traceback
import typing
import uuid

# isort: off
# Nova's test packages choose the kind of threads, before anything else of Nova
# or its libraries is imported.
from nova.tests import functional  # noqa: F401
from nova import test  # noqa: F401
# isort: on

import fixtures
import libvirt
import os_vif
from nova import context as nova_context
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import integrated_helpers
from nova.virt import libvirt as libvirt_drivers
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import host as libvirt_host
from nova.virt.libvirt import vif as libvirt_vif
from nova.virt.libvirt.volume import volume as libvirt_volume
from oslo_config import cfg

from nova_arm_ext.pipeline import plugins
from tests import guest
from tests.hosts.one import host
from tests.hosts.one import stock
from tests.support import paste
from tests.support import sandbox

CONF = cfg.CONF

ARM_DRIVER = 'arm_ext.ArmLibvirtDriver'
#: Nova's driver as it is; libvirt 8.6 to 9.1 refuse its AArch64 guests.
NOVA_DRIVER = 'libvirt.LibvirtDriver'
#: Nova's driver with what libvirt 9.0 accepts.
STOCK_DRIVER = 'libvirt.StockDriver'

#: Emulation takes 10 to 20 s from power on to the first report.
BOOT_TIMEOUT = 120.0
#: An attached device is reported one or two seconds later.
PLUG_TIMEOUT = 30.0
ACTION_TIMEOUT = 120.0


#: The class that gets libvirt's events; before Nova 34 it is Host itself.
_EVENT_HANDLER = getattr(libvirt_host, '_ThreadingLibvirtEventHandler',
                         libvirt_host.Host)


class GuestTimeout(Exception):
    """A guest did not print the expected text in time; the error ends with
    what it printed.
    """


class ActionFailed(Exception):
    """Nova did not do what was requested; the error has its reason."""


class _FileVolumes(libvirt_volume.LibvirtBaseVolumeDriver):
    """Volumes that are files, with invented connections."""

    def __init__(self, own_host: typing.Any) -> None:
        super().__init__(own_host, is_block_dev=False)

    def get_config(self, connection_info: typing.Any,
                   disk_info: typing.Any) -> typing.Any:
        config = super().get_config(connection_info, disk_info)
        config.source_type = 'file'
        config.source_path = connection_info['data']['device_path']
        # The folder may be on tmpfs, which has no direct I/O.
        config.driver_cache = 'writeback'
        return config


class _Services(integrated_helpers._IntegratedTestBase):
    """Nova's services. Not a test: Bed sets it up and never tears it down."""

    ADMIN_API = True
    CAST_AS_CALL = False
    microversion = 'latest'

    def __init__(self, bed: 'Bed') -> None:
        super().__init__('runTest')
        self.bed = bed

    def runTest(self) -> None:
        raise NotImplementedError

    def setUp(self) -> None:
        # Undo what Nova's tests forbid: here libvirt, its events and the
        # host's files are real.
        for name in ('GenericPoisonFixture', 'ImportModulePoisonFixture',
                     'PoisonFunctions', 'SysFsPoisonFixture'):
            self.stub(nova_fixtures, name, _Harmless)
        super().setUp()

    def stub(self, owner: object, name: str, value: object) -> None:
        fixtures.MockPatchObject(owner, name, value).setUp()

    def _setup_services(self) -> None:
        bed = self.bed
        self.useFixture(nova_fixtures.PrivsepFixture())
        os_vif.initialize()
        self.flags(api_paste_config=paste.locate(), group='wsgi')
        self.flags(force_raw_images=False,
                   instances_path=str(bed.instances),
                   state_path=str(bed.folder / 'nova'),
                   my_ip='127.0.0.1',
                   # There is no Neutron to report that a port is ready.
                   vif_plugging_timeout=0, vif_plugging_is_fatal=False,
                   # Only for a guest that hangs; others react to the power
                   # button at once.
                   shutdown_timeout=20)
        if 'manager_shutdown_timeout' in CONF:
            # From Nova 34 on a stopped compute service cleans up in a thread,
            # which would still run when the next service starts.
            self.flags(manager_shutdown_timeout=20)
        self.flags(virt_type='qemu', images_type='qcow2',
                   num_pcie_ports=bed.num_pcie_ports, group='libvirt')
        if platform.machine() != 'aarch64':
            # Nova writes root ports only for the host's own architecture; on
            # an Arm host it would write them for this guest.
            self.stub(libvirt_driver.LibvirtDriver, '_guest_needs_pcie',
                      lambda driver, domain: bool(bed.num_pcie_ports))
        self.use_driver(bed.driver)
        # Nova's driver does not know them, and the extension's registers
        # them only when it is made.
        CONF.register_opts(plugins.OPTS, group=plugins.GROUP)

        self.stub(nova_fixtures.CinderFixture, '_find_connection_info',
                  bed.volume_connection)
        libvirt_driver.VOLUME_DRIVERS['bed'] = (
            f'{__name__}.{_FileVolumes.__name__}')
        # libvirt creates the tap devices; they are not connected.
        vifs = libvirt_vif.LibvirtGenericVIFDriver
        self.stub(vifs, 'get_config', _tap)
        for name in ('plug', 'unplug'):
            self.stub(vifs, name, lambda *args, **kwargs: None)
        # The machine's own iSCSI and NVMe initiators are not used.
        self.stub(libvirt_driver.connector, 'get_connector_properties',
                  lambda *args, **kwargs: {'host': 'compute',
                                           'ip': '127.0.0.1'})
        # One event loop serves the process, also after a restart of the
        # compute service.
        loop = _EVENT_HANDLER._native_thread
        running: list[bool] = []

        def run_once(handler: typing.Any) -> None:
            if not running:
                running.append(True)
                loop(handler)

        self.stub(_EVENT_HANDLER, '_native_thread', run_once)
        super()._setup_services()

    def use_driver(self, driver: str) -> None:
        self.flags(compute_driver=driver)

    def restart_compute(self) -> None:
        """Do what a restart of nova-compute does."""
        self.compute.stop()
        # Remove the event handlers of the old process.
        old = self.compute.manager.driver._host
        old = getattr(old, '_event_handler', old)
        old._queue_event = lambda event: None
        self.compute = self._setup_compute_service()


def _tap(vifs: typing.Any, instance: typing.Any, vif: typing.Any,
         image_meta: typing.Any, flavor: typing.Any,
         virt_type: str) -> typing.Any:
    config = vifs.get_config_tap(instance, vif, image_meta, flavor, virt_type)
    config.managed = None
    return config


def _threads() -> str:
    """The stack of each thread of the services."""
    return '\n'.join(''.join(traceback.format_stack(frame)[-6:])
                     for frame in sys._current_frames().values())


class _Harmless(fixtures.Fixture):
    def __init__(self, *_: object) -> None:
        super().__init__()


class _LogFile(logging.FileHandler):
    """Everything the extension logs, and Nova's warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return (record.name.startswith('nova_arm_ext')
                or record.levelno >= logging.WARNING)


class Bed:
    """One compute host and the services around it."""

    def __init__(self, folder: pathlib.Path, *, driver: str = ARM_DRIVER,
                 num_pcie_ports: int = 0,
                 extra_hooks: dict[str, str] | None = None) -> None:
        """
        :param num_pcie_ports: Nova's option of that name
        :param extra_hooks: entry points to install, not to enable: name and
            `module:class` of a hook each
        """
        self.folder = folder
        self.driver = driver
        self.num_pcie_ports = num_pcie_ports
        self.instances = folder / 'instances'
        self.extra_hooks = extra_hooks or {}
        self._servers: list[Server] = []
        self._log = folder / 'bed.log'
        self._volumes = folder / 'volumes'

    # -- Starting ---------------------------------------------------------

    def start(self) -> None:
        started = time.monotonic()
        guest.ensure()
        # Nova's test base changes HOME later, and with it the cache.
        self._guests = {arch: made for arch in guest.INGREDIENTS
                        if (made := guest.cached(arch))}
        for place in (self.instances, self._volumes, self.folder / 'nova'):
            place.mkdir()
            place.chmod(0o755)
        self._install_hooks()
        sandbox.say('libvirt')
        host.start(self.folder)
        handler = _LogFile(self._log)
        handler.setFormatter(logging.Formatter(
            '%(asctime)s %(levelname)s %(name)s %(message)s'))
        sandbox.say('Nova')
        # Nova imports its driver by a name below nova.virt.
        libvirt_drivers.StockDriver = stock.StockDriver
        self.services = _Services(self)
        # Added to the loggers themselves: the root's handlers are replaced.
        for name in ('nova', 'nova_arm_ext'):
            logging.getLogger(name).addHandler(handler)
        self.services.setUp()
        self.connection = libvirt.open('qemu:///system')
        self.image = self._make_image()
        sandbox.say(f'ready after {time.monotonic() - started:.1f} s')

    def _install_hooks(self) -> None:
        """Write what `pip install` of a package with hooks installs."""
        place = self.folder / 'site-packages'
        dist = place / 'bed_hooks-1.0.dist-info'
        dist.mkdir(parents=True)
        (dist / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: bed-hooks\nVersion: 1.0\n')
        (dist / 'entry_points.txt').write_text(
            f'[{plugins.NAMESPACE}]\n' + ''.join(
                f'{name} = {target}\n'
                for name, target in self.extra_hooks.items()))
        sys.path.append(str(place))

    def _make_image(self, arch: str = 'aarch64', **properties: str) -> str:
        """An image in Glance with the probe guest in it.

        The 32-bit guest has a kernel of its own, unless the properties ask
        for UEFI.
        """
        parts = self.parts(arch)
        own = {'hw_machine_type': 'virt'}
        if platform.machine() == 'aarch64':
            own = {'hw_architecture': arch} | own if arch != 'aarch64' else {}
        else:
            # Nova's own way to emulate another architecture.
            own |= {'hw_architecture': platform.machine(),
                    'hw_emulation_architecture': arch}
            if arch == 'aarch64':
                own['hw_firmware_type'] = 'uefi'
        if (arch != 'aarch64'
                and properties.get('hw_firmware_type') != 'uefi'):
            own |= self.kernel(arch)
        return self._upload(parts.disk, 'qcow2', 'bare', own | properties)

    def image_with(self, **properties: str) -> str:
        """A copy of an image in Glance, with these properties."""
        return self._make_image(**properties)

    def parts(self, arch: str = 'aarch64') -> guest.Guest:
        """The files of which the probe guest is made."""
        return self._guests[arch]

    def kernel(self, arch: str = 'aarch64') -> dict[str, str]:
        """Image properties that name a kernel and an initrd in Glance."""
        parts = self.parts(arch)
        return {
            'kernel_id': self._upload(parts.kernel, 'aki', 'aki', {}),
            'ramdisk_id': self._upload(parts.initrd, 'ari', 'ari', {})}

    def _upload(self, path: pathlib.Path, disk_format: str,
                container_format: str, properties: dict[str, str]) -> str:
        ident = str(uuid.uuid4())
        with path.open('rb') as data:
            self.services.glance.create(
                nova_context.get_admin_context(),
                {'id': ident, 'name': path.name, 'status': 'active',
                 'disk_format': disk_format,
                 'container_format': container_format,
                 'size': path.stat().st_size, 'min_ram': 0,
                 'min_disk': 0, 'visibility': 'public',
                 'properties': properties}, data=data)
        return ident

    # -- What the compute host does ----------------------------------------

    def restart_compute(self, driver: str | None = None,
                        enable: tuple[str, ...] = (),
                        on_hook_failure: str = 'fail',
                        options: dict[str, dict[str, object]] | None = None,
                        ) -> None:
        """Restart nova-compute with another configuration; guests run on.

        :param enable: hooks to run after the default ones
        :param options: of the hooks, by group and name
        """
        for group, values in (options or {}).items():
            self.services.flags(group=group, **values)
        if driver:
            self.services.use_driver(driver)
        hooks = [*CONF.arm.default_hooks.split(','), *enable]
        self.services.flags(group=plugins.GROUP, hooks=hooks,
                            on_hook_failure=on_hook_failure)
        self.services.restart_compute()

    def offer_secure_boot(self) -> None:
        """Give the host the trait for Secure Boot.

        An x86 host has it by its firmware for x86 guests.
        """
        self.nova_driver.capabilities['supports_secure_boot'] = True
        self.services.compute.manager.update_available_resource(
            nova_context.get_admin_context())

    @property
    def nova_driver(self) -> typing.Any:
        """The driver object of the compute service that runs now."""
        return self.services.compute.manager.driver

    def boot(self, *, arch: str = 'aarch64', config_drive: bool = False,
             network: bool = False,
             image_properties: dict[str, str] | None = None,
             extra_specs: dict[str, str] | None = None,
             expect: str = 'ACTIVE') -> 'Server':
        """POST /servers, and wait for the expected status."""
        flavor = self.services._create_flavor(
            memory_mb=1024, vcpu=1, disk=1, ephemeral=0,
            extra_spec=extra_specs)
        image = (self.image if arch == 'aarch64' and not image_properties
                 else self._make_image(arch, **image_properties or {}))
        answer = self.services.api.post_server({'server': {
            'name': f'probe-{len(self._servers) + 1}',
            'imageRef': image,
            'flavorRef': flavor,
            'networks': ([{'uuid': self.services.neutron.network_1['id']}]
                         if network else 'none'),
            'config_drive': config_drive,
        }})
        server = Server(self, answer['id'])
        self._servers.append(server)
        server.await_status(expect)
        return server

    def volume_connection(self, volume: str,
                          attachment: str) -> dict[str, typing.Any]:
        """A volume's connection as Cinder would report it."""
        path = self._volumes / volume
        if not path.exists():
            with path.open('wb') as file:
                file.truncate(64 << 20)
        return {'driver_volume_type': 'bed',
                'data': {'device_path': str(path), 'volume_id': volume,
                         'attachment_id': attachment}}

    # -- After a failure -----------------------------------------------------

    def log(self) -> str:
        """What the extension logged, and Nova's warnings."""
        return self._log.read_text() if self._log.exists() else ''

    def state(self) -> str:
        """Everything that helps to understand a failure."""
        parts = [f'== log\n{self.log()[-12000:]}']
        for server in self._servers:
            parts.append(f'== console of {server.uuid}\n'
                         + '\n'.join(server.console_end(60)))
        for log in sorted(pathlib.Path('/var/log/libvirt/qemu').glob('*.log')):
            parts.append(f'== {log}\n{log.read_text()[-3000:]}')
        return '\n'.join(parts)


class Server:
    """One guest, as its owner sees it, and as libvirt does."""

    def __init__(self, bed: Bed, ident: str) -> None:
        self.uuid = ident
        self._bed = bed
        self._api = bed.services.api

    # -- Through Nova --------------------------------------------------------

    @property
    def status(self) -> str:
        return self._api.get_server(self.uuid)['status']

    @property
    def fault(self) -> str | None:
        return self._api.get_server(self.uuid).get('fault', {}).get('message')

    def await_status(self, status: str) -> None:
        deadline = time.monotonic() + ACTION_TIMEOUT
        while True:
            server = self._api.get_server(self.uuid)
            settled = server['OS-EXT-STS:task_state'] is None
            if settled and server['status'] == status:
                return
            if settled and server['status'] == 'ERROR':
                raise ActionFailed(f'{self.uuid}: {self.fault}')
            if time.monotonic() > deadline:
                raise ActionFailed(
                    f'{self.uuid} is {server["status"]} (task '
                    f'{server["OS-EXT-STS:task_state"]}), not {status}')
            time.sleep(0.1)

    def stop(self) -> None:
        self._act({'os-stop': None}, 'compute_stop_instance')

    def start(self) -> None:
        self._act({'os-start': None}, 'compute_start_instance')

    def hard_reboot(self) -> None:
        self._act({'reboot': {'type': 'HARD'}}, 'compute_reboot_instance')

    def suspend(self) -> None:
        self._act({'suspend': None}, 'compute_suspend_instance')

    def resume(self) -> None:
        self._act({'resume': None}, 'compute_resume_instance')

    def rescue(self) -> None:
        """Boot the rescue system, which is also a probe guest."""
        self._act({'rescue': {'rescue_image_ref': self._bed.image}},
                  'compute_rescue_instance')

    def unrescue(self) -> None:
        self._act({'unrescue': None}, 'compute_unrescue_instance')

    def rebuild(self, **properties: str) -> None:
        """Rebuild the guest.

        :param properties: of that image
        """
        image = self._bed.image_with(**properties)
        self._act({'rebuild': {'imageRef': image}},
                  'compute_rebuild_instance')

    def reset_state(self) -> None:
        """Take a server out of ERROR, as an administrator does."""
        self._api.post_server_action(
            self.uuid, {'os-resetState': {'state': 'active'}})

    def attach_volume(self) -> str:
        """Attach a new volume to the running guest."""
        volume = str(uuid.uuid4())
        with self._action('compute_attach_volume'):
            self._api.api_post(
                f'/servers/{self.uuid}/os-volume_attachments',
                {'volumeAttachment': {'volumeId': volume}})
        return volume

    def detach_volume(self, volume: str) -> None:
        with self._action('compute_detach_volume'):
            self._api.api_delete(
                f'/servers/{self.uuid}/os-volume_attachments/{volume}')

    def attach_interface(self) -> None:
        """Attach a new network interface to the running guest."""
        network = self._bed.services.neutron.network_1['id']
        with self._action('compute_attach_interface'):
            self._api.api_post(
                f'/servers/{self.uuid}/os-interface',
                {'interfaceAttachment': {'net_id': network}})

    def detach_interface(self) -> None:
        """Detach its first network interface."""
        [port, *_] = self._api.get_port_interfaces(self.uuid)
        with self._action('compute_detach_interface'):
            self._api.detach_interface(self.uuid, port['port_id'])

    @property
    def events(self) -> list[str]:
        """Every event that Nova has on record for the guest."""
        actions = f'/servers/{self.uuid}/os-instance-actions'
        return [
            event['event']
            for action in self._api.api_get(actions).body['instanceActions']
            for event in self._api.api_get(
                f'{actions}/{action["request_id"]}').body[
                    'instanceAction']['events']]

    def delete(self) -> None:
        self._api.delete_server(self.uuid)
        deadline = time.monotonic() + ACTION_TIMEOUT
        while any(server['id'] == self.uuid
                  for server in self._api.get_servers(detail=False)):
            if time.monotonic() > deadline:
                raise ActionFailed(f'{self.uuid} is still there')
            time.sleep(0.1)

    def _act(self, action: dict[str, typing.Any], event: str) -> None:
        with self._action(event):
            self._api.post_server_action(self.uuid, action)

    @contextlib.contextmanager
    def _action(self, event: str) -> collections.abc.Iterator[None]:
        """Wait until the compute host has done what the block requests.

        Nova records each request and the events of each service in it. An
        event may start after the API has answered.
        """
        actions = f'/servers/{self.uuid}/os-instance-actions'

        def known() -> set[str]:
            return {action['request_id'] for action in
                    self._api.api_get(actions).body['instanceActions']}

        before = known()
        yield
        deadline = time.monotonic() + ACTION_TIMEOUT
        while True:
            events = []
            for request in known() - before:
                action = self._api.api_get(
                    f'{actions}/{request}').body['instanceAction']
                events += action['events']
            results = {said['event']: said['result'] for said in events}
            if results.get(event) == 'Success':
                return
            if 'Error' in results.values():
                details = [said['details'] for said in events
                           if said.get('details')]
                raise ActionFailed(
                    f'{event}: {", ".join(details) or self.fault}')
            if time.monotonic() > deadline:
                raise ActionFailed(
                    f'{event} did not end: {events}; meanwhile:\n{_threads()}')
            time.sleep(0.1)

    # -- Through libvirt -----------------------------------------------------

    @property
    def domain(self) -> libvirt.virDomain:
        return self._bed.connection.lookupByUUIDString(self.uuid)

    def live_xml(self) -> str:
        return self.domain.XMLDesc(0)

    def inactive_xml(self) -> str:
        return self.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    # -- From the guest itself ------------------------------------------------

    def reports(self) -> list[guest.Report]:
        """The reports of the guest since its last power-on."""
        return guest.reports(self._console())

    def report(self, number: int = 1,
               timeout: float | None = None) -> guest.Report:
        """Wait for so many reports of the guest, and return the last one."""
        limit = timeout or (BOOT_TIMEOUT if number == 1 else PLUG_TIMEOUT)
        return self._await_report(
            lambda report: report.number >= number, f'report {number}', limit)

    def report_with(self, *, disks: int, interfaces: int = 0,
                    timeout: float = PLUG_TIMEOUT) -> guest.Report:
        """Wait for a report with so many disks, cdroms included."""
        return self._await_report(
            lambda report: (len(report.disks), len(report.interfaces))
            == (disks, interfaces),
            f'report with {disks} disks and {interfaces} interfaces', timeout)

    def _await_report(
            self, wanted: collections.abc.Callable[[guest.Report], bool],
            name: str, timeout: float) -> guest.Report:
        deadline = time.monotonic() + timeout
        while True:
            said = self.reports()
            if said and wanted(said[-1]):
                return said[-1]
            if time.monotonic() > deadline:
                end = '\n'.join(self.console_end(30))
                raise GuestTimeout(
                    f'no {name} of {self.uuid} within {timeout:.0f} s; its '
                    f'console ends with:\n{end}')
            time.sleep(0.2)

    def await_console(self, text: str) -> None:
        """Wait until this text is on the first serial port."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        while text not in self.console:
            if time.monotonic() > deadline:
                end = '\n'.join(self.console_end(30))
                raise GuestTimeout(f'no {text!r} of {self.uuid}; its console '
                                   f'ends with:\n{end}')
            time.sleep(0.2)

    @property
    def console(self) -> str:
        """The text of the first serial port."""
        return self._console()

    def console_end(self, lines: int) -> list[str]:
        return self._console().splitlines()[-lines:]

    def _console(self) -> str:
        path = self._bed.instances / self.uuid / 'console.log'
        return path.read_text(errors='replace') if path.exists() else ''
