# SPDX-License-Identifier: Apache-2.0
"""What nova-arm-ext costs: everything in one run and one table.

Run in an environment that has Nova and nova-arm-ext in it, on a machine that
does nothing else::

    $(tools/environment nova34)/bin/python -m benchmarks
    $(tools/environment nova34)/bin/python -m benchmarks --table FILE

Each row puts what the extension takes beside something else in the same run;
times are medians, and a ratio is the median of those within a round where the
measurement has rounds. ``--table`` writes the table of the documentation. The
exit status is 1 where a row has a bound and is above it.
"""

# Nova's test packages patch threads as they are imported and must come first.
from tests.nova.documents import generate  # noqa: F401  isort: skip

import argparse
import contextlib
import csv
import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import statistics
import sys
from collections.abc import Iterator
from collections.abc import Sequence

import libvirt
from lxml import etree

from benchmarks import imports
from benchmarks import pci
from benchmarks import pipeline
from benchmarks import spawn
from benchmarks import varstore
from tests.nova.documents import kinds

#: How many disks, and how many interfaces, a guest has.
SIZES = (1, 8, 64)

#: What the pipeline is meant to take beside parsing and serialising, without
#: and with the schema check, for Nova's default document.
MOST, MOST_CHECKED = 7.0, 12.0
#: How much more than the first devices the later ones may cost.
MOST_GROWTH = 1.5

PARSE = 'parse and serialise'
NOVA = "Nova's _get_guest_xml"
HOOKS, CHECKED = 'default hooks', '  schema checked'

MIB = 2 ** 20
HEADINGS = ('What', 'nova-arm-ext', 'Beside', 'It takes', 'Ratio', 'At most')
WIDTHS = (52, 14, 26, 12, 8, 8)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement.

    :param ours: what the extension takes, with its unit
    :param beside: with what it is compared
    :param theirs: what that takes
    :param most: the largest ratio that is promised
    """

    what: str
    ours: str
    beside: str
    theirs: str
    ratio: float | None = None
    most: float | None = None

    @property
    def is_broken(self) -> bool:
        return (self.most is not None and self.ratio is not None
                and self.ratio > self.most)

    def cells(self) -> tuple[str, ...]:
        return (self.what, self.ours, self.beside, self.theirs,
                '' if self.ratio is None else f'{self.ratio:.3g}',
                '' if self.most is None else f'{self.most:g}')


def length(seconds: float) -> str:
    if seconds >= 1:
        return f'{seconds:.2f} s'
    return f'{seconds * 1000:.3g} ms'


def compared(what: str, ours: list[float], beside: str, theirs: list[float],
             most: float | None = None) -> Row:
    """A row of two candidates that had their turns in the same rounds."""
    return Row(what=what, ours=length(statistics.median(ours)), beside=beside,
               theirs=length(statistics.median(theirs)), most=most,
               ratio=statistics.median(
                   a / b for a, b in zip(ours, theirs, strict=True)))


def of_pipeline(rounds: int, times: int,
                sizes: Sequence[int] = SIZES) -> Iterator[Row]:
    """The hooks with Nova's default document, and with more devices."""
    default = of_kind(kinds.Kind(name='default'), rounds, times)
    one = 'Hooks, 1 disk, 1 interface'
    yield compared(one, default[HOOKS], PARSE, default[PARSE], MOST)
    yield compared(f'{one}, schema checked', default[CHECKED], PARSE,
                   default[PARSE], MOST_CHECKED)
    yield compared(one, default[HOOKS], NOVA, default[NOVA])
    for name, asks in (('disk', 'volumes'), ('interface', 'interfaces')):
        by_size = {1: default}
        for size in sizes[1:]:
            # one disk is no volume
            number = size - 1 if asks == 'volumes' else size
            by_size[size] = of_kind(
                kinds.Kind(name=f'{size}-{name}s', **{asks: number}), rounds,
                max(2, times // size))
            for beside in (PARSE, NOVA):
                yield compared(f'Hooks, {size} {name}s',
                               by_size[size][HOOKS], beside,
                               by_size[size][beside])
        yield from of_devices(name, {
            size: statistics.median(found[HOOKS])
            for size, found in by_size.items()})


def of_kind(kind: kinds.Kind, rounds: int,
            times: int) -> dict[str, list[float]]:
    # the table alone goes to stdout
    with contextlib.redirect_stdout(sys.stderr):
        return pipeline.in_nova(kind, rounds, times)


def of_devices(name: str, by_size: dict[int, float]) -> Iterator[Row]:
    """What one device more costs among many, beside the same among few."""
    few, some, many = sorted(by_size)

    def each(less: int, more: int) -> float:
        return (by_size[more] - by_size[less]) / (more - less)

    yield Row(what=f'Hooks, each {name} from {some} to {many}',
              ours=length(each(some, many)), beside=f'from {few} to {some}',
              theirs=length(each(few, some)), most=MOST_GROWTH,
              ratio=each(some, many) / each(few, some))


def of_spawn(rounds: int) -> Iterator[Row]:
    """A new server, by a request to the API."""
    found = spawn.Bench(rounds).found()
    for what, seconds, most in (
            ('A new server, from the request to active', found.requests,
             spawn.MOST),
            ("The driver's spawn in it", found.spawns, None)):
        yield compared(what, seconds['arm'], 'Nova alone', seconds['stock'],
                       most)


def of_imports(rounds: int) -> Iterator[Row]:
    """The start of nova-compute."""
    found = imports.measured(rounds)
    for what, name, unit, suffix in (
            ('Start of nova-compute, until the driver is made', 'seconds', 1,
             's'),
            ('Memory then', 'resident', MIB, 'MiB'),
            ('Memory when a guest has been started', 'used', MIB, 'MiB')):
        stock = statistics.median(getattr(one, name) for one
                                  in found['stock']) / unit
        yield Row(what=what, beside='Nova alone',
                  ours=f'{imports.added(found, name) / unit:.2f} {suffix} '
                       f'more',
                  theirs=f'{stock:.2f} {suffix}')


def of_pci(sizes: Sequence[int], rounds: int) -> Iterator[Row]:
    """The inventory of a host with this many virtual functions."""
    with contextlib.redirect_stdout(sys.stderr):
        found = pci.Bench(sizes, rounds=rounds, nova_up_to=max(sizes)).found()
    for row in found:
        if not row['equal']:
            raise RuntimeError(
                f'{row["functions"]} functions: the answers differ')
        yield Row(what=f'PCI inventory, {row["functions"]} functions',
                  ours=length(row['seconds']), beside="Nova's own",
                  theirs=length(row['nova_seconds']),
                  ratio=row['seconds'] / row['nova_seconds'])


def of_varstore() -> Iterator[Row]:
    """A variable store that goes to another host, without the network."""
    for row in varstore.measured():
        yield Row(what=f'Variable store, {row.name}: {row.moved:,} bytes '
                       f'moved',
                  ours=length(row.seconds),
                  beside=f'copy of {row.copied:,} bytes',
                  theirs=length(row.copy_seconds),
                  ratio=row.seconds / row.copy_seconds)


def machine() -> str:
    """On what, with what, and when this is measured."""
    model = next((line.partition(':')[2].strip() for line
                  in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith(('model name', 'CPU part'))),
                 'unknown processor')
    return (f'{platform.machine()}, {model}; '
            f'Nova {importlib.metadata.version("nova")}, '
            f'Python {platform.python_version()}, lxml {etree.__version__}, '
            f'libvirt-python {libvirt.getVersion()}; '
            f'{datetime.date.today().isoformat()}')


def write(place: pathlib.Path, rows: Sequence[Row]) -> None:
    """The table as the documentation includes it."""
    with place.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(HEADINGS)
        writer.writerows(row.cells() for row in rows)
        writer.writerow((machine(), *[''] * (len(HEADINGS) - 1)))


def line(cells: Sequence[str]) -> str:
    return ' '.join(f'{text:<{width}}' for text, width
                    in zip(cells, WIDTHS, strict=True)).rstrip()


def measured(rounds: int, *, brief: bool) -> Iterator[Row]:
    """Everything, in turn."""
    if brief:
        yield from of_pipeline(1, 1, (1, 2, 4))
        yield from of_spawn(1)
        yield from of_imports(1)
        yield from of_pci((4, 8), 1)
    else:
        few = max(1, rounds // 4)
        yield from of_pipeline(few, 32)
        yield from of_spawn(rounds)
        yield from of_imports(max(1, few // 2))
        yield from of_pci((64, 256), few)
    yield from of_varstore()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=40,
                        help='pairs of servers; the others have fewer (40)')
    parser.add_argument('--table', metavar='FILE', type=pathlib.Path)
    parser.add_argument('--brief', action='store_true',
                        help='few devices, each measured once: to see that '
                             'all runs, not how fast; no bound counts')
    asked = parser.parse_args(arguments)
    rows: list[Row] = []
    print(machine() + '\n')
    print(line(HEADINGS))
    for row in measured(asked.rounds, brief=asked.brief):
        rows.append(row)
        print(line(row.cells()), flush=True)
    if asked.table:
        write(asked.table, rows)
    faults = [row for row in rows if row.is_broken and not asked.brief]
    for row in faults:
        print(f'not as promised: {row.what}: {row.ratio:.3g} times '
              f'{row.beside}, more than {row.most:g}')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
