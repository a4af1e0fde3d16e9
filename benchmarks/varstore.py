# SPDX-License-Identifier: Apache-2.0
"""What it costs to move one variable store, against copying its 64 MiB.

Nova is not needed::

    $(tools/environment nova34)/bin/python -m benchmarks.varstore [FOLDER]

Moved is what goes from host to host: a store is read, checked and packed here,
then unpacked and written there, on the disk with its name. The copy is read
and written as it is, to the disk as well. Both are in the given folder or
that of temporary files; what a network takes for the bytes comes on top.
"""

import dataclasses
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator

from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import files

ROUNDS = 7
SIZE = 64 * varstore.MIB
VOLUME = 768 * 1024
TEMPLATES = pathlib.Path('/usr/share/AAVMF')


def stores() -> dict[str, bytes]:
    """Stores by what is in them."""
    found = {name: (TEMPLATES / file).read_bytes() for name, file in (
        ('never written', 'AAVMF_VARS.fd'),
        ('keys enrolled', 'AAVMF_VARS.ms.fd'))
        if (TEMPLATES / file).exists()}
    # as if variables were all noise, and the spare block as well
    enrolled = found.get('keys enrolled', b'')
    if enrolled:
        found['full of noise'] = (
            enrolled[:100] + b'\xff' * 60
            + random.Random(1).randbytes(VOLUME - 160)).ljust(SIZE, b'\0')
    return found


def median(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One store: bytes that are moved and copied, and the seconds of each."""

    name: str
    moved: int
    seconds: float
    copied: int
    copy_seconds: float


def measured(folder: str | None = None) -> Iterator[Row]:
    """Each store in turn."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name, data in stores().items():
            files.write_atomic(place, 'here', data)

            def here() -> bytes:
                return varstore.pack(
                    files.read_sound(place, 'here', SIZE))

            def move() -> None:
                files.write_atomic(place, 'there',
                                         varstore.unpack(here()))

            def copy() -> None:
                with open(f'{place}/here', 'rb') as source, \
                        open(f'{place}/copy', 'wb') as target:
                    target.write(source.read())
                    os.fsync(target.fileno())

            yield Row(name=name, moved=len(here()), seconds=median(move),
                      copied=len(data), copy_seconds=median(copy))
            if files.read(place, 'there') != data:
                raise SystemExit(f'{name}: another store arrived')


def main(folder: str | None = None) -> None:
    print(f'{"store":15}{"bytes moved":>13}{"seconds":>9}'
          f'{"a copy:":>10}{"bytes":>11}{"seconds":>9}')
    for row in measured(folder):
        print(f'{row.name:15}{row.moved:13,}{row.seconds:9.3f}'
              f'{"":10}{row.copied:11,}{row.copy_seconds:9.3f}')


if __name__ == '__main__':
    main(*sys.argv[1:2])
