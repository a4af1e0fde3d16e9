# SPDX-License-Identifier: Apache-2.0
"""Starts every kind of guest with the libvirt and QEMU of Debian suites.

For each kind and host: whether the guest started, was refused with a
sentence, or failed; and the same for the domain XML of stock Nova. The exit
status is 1 if one failed that has been adjusted by nova-arm-ext.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import pathlib
import sys
import textwrap
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

from tests.nova.documents import guests
from tests.nova.documents import kinds
from tests.starts import bed
from tests.starts import faults
from tests.starts import replaced

#: Debian suites, and what people call them.
SUITES = {'bookworm': 'Debian 12', 'trixie': 'Debian 13',
          'forky': 'Debian testing'}

#: Progress is told each time after so many guests.
PROGRESS = 20

STARTED = 'started'
REFUSED = 'refused'
FAILED = 'failed'
#: In a cell of the matrix.
_LETTERS = {STARTED: 's', REFUSED: 'r', FAILED: 'F'}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How one guest ended.

    :param state: STARTED, REFUSED or FAILED
    :param why: the sentence of the refusal or the error
    """

    suite: str
    host: str
    kind: str
    state: str
    why: str = ''
    stock: str
    stock_why: str = ''


def judged(suite: str, only: Iterable[str]) -> tuple[str, list[Result]]:
    """The results of a suite.

    :param only: these kinds; all if there are none
    :returns: its versions in words, and a result for each guest
    """
    with contextlib.ExitStack() as stack:
        judge = stack.enter_context(bed.Bed(suite))
        release = guests.Release(stack, judge)
        known = judge.host
        told = (f'{SUITES[suite]}: libvirt {known["libvirt_version"]}, QEMU '
                f'{known["qemu_version"]}')

        def say(done: int, whole: int) -> None:
            if done == whole or done % PROGRESS == 0:
                print(f'{told}: {done} of {whole} guests', file=sys.stderr,
                      flush=True)

        return told, results(suite, judge, release, only, say)


def results(suite: str, judge: bed.Bed, release: guests.Release,
            only: Iterable[str] = (),
            progress: Callable[[int, int], None] | None = None
            ) -> list[Result]:
    """A result for each guest, by host and kind.

    :param only: these kinds; all if there are none
    :param progress: is told after each guest how many are judged, of how many
    """
    chosen = frozenset(only)
    asked = [guest for host in kinds.EVERY_HOST for guest in release.on(host)
             if not chosen or guest.kind.name in chosen]
    # It knows nothing of threads.
    adjusted = [release.adjusted(guest) for guest in asked]

    def judged(number: int) -> Result:
        guest, ours = asked[number], adjusted[number]
        state, why = (_started(judge, ours.xml) if ours.xml
                      else (REFUSED, ours.refusal or ''))
        stock, stock_why = _started(judge, guest.document)
        return Result(suite=suite, host=guest.host, kind=guest.kind.name,
                      state=state, why=why, stock=stock, stock_why=stock_why)

    found = []
    with concurrent.futures.ThreadPoolExecutor(bed.JUDGES) as pool:
        for result in pool.map(judged, range(len(asked))):
            found.append(result)
            if progress:
                progress(len(found), len(asked))
    return found


def _started(judge: bed.Bed, document: str) -> tuple[str, str]:
    text, _ = replaced.replaced(document)
    said = judge.verdict(text)
    if said.define:
        return FAILED, f'define: {said.define}'
    if said.start:
        return FAILED, f'start: {said.start}'
    return STARTED, ''


def shown(results: Sequence[Result], suites: Sequence[str]) -> str:
    """The matrix in plain text: a line per kind, a column per libvirt."""
    cells: dict[str, dict[tuple[str, str], Result]] = (
        collections.defaultdict(dict))
    for one in results:
        cells[one.kind][one.suite, one.host] = one
    width = max(map(len, cells), default=4)
    lines = ['With nova-arm-ext, then stock Nova; for aarch64 with KVM, '
             'aarch64 without, emulated on x86_64:',
             's started, r refused with a sentence, F failed, - no such guest',
             '', ' '.join((' ' * width, *(f'{SUITES[suite]:16}'
                                          for suite in suites)))]
    for kind, found in cells.items():
        columns = []
        for suite in suites:
            pairs = [found.get((suite, host)) for host in kinds.EVERY_HOST]
            ours = ''.join('-' if one is None else _LETTERS[one.state]
                           for one in pairs)
            stock = ''.join('-' if one is None else _LETTERS[one.stock]
                            for one in pairs)
            columns.append(f'{ours + "  " + stock:16}')
        lines.append(f'{kind:{width}} {" ".join(columns)}'.rstrip())
    return '\n'.join(lines)


def counted(results: Iterable[Result]) -> str:
    """How many guests of each host started with each libvirt."""
    ours: collections.Counter[tuple[str, str, str]] = collections.Counter()
    stock: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for one in results:
        ours[one.suite, one.host, one.state] += 1
        stock[one.suite, one.host, one.stock] += 1
    lines = []
    for suite, host in dict.fromkeys(key[:2] for key in ours):
        numbers = ', '.join(f'{ours[suite, host, state]} {state}'
                            for state in _LETTERS)
        lines.append(f'{SUITES[suite]}, {host}: {numbers}; stock Nova: '
                     f'{stock[suite, host, STARTED]} started')
    return '\n'.join(lines)


def reasons(results: Iterable[Result]) -> str:
    """Why guests were refused or failed, each reason once with its kinds."""
    found: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for one in results:
        if one.state != STARTED:
            found[f'{SUITES[one.suite]}, {one.host}, {one.state}',
                  faults.plain(one.why)].append(one.kind)
    return '\n'.join(
        f'{where}: {why}\n' + textwrap.fill(
            ', '.join(names), 79, initial_indent='    ',
            subsequent_indent='    ', break_on_hyphens=False)
        for (where, why), names in found.items())


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    own = argparse.ArgumentParser(
        prog='tools/matrix', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument('suites', nargs='*', metavar='SUITE',
                     help=f'{", ".join(SUITES)}; all by default')
    own.add_argument('--kind', action='append', default=[],
                     metavar='KIND', help='only this kind of guest')
    own.add_argument('--csv', type=pathlib.Path, metavar='FILE',
                     help='write all results to a file')
    return own


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    suites = asked.suites or list(SUITES)
    if unknown := set(suites) - set(SUITES):
        parser().error(f'there is no suite {" ".join(sorted(unknown))}')
    reason = guests.why_not()
    if reason:
        parser().exit(1, f'{reason}\n')
    found: list[Result] = []
    headings = []
    with concurrent.futures.ThreadPoolExecutor(len(suites)) as pool:
        for told, more in pool.map(judged, suites,
                                   [asked.kind] * len(suites)):
            headings.append(told)
            found += more
    if asked.csv:
        with open(asked.csv, 'w', newline='') as file:
            writer = csv.writer(file, lineterminator='\n')
            writer.writerow(field.name for field
                            in dataclasses.fields(Result))
            writer.writerows(map(dataclasses.astuple, found))
    print('\n'.join((*headings, '', shown(found, suites), '',
                     counted(found))))
    print(f'\n{reasons(found)}')
    is_right = found and all(one.state != FAILED for one in found)
    return 0 if is_right else 1
