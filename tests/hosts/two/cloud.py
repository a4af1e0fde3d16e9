# SPDX-License-Identifier: Apache-2.0
"""Nova on three hosts: `ctl` for its services, two with guests.

They are namespaces, a bridge in that of `ctl`, and a folder; nothing else of
the machine is changed. The two compute hosts have the same paths, and each has
its own libvirtd.
"""

import collections.abc
import concurrent.futures
import datetime
import http.client
import json
import pathlib
import platform
import socket
import subprocess
import sys
import time
import typing

from tests import guest
from tests.hosts.two import container
from tests.hosts.two import settings
from tests.hosts.two import steps
from tests.support import paste

ARM_DRIVER = 'arm_ext.ArmLibvirtDriver'
#: Nova's driver with what libvirt 9.0 accepts: tests.hosts.one.stock.
STOCK_DRIVER = 'libvirt.StockDriver'

#: The folders that each host has separately.
DISK = ('/etc/libvirt', '/srv', '/var/lib/libvirt', '/var/log/libvirt')

START_TIMEOUT = 300.0

Progress = collections.abc.Callable[[str], None]


class ApiError(Exception):
    """A service refused a request; the error has its answer."""


class NotReady(Exception):
    """A service does not answer in time; the error ends with its log."""


class _Connection(http.client.HTTPConnection):
    """To a Unix socket, because the hosts have a network of their own."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__('localhost', timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _image_properties() -> dict[str, str]:
    """Image properties with which the probe guest starts on any host."""
    if platform.machine() == 'aarch64':
        return {'hw_machine_type': 'virt'}
    return {'hw_machine_type': 'virt', 'hw_firmware_type': 'uefi',
            'hw_architecture': platform.machine(),
            'hw_emulation_architecture': 'aarch64'}


class Cloud:
    """All of it."""

    def __init__(self, folder: pathlib.Path, glance: pathlib.Path, *,
                 shared: bool = False,
                 progress: Progress = lambda text: None) -> None:
        """
        :param folder: an empty one, for everything; QEMU's user must reach it
        :param glance: the environment with Glance in it
        :param shared: whether the hosts have one instances folder
        """
        self.folder = folder
        self.shared = shared
        self._glance = glance
        self._progress = progress
        self.ctl = container.Container(
            'ctl', folder / 'ctl', {'/etc/hosts': folder / 'hosts'})
        self.hosts = {name: self._host(name) for name in settings.HOSTS}
        self._computes: dict[str, container.Daemon] = {}

    def _host(self, name: str) -> container.Container:
        place = self.folder / name
        binds = {bound: self.disk(name, bound) for bound in DISK}
        binds[settings.COPIES] = self.folder / 'copies'
        # The capabilities of all emulators are read only once per machine.
        binds['/var/cache/libvirt'] = guest.cache_folder() / 'libvirt'
        binds |= {'/etc/ssh': self.folder / 'ssh',
                  '/etc/hosts': self.folder / 'hosts'}
        return container.Container(name, place, binds, {
            settings.INSTANCES: self.folder / 'shared'} if self.shared else {})

    def disk(self, host: str, place: str) -> pathlib.Path:
        """The machine's path of a folder that belongs to one host."""
        return self.folder / host / place.strip('/').replace('/', '-')

    def instances(self, host: str) -> pathlib.Path:
        """The instances folder of a running host, as it sees it."""
        return self.hosts[host].path(settings.INSTANCES)

    def disks(self) -> collections.abc.Iterator[tuple[str, pathlib.Path]]:
        """The folders of the compute hosts, except logs: owner and path.

        The owners of common folders are called `copies` and `shared`.
        """
        for name in self.hosts:
            for place in ('/etc/libvirt', '/srv', '/var/lib/libvirt'):
                yield name, self.disk(name, place)
        for name in ('copies', 'shared'):
            yield name, self.folder / name

    # -- Starting ---------------------------------------------------------

    def start(self) -> None:
        started = time.monotonic()
        self._furnish()
        self._progress('hosts')
        self.ctl.start()
        self.ctl.run('ip', 'link', 'set', 'lo', 'up')
        self.ctl.run('ip', 'link', 'add', 'bridge', 'type', 'bridge')
        self.ctl.run('ip', 'addr', 'add', f'{settings.CTL}/24',
                     'dev', 'bridge')
        self.ctl.run('ip', 'link', 'set', 'bridge', 'up')
        for host in self.hosts.values():
            host.start()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = [pool.submit(self._start_host, name)
                       for name in self.hosts]
            waiting.append(pool.submit(self._start_control))
            for done in waiting:
                done.result()
        self._progress('compute services')
        self.use_driver(ARM_DRIVER)
        self._progress('image and flavor')
        self.flavor = self.make_flavor('probe', memory=1024)
        self.image = self._make_image()
        self._progress(f'ready after {time.monotonic() - started:.0f} s')

    def stop(self) -> None:
        for host in (*self.hosts.values(), self.ctl):
            host.power_off()

    def _furnish(self) -> None:
        folder = self.folder
        folder.chmod(0o755)
        for name in self.hosts:
            for bound in DISK:
                self.disk(name, bound).mkdir(parents=True)
            (self.disk(name, '/srv') / 'nova/instances').mkdir(parents=True)
            (self.disk(name, '/srv') / 'copies').mkdir()
        for name in ('ctl', 'shared', 'ssh', 'nova', 'glance', 'placement'):
            (folder / name).mkdir()
        # nova-compute does not start unless it is its own only.
        (folder / 'copies').mkdir(mode=0o700)
        (guest.cache_folder() / 'libvirt').mkdir(exist_ok=True)
        files = {
            'hosts': settings.HOSTS_FILE,
            'ssh/sshd_config': settings.SSHD,
            'ssh/ssh_config': settings.SSH,
            'rabbitmq.conf': settings.RABBIT,
            'database.sql': settings.DATABASE_SQL,
            'nova/nova.conf': settings.control(folder / 'nova'),
            'nova/api-paste.ini': settings.without_authtoken(
                pathlib.Path(paste.locate())),
            'placement/placement.conf': settings.PLACEMENT,
            'glance/glance-api.conf': settings.glance(folder / 'glance'),
            'glance/glance-api-paste.ini': settings.without_authtoken(
                self._glance / 'etc/glance/glance-api-paste.ini'),
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        for name in ('key', 'host_key'):
            subprocess.run(
                ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f',
                 folder / 'ssh' / name], check=True)

    def power_off(self, name: str) -> None:
        """Cut a compute host's power, and tell Nova that it is down.

        As a monitoring service does; Nova itself would notice only after
        `service_down_time`.
        """
        self._computes.pop(name, None)
        self.hosts[name].power_off()
        self._force_down(name, True)

    def power_on(self, name: str) -> None:
        """Start a compute host again, and wait until it accepts guests."""
        if not self.hosts[name].has_power:
            self.hosts[name].start()
            self._start_host(name)
        self.start_compute(name)
        # Tell Nova that it is up again only after it has removed the
        # evacuated guests.
        self.await_compute(name)
        self._force_down(name, False)

    def takes_guests(self, host: str) -> bool:
        """Whether Nova sees a compute host as up."""
        return self._service(host)['state'] == 'up'

    def _force_down(self, host: str, down: bool) -> None:
        self.api('PUT', f'/os-services/{self._service(host)["id"]}',
                 {'forced_down': down})

    def _service(self, host: str) -> dict[str, typing.Any]:
        [service] = self.api(
            'GET', f'/os-services?binary=nova-compute&host={host}')['services']
        return service

    def _start_host(self, name: str) -> None:
        """Give it a network, sshd and libvirt."""
        host = self.hosts[name]
        # The other end is in the namespace of ctl. The command must see the
        # processes of the machine.
        subprocess.run(
            [*container.enter(self.ctl.pid, '--net'),
             'ip', 'link', 'add', name, 'master', 'bridge', 'type', 'veth',
             'peer', 'name', 'eth0', 'netns', str(host.pid)], check=True)
        self.ctl.run('ip', 'link', 'set', name, 'up')
        host.run('ip', 'addr', 'add', f'{settings.HOSTS[name]}/24',
                 'dev', 'eth0')
        host.run('ip', 'link', 'set', 'eth0', 'up')
        host.run('mkdir', '/run/sshd')
        host.spawn('sshd', '/usr/sbin/sshd', '-D', '-e')
        host.run(sys.executable, '-m', 'tests.hosts.two.launch', 'libvirt',
                 host.folder)

    def _start_control(self) -> None:
        self._progress('database, message queue')
        data, folder = self.folder / 'mysql', self.folder
        # Its temporary files are named by process id, which is not unique
        # among the hosts of this machine.
        temporary = {'TMPDIR': str(self.ctl.folder)}
        rabbitmq = self.ctl.spawn(
            'rabbitmq', '/usr/lib/rabbitmq/bin/rabbitmq-server',
            HOME=str(self.ctl.folder),
            RABBITMQ_NODENAME='rabbit@localhost',
            RABBITMQ_CONFIG_FILE=str(folder / 'rabbitmq.conf'),
            RABBITMQ_ENABLED_PLUGINS_FILE='/dev/null',
            RABBITMQ_MNESIA_BASE=str(self.ctl.folder / 'mnesia'),
            RABBITMQ_PID_FILE=str(self.ctl.folder / 'rabbitmq.pid'),
            RABBITMQ_LOG_BASE=str(self.ctl.folder),
            RABBITMQ_LOGS='-')
        self.ctl.run('mariadb-install-db', '--no-defaults', '--user=root',
                     '--skip-test-db', f'--datadir={data}', **temporary)
        mariadb = self.ctl.spawn(
            'mariadb', '/usr/sbin/mariadbd', '--no-defaults', '--user=root',
            f'--datadir={data}', f'--socket={data}/socket',
            f'--pid-file={data}/pid', f'--init-file={folder}/database.sql',
            '--innodb-flush-log-at-trx-commit=0',
            '--innodb-doublewrite=0', **temporary)
        self._await_port(mariadb, 3306)
        self._progress('schemas')
        web = {
            'placement': self._start_web(
                'placement', sys.executable,
                OS_PLACEMENT_CONFIG_DIR=str(folder / 'placement')),
            'neutron': self._start_web('neutron', sys.executable),
        }
        with concurrent.futures.ThreadPoolExecutor() as pool:
            glance = pool.submit(self._start_glance)
            self._manage('api_db', 'sync')
            self._manage('cell_v2', 'map_cell0', '--database_connection',
                         settings.database('nova_cell0'))
            self._manage('db', 'sync')
            self._await_port(rabbitmq, 5672)
            self._manage('cell_v2', 'create_cell', '--name', 'cell1')
            web['glance'] = glance.result()
        self._progress('services')
        conf = folder / 'nova/nova.conf'
        for name in ('conductor', 'scheduler'):
            self.ctl.spawn(
                name, sys.executable, '-m', 'tests.hosts.two.launch',
                'command', f'nova.cmd.{name}', '--config-file', conf)
        web['nova'] = self._start_web(
            'nova', sys.executable, OS_NOVA_CONFIG_DIR=str(folder / 'nova'))
        for service, daemon in web.items():
            self._await_answer(daemon, service)

    def _manage(self, *arguments: str) -> None:
        self.ctl.run(
            sys.executable, '-m', 'tests.hosts.two.launch', 'command',
            'nova.cmd.manage', '--config-file',
            self.folder / 'nova/nova.conf', *arguments)

    def _start_glance(self) -> container.Daemon:
        python = str(self._glance / 'bin/python')
        self.ctl.run(
            python, '-m', 'tests.hosts.two.launch', 'command',
            'glance.cmd.manage', '--config-file',
            self.folder / 'glance/glance-api.conf', 'db_sync')
        return self._start_web(
            'glance', python,
            OS_GLANCE_CONFIG_DIR=str(self.folder / 'glance'))

    def _start_web(self, name: str, python: str,
                   **environment: str) -> container.Daemon:
        return self.ctl.spawn(
            name, python, '-m', 'tests.hosts.two.launch', 'web', name,
            str(settings.PORTS[name]), self.folder / f'{name}.socket',
            **environment)

    def use_driver(self, driver: str,
                   options: settings.Values | None = None) -> None:
        """Start nova-compute on both hosts with this driver.

        :param options: of nova.conf, in addition, by group and name
        """
        for name in self.hosts:
            conf = self._conf(name)
            conf.write_text(settings.compute(name, conf, driver,
                                             options or {}))
        for name in self.hosts:
            self.start_compute(name)
        for name in self.hosts:
            self.await_compute(name)

    def _conf(self, host: str) -> pathlib.Path:
        return self.folder / host / 'nova.conf'

    def stop_compute(self, host: str) -> None:
        """Kill nova-compute; the guests keep running."""
        if daemon := self._computes.pop(host, None):
            daemon.kill()

    def start_compute(self, host: str) -> None:
        self.stop_compute(host)
        self._started = datetime.datetime.now(
            datetime.timezone.utc).replace(tzinfo=None).isoformat()
        self._computes[host] = self.hosts[host].spawn(
            'nova-compute', sys.executable, '-m', 'tests.hosts.two.launch',
            'compute', '--config-file', self._conf(host))

    def restart_compute(self, host: str) -> None:
        """Restart nova-compute, and wait until it accepts guests."""
        self.start_compute(host)
        self.await_compute(host)

    def signal_at(self, host: str, signal: str, step: str) -> None:
        """Send a signal to nova-compute of a host when it reaches a step.

        :param signal: ``KILL`` or ``STOP``
        :param step: as in tests.hosts.two.steps
        """
        asked = self.hosts[host].path(steps.ASKED)
        written = asked.with_suffix('.written')
        written.write_text(f'{signal} {step}')
        written.rename(asked)
        self._await(self._computes[host], lambda: not asked.exists())

    def await_end(self, host: str) -> None:
        """Wait until nova-compute of a host has been killed."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._computes[host].ended:
            if time.monotonic() > deadline:
                raise NotReady(f'nova-compute of {host} did not come to the '
                               f'step at which it was to be killed')
            time.sleep(0.1)

    def await_stop(self, host: str) -> None:
        """Wait until nova-compute of a host has been stopped."""
        self._await(self._computes[host],
                    lambda: self._computes[host].is_stopped)

    def go_on(self, host: str) -> None:
        """Continue the stopped nova-compute of a host."""
        self._computes[host].go_on()

    def set_state(self, server: str, **values: str | None) -> None:
        """Write into Nova's database what the API cannot set.

        :param values: columns of table `instances`; `migration`: the status
            of its last migration
        """
        status = values.pop('migration', None)
        statements = [f"UPDATE instances SET {name} = "
                      f"{'NULL' if value is None else repr(value)} "
                      f"WHERE uuid = '{server}';"
                      for name, value in values.items()]
        if status:
            statements.append(
                f"UPDATE migrations SET status = '{status}' WHERE "
                f"instance_uuid = '{server}' ORDER BY id DESC LIMIT 1;")
        self.ctl.run('mariadb', '--no-defaults', '--user=root',
                     f'--socket={self.folder}/mysql/socket', 'nova',
                     '--execute', ' '.join(statements))

    # -- Requests -----------------------------------------------------------

    def api(self, method: str, path: str, body: object = None,
            service: str = 'nova', data: typing.Any = None,
            version: str | None = None) -> typing.Any:
        """One request, as an administrator; the answer's JSON.

        :param path: for Nova, below /v2.1
        :param data: what to send instead of JSON
        """
        headers = {'X-Auth-Token': 'admin'}
        if service == 'nova':
            path = f'/v2.1{path}'
            headers['OpenStack-API-Version'] = f'compute {version or "2.95"}'
        if service == 'placement':
            headers['OpenStack-API-Version'] = 'placement 1.39'
        if data is not None:
            headers['Content-Type'] = 'application/octet-stream'
        elif body is not None:
            headers['Content-Type'] = 'application/json'
            data = json.dumps(body)
        connection = _Connection(self.folder / f'{service}.socket')
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(f'{service}: {method} {path}: {answer.status} '
                           f'{said.decode(errors="replace")[:2000]}')
        return json.loads(said) if said.startswith((b'{', b'[')) else None

    def make_flavor(self, name: str, memory: int) -> str:
        """A flavor for the guest's image, by its id.

        :param memory: in MiB
        """
        return self.api('POST', '/flavors', {'flavor': {
            'name': name, 'vcpus': 1, 'ram': memory, 'disk': 1,
        }})['flavor']['id']

    def _make_image(self) -> str:
        image = self.api('POST', '/v2/images', {
            'name': 'probe', 'disk_format': 'qcow2',
            'container_format': 'bare', 'visibility': 'public',
            **_image_properties()}, service='glance')
        with guest.ensure().disk.open('rb') as data:
            self.api('PUT', f'/v2/images/{image["id"]}/file',
                     service='glance', data=data)
        return image['id']

    # -- Waiting ------------------------------------------------------------

    def _await(self, daemon: container.Daemon,
               ready: collections.abc.Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            if daemon.ended or time.monotonic() > deadline:
                said = daemon.log.read_text(errors='replace')[-4000:]
                state = 'has ended' if daemon.ended else 'does not answer'
                raise NotReady(f'{daemon.log} {state}:\n{said}')
            time.sleep(0.2)

    def _await_port(self, daemon: container.Daemon, port: int) -> None:
        self._await(daemon, lambda: f':{port} ' in self.ctl.run(
            'ss', '-Hltn'))

    def _await_answer(self, daemon: container.Daemon, service: str) -> None:
        def answers() -> bool:
            try:
                self.api('GET', '/', service=service)
            except (ConnectionError, FileNotFoundError):
                return False
            return True

        self._await(daemon, answers)

    def await_compute(self, host: str) -> None:
        """Wait until a restarted compute service accepts guests.

        Its first report means that it listens for requests. One report may
        still come from the process before it. A guest that is requested too
        early can end in ERROR without a fault.
        """
        reports = set()

        def takes_guests() -> bool:
            reports.update(
                known['updated_at'] for known in self.api(
                    'GET', '/os-services?binary=nova-compute'
                    f'&host={host}')['services']
                if (known['updated_at'] or '') > self._started)
            mapped = {node['service']['host'] for node in self.api(
                'GET', '/os-hypervisors/detail')['hypervisors']}
            placed = {provider['name'] for provider in self.api(
                'GET', '/resource_providers?resources='
                'VCPU:1,MEMORY_MB:1024,DISK_GB:1',
                service='placement')['resource_providers']}
            return len(reports) > 1 and host in mapped and host in placed

        self._await(self._computes[host], takes_guests)

    # -- After a failure ------------------------------------------------------

    def logs(self) -> collections.abc.Iterator[tuple[str, str]]:
        """The logs of the services that make guests, by name."""
        for host in (*self.hosts.values(), self.ctl):
            for name in ('nova-compute', 'scheduler', 'conductor'):
                path = host.folder / f'{name}.log'
                if path.exists():
                    yield (f'{name} of {host.name}',
                           path.read_text(errors='replace'))
