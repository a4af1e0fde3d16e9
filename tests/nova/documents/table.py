# SPDX-License-Identifier: Apache-2.0
"""The documentation's table of what each Nova release does by itself.

``$(tools/environment nova31)/bin/python -m tests.nova.documents.table``
measures and writes the column of that release. A test for each release
measures too, and compares the table.
"""

import contextlib
import csv
import json
import pathlib
import subprocess
import sys

from lxml import etree

from tests.nova.documents import guests
from tests.nova.documents import kinds

TREE = pathlib.Path(__file__).parents[3]
FILE = TREE / 'doc/source/admin/releases.csv'
#: The libvirt with which it is measured; others accept other XML.
LIBVIRT = '9.0.0'
_NAME = 'Nova'


def column(release: guests.Release) -> dict[str, str]:
    """The results for the installed release, by the name of the row."""
    counts = release.counts()['hosts'][kinds.AARCH64_KVM]
    tried = _tried()
    refused = counts['refused_by_nova']
    return {
        'Kinds of guest that can be asked for':
            str(counts['kinds'] + refused),
        'of these Nova refuses': str(refused),
        'libvirt defines, as Nova writes them':
            str(counts['defined_as_nova_writes_them']),
        'libvirt defines, with nova-arm-ext':
            str(counts['defined_after_the_pipeline']),
        'nova-arm-ext refuses, with a sentence':
            str(counts['refused_by_purpose']),
        'Who picks the firmware of a new guest': _who_picks(release),
        'UEFI for a 32-bit guest': _yes(
            (kinds.AARCH64_KVM, 'armv7l-uefi')
            not in release.refused_by_nova),
        'A hard reboot keeps the firmware': _yes(tried['keeps_firmware']),
        'A hard reboot keeps the UEFI variables':
            _yes(tried['keeps_variables']),
        'A hard reboot keeps the PCI addresses':
            _yes(_keeps_addresses(release)),
        'The PCI inventory survives a broken device':
            _yes(tried['inventory_survives_a_broken_device']),
        'The PCI inventory is taken again':
            _yes(tried['inventory_is_taken_again']),
    }


def _tried() -> dict[str, bool]:
    done = subprocess.run(
        (sys.executable, '-W', 'ignore',
         '-m', 'tests.nova.documents.abilities'),
        cwd=TREE, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


def _yes(found: bool) -> str:
    return 'yes' if found else 'no'


def _plain(release: guests.Release) -> guests.Guest:
    return next(guest for guest in release.on(kinds.AARCH64_KVM)
                if guest.kind.name == 'default')


def _who_picks(release: guests.Release) -> str:
    boot = etree.fromstring(_plain(release).document).find('os')
    return 'libvirt' if boot.get('firmware') else 'Nova'


def _keeps_addresses(release: guests.Release) -> bool:
    guest = _plain(release)
    stored = release.verdict(release.adjusted(guest).xml or '').stored
    had, written = (
        len(etree.fromstring(document.encode()).findall(
            "devices/*/address[@type='pci']"))
        for document in (stored or '', release.redefined[guest]))
    if not had:
        raise AssertionError('libvirt gave the guest no addresses')
    return written >= had


def read() -> tuple[list[str], dict[str, dict[str, str]]]:
    """The headings, and each row by its name."""
    with open(FILE, newline='') as table:
        rows = csv.DictReader(table)
        return list(rows.fieldnames or ()), {
            row[_NAME]: row for row in rows}


def main() -> None:
    with contextlib.ExitStack() as stack:
        release = guests.Release(stack)
        if release.counts()['libvirt'] != LIBVIRT:
            raise SystemExit(f'the table is of libvirt {LIBVIRT}')
        found = column(release)
        number = str(release.number)
    headings, rows = read()
    with open(FILE, 'w', newline='') as table:
        writer = csv.DictWriter(table, headings, lineterminator='\n')
        writer.writeheader()
        for name, value in found.items():
            writer.writerow(
                rows.get(name, {_NAME: name}) | {number: value})
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
