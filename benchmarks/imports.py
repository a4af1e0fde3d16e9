# SPDX-License-Identifier: Apache-2.0
"""What the driver adds to the start of nova-compute: time and memory.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.imports

Each start is a process of its own that imports what nova-compute does, reads
its options and makes the driver, as the service does before it asks libvirt
anything; one with each driver in turn. Memory is what is resident then, and
what is so when the hooks have run once, with libvirt's schema where there is
one.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Sequence

from benchmarks import trees

DRIVERS = {'stock': 'libvirt.LibvirtDriver',
           'arm': 'arm_ext.ArmLibvirtDriver'}

_DOCUMENT = trees.HERE / 'tests/data/golden/new-guest/before.xml'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What one start took.

    :param seconds: of the processor, from the first import to the driver
    :param resident: bytes of memory then
    :param used: bytes of memory when a guest has passed through the hooks;
        of Nova alone the same as before
    """

    seconds: float
    resident: int
    used: int


def resident() -> int:
    """Bytes of memory that this process has now."""
    for line in pathlib.Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError('/proc/self/status has no VmRSS')


def start(name: str) -> Start:
    """Start as nova-compute does, in this process, with this driver."""
    started = time.process_time()
    # nova.cmd.compute would patch threads, which takes the same for both
    import nova.cmd.compute
    import nova.compute.manager
    import nova.conf
    from nova.virt import driver
    nova.conf.CONF([], project='nova', default_config_files=[],
                   default_config_dirs=[])
    nova.conf.CONF.set_override('compute_driver', name)
    made = driver.load_compute_driver(None)
    seconds, memory = time.process_time() - started, resident()
    if name == DRIVERS['arm']:
        from nova_arm_ext import facts
        adjustment = getattr(made, '_adjustment', None)
        # another commit's driver may not have one
        hooks = (made._arm_pipeline if adjustment is None
                 else adjustment.pipeline)
        hooks.run(_DOCUMENT.read_text(), facts.Facts(
            host=facts.Host(arch='aarch64', libvirt_version=(9, 2, 0)),
            guest=facts.Guest(extra_specs={}, image_properties={})))
    return Start(seconds=seconds, resident=memory, used=resident())


def measured(rounds: int, of: trees.Trees) -> dict[str, list[Start]]:
    """Starts, one for each round.

    :returns: by driver: ``stock``, and ``arm`` with the name of the tree
    """
    starts = {'stock': ('stock', of[trees.NOW])} | {
        f'arm {name}': ('arm', tree) for name, tree in of.items()}
    found: dict[str, list[Start]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name in sorted(starts, reverse=bool(number % 2)):
            driver, tree = starts[name]
            done = trees.run(tree, 'benchmarks.imports',
                             '--start', DRIVERS[driver])
            if number:                       # the first fills the disk cache
                found[name].append(Start(**done))
    return found


def added(found: dict[str, list[Start]], what: str,
          tree: str = trees.NOW) -> float:
    """The median of the differences of the pairs."""
    return statistics.median(
        getattr(arm, what) - getattr(stock, what) for arm, stock in zip(
            found[f'arm {tree}'], found['stock'], strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--start', metavar='DRIVER', help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.start:
        print(json.dumps(dataclasses.asdict(start(asked.start))))
        return
    with trees.trees(None) as of:
        found = measured(asked.rounds, of)
    print(f'{"":28}{"with":>10}{"without":>10}{"added":>10}')
    for title, what, unit in (
            ('start, s', 'seconds', 1.0),
            ('memory, MiB', 'resident', 2.0 ** 20),
            ('memory after a guest, MiB', 'used', 2.0 ** 20)):
        both = [statistics.median(getattr(one, what) for one in found[name])
                for name in ('arm now', 'stock')]
        print(f'{title:28}{both[0] / unit:>10.2f}{both[1] / unit:>10.2f}'
              f'{added(found, what) / unit:>10.2f}')


if __name__ == '__main__':
    main()
