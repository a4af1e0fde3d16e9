# SPDX-License-Identifier: Apache-2.0
"""What a new server takes with the extension, beside Nova alone.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.spawn

API, scheduler, conductor, placement and two nova-compute services, one with
each driver, run in this process over Nova's fake libvirt. Servers are created
on one and on the other in turn: a request to the API returns when the server
is active, and the ratio is that of the two requests of a pair. Within it the
driver's ``spawn`` is measured too. There is no QEMU, no image is copied and no
network is plugged, so that the share of the extension is never as large as
here.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # noqa: F401  isort: skip

import argparse
import dataclasses
import gc
import importlib.metadata
import logging
import statistics
import sys
import time
import unittest
from collections.abc import Sequence
from typing import Any
from unittest import mock

from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.tests.functional.libvirt import base as nova_base

# here, as libvirt may not be imported while Nova's fixtures are in place
from nova_arm_ext.compute import driver
from tests.support import paste

#: What is promised: how much longer a request takes.
MOST = 1.03

DRIVERS = {'stock': 'libvirt.LibvirtDriver',
           'arm': f'arm_ext.{driver.ArmLibvirtDriver.__name__}'}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spawns:
    """Seconds by driver, one for each round.

    :param requests: of a request to the API until the server is active
    :param spawns: of the driver's method in it
    """

    requests: dict[str, list[float]]
    spawns: dict[str, list[float]]

    @staticmethod
    def ratio(seconds: dict[str, list[float]]) -> float:
        """The median of the ratios of the pairs."""
        return statistics.median(
            arm / stock for arm, stock in zip(
                seconds['arm'], seconds['stock'], strict=True))


class Bench(nova_base.ServersTestBase):
    """Nova's services around the measurements; no test."""

    microversion = 'latest'
    ADMIN_API = True

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._rounds = rounds

    def setUp(self) -> None:
        # the first to be told is done last, after what Nova says at the end
        self.addCleanup(logging.disable, logging.NOTSET)
        with paste.InstalledPaste():
            super().setUp()
        # a request returns when all that it asks for is done
        self.useFixture(nova_fixtures.SpawnIsSynchronousFixture())
        self.libvirt.mock_uname.return_value = fakelibvirt.os_uname(
            'Linux', '', '5.4.0-0-generic', '', 'aarch64')
        for host, name in DRIVERS.items():
            self.flags(compute_driver=name)
            self.start_compute(host)
        self.image = self.glance.create(None, {
            'name': 'arm', 'container_format': 'bare', 'disk_format': 'raw',
            'min_disk': 0, 'min_ram': 0, 'status': 'active',
            'properties': {'hw_architecture': 'aarch64'}})['id']
        self.flavor = self._create_flavor()

    def runTest(self) -> None:
        # DEBUG, which Nova's fixtures turn on, makes a diff of each document
        logging.disable(logging.DEBUG)
        spawns: dict[str, list[float]] = {host: [] for host in DRIVERS}
        requests: dict[str, list[float]] = {host: [] for host in DRIVERS}
        for host, taken in spawns.items():
            self.measure(self.computes[host].driver, taken)
        self.create('stock')                 # what is loaded but once
        self.check_hooks()
        for taken in spawns.values():
            taken.clear()
        for number in range(self._rounds):
            # the first of a pair now and then, for what runs beside
            for host in sorted(DRIVERS, reverse=bool(number % 2)):
                requests[host].append(self.create(host))
        logging.disable(logging.CRITICAL)
        # nova.test.TestCase deletes all other names when it ends
        self._found = Spawns(requests=requests, spawns=spawns)

    @staticmethod
    def measure(made: Any, taken: list[float]) -> None:
        spawn = made.spawn

        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return spawn(*args, **kwargs)
            finally:
                taken.append(time.perf_counter() - started)

        made.spawn = measured

    def check_hooks(self) -> None:
        """See that it is a guest for which the hooks do something."""
        pipeline = self.computes['arm'].driver._adjustment.pipeline
        run, changed = pipeline.run, []

        def running(xml: str, *args: Any, **kwargs: Any) -> Any:
            result = run(xml, *args, **kwargs)
            changed.append(result.xml != xml)
            return result

        with mock.patch.object(pipeline, 'run', running):
            self.create('arm')
        if not any(changed):
            raise RuntimeError('the hooks left the document as it was')

    def create(self, host: str) -> float:
        """Seconds until a server is active, which is deleted again."""
        request = self._build_server(
            image_uuid=self.image, flavor_id=self.flavor, networks='none',
            az=f'nova:{host}')
        gc.collect()
        started = time.perf_counter()
        server = self.api.post_server({'server': request})
        taken = time.perf_counter() - started
        status = self.api.get_server(server['id'])['status']
        if status != 'ACTIVE':
            raise RuntimeError(f'a server on {host} became {status}')
        self.api.delete_server(server['id'])
        return taken

    def found(self) -> Spawns:
        """The measurements; whatever broke is raised."""
        result = unittest.TestResult()
        self.run(result)
        for _, text in result.errors + result.failures:
            raise RuntimeError(text)
        return self._found


def broken(found: Spawns) -> list[str]:
    """The promises that the measurements do not keep."""
    ratio = found.ratio(found.requests)
    return [] if ratio <= MOST else [
        f'a server takes {ratio:.3f} times as long, more than {MOST}']


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=40)
    asked = parser.parse_args(arguments)
    found = Bench(asked.rounds).found()
    print(f'Nova {importlib.metadata.version("nova")}; {asked.rounds} pairs\n')
    print(f'{"":20}{"with ms":>10}{"without":>10}{"ratio":>8}')
    for name, seconds in (('request for a server', found.requests),
                          ("driver's spawn", found.spawns)):
        print(f'{name:20}'
              f'{statistics.median(seconds["arm"]) * 1000:>10.1f}'
              f'{statistics.median(seconds["stock"]) * 1000:>10.1f}'
              f'{found.ratio(seconds):>8.3f}')
    faults = broken(found)
    for fault in faults:
        print(f'not as promised: {fault}')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
