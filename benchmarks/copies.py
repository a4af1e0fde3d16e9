# SPDX-License-Identifier: Apache-2.0
"""What the copies of the variable stores of running guests cost.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.copies

All guests of a host over Nova's fake libvirt run. Their stores are real files
of 64 MiB, locked as QEMU locks them. In the first round all of them have been
written, in the second one none. In each round Nova's periodic update of the
driver runs under the lock that every claim of an instance waits for
(``COMPUTE_RESOURCE_SEMAPHORE``), and then the task that makes the copies, if
the driver has one. Nova's database takes no time in this measurement.
"""

# Nova's test packages patch threads as they are imported and must come first.
from benchmarks import hosts  # isort: skip

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import struct
import sys
import time
import uuid
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from unittest import mock

import nova.conf
from lxml import etree
from nova import utils
from nova.compute import provider_tree
from nova.compute import vm_states
from nova.compute.resource_tracker import COMPUTE_RESOURCE_SEMAPHORE
from nova.virt import fake
from nova.virt.libvirt import utils as libvirt_utils
from oslo_concurrency import lockutils

from nova_arm_ext import varstore
from nova_arm_ext.compute.driver import ArmLibvirtDriver
from tests.support import stores

CONF = nova.conf.CONF

#: How many guests a host has.
SIZES = (1, 10, 100)
#: Milliseconds of the processor, at most, for a guest that wrote nothing.
MOST_UNWRITTEN = 10
#: Milliseconds that a claim may wait for copies.
MOST_HELD = 0

#: Seconds between two rounds; the shortest interval.
INTERVAL = 1

_NODE = 'compute1'
# struct flock: type, whence, start, length, process
_FLOCK = 'hhqqi4x'
#: The first byte that QEMU locks (block/file-posix.c, RAW_LOCK_PERM_BASE).
_QEMU_LOCKS = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """What one round took.

    :param wall: seconds
    :param cpu: seconds of the processor
    :param read: how many stores were read
    :param held: seconds for which claims waited because stores were read
    """

    wall: float
    cpu: float
    read: int
    held: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guests:
    """The rounds of a host with so many guests.

    :param written: the round in which all of them have written
    :param unwritten: the one after it
    """

    number: int
    written: Round
    unwritten: Round


class Bench(hosts.Bench):
    """Hosts with running guests; no test."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes, rounds=1)

    def _of_hosts(self) -> list[Guests]:
        # stores are on a disk
        self._in_folder(None)
        self.stub_out('nova.objects.InstanceList.get_by_host',
                      lambda *args, **kwargs: self._instances)
        self.stub_out('nova.objects.Instance.refresh', lambda instance: None)
        # a driver registers the options
        ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        return [self._copied(number) for number in self._sizes]

    def _copied(self, number: int) -> Guests:
        self._instances = [self._instance_of(one) for one in range(number)]
        for instance in self._instances:
            instance.host = CONF.host
            instance.vm_state = vm_states.ACTIVE
        self._connect()
        with contextlib.ExitStack() as stack:
            for instance in self._instances:
                self._connection.lookupByUUIDString(
                    instance.uuid).createWithFlags(0)
                stack.enter_context(locked(written(store_of(instance))))
            driver = self._driver()
            return Guests(number=number, written=self._round(driver),
                          unwritten=self._round(driver))

    def _stored(self, instance: Any) -> str:
        root = etree.fromstring(super()._stored(instance))
        root.find('os/nvram').text = str(store_of(instance))
        return etree.tostring(root, encoding='unicode')

    def _driver(self) -> Any:
        """A driver that makes copies, and knows the host already."""
        copies = pathlib.Path(CONF.instances_path, str(uuid.uuid4()))
        copies.mkdir(mode=0o700)
        self.flags(store='directory', directory=str(copies),
                   copy_interval=INTERVAL, group='arm_nvram')
        driver = ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        self._tree = provider_tree.ProviderTree()
        self._tree.new_root(_NODE, str(uuid.uuid4()))
        driver.update_provider_tree(self._tree, _NODE)
        return driver

    def _round(self, driver: Any) -> Round:
        time.sleep(INTERVAL)
        claims = lockutils.internal_fair_lock(COMPUTE_RESOURCE_SEMAPHORE)
        read_under_lock: list[bool] = []
        pack = varstore.pack

        def packed(*args: Any, **kwargs: Any) -> bytes:
            read_under_lock.append(claims.owner is not None)
            return pack(*args, **kwargs)

        wall, cpu = time.perf_counter(), time.process_time()
        with mock.patch.object(varstore, 'pack', packed):
            updated = self._update(driver)
            if hasattr(driver, '_copying'):
                driver._copying.copy_all()
        return Round(
            wall=time.perf_counter() - wall, cpu=time.process_time() - cpu,
            read=len(read_under_lock),
            # an update that reads no store takes as long without copies
            held=updated if any(read_under_lock) else 0)

    @utils.synchronized(COMPUTE_RESOURCE_SEMAPHORE, fair=True)
    def _update(self, driver: Any) -> float:
        """Seconds of the update that Nova makes, also with each claim."""
        started = time.perf_counter()
        driver.update_provider_tree(self._tree, _NODE)
        return time.perf_counter() - started


def store_of(instance: Any) -> pathlib.Path:
    return pathlib.Path(libvirt_utils.get_instance_path(instance),
                        f'{instance.uuid}_VARS.fd')


def written(path: pathlib.Path) -> pathlib.Path:
    """The same path, with a store of 64 MiB that has variables in it."""
    data = stores.store(*(stores.variable(f'Boot{number:04X}', bytes(100))
                          for number in range(64)))
    path.write_bytes(data)
    os.truncate(path, varstore.MAX_SIZE)
    return path


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Lock a file as a running QEMU does."""
    with path.open('rb') as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(
            _FLOCK, fcntl.F_RDLCK, os.SEEK_SET, _QEMU_LOCKS, 1, 0))
        yield


def read(found: list[dict[str, Any]]) -> list[Guests]:
    """The measurements from what ``--json`` prints."""
    return [Guests(number=one['number'], written=Round(**one['written']),
                   unwritten=Round(**one['unwritten'])) for one in found]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=SIZES)
    parser.add_argument('--json', action='store_true',
                        help='print the measurements as JSON')
    asked = parser.parse_args(arguments)
    found = Bench(asked.sizes).found()
    if asked.json:
        json.dump([dataclasses.asdict(guests) for guests in found],
                  sys.stdout)
        return
    print(f'{"guests":>6}{"":>12}{"read":>6}{"wall s":>9}{"CPU s":>9}'
          f'{"CPU ms each":>13}{"claims wait s":>15}')
    for guests in found:
        for what in ('written', 'unwritten'):
            one = getattr(guests, what)
            print(f'{guests.number:>6}{what:>12}{one.read:>6}'
                  f'{one.wall:>9.3f}{one.cpu:>9.3f}'
                  f'{one.cpu * 1000 / guests.number:>13.2f}'
                  f'{one.held:>15.3f}')


if __name__ == '__main__':
    main()
