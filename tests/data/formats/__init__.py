# SPDX-License-Identifier: Apache-2.0
"""What each released version left behind, for the next to read.

Each folder is a version. ``domain.xml`` is a guest's document as libvirt 9.0
keeps it, with the record in its metadata; it is also what goes along with a
cold migration. ``store.packed`` is the guest's variable store as it goes along
and as it lies in a store for copies. ``expected.json`` says what is in both.
"""

import dataclasses
import json
import pathlib

from tests.support import stores

FOLDER = pathlib.Path(__file__).parent

#: The guest of the golden case of which they are made.
CASE = 'new-guest'
UUID = '916180a7-0b43-5c08-b3c8-c738826880bb'

#: The name of the only variable in each store, and its data.
VARIABLE = ('Probe', b'left behind')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What one version left behind.

    :param reasons: hook and place of each adjustment that is recorded
    """

    version: str
    domain: str
    packed: bytes
    reasons: tuple[tuple[str, str], ...]


def versions() -> list[str]:
    """Those of which something is here."""
    return sorted(path.parent.name for path in FOLDER.glob('*/domain.xml'))


def left(version: str) -> Left:
    folder = FOLDER / version
    expected = json.loads((folder / 'expected.json').read_text())
    return Left(version=expected['version'],
                domain=(folder / 'domain.xml').read_text(),
                packed=(folder / 'store.packed').read_bytes(),
                reasons=tuple(map(tuple, expected['reasons'])))


def store() -> bytes:
    """The store that is packed in each version's."""
    name, data = VARIABLE
    return stores.store(stores.variable(name, data), size=64 * stores.MIB)
