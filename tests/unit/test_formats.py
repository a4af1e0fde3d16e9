# SPDX-License-Identifier: Apache-2.0
"""This version reads the files of every released version."""

import dataclasses
import pathlib
import types

import fixtures
from lxml import etree

from nova_arm_ext import provenance
from nova_arm_ext import varstore
from nova_arm_ext.compute import nvram_stores
from nova_arm_ext.domain.view import Domain
from tests.data import formats
from tests.data import golden
from tests.support import base


def kept(document: str) -> list[tuple[str, ...]]:
    """Firmware, store, and the address of each disk, interface and port."""
    root = etree.fromstring(document)
    found = [(name, root.findtext(f'os/{name}', ''))
             for name in ('loader', 'nvram')]
    for device in root.xpath('devices/disk | devices/interface | '
                             'devices/controller[@type="pci"]'):
        found.append((device.tag, device.get('index', ''), *(
            f'{name}={value}' for address in device.findall('address')
            for name, value in sorted(address.attrib.items()))))
    return sorted(found)


class FormatsTest(base.TestCase):

    def test_there_is_one(self) -> None:
        self.assertNotEqual([], formats.versions())

    def test_the_record_says_what_it_said(self) -> None:
        for version in formats.versions():
            left = formats.left(version)

            record = provenance.read(Domain.parse(left.domain))

            assert record is not None
            self.assertEqual(left.version, record.version)
            self.assertRegex(record.options, '^[0-9a-f]{16}$')
            self.assertEqual(left.reasons, tuple(
                (hook.name, reason.place) for hook in record.hooks
                for reason in hook.reasons))

    def test_a_guest_of_that_version_keeps_slots_and_firmware(self) -> None:
        for version in formats.versions():
            left = formats.left(version)
            known = golden.known(formats.CASE)

            again = golden.default_pipeline().run(
                golden.before(formats.CASE), dataclasses.replace(
                    known, guest=dataclasses.replace(
                        known.guest, previous=left.domain)),
                existing=True).xml

            self.assertEqual(kept(left.domain), kept(again), version)

    def test_the_store_is_the_one_that_was_packed(self) -> None:
        for version in formats.versions():
            data = varstore.unpack(formats.left(version).packed)

            varstore.check(data)
            [variable] = varstore.variables(data)
            self.assertEqual(formats.VARIABLE,
                             (variable.name, variable.data))
            self.assertEqual(formats.store(), data)

    def test_so_is_the_copy_in_a_folder_for_copies(self) -> None:
        for version in formats.versions():
            folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
            (folder / f'{formats.UUID}_VARS.packed').write_bytes(
                formats.left(version).packed)

            packed = nvram_stores.Directory(types.SimpleNamespace(
                arm_nvram=types.SimpleNamespace(directory=str(folder)))).load(
                    formats.UUID)

            self.assertEqual(formats.store(), varstore.unpack(packed or b''))
