# SPDX-License-Identifier: Apache-2.0
"""One guest, as its owner sees it, and the files that the hosts keep of it."""

import collections.abc
import contextlib
import pathlib
import time
import typing

from tests import guest
from tests.two_hosts import cloud as clouds

#: Emulation takes 10 to 20 s from power on to the report, and many times that
#: on a busy machine.
BOOT_TIMEOUT = 300.0
ACTION_TIMEOUT = 300.0


class GuestTimeout(Exception):
    """A guest has not said what it was waited for."""


class ActionFailed(Exception):
    """Nova did not do what it was asked for; the text has its reason."""


class Server:
    """A guest that was asked for, on a host of our choice."""

    def __init__(self, cloud: 'clouds.Cloud', host: str) -> None:
        self._cloud = cloud
        server = cloud.api('POST', '/servers', {'server': {
            'name': 'probe', 'imageRef': cloud.image,
            'flavorRef': cloud.flavor, 'networks': 'none', 'host': host}})
        self.uuid = server['server']['id']
        self.await_status('ACTIVE')

        self._names = (
            self.uuid, self._show()['OS-EXT-SRV-ATTR:instance_name'])

    # -- Through Nova -------------------------------------------------------

    def _show(self) -> dict[str, typing.Any]:
        return self._cloud.api('GET', f'/servers/{self.uuid}')['server']

    @property
    def host(self) -> str:
        """Where Nova has it."""
        return self._show()['OS-EXT-SRV-ATTR:host']

    def await_status(self, status: str) -> None:
        deadline = time.monotonic() + ACTION_TIMEOUT
        while True:
            server = self._show()
            settled = server['OS-EXT-STS:task_state'] is None
            if settled and server['status'] == status:
                return
            if settled and server['status'] == 'ERROR':
                raise ActionFailed(f'{self.uuid}: {server.get("fault")}')
            if time.monotonic() > deadline:
                raise ActionFailed(
                    f'{self.uuid} is {server["status"]} (task '
                    f'{server["OS-EXT-STS:task_state"]}), not {status}')
            time.sleep(0.1)

    def stop(self) -> None:
        with self._action('compute_stop_instance'):
            self._post({'os-stop': None})

    def start(self) -> None:
        with self._action('compute_start_instance'):
            self._post({'os-start': None})

    def hard_reboot(self) -> None:
        with self._action('compute_reboot_instance'):
            self._post({'reboot': {'type': 'HARD'}})

    def migrate(self, host: str) -> None:
        """Move it while it is off; it waits to be confirmed or reverted."""
        with self._action('compute_finish_resize'):
            self._post({'migrate': {'host': host}})
        self.await_status('VERIFY_RESIZE')

    def confirm(self) -> None:
        with self._action('compute_confirm_resize'):
            self._post({'confirmResize': None})
        self.await_status('ACTIVE')

    def revert(self) -> None:
        with self._action('compute_finish_revert_resize'):
            self._post({'revertResize': None})
        self.await_status('ACTIVE')

    def live_migrate(self, host: str) -> None:
        """Move it while it runs, and wait until its old host has cleaned up.
        """
        self._post({'os-migrateLive': {
            'host': host, 'block_migration': 'auto'}})
        deadline = time.monotonic() + ACTION_TIMEOUT
        while (state := self._live_migration()) != 'completed':
            if state in ('error', 'failed', 'cancelled'):
                raise ActionFailed(f'the live migration is in state {state}')
            if time.monotonic() > deadline:
                raise ActionFailed(f'the live migration is {state} still')
            time.sleep(0.1)
        self.await_status('ACTIVE')

    def _live_migration(self) -> str | None:
        """The state of the last one."""
        said = self._cloud.api(
            'GET', f'/os-migrations?instance_uuid={self.uuid}'
            '&migration_type=live-migration')['migrations']
        return said[0]['status'] if said else None

    def shelve(self) -> None:
        """Off its host at once: shelved_offload_time is 0."""
        self._post({'shelve': None})
        self.await_status('SHELVED_OFFLOADED')

    def unshelve(self, host: str) -> None:
        with self._action('compute_unshelve_instance'):
            self._post({'unshelve': {'host': host}})
        self.await_status('ACTIVE')

    def evacuate(self, host: str) -> None:
        # Since 2.95 it would have to be started afterwards.
        with self._action('compute_rebuild_instance'):
            self._post({'evacuate': {'host': host}}, version='2.94')
        self.await_status('ACTIVE')

    def delete(self) -> None:
        """Delete it, unless it is gone already."""
        if self._exists():
            self._cloud.api('DELETE', f'/servers/{self.uuid}')
        deadline = time.monotonic() + ACTION_TIMEOUT
        while self._exists():
            if time.monotonic() > deadline:
                raise ActionFailed(f'{self.uuid} is still there')
            time.sleep(0.1)

    def _exists(self) -> bool:
        return any(server['id'] == self.uuid for server in
                   self._cloud.api('GET', '/servers')['servers'])

    def _post(self, action: dict[str, typing.Any],
              version: str | None = None) -> None:
        self._cloud.api('POST', f'/servers/{self.uuid}/action', action,
                        version=version)

    @contextlib.contextmanager
    def _action(self, event: str) -> collections.abc.Iterator[None]:
        """Wait until a compute host has done what is asked for inside.

        Nova keeps a record of each request, and in it one of each service's
        part; it may begin after the API has answered.
        """
        path = f'/servers/{self.uuid}/os-instance-actions'

        def requests() -> set[str]:
            said = self._cloud.api('GET', path)
            return {action['request_id']
                    for action in said['instanceActions']}

        before = requests()
        yield
        deadline = time.monotonic() + ACTION_TIMEOUT
        while True:
            events = []
            for request in requests() - before:
                said = self._cloud.api('GET', f'{path}/{request}')
                events += said['instanceAction']['events']
            results = {said['event']: said['result'] for said in events}
            if results.get(event) == 'Success':
                return
            if 'Error' in results.values():
                raise ActionFailed(f'{event}: {events}')
            if time.monotonic() > deadline:
                raise ActionFailed(f'{event} did not end: {events}')
            time.sleep(0.1)

    # -- From the guest itself ------------------------------------------------

    def boots(self) -> int:
        """How often it has booted with its variables, as it says itself.

        Waits for the report of the present boot, so ask only once the action
        has ended: each start of QEMU begins the console anew.
        """
        host = self.host
        path = (self._cloud.instances(host) / self.uuid / 'console.log')
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            text = path.read_text(errors='replace') if path.exists() else ''
            if said := guest.reports(text):
                if said[-1].boots is None:
                    raise GuestTimeout(f'no EFI variables: {said[-1].text}')
                return said[-1].boots
            if time.monotonic() > deadline:
                end = '\n'.join(text.splitlines()[-30:])
                raise GuestTimeout(f'no report of {self.uuid} on {host}; its '
                                   f'console ends with:\n{end}')
            time.sleep(0.2)

    # -- On the hosts' disks --------------------------------------------------

    def files(self) -> list[str]:
        """What the hosts' disks have by its uuid or by libvirt's name of it.

        As `host:path`, a folder without what is in it; what both hosts have
        in common as `shared:path` and `copies:path`. Not what libvirt has of
        a running QEMU, `domain-N-NAME`, and keeps if the power goes.
        """
        return [f'{disk}:{path.relative_to(root)}'
                for disk, root, path in self._found()]

    def stores(self) -> list[str]:
        """Each variable store among them, whatever it is called; no copies.
        """
        return [f'{disk}:{file.relative_to(root)}'
                for disk, root, path in self._found()
                for file in (path, *path.rglob('*'))
                if disk != 'copies' and file.is_file() and _is_store(file)]

    def _found(self) -> collections.abc.Iterator[
            tuple[str, pathlib.Path, pathlib.Path]]:
        for disk, root in self._cloud.disks():
            for path in sorted(root.rglob('*')):
                if (any(name in path.name for name in self._names)
                        and not path.name.startswith('domain-')
                        and not any(name in parent for name in self._names
                                    for parent in
                                    path.relative_to(root).parts[:-1])):
                    yield disk, root, path


def _is_store(path: pathlib.Path) -> bool:
    """Whether it is an edk2 firmware volume, or is named like a store."""
    if '_VARS' in path.name and path.suffix in ('.fd', '.raw', '.qcow2'):
        return True
    with path.open('rb') as file:
        return file.read(44)[40:] == b'_FVH'
