# SPDX-License-Identifier: Apache-2.0
"""The golden cases, through the whole default pipeline."""

import pathlib
import re
import unittest

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.compute import schema
from nova_arm_ext.domain import view
from nova_arm_ext.pipeline import reports
from tests.data import golden
from tests.support import base

try:
    from nova.virt.libvirt import config as nova_config
except ImportError as e:
    nova_config = None
    NO_NOVA = f'Nova cannot be imported: {e}'
else:
    NO_NOVA = ''

SCHEMA = '/usr/share/libvirt/schemas/domain.rng'


class GoldenTest(base.TestCase):
    """A test for each case is added below."""

    maxDiff = None

    def check_result(self, case: str) -> None:
        before = golden.before(case)

        made = golden.default_pipeline().run(before, golden.known(case)).xml

        if made.rstrip('\n') != golden.after(case).rstrip('\n'):
            self.fail(reports.unified_diff(golden.after(case), made, case))

    def check_twice(self, case: str) -> None:
        after = golden.after(case)

        again = golden.default_pipeline().run(after, golden.known(case))

        self.assertIs(after, again.xml, reports.unified_diff(
            after, again.xml, case))

    def check_nova(self, case: str) -> None:
        """Check that Nova reads the result back without losing a disk."""
        # libvirt 9.2 and newer names the template of what it selects when
        # the document is defined, and Nova reads the defined one
        document = golden.after(case).replace(
            '<nvram>', '<nvram template="as selected">')
        after = view.Domain.parse(document)
        config = nova_config.LibvirtConfigGuest()

        config.parse_str(document)
        read = view.Domain.parse(config.to_xml())

        paths = ['uuid/text()', 'name/text()', 'devices/disk/target/@dev',
                 'devices/interface/mac/@address', 'os/loader/text()',
                 'os/loader/@type']
        if nova_reads_the_store():
            paths += ['os/nvram/text()', 'os/nvram/@template']
        for path in paths:
            self.assertEqual(after.element.xpath(path),
                             read.element.xpath(path), path)


def nova_reads_the_store() -> bool:
    """Nova 29 to 32 neither read the store nor write its path."""
    config = nova_config.LibvirtConfigGuest()
    config.parse_str('<domain><os><type>hvm</type><nvram template="t">p'
                     '</nvram></os></domain>')
    return config.os_nvram == 'p'


def _add(case: str) -> None:
    name = case.replace('-', '_')

    def test(self: GoldenTest) -> None:
        self.check_result(case)

    def test_twice(self: GoldenTest) -> None:
        self.check_twice(case)

    @unittest.skipIf(nova_config is None, NO_NOVA)
    def test_nova(self: GoldenTest) -> None:
        self.check_nova(case)

    setattr(GoldenTest, f'test_{name}', test)
    setattr(GoldenTest, f'test_{name}_twice_is_once', test_twice)
    setattr(GoldenTest, f'test_{name}_is_read_back_by_nova', test_nova)


for _case in golden.cases():
    _add(_case)


class CasesTest(base.TestCase):

    def test_there_are_cases_and_all_are_whole(self):
        self.assertGreater(len(golden.cases()), 15)
        for case in golden.cases():
            self.assertEqual(
                ['after.xml', 'before.xml', 'facts.json'],
                sorted(path.name
                       for path in (golden.FOLDER / case).iterdir()))

    def test_refused_cases_are_refused_in_words(self):
        self.assertNotEqual([], golden.refused())
        for case in golden.refused():
            known = golden.known(case)
            self.assertIsNone(known.guest.previous, case)

            refusal = self.assertRaises(
                errors.Refused, golden.default_pipeline().run,
                golden.before(case), known)

            self.assertEqual(golden.refusal(case), str(refusal), case)
            self.assertEqual(
                ['before.xml', 'facts.json', 'refusal.txt'],
                sorted(path.name
                       for path in (golden.FOLDER / case).iterdir()))

    def test_other_architectures_come_back_as_the_same_object(self):
        before = golden.before('x86-stays')

        result = golden.default_pipeline().run(before,
                                               golden.known('x86-stays'))

        self.assertIs(before, result.xml)
        self.assertEqual(before, golden.after('x86-stays'))

    def test_no_case_asks_for_a_cpu_feature_named_aarch64(self):
        for case in golden.cases():
            self.assertEqual([], view.Domain.parse(
                golden.after(case)).element.xpath(
                    "cpu/feature[@name='aarch64']"))

    def test_existing_guests_keep_every_address(self):
        checked = 0
        for case in golden.cases():
            previous = golden.known(case).guest.previous
            if previous is None:
                continue
            was = _slots(view.Domain.parse(previous))
            now = _slots(view.Domain.parse(golden.after(case)))
            for device, slot in now.items():
                if device in was and slot is not None:
                    self.assertEqual(was[device], slot, (case, device))
                    checked += 1
            # those that are new have no slot yet
            self.assertEqual(
                [], [device for device, slot in now.items()
                     if slot is None and was.get(device) is not None], case)
        self.assertGreater(checked, 50)

    def test_results_match_the_schema_of_libvirt(self):
        if not pathlib.Path(SCHEMA).exists():
            self.skipTest(f'libvirt is not installed: no {SCHEMA}')
        validate = schema.load(SCHEMA)
        for case in golden.cases():
            before = validate(etree.fromstring(golden.before(case)))
            after = validate(etree.fromstring(golden.after(case)))
            if before is None:
                self.assertIsNone(after, case)

    def test_no_case_tells_of_the_machine_that_it_was_made_on(self):
        for case in golden.cases() + golden.refused():
            for path in (golden.FOLDER / case).iterdir():
                self.assertEqual(
                    [], re.findall(r'/(?:tmp|home|root)/\S*',
                                   path.read_text()), path.name)


def _slots(domain: view.Domain) -> dict[tuple[str, ...], str | None]:
    """The slot of each disk, interface and controller."""
    slots: dict[tuple[str, ...], str | None] = {}
    for kind, identity in (('disk', 'target/@dev'),
                           ('interface', 'mac/@address'),
                           ('controller', '@type | @index')):
        for device in domain.element.iterfind(f'devices/{kind}'):
            name = (kind, *device.xpath(identity))
            if kind == 'controller' and device.get('index') is None:
                continue
            found = device.find('address')
            slots[name] = None if found is None else str(
                sorted(found.attrib.items()))
    return slots
