# SPDX-License-Identifier: Apache-2.0
"""Many operations on a few guests, as a seed plans them.

After each of them the guest is where it should be and counts the right number
of boots, and no host has anything of a guest that is not there. Copies are
made on a timer all the while. ``NOVA_ARM_EXT_SOAK`` says how many operations,
and ``NOVA_ARM_EXT_SOAK_SEED`` repeats those of an earlier run.
"""

import collections.abc
import os
import pathlib
import re
import secrets
import sys
import time
import typing

from tests.hosts.two import base
from tests.hosts.two import cloud
from tests.hosts.two import rows
from tests.hosts.two import server as servers
from tests.hosts.two import settings
from tests.hosts.two import soak

OPERATIONS = int(os.environ.get('NOVA_ARM_EXT_SOAK') or 200)
SEED = os.environ.get('NOVA_ARM_EXT_SOAK_SEED') or secrets.token_hex(4)
GUESTS = 3

#: An instance's UUID or libvirt's name of it.
_NAME = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
                   r'|instance-[0-9a-f]{8}')


def setUpModule() -> None:
    base.bring_up(shared=False)


class SoakTest(base.MovingGuestTestCase):

    driver = cloud.ARM_DRIVER
    options: typing.ClassVar[settings.Values] = {'arm_nvram': {
        **rows.Copied.options['arm_nvram'], 'on_rebuild': 'keep'}}

    def setUp(self) -> None:
        super().setUp()
        self.flavors = [self.cloud.flavor,
                        self.cloud.make_flavor('larger', memory=1152)]
        self.states: dict[int, soak.State] = {}
        self.servers: dict[int, servers.Server] = {}

    def test_each_guest_keeps_its_variables_and_nothing_stays(self):
        say(f'{OPERATIONS} operations on {GUESTS} guests; '
            f'NOVA_ARM_EXT_SOAK_SEED={SEED} repeats them')
        for number in range(GUESTS):
            self.create(number, soak.HOSTS[number % len(soak.HOSTS)])
        steps = list(soak.plan(SEED, OPERATIONS, GUESTS))
        for done, step in enumerate(steps, start=1):
            started = time.monotonic()
            said = f'{done}/{len(steps)}: {step}'
            self.do(step)
            for number, state in step.states.items():
                server = self.servers[number]
                server.await_status(state.status)
                self.assertEqual(state.host, server.host, said)
            self.states |= step.states
            self.assertEqual([], self.misplaced(), said)
            say(f'{said} ({time.monotonic() - started:.0f} s)')
        for number in range(GUESTS):
            self.settle(number)
            self.servers[number].await_copy(self.states[number].boots)
        for number in range(GUESTS):
            self.delete(number)
        self.states = {}
        self.assertEqual([], self.misplaced())
        say('all are done, and nothing is left')

    def create(self, number: int, host: str) -> None:
        server = servers.Server(self.cloud, host)
        self.addCleanup(server.delete)
        self.servers[number] = server
        self.states[number] = soak.State(host=host)

    def delete(self, number: int) -> None:
        server = self.servers[number]
        server.delete()
        if self.states[number].host is None:
            # The API deletes it by itself; its copy is documented to stay.
            (self.cloud.folder / 'copies' / server.copy_name).unlink()
        self.assertEqual([], server.files())

    def settle(self, number: int) -> None:
        """Wait until a guest has booted, and compare its number of boots."""
        state, server = self.states[number], self.servers[number]
        if state.reports is not None:
            self.assertEqual(state.reports, server.boots(),
                             f'guest {number} in {state}')
        elif state.runs:
            server.uptime()

    def do(self, step: soak.Step) -> None:
        for number in step.states:
            self.settle(number)
        if step.name == soak.POWER_CUT:
            self.cut_power(step)
            return
        [(number, state)] = step.states.items()
        server = self.servers[number]
        match step.name:
            case 'replace':
                self.delete(number)
                self.create(number, step.host)
            case 'migrate' | 'live_migrate':
                getattr(server, step.name)(state.host)
            case 'unshelve':
                server.unshelve(step.host)
            case 'resize':
                server.resize(self.flavors[state.flavor])
            case 'confirm' | 'revert':
                getattr(server, step.name)(state.status)
            case 'snapshot':
                image = server.snapshot()
                self.cloud.api('DELETE', f'/v2/images/{image}',
                               service='glance')
            case name:
                getattr(server, name)()

    def cut_power(self, step: soak.Step) -> None:
        for number in step.states:
            self.servers[number].await_copy(self.states[number].boots)
        self.lose_power(step.host)
        for number, state in step.states.items():
            assert state.host is not None
            self.servers[number].evacuate(state.host)
        self.cloud.power_on(step.host)

    def misplaced(self) -> list[str]:
        """What is on a host, or in the store for copies, and should not be."""
        return [*self._files(), *self._domains()]

    def _files(self) -> collections.abc.Iterator[str]:
        for disk, root in self.cloud.disks():
            allowed = {
                name for number, state in self.states.items()
                for name in self.servers[number].names
                if disk == 'copies' or disk in state.hosts}
            for path in _paths(root):
                names = set(_NAME.findall(path))
                if (not names <= allowed or '.damaged-' in path
                        # On the other host these are for a revert.
                        or re.search(r'(?<!_resize)/[^/]*arm-domain.xml$',
                                     path)):
                    yield f'{disk}:{path}'

    def _domains(self) -> collections.abc.Iterator[str]:
        for name, host in self.cloud.hosts.items():
            there = set(host.run('virsh', 'list', '--all', '--uuid').split())
            right = {self.servers[number].uuid
                     for number, state in self.states.items()
                     if name in state.hosts}
            for uuid in sorted(there ^ right):
                yield f'{name}: domain {uuid}'


def _paths(root: pathlib.Path) -> collections.abc.Iterator[str]:
    for path in sorted(root.rglob('*')):
        # libvirt's own of a running QEMU; after a power cut they stay.
        if '/domain-' not in str(path):
            yield str(path.relative_to(root))


def say(text: str) -> None:
    """Show how far it is; a test's standard output is its results."""
    print(f'soak: {text}', file=sys.stderr, flush=True)
