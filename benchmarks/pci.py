# SPDX-License-Identifier: Apache-2.0
"""What the PCI inventory costs beside Nova's own, by the number of devices.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.pci
    $(tools/environment nova34)/bin/python -m benchmarks.pci --nova-up-to 256

Both answer about the same devices of Nova's own fake libvirt, in one run and
one after the other, and their JSON has to be equal. Nova's own grows with the
square of the number, so by default it stops at 1,024 virtual functions (about
two minutes); ``--nova-up-to 4096`` takes most of an hour. Calls of libvirt
are counted in a run of their own, as counting costs time.

Each call of libvirt passes through a native thread, as in nova-compute with
eventlet (Nova 29 to 33, and 34 where it is asked for). In native threading
mode (OS_NOVA_DISABLE_EVENTLET_PATCHING=1) a call costs next to nothing here,
though not with a real libvirt, which sits behind a socket.

``--plot FILE`` and ``--table FILE`` write the measurements as an SVG picture
and as the table of the documentation. The exit status is 1 where the answers
are not equal or the cost is not what is promised.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import argparse
import importlib.metadata
import json
import logging
import math
import pathlib
import platform
import statistics
import sys
import time
import unittest
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from unittest import mock

from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver

from nova_arm_ext.compute import driver

SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
METHODS = ('name', 'parent', 'listCaps', 'XMLDesc')

#: What is promised: the growth from 1,024 functions to 2,048, how many times
#: faster than Nova's own at 1,024, and calls of libvirt a device.
MOST_GROWTH, LEAST_FASTER, MOST_CALLS = 2.3, 50, 3


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


class Bench(nova.test.NoDBTestCase):
    """Nova's fixtures around the measurements; no test."""

    def __init__(self, sizes: Sequence[int] = SIZES, *, rounds: int,
                 nova_up_to: int, physical: int = 1) -> None:
        super().__init__()
        self._sizes = sizes
        self._rounds = rounds
        self._nova_up_to = nova_up_to
        self._physical = physical

    def found(self) -> list[dict[str, Any]]:
        """A row of each size; whatever broke is raised."""
        result = unittest.TestResult()
        self.run(result)
        for _, text in result.errors + result.failures:
            raise RuntimeError(text)
        return self._found

    def runTest(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.useFixture(nova_fixtures.LibvirtFixture())
        # nova.test.TestCase deletes all other names when it ends
        self._found = [self.measure(size) for size in self._sizes]

    def measure(self, functions: int) -> dict[str, Any]:
        """Seconds, calls and whether the answers are equal."""
        connection = fakelibvirt.Connection(
            'qemu:///system', pci_info=fakelibvirt.HostPCIDevicesInfo(
                num_pfs=self._physical, num_vfs=functions))
        # made once, so that neither answer takes the time for it
        devices = connection.listAllDevices(
            fakelibvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
        connection.listAllDevices = lambda flags: devices
        made = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        own = libvirt_driver.LibvirtDriver._get_pci_passthrough_devices
        own = getattr(own, '__wrapped__', own)    # cached for ever in 34
        # Nova's Host stands between, with its native threads under eventlet
        with mock.patch.object(made._host, 'get_connection',
                               return_value=connection):
            times = []
            for _ in range(self._rounds):
                made._get_pci_passthrough_devices.cache_clear()
                taken, answer = seconds(made._get_pci_passthrough_devices)
                times.append(taken)
            result = {'functions': functions, 'devices': len(devices),
                      'seconds': statistics.median(times),
                      'calls': self.calls(
                          made._get_pci_passthrough_devices)}
            if functions <= self._nova_up_to:
                result['nova_seconds'], nova_own = seconds(lambda: own(made))
                result['equal'] = answer == nova_own
                if functions <= 256:
                    # counting takes Nova's own several times as long
                    result['nova_calls'] = self.calls(lambda: own(made))
        show(result)
        return result

    @staticmethod
    def calls(call: Callable[[], Any]) -> int:
        """How many methods of devices are called."""
        driver.ArmLibvirtDriver._get_pci_passthrough_devices.cache_clear()
        counted = 0

        def counting(original: Callable[..., Any]) -> Callable[..., Any]:
            def method(*args: Any) -> Any:
                nonlocal counted
                counted += 1
                return original(*args)
            return method

        device = fakelibvirt.NodeDevice
        with mock.patch.multiple(device, **{
                name: counting(getattr(device, name)) for name in METHODS}):
            call()
        return counted


def show(row: dict[str, Any]) -> None:
    own = row.get('nova_seconds')
    cells = [f'{row["functions"]:>9}', f'{row["devices"]:>8}',
             f'{row["seconds"] * 1000:>10.1f}',
             '-' if own is None else f'{own * 1000:.0f}',
             '-' if own is None else f'{own / row["seconds"]:.0f}',
             f'{row["calls"] / row["devices"]:.2f}',
             (f'{row["nova_calls"] / row["devices"]:.1f}'
              if 'nova_calls' in row else '-'),
             str(row.get('equal', '-'))]
    print(f'{cells[0]}{cells[1]}{cells[2]}{cells[3]:>11}{cells[4]:>8}'
          f'{cells[5]:>13}{cells[6]:>13}{cells[7]:>8}', flush=True)


def growth(found: Sequence[dict[str, Any]], smaller: int) -> float:
    """How much longer twice the devices take."""
    by_size = {row['functions']: row['seconds'] for row in found}
    return by_size[2 * smaller] / by_size[smaller]


def broken(found: Sequence[dict[str, Any]]) -> list[str]:
    """The promises that the measurements do not keep."""
    faults = [f'{row["functions"]} functions: the answers differ'
              for row in found if row.get('equal') is False]
    faults += [f'{row["functions"]} functions: {row["calls"]} calls for '
               f'{row["devices"]} devices'
               for row in found if row['calls'] > MOST_CALLS * row['devices']]
    if growth(found, 1024) > MOST_GROWTH:
        faults.append(f'twice the functions take more than {MOST_GROWTH} '
                      f'times the time')
    faults += [f'{row["functions"]} functions: less than {LEAST_FASTER} '
               f'times faster'
               for row in found if row['functions'] == 1024
               and 'nova_seconds' in row
               and row['nova_seconds'] < LEAST_FASTER * row['seconds']]
    return faults


def table(found: Sequence[dict[str, Any]]) -> str:
    """Values separated by commas, as the documentation includes them."""
    lines = ["Virtual functions,Nova's own (s),nova-arm-ext (s),"
             "Times faster,Nova's calls a device,Calls a device"]
    for row in found:
        own = row.get('nova_seconds')
        lines.append(','.join((
            str(row['functions']),
            '' if own is None else f'{own:.2f}',
            f'{row["seconds"]:.3f}',
            '' if own is None else f'{own / row["seconds"]:.0f}',
            (f'{row["nova_calls"] / row["devices"]:.0f}'
             if 'nova_calls' in row else ''),
            f'{row["calls"] / row["devices"]:.1f}')))
    return '\n'.join([*lines, ''])


def plot(found: Sequence[dict[str, Any]]) -> str:
    """An SVG picture with logarithmic axes."""
    width, height, margin = 640, 400, 60
    lines = {"Nova's own": [(r['functions'], r['nova_seconds'])
                            for r in found if 'nova_seconds' in r],
             'nova-arm-ext': [(r['functions'], r['seconds']) for r in found]}
    every = [s for points in lines.values() for _, s in points]
    low, high = (math.floor(math.log10(min(every))),
                 math.ceil(math.log10(max(every))))

    def x(functions: int) -> float:
        share = math.log2(functions / SIZES[0]) / math.log2(
            SIZES[-1] / SIZES[0])
        return margin + share * (width - 2 * margin)

    def y(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return height - margin - share * (height - 2 * margin)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
             f'height="{height}" font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>']
    for power in range(low, high + 1):
        place = y(10.0 ** power)
        parts.append(
            f'<line x1="{margin}" x2="{width - margin}" y1="{place:.0f}" '
            f'y2="{place:.0f}" stroke="#ddd"/><text x="{margin - 8}" '
            f'y="{place + 4:.0f}" text-anchor="end">{10.0 ** power:g} s'
            f'</text>')
    for size in SIZES:
        parts.append(f'<text x="{x(size):.0f}" y="{height - margin + 18}" '
                     f'text-anchor="middle">{size}</text>')
    parts.append(f'<text x="{width / 2:.0f}" y="{height - 14}" '
                 f'text-anchor="middle">virtual functions</text>')
    for (name, points), colour in zip(lines.items(), ('#c33', '#06c'),
                                      strict=True):
        if not points:
            continue
        path = ' '.join(f'{x(f):.1f},{y(s):.1f}' for f, s in points)
        last_x, last_y = x(points[-1][0]), y(points[-1][1])
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" '
            f'stroke-width="2"/><text x="{last_x - 6:.0f}" '
            f'y="{last_y - 8:.0f}" text-anchor="end" fill="{colour}">{name}'
            f'</text>')
    return '\n'.join([*parts, '</svg>', ''])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--nova-up-to', type=int, default=1024)
    parser.add_argument('--physical', type=int, default=1,
                        help='how many physical functions share the virtual '
                             'ones (1)')
    parser.add_argument('--plot', metavar='FILE')
    parser.add_argument('--table', metavar='FILE')
    parser.add_argument('--json', metavar='FILE')
    asked = parser.parse_args()
    print(f'Nova {importlib.metadata.version("nova")}, Python '
          f'{platform.python_version()}, {platform.machine()}; median of '
          f'{asked.rounds} rounds, Nova\'s own once\n')
    print(f'{"virtual":>9}{"":>8}{"":>10}{"Nova":>11}{"times":>8}'
          f'{"calls a":>13}{"Nova calls":>13}')
    print(f'{"functions":>9}{"devices":>8}{"ms":>10}{"ms":>11}{"faster":>8}'
          f'{"device":>13}{"a device":>13}{"equal":>8}')
    found = Bench(rounds=asked.rounds, nova_up_to=asked.nova_up_to,
                  physical=asked.physical).found()
    for smaller in (512, 1024, 2048):
        print(f'from {smaller} to {2 * smaller} functions: '
              f'{growth(found, smaller):.2f} times the time')
    if asked.json:
        pathlib.Path(asked.json).write_text(json.dumps(found, indent=1))
    if asked.plot:
        pathlib.Path(asked.plot).write_text(plot(found))
    if asked.table:
        pathlib.Path(asked.table).write_text(table(found))
    faults = broken(found)
    for fault in faults:
        print(f'not as promised: {fault}')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
