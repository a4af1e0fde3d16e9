# SPDX-License-Identifier: Apache-2.0
"""What nova-arm-ext costs: everything in one run and one table.

Run in an environment that has Nova and nova-arm-ext in it, on a machine that
does nothing else::

    $(tools/environment nova34)/bin/python -m benchmarks
    $(tools/environment nova34)/bin/python -m benchmarks --table FILE

Each row puts what the extension takes beside something else in the same run;
times are medians, and a ratio is the median of those within a round where the
measurement has rounds. ``--only seam,pipeline`` measures only these.
``--before COMMIT`` measures that commit's extension too, in turn with this
one, where the measurement can (seam, pipeline, copies, start). ``--table``
writes the table of the documentation. The exit status is 1 where a row has a
bound and is above it.
"""

# Nova's test packages patch threads as they are imported and must come first.
from tests.nova.documents import generate  # noqa: F401  isort: skip

import argparse
import contextlib
import csv
import dataclasses
import datetime
import importlib.metadata
import itertools
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import libvirt
from lxml import etree

from benchmarks import copies
from benchmarks import hosts
from benchmarks import imports
from benchmarks import pci
from benchmarks import seam
from benchmarks import spawn
from benchmarks import trees
from benchmarks import varstore

#: How many disks, and how many interfaces, a guest has.
SIZES = (1, 8, 64)

#: What the pipeline is meant to take beside parsing and serialising, without
#: and with the schema check, for Nova's default document.
MOST, MOST_CHECKED = 7.0, 12.0
#: How much more than the first devices the later ones may cost.
MOST_GROWTH = 1.5
#: How much longer nova-compute may take to start.
MOST_START = 1.1

PARSE = 'parse and serialise'
NOVA = "Nova's _get_guest_xml"
HOOKS, CHECKED = 'default hooks', '  schema checked'

MIB = 2 ** 20
HEADINGS = ('What', 'nova-arm-ext', 'Beside', 'It takes', 'Ratio', 'At most')
EARLIER = ('Before', 'Ratio')
WIDTHS = (53, 14, 26, 12, 8, 8, 14, 8)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement.

    :param ours: what the extension takes, with its unit
    :param beside: with what it is compared
    :param theirs: what that takes
    :param most: the largest ratio that is promised, or the largest number
    :param number: what is counted or measured, where no ratio is meant
    """

    what: str
    ours: str
    beside: str
    theirs: str
    ratio: float | None = None
    most: float | None = None
    number: float | None = None

    @property
    def is_broken(self) -> bool:
        found = self.ratio if self.number is None else self.number
        return (self.most is not None and found is not None
                and found > self.most)

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


#: Rows for each tree that was measured, in the same order.
Columns = dict[str, Iterable[Row]]


def of_pipeline(of: trees.Trees, rounds: int, times: int,
                sizes: Sequence[int] = SIZES) -> Columns:
    """The hooks with Nova's default document, and with more devices."""
    turns = min(len(of), rounds)
    found = trees.in_turn(
        of, turns, 'benchmarks.pipeline', '--rounds', str(rounds // turns),
        '--times', str(times), '--json', *map(str, sizes))
    return {tree: of_sizes(one, sizes) for tree, one in found.items()}


def of_sizes(found: dict[str, dict[str, list[float]]],
             sizes: Sequence[int]) -> Iterator[Row]:
    default = found['default']
    one = 'Hooks, 1 disk, 1 interface'
    yield compared(one, default[HOOKS], PARSE, default[PARSE], MOST)
    yield compared(f'{one}, schema checked', default[CHECKED], PARSE,
                   default[PARSE], MOST_CHECKED)
    yield compared(one, default[HOOKS], NOVA, default[NOVA])
    for name in ('disk', 'interface'):
        by_size = {size: found[f'{size} {name}s' if size > sizes[0]
                               else 'default'] for size in sizes}
        for size, beside in itertools.product(sizes[1:], (PARSE, NOVA)):
            yield compared(f'Hooks, {size} {name}s', by_size[size][HOOKS],
                           beside, by_size[size][beside])
        yield of_each(f'Hooks, each {name}', {
            size: statistics.median(many[HOOKS])
            for size, many in by_size.items()})


def of_each(what: str, by_size: dict[int, float]) -> Row:
    """What one more costs among many, beside the same among few."""
    few, some, many = sorted(by_size)

    def each(less: int, more: int) -> float:
        return (by_size[more] - by_size[less]) / (more - less)

    return Row(what=f'{what} from {some} to {many}',
               ours=length(each(some, many)), beside=f'from {few} to {some}',
               theirs=length(each(few, some)), most=MOST_GROWTH,
               ratio=each(some, many) / each(few, some))


def of_seam(of: trees.Trees, rounds: int, times: int) -> Columns:
    """All that is added to the domain XML of one guest."""
    turns = min(len(of), rounds)
    found = trees.in_turn(
        of, turns, 'benchmarks.seam', '--rounds', str(rounds // turns),
        '--times', str(times), '--json')
    return {tree: of_situations({what: seam.Seam(**one)
                                 for what, one in many.items()})
            for tree, many in found.items()}


def of_situations(found: dict[str, seam.Seam]) -> Iterator[Row]:
    for what, instance, most in (
            (seam.NEW, 'a new instance', seam.MOST),
            (seam.EXISTING, 'an existing instance', seam.MOST),
            (seam.ON_DISK, 'it, with variable store and disk', None)):
        one = found[what]
        yield Row(what=f'Added to the XML of {instance}',
                  ours=length(statistics.median(one.added)), beside=NOVA,
                  theirs=length(statistics.median(one.novas)),
                  ratio=one.share, most=most)
        if what != seam.ON_DISK:
            number = len(one.calls.split())
            yield Row(what=f'libvirt calls added for {instance}',
                      ours=str(number), beside='', theirs='', number=number,
                      most=seam.MOST_CALLS)


def of_hosts(of: trees.Trees, rounds: int,
             sizes: Sequence[int] = hosts.SIZES) -> Columns:
    """A host with few guests and with many."""
    found = trees.run(of[trees.NOW], 'benchmarks.hosts', '--rounds',
                      str(rounds), '--json', '--sizes', *map(str, sizes))
    return {trees.NOW: of_subjects({
        what: [hosts.Guests(**one) for one in many]
        for what, many in found.items()})}


def of_subjects(found: dict[str, list[hosts.Guests]]) -> Iterator[Row]:
    for what, title, most in (
            (hosts.START, 'Driver loaded and initialized', None),
            (hosts.MINUTE, 'Periodic tasks of the driver', hosts.MOST),
            (hosts.RESUME, 'Resume after the host booted', None)):
        for guests in found[what]:
            yield compared(f'{title}, {guests.number} instances',
                           guests.seconds['arm'], 'Nova alone',
                           guests.seconds['stock'], most)
        if what != hosts.START:
            yield of_each(f'{title}, each', {
                guests.number: statistics.median(guests.seconds['arm'])
                for guests in found[what]})


def of_copies(of: trees.Trees,
              sizes: Sequence[int] = copies.SIZES) -> Columns:
    """Copies of the variable stores of running guests."""
    found = trees.in_turn(of, 1, 'benchmarks.copies', '--json', '--sizes',
                          *map(str, sizes))
    return {tree: of_rounds(copies.read(one)) for tree, one in found.items()}


def of_rounds(found: Iterable[copies.Guests]) -> Iterator[Row]:
    for guests in found:
        many = f'{guests.number} instance{"s" * (guests.number > 1)}'
        yield Row(what=f'Copies for {many}, all written',
                  ours=length(guests.written.wall), beside='processor time',
                  theirs=length(guests.written.cpu))
        each = guests.unwritten.cpu / guests.number
        yield Row(what=f'Copies for {many}, none written: each',
                  ours=length(each), beside='', theirs='',
                  number=each * 1000, most=copies.MOST_UNWRITTEN)
        held = max(guests.written.held, guests.unwritten.held)
        yield Row(what=f'Claims that wait for copies for {many}',
                  ours=length(held), beside='', theirs='',
                  number=held * 1000, most=copies.MOST_HELD)


def of_spawn(rounds: int) -> Iterator[Row]:
    """A new server, by a request to the API."""
    found = spawn.Bench(rounds).found()
    for what, seconds, most in (
            ('A new server, from the request to active', found.requests,
             spawn.MOST),
            ("The driver's spawn in it", found.spawns, None)):
        yield compared(what, seconds['arm'], 'Nova alone', seconds['stock'],
                       most)


def of_imports(of: trees.Trees, rounds: int) -> Columns:
    """The start of nova-compute."""
    found = imports.measured(rounds, of)
    return {tree: of_starts(found, tree) for tree in of}


def of_starts(found: dict[str, list[imports.Start]],
              tree: str) -> Iterator[Row]:
    yield compared('Start of nova-compute, until the driver is made',
                   [one.seconds for one in found[f'arm {tree}']],
                   'Nova alone', [one.seconds for one in found['stock']],
                   MOST_START)
    for what, name in (
            ('Memory then', 'resident'),
            ('Memory when a guest has been started', 'used')):
        stock = statistics.median(
            getattr(one, name) for one in found['stock'])
        yield Row(what=what, beside='Nova alone',
                  ours=f'{imports.added(found, name, tree) / MIB:.2f} MiB '
                       f'more',
                  theirs=f'{stock / MIB:.2f} MiB')


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
                    in zip(cells, WIDTHS, strict=False)).rstrip()


def alone(of: Callable[..., Iterator[Row]]) -> Callable[..., Columns]:
    """A measurement of this tree only."""
    return lambda _, *arguments: {trees.NOW: of(*arguments)}


#: Name and measurement, with what it is given: in earnest for a number of
#: rounds, and to see only that it runs.
PARTS: dict[str, tuple[Callable[..., Columns],
                       Callable[[int], tuple[Any, ...]], tuple[Any, ...]]] = {
    'pipeline': (of_pipeline, lambda rounds: (rounds // 4, 16),
                 (1, 1, (1, 2, 4))),
    'seam': (of_seam, lambda rounds: (rounds // 2, 8), (1, 1)),
    'hosts': (of_hosts, lambda rounds: (1,), (1, (1, 2, 4))),
    'copies': (of_copies, lambda rounds: (), ((1, 2, 3),)),
    'spawn': (alone(of_spawn), lambda rounds: (rounds,), (1,)),
    'start': (of_imports, lambda rounds: (rounds // 4,), (1,)),
    'pci': (alone(of_pci), lambda rounds: ((64, 256), rounds // 8),
            ((4, 8), 1)),
    'varstore': (alone(of_varstore), lambda rounds: (), ()),
}


def measured(names: Iterable[str], of: trees.Trees, rounds: int, *,
             brief: bool) -> Iterator[tuple[Row, Row | None]]:
    """Rows of the measurements, in turn, each with that of before."""
    for name in names:
        measure, in_earnest, in_brief = PARTS[name]
        columns = measure(of, *(in_brief if brief else in_earnest(rounds)))
        yield from itertools.zip_longest(columns[trees.NOW],
                                         columns.get(trees.BEFORE, ()))


def names_in(text: str) -> list[str]:
    """The names of measurements, separated by commas."""
    names = text.split(',')
    unknown = set(names) - PARTS.keys()
    if unknown:
        raise argparse.ArgumentTypeError(
            f'{", ".join(sorted(unknown))}: not among {", ".join(PARTS)}')
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', metavar='NAME[,NAME]', type=names_in,
                        default=list(PARTS),
                        help=f'measure only these of {", ".join(PARTS)}')
    parser.add_argument('--before', metavar='COMMIT',
                        help='measure the nova_arm_ext of this commit too, in '
                             'turn, where the measurement can')
    parser.add_argument('--rounds', type=int, default=24,
                        help='pairs of servers; the others have fewer (24)')
    parser.add_argument('--table', metavar='FILE', type=pathlib.Path)
    parser.add_argument('--brief', action='store_true',
                        help='few devices, each measured once: to see that '
                             'all runs, not how fast; no bound counts')
    asked = parser.parse_args(arguments)
    rows: list[Row] = []
    print(machine() + '\n')
    print(line(HEADINGS + (EARLIER if asked.before else ())))
    with trees.trees(asked.before) as of:
        for row, earlier in measured(asked.only, of, max(8, asked.rounds),
                                     brief=asked.brief):
            rows.append(row)
            cells = row.cells()
            if earlier is not None:
                cells += (earlier.ours, earlier.cells()[4])
            print(line(cells), flush=True)
    if asked.table:
        write(asked.table, rows)
    faults = [row for row in rows if row.is_broken and not asked.brief]
    for row in faults:
        print(f'not as promised: {row.what}: '
              f'{row.cells()[4] or row.ours}, more than {row.most:g}')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
