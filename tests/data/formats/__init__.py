# SPDX-License-Identifier: Apache-2.0
"""Files of each released version, which later versions must be able to read.

Each folder is a version. ``domain.xml`` is a guest's domain XML as libvirt 9.0
stores it, with the record in its metadata; it is also sent in a cold
migration. ``store.packed`` is the guest's variable store as it is sent, and as
a store for copies keeps it. ``expected.json`` has the expected content.
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
    """The files of one version.

    :param reasons: hook and place of each recorded adjustment
    """

    version: str
    domain: str
    packed: bytes
    reasons: tuple[tuple[str, str], ...]


def versions() -> list[str]:
    """The versions with files here."""
    return sorted(path.parent.name for path in FOLDER.glob('*/domain.xml'))


def left(version: str) -> Left:
    folder = FOLDER / version
    expected = json.loads((folder / 'expected.json').read_text())
    return Left(version=expected['version'],
                domain=(folder / 'domain.xml').read_text(),
                packed=(folder / 'store.packed').read_bytes(),
                reasons=tuple(map(tuple, expected['reasons'])))


def store() -> bytes:
    """The store in each packed file."""
    name, data = VARIABLE
    return stores.store(stores.variable(name, data), size=64 * stores.MIB)
