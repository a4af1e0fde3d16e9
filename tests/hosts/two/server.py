# SPDX-License-Identifier: Apache-2.0
"""One guest as its owner sees it, and its files on the hosts."""

import collections.abc
import contextlib
import pathlib
import time
import typing

from lxml import etree

from nova_arm_ext import varstore
from tests import guest
from tests.hosts.two import cloud as clouds

#: Emulation takes 10 to 20 s from power-on to the report, and many times that
#: on a busy machine.
BOOT_TIMEOUT = 900.0
ACTION_TIMEOUT = 600.0
FAULT_TIMEOUT = 10.0
#: Between two questions to Nova, whose answers cost more than the guest.
POLL = 0.5
#: Copies are made every few seconds, if at all.
COPY_TIMEOUT = 180.0

Said = typing.TypeVar('Said')


class GuestTimeout(Exception):
    """A guest did not print the expected text in time."""


class CopyTimeout(Exception):
    """No copy of a guest's variables was made in time."""


class ActionFailed(Exception):
    """Nova did not do what was requested; the error has its reason."""


class Server:
    """A guest on a given host."""

    def __init__(self, cloud: 'clouds.Cloud', host: str) -> None:
        self._cloud = cloud
        server = cloud.api('POST', '/servers', {'server': {
            'name': 'probe', 'imageRef': cloud.image,
            'flavorRef': cloud.flavor, 'networks': 'none', 'host': host}})
        self.uuid = server['server']['id']
        self.await_status('ACTIVE')

        #: Nova's and libvirt's.
        self.names = (
            self.uuid, self._show()['OS-EXT-SRV-ATTR:instance_name'])
        #: Of its file in the folder for copies.
        self.copy_name = f'{self.uuid}_VARS.packed'

    # -- Through Nova -------------------------------------------------------

    def _show(self) -> dict[str, typing.Any]:
        return self._cloud.api('GET', f'/servers/{self.uuid}')['server']

    @property
    def host(self) -> str:
        """The host on which it is, according to Nova."""
        return self._show()['OS-EXT-SRV-ATTR:host']

    def await_status(self, status: str) -> None:
        deadline = time.monotonic() + ACTION_TIMEOUT
        while True:
            server = self._show()
            settled = server['OS-EXT-STS:task_state'] is None
            if settled and server['status'] == status:
                return
            if settled and server['status'] == 'ERROR':
                raise ActionFailed(f'{self.uuid}: {self._fault()}')
            if time.monotonic() > deadline:
                raise ActionFailed(
                    f'{self.uuid} is {server["status"]} (task '
                    f'{server["OS-EXT-STS:task_state"]}), not {status}')
            time.sleep(POLL)

    def await_rest(self) -> str:
        """Wait until no task is running, and return its status."""
        deadline = time.monotonic() + ACTION_TIMEOUT
        while (server := self._show())['OS-EXT-STS:task_state'] is not None:
            if time.monotonic() > deadline:
                raise ActionFailed(
                    f'{self.uuid} is in task {server["OS-EXT-STS:task_state"]}'
                    ' still')
            time.sleep(POLL)
        return server['status']

    def _fault(self) -> object:
        """The fault of a server in ERROR; Nova reports it a little later."""
        deadline = time.monotonic() + FAULT_TIMEOUT
        while not (fault := self._show().get('fault')):
            if time.monotonic() > deadline:
                return 'no fault'
            time.sleep(POLL)
        return fault

    def reset_state(self) -> None:
        """Reset its status and task in Nova."""
        self.ask({'os-resetState': {'state': 'active'}})

    def stop(self) -> None:
        with self._action('compute_stop_instance'):
            self.ask({'os-stop': None})

    def start(self) -> None:
        with self._action('compute_start_instance'):
            self.ask({'os-start': None})

    def hard_reboot(self) -> None:
        with self._action('compute_reboot_instance'):
            self.ask({'reboot': {'type': 'HARD'}})

    def soft_reboot(self) -> None:
        """Ask the guest itself to shut down, and start it again."""
        with self._action('compute_reboot_instance'):
            self.ask({'reboot': {'type': 'SOFT'}})

    def suspend(self) -> None:
        with self._action('compute_suspend_instance'):
            self.ask({'suspend': None})

    def resume(self) -> None:
        with self._action('compute_resume_instance'):
            self.ask({'resume': None})

    def rescue(self) -> None:
        """Boot the rescue system, which is also a probe guest."""
        with self._action('compute_rescue_instance'):
            self.ask({'rescue': {'rescue_image_ref': self._cloud.image}})

    def unrescue(self) -> None:
        with self._action('compute_unrescue_instance'):
            self.ask({'unrescue': None})

    def rebuild(self) -> None:
        """Rebuild it with the image that it was made of."""
        with self._action('compute_rebuild_instance'):
            self.ask({'rebuild': {'imageRef': self._cloud.image}})

    def snapshot(self) -> str:
        """Make an image of it, and return the image's id."""
        with self._action('compute_snapshot_instance'):
            answer = self._cloud.api(
                'POST', f'/servers/{self.uuid}/action',
                {'createImage': {'name': 'snapshot'}})
        return answer['image_id']

    def migrate(self, host: str) -> None:
        """Migrate it cold; it must then be confirmed or reverted."""
        with self._action('compute_finish_resize'):
            self.ask({'migrate': {'host': host}})
        self.await_status('VERIFY_RESIZE')

    def resize(self, flavor: str) -> None:
        """Give it another flavor on the other host; then as `migrate`."""
        with self._action('compute_finish_resize'):
            self.ask({'resize': {'flavorRef': flavor}})
        self.await_status('VERIFY_RESIZE')

    def confirm(self, status: str = 'ACTIVE') -> None:
        """
        :param status: the one that it had before
        """
        with self._action('compute_confirm_resize'):
            self.ask({'confirmResize': None})
        self.await_status(status)

    def revert(self, status: str = 'ACTIVE') -> None:
        """
        :param status: the one that it had before
        """
        with self._action('compute_finish_revert_resize'):
            self.ask({'revertResize': None})
        self.await_status(status)

    def live_migrate(self, host: str) -> None:
        """Migrate it live, and wait until the source has cleaned up."""
        known = {one['uuid'] for one in self._live_migrations()}
        self.ask({'os-migrateLive': {
            'host': host, 'block_migration': 'auto'}})
        deadline = time.monotonic() + ACTION_TIMEOUT
        state = None
        while state != 'completed':
            if state in ('error', 'failed', 'cancelled'):
                raise ActionFailed(f'the live migration is in state {state}: '
                                   f'{self.last_events()}')
            if time.monotonic() > deadline:
                raise ActionFailed(f'the live migration is {state} still')
            time.sleep(POLL)
            state = next((one['status'] for one in self._live_migrations()
                          if one['uuid'] not in known), None)
        self.await_status('ACTIVE')

    def _live_migrations(self) -> list[dict[str, typing.Any]]:
        return self._cloud.api(
            'GET', f'/os-migrations?instance_uuid={self.uuid}'
            '&migration_type=live-migration')['migrations']

    def shelve(self) -> None:
        """Shelve and offload it at once: shelved_offload_time is 0."""
        self.ask({'shelve': None})
        self.await_status('SHELVED_OFFLOADED')

    def unshelve(self, host: str) -> None:
        with self._action('compute_unshelve_instance'):
            self.ask({'unshelve': {'host': host}})
        self.await_status('ACTIVE')

    def evacuate(self, host: str) -> None:
        # Since 2.95 it would have to be started afterwards.
        with self._action('compute_rebuild_instance'):
            self.ask({'evacuate': {'host': host}}, version='2.94')
        self.await_status('ACTIVE')

    def delete(self) -> None:
        """Delete it, unless it is gone already."""
        if self._exists():
            self._cloud.api('DELETE', f'/servers/{self.uuid}')
        deadline = time.monotonic() + ACTION_TIMEOUT
        while self._exists():
            if time.monotonic() > deadline:
                raise ActionFailed(f'{self.uuid} is still there')
            time.sleep(POLL)

    def _exists(self) -> bool:
        return any(server['id'] == self.uuid for server in
                   self._cloud.api('GET', '/servers')['servers'])

    def ask(self, action: dict[str, typing.Any],
            version: str | None = None) -> None:
        """Ask Nova for an action, and wait only for its answer."""
        self._cloud.api('POST', f'/servers/{self.uuid}/action', action,
                        version=version)

    @contextlib.contextmanager
    def _action(self, event: str) -> collections.abc.Iterator[None]:
        """Wait until a compute host has done what the block requests.

        Nova records each request and the events of each service in it. An
        event may start after the API has answered.
        """
        before = set(self._requests())
        yield
        deadline = time.monotonic() + ACTION_TIMEOUT
        while True:
            events = [event for request in set(self._requests()) - before
                      for event in self._events(request)]
            results = {said['event']: said['result'] for said in events}
            if results.get(event) == 'Success':
                return
            if 'Error' in results.values():
                raise ActionFailed(f'{event}: {events}')
            if time.monotonic() > deadline:
                raise ActionFailed(f'{event} did not end: {events}')
            time.sleep(POLL)

    def last_events(self) -> list[dict[str, typing.Any]]:
        """The events of the last request, with their results."""
        return self._events(self._requests()[0])

    def _requests(self) -> list[str]:
        """The last one first."""
        return [action['request_id'] for action in self._cloud.api(
            'GET', f'/servers/{self.uuid}/os-instance-actions'
        )['instanceActions']]

    def _events(self, request: str) -> list[dict[str, typing.Any]]:
        return self._cloud.api(
            'GET', f'/servers/{self.uuid}/os-instance-actions/{request}'
        )['instanceAction']['events']

    # -- From libvirt ---------------------------------------------------------

    def document(self) -> etree._Element:
        """Its domain XML in libvirt of its host."""
        return etree.fromstring(self._cloud.hosts[self.host].run(
            'virsh', 'dumpxml', self.uuid))

    def hardware(self) -> list[object]:
        """Machine, firmware, and each device's PCI address, in order."""
        document = self.document()
        return [
            document.find('os/type').get('machine'),
            document.findtext('os/loader'), document.findtext('os/nvram'),
            *((address.getparent().tag, dict(address.attrib)) for address in
              document.iterfind('devices//address[@type="pci"]'))]

    def runs(self, host: str) -> bool:
        """Whether libvirt of a host has it running."""
        return self.uuid in self._cloud.hosts[host].run(
            'virsh', 'list', '--uuid')

    # -- From the guest itself ------------------------------------------------

    def boots(self) -> int:
        """The number of boots with its variables, as it reports."""
        report = self.report()
        if report.boots is None:
            raise GuestTimeout(f'no EFI variables: {report.text}')
        return report.boots

    def report(self) -> guest.Report:
        """Its report of the current boot.

        Call it only after an action has ended: each start of QEMU begins a new
        console.
        """
        return self._said(guest.reports)[-1]

    def uptime(self) -> int:
        """Its uptime in seconds, from its last report."""
        return self._said(guest.uptimes)[-1]

    def _said(self, read: collections.abc.Callable[
            [str], collections.abc.Sequence[Said]]
              ) -> collections.abc.Sequence[Said]:
        host = self.host
        path = (self._cloud.instances(host) / self.uuid / 'console.log')
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            text = path.read_text(errors='replace') if path.exists() else ''
            if said := read(text):
                return said
            if time.monotonic() > deadline:
                end = '\n'.join(text.splitlines()[-30:])
                raise GuestTimeout(f'no report of {self.uuid} on {host}; its '
                                   f'console ends with:\n{end}')
            time.sleep(0.2)

    # -- In the store for copies ----------------------------------------------

    def copied_boots(self) -> int | None:
        """The number of boots in the copy of its variables, if there is one.

        0 before the guest has counted.
        """
        copy = self._cloud.folder / 'copies' / self.copy_name
        if not copy.exists():
            return None
        return next((int(variable.data) for variable in varstore.variables(
            varstore.unpack(copy.read_bytes()))
            if variable.name == 'Boots'), 0)

    def await_copy(self, boots: int) -> None:
        """Wait until the copy has this number of boots."""
        deadline = time.monotonic() + COPY_TIMEOUT
        while (copied := self.copied_boots()) != boots:
            if time.monotonic() > deadline:
                raise CopyTimeout(f'the copy of {self.uuid} has {copied} '
                                  f'boots, not {boots}')
            time.sleep(0.2)

    # -- On the hosts' disks --------------------------------------------------

    def files(self) -> list[str]:
        """Files on the hosts' disks with its UUID or libvirt's name of it.

        As `host:path`, and for common folders `shared:path` and `copies:path`.
        Only the folder itself, not its content. Without libvirt's
        `domain-N-NAME` of a running QEMU, which stays after a power cut.
        """
        return [f'{disk}:{path.relative_to(root)}'
                for disk, root, path in self._found()]

    def stores(self) -> list[str]:
        """The variable stores among them, under any name; no copies."""
        return [f'{disk}:{file.relative_to(root)}'
                for disk, root, path in self._found()
                for file in (path, *path.rglob('*'))
                if disk != 'copies' and file.is_file() and _is_store(file)]

    def _found(self) -> collections.abc.Iterator[
            tuple[str, pathlib.Path, pathlib.Path]]:
        for disk, root in self._cloud.disks():
            for path in sorted(root.rglob('*')):
                if (any(name in path.name for name in self.names)
                        and not path.name.startswith('domain-')
                        and not any(name in parent for name in self.names
                                    for parent in
                                    path.relative_to(root).parts[:-1])):
                    yield disk, root, path


def _is_store(path: pathlib.Path) -> bool:
    """Whether it is an edk2 firmware volume, or has the name of a store."""
    if '_VARS' in path.name and path.suffix in ('.fd', '.raw', '.qcow2'):
        return True
    with path.open('rb') as file:
        return file.read(44)[40:] == b'_FVH'
