# SPDX-License-Identifier: Apache-2.0
"""What the driver adds to the domain XML that Nova makes of one guest.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.seam

Two drivers, Nova's own and the extension's, start the same new guest and
reboot the same existing guest, in turn, in one process over Nova's fake
libvirt. Of Nova's ``spawn`` and ``_hard_reboot`` only the call of
``_get_guest_xml`` is left, so that the stock driver takes the time of that
call, and what the other one takes more is added by the extension: the hooks,
the facts that they need, and all that runs around Nova's methods. An existing
guest is measured twice. First its instance directory is in memory; then it is
on disk, where the extension saves the guest's domain XML and waits until the
disk has it, and the call of ``_create_guest`` is left too, before which the
extension looks after the variable store. Logging is on, at the level INFO.
"""

# Nova's test packages patch threads as they are imported and must come first.
from tests.nova.documents import generate  # isort: skip

import argparse
import collections
import contextlib
import dataclasses
import gc
import inspect
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from unittest import mock

import nova.conf
from lxml import etree
from nova import context
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt.libvirt import blockinfo
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import host
from nova.virt.libvirt import utils as libvirt_utils

from nova_arm_ext.compute.driver import ArmLibvirtDriver
from tests.nova.documents import kinds

CONF = nova.conf.CONF

#: What is promised: the share of Nova's own time that is added, and how many
#: libvirt calls.
MOST, MOST_CALLS = 0.6, 3

NEW, EXISTING, ON_DISK = 'new', 'existing', 'on disk'
SITUATIONS = (NEW, EXISTING, ON_DISK)

#: A folder in memory, so that no disk is measured; None where there is none.
MEMORY = '/dev/shm' if os.path.isdir('/dev/shm') else None

_GET_CONNECTION = host.Host.get_connection
#: What an instance has that has been started before.
MACHINE = 'virt-5.1'
#: What the libvirt client knows by itself.
_LOCAL = ('ID', 'UUIDString', 'name')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Seam:
    """What one situation takes.

    :param novas: seconds of Nova's own driver, one for each round
    :param ours: of the extension's driver in the same rounds
    :param calls: the libvirt calls that the extension adds, by their names
    """

    novas: list[float]
    ours: list[float]
    calls: str

    @property
    def added(self) -> list[float]:
        return [ours - novas for ours, novas
                in zip(self.ours, self.novas, strict=True)]

    @property
    def share(self) -> float:
        """The median of the shares of Nova's own time that are added."""
        return statistics.median(
            added / novas for added, novas
            in zip(self.added, self.novas, strict=True))


class Environment(generate.Build):
    """Nova's test environment around one kind of guest; no test.

    Nova's Host object is whole in it, also with what it does for each libvirt
    call. ``self._connection`` is what it connects to.
    """

    def __init__(self) -> None:
        super().__init__(kinds.AARCH64_KVM, [kinds.Kind(name='default')],
                         9000000, 7002022, None)

    def setUp(self) -> None:
        super().setUp()
        self._connection = host.Host.get_connection(None)
        self.stub_out('nova.virt.libvirt.host.Host.get_connection',
                      _GET_CONNECTION)
        self.stub_out('nova.tests.fixtures.libvirt.openAuth',
                      lambda *args: self._connection)
        # one handler, as nova-compute has; another one only formats
        root = logging.getLogger()
        self.addCleanup(setattr, root, 'handlers', root.handlers)
        root.handlers = root.handlers[:1]
        # DEBUG, which Nova's fixtures turn on, makes a diff of each document
        logging.disable(logging.DEBUG)
        self.addCleanup(logging.disable, logging.NOTSET)

    def found(self) -> Any:
        """The measurements; whatever broke is raised."""
        for outcome in self.outcomes().values():
            if outcome.refusal:
                raise RuntimeError(outcome.refusal)
        # nova.test.TestCase deletes all other names when it ends
        return self._found

    def _document(self) -> str:
        self._found = self._measured()
        return ''

    def _measured(self) -> Any:
        raise NotImplementedError

    def _in_folder(self, parent: str | None) -> None:
        """Have the instance directories in a folder of our own."""
        folder = tempfile.TemporaryDirectory(dir=parent)
        self.addCleanup(folder.cleanup)
        self.flags(instances_path=folder.name)


class Bench(Environment):
    """One guest, new and existing, with both drivers."""

    def __init__(self, rounds: int, times: int) -> None:
        super().__init__()
        self._rounds = rounds
        self._times = times

    def _measured(self) -> dict[str, Seam]:
        self._context = context.get_admin_context()
        with contextlib.ExitStack() as stack:
            for name, instead in (('spawn', self._define),
                                  ('_hard_reboot', self._define),
                                  ('_create_guest', None)):
                stack.enter_context(mock.patch.object(
                    libvirt_driver.LibvirtDriver, name, instead or (
                        lambda *args, **kwargs: None)))
            self._drivers = [
                one(fake.FakeVirtAPI(), False) for one
                in (libvirt_driver.LibvirtDriver, ArmLibvirtDriver)]
            self._in_folder(MEMORY)
            self._run(self._drivers[1], NEW)
            stored = as_libvirt_stores(self._xml)
            self._connection.defineXML(stored)
            # the fake libvirt forgets most of what it was told
            stack.enter_context(mock.patch.object(
                fakelibvirt.Domain, 'XMLDesc', lambda domain, flags: stored))
            return {what: self._measure(what) for what in SITUATIONS}

    def _measure(self, what: str) -> Seam:
        self._in_folder(None if what == ON_DISK else MEMORY)
        if what != NEW:
            os.makedirs(libvirt_utils.get_instance_path(self._instance()))
        calls = [self._calls(driver, what) for driver in self._drivers]
        seconds: tuple[list[float], list[float]] = [], []
        for _ in range(self._rounds):
            taken: tuple[list[float], list[float]] = [], []
            gc.collect()
            for _ in range(self._times):
                for driver, one in zip(self._drivers, taken, strict=True):
                    one.append(self._run(driver, what))
            for one, many in zip(taken, seconds, strict=True):
                # not the mean, for what else the machine does
                many.append(statistics.median(one))
        added = collections.Counter(calls[1]) - collections.Counter(calls[0])
        return Seam(novas=seconds[0], ours=seconds[1],
                    calls=' '.join(added.elements()))

    def _run(self, driver: Any, what: str) -> float:
        """Seconds of one define."""
        instance, image = self._instance(), self._image_meta()
        if what != NEW:
            instance.system_metadata['image_hw_machine_type'] = MACHINE
            image = instance.image_meta
        disk_info = blockinfo.get_disk_info(
            CONF.libvirt.virt_type, instance, image, None)
        self._wanted = instance, self._network(), disk_info, image
        self._starts = what == ON_DISK
        # of the processor, whatever else the machine does
        clock = time.perf_counter if what == ON_DISK else time.process_time
        started = clock()
        if what == NEW:
            driver.spawn(self._context, instance, image, [], None, None)
        else:
            driver._hard_reboot(self._context, instance, [], [])
        return clock() - started

    @property
    def _define(self) -> Any:
        """What is left of Nova's methods that define a guest."""
        def define(driver: Any, context: Any, instance: Any, *args: Any,
                   **kwargs: Any) -> None:
            self._xml = driver._get_guest_xml(context, *self._wanted)
            if self._starts:
                driver._create_guest(context, self._xml, instance)
        return define

    def _calls(self, driver: Any, what: str) -> list[str]:
        """The libvirt calls of a driver that knows the host."""
        self._run(driver, what)
        with counted() as names:
            self._run(driver, what)
        return names


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """Give the names of the libvirt calls that are made meanwhile.

    Those that libvirt answers without its daemon are not among them.
    """
    names: list[str] = []
    with contextlib.ExitStack() as stack:
        for owner in (fakelibvirt.Connection, fakelibvirt.Domain):
            for name, method in inspect.getmembers(owner, inspect.isfunction):
                if not name.startswith('_') and name not in _LOCAL:
                    stack.enter_context(mock.patch.object(
                        owner, name, _counting(name, method, names)))
        yield names


def _counting(name: str, method: Any, names: list[str]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        names.append(name)
        return method(*args, **kwargs)
    return call


def as_libvirt_stores(xml: str) -> str:
    """A domain XML with numbers and addresses, as libvirt hands it back."""
    root = etree.fromstring(xml)
    root.find('os/type').set('machine', MACHINE)
    devices = root.find('devices')
    ports = iter(range(1, 256))
    buses = iter(range(1, 256))
    for device in devices:
        if device.get('model') == 'pcie-root-port':
            port = next(ports)
            device.set('index', str(port))
            etree.SubElement(
                device, 'address', type='pci', domain='0x0000', bus='0x00',
                slot=f'0x{1 + port // 8:02x}', function=f'0x{port % 8}')
        target = device.find('target')
        bus = device.get('bus') if target is None else target.get('bus')
        if (device.tag in ('interface', 'video', 'memballoon', 'rng')
                or bus == 'virtio'
                or device.get('type') in ('usb', 'virtio-serial')):
            etree.SubElement(
                device, 'address', type='pci', domain='0x0000',
                bus=f'0x{next(buses):02x}', slot='0x00', function='0x0')
    return etree.tostring(root, encoding='unicode')


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--times', type=int, default=10)
    parser.add_argument('--json', action='store_true',
                        help='print the measurements as JSON')
    asked = parser.parse_args(arguments)
    found = Bench(asked.rounds, asked.times).found()
    if asked.json:
        json.dump({what: dataclasses.asdict(seam)
                   for what, seam in found.items()}, sys.stdout)
        return
    print(f'{"":12}{"Nova ms":>10}{"added ms":>10}{"share":>8}  calls added')
    for what, seam in found.items():
        print(f'{what:12}{statistics.median(seam.novas) * 1000:>10.2f}'
              f'{statistics.median(seam.added) * 1000:>10.2f}'
              f'{seam.share:>8.2f}  {seam.calls}')


if __name__ == '__main__':
    main()
