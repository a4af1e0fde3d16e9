# SPDX-License-Identifier: Apache-2.0
"""Every kind of guest that the installed Nova release supports."""

import collections
import contextlib
import dataclasses
import logging
import unittest

from lxml import etree

from nova_arm_ext import provenance
from nova_arm_ext.cmd.commands import audit
from nova_arm_ext.domain import view
from tests.nova.documents import asked
from tests.nova.documents import guests
from tests.nova.documents import kinds
from tests.nova.documents import table
from tests.support import base

_stack = contextlib.ExitStack()
_release: guests.Release | None = None


def setUpModule() -> None:
    global _release
    reason = guests.why_not()
    if reason:
        raise unittest.SkipTest(reason)
    _release = guests.Release(_stack)


def tearDownModule() -> None:
    _stack.close()


def release() -> guests.Release:
    assert _release is not None
    return _release


class _Documents(base.TestCase):
    """Tests for the guests of one host, whose name is ``host``."""

    host: str

    def setUp(self) -> None:
        super().setUp()
        # The log of hundreds of guests would hide the failure.
        log = logging.getLogger('nova_arm_ext')
        self.addCleanup(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        self.guests = release().on(self.host)
        self.assertNotEqual([], self.guests)

    def results(self) -> list[tuple[guests.Guest, str]]:
        """The guests that are not refused, with their domain XML."""
        found = []
        for guest in self.guests:
            result = release().adjusted(guest)
            if result.xml is not None:
                found.append((guest, result.xml))
        return found

    def assert_all_fine(self, faults: list[str]) -> None:
        self.assertEqual([], faults, '\n' + '\n'.join(faults))


class _ArmDocuments(_Documents):

    def test_libvirt_defines_every_document(self) -> None:
        self.assert_all_fine([
            f'{guest}: {error}' for guest, xml in self.results()
            if (error := release().verdict(xml).define)])

    def test_only_guests_that_cannot_be_had_are_refused(self) -> None:
        faults = []
        for guest in self.guests:
            refusal = release().adjusted(guest).refusal
            words = guest.kind.refused
            if words is None and refusal is not None:
                faults.append(f'{guest}: refused: {refusal}')
            elif words is not None and words not in (refusal or ''):
                faults.append(
                    f'{guest}: not refused with {words!r}: {refusal}')

        self.assert_all_fine(faults)

    def test_nothing_that_nova_asked_for_is_missing(self) -> None:
        self.assert_all_fine([
            f'{guest}: {lost}' for guest, xml in self.results()
            if (lost := asked.missing(guest.document, xml))])

    def test_a_second_run_changes_nothing(self) -> None:
        self.assert_all_fine([
            f'{guest}' for guest, xml in self.results()
            if release().run(xml, guest.facts).xml != xml])

    def test_the_release_reads_every_document_back(self) -> None:
        from nova.virt.libvirt import config
        faults = []
        for guest, xml in self.results():
            read = config.LibvirtConfigGuest()
            try:
                read.parse_str(xml)
                written = etree.fromstring(read.to_xml())
            except Exception as e:
                # Any error of Nova's parser would break a hard reboot.
                faults.append(f'{guest}: {type(e).__name__}: {e}')
                continue
            if written.findtext('uuid') != read.uuid or read.uuid is None:
                faults.append(f'{guest}: uuid {read.uuid}')

        self.assert_all_fine(faults)

    def test_a_redefined_guest_keeps_slots_and_firmware(self) -> None:
        self.assert_all_fine([
            fault for guest, xml in self.results()
            for fault in self.changed(
                guest, release().redefined[guest],
                release().verdict(xml).stored)])

    def test_a_guest_from_before_the_extension_keeps_its_slots(self) -> None:
        self.assert_all_fine([
            fault for guest in self.guests
            for fault in self.changed(
                guest, guest.document,
                release().verdict(guest.document).stored)])

    def test_audit_names_the_guests_that_stock_nova_cannot_start(self) -> None:
        faults = []
        for guest, _ in self.results():
            recorded = release().verdict(release().recorded(guest) or '')
            if recorded.stored is None:
                continue                   # another test reports it
            domain = view.Domain.parse(recorded.stored)

            said, why = audit.without_us(provenance.read(domain), domain)

            stock = release().verdict(release().redefined[guest])
            # what this machine lacks, such as a socket, stops both
            error = (stock.define or (not recorded.start and stock.start)
                     or 'CPU mode' in (stock.start or '')
                     or (said == audit.CANNOT_START
                         and _is_refused_by_qemu(guest)))
            if (said == audit.CANNOT_START) != bool(error):
                faults.append(f'{guest}: {said}, {why}: {error}')

        self.assert_all_fine(faults)

    def changed(self, guest: guests.Guest, document: str,
                stored: str | None) -> list[str]:
        """What has moved or is missing after the guest was redefined."""
        if stored is None:
            return []
        known = dataclasses.replace(guest.facts, guest=dataclasses.replace(
            guest.facts.guest, previous=stored))
        result = release().run(document, known)
        if result.xml is None:
            return [f'{guest}: existing guest refused: {result.refusal}']
        verdict = release().verdict(result.xml)
        if verdict.stored is None:
            return [f'{guest}: {verdict.define}']
        gone = _seen(stored) - _seen(verdict.stored)
        return [f'{guest}: {thing} is now otherwise' for thing in gone]


def _is_refused_by_qemu(guest: guests.Guest) -> bool:
    """Whether libvirt accepts it, and QEMU, KVM or its firmware fails at the
    start."""
    return guest.kind.name in (
        'cpu-none', 'hide-hypervisor', 'vcpus-10', 'windows',
        'windows-hidden') or (
        # the judge does not start one with a NIC of the host
        guest.host == kinds.AARCH64_TCG and guest.kind.name == 'sriov') or (
        guest.host == kinds.AARCH64_KVM and 'armv7l' in guest.kind.name)


def _seen(stored: str) -> collections.Counter[tuple[str, ...]]:
    """What the guest sees: its firmware, and each device with its address."""
    found: collections.Counter[tuple[str, ...]] = collections.Counter()
    domain = etree.fromstring(stored.encode())
    for name in ('loader', 'nvram'):
        for part in domain.findall(f'os/{name}'):
            found[name, part.text or '', part.get('template', '')] += 1
    for device in domain.findall('devices/*'):
        address = device.find('address')
        if address is None:
            continue
        identity = [device.tag, device.get('type', ''),
                    device.get('index', ''), device.get('model', '')]
        for path, name in (('target', 'dev'), ('target', 'name'),
                           ('mac', 'address'), ('model', 'type')):
            part = device.find(path)
            identity.append('' if part is None else part.get(name, ''))
        found[(*identity, *(f'{name}={value}' for name, value
                            in sorted(address.attrib.items())))] += 1
    return found


class Aarch64KvmDocuments(_ArmDocuments):
    """Guests of an AArch64 host with KVM."""

    host = kinds.AARCH64_KVM


class Aarch64TcgDocuments(_ArmDocuments):
    """Guests of an AArch64 host without KVM."""

    host = kinds.AARCH64_TCG


class EmulatedOnX86Documents(_ArmDocuments):
    """Arm guests that an x86 host emulates."""

    host = kinds.ON_X86


class X86Documents(_Documents):
    """Guests of the other architecture."""

    host = kinds.X86_64

    def test_every_document_is_the_same_string(self) -> None:
        self.assert_all_fine([
            f'{guest}' for guest in self.guests
            if release().adjusted(guest).xml is not guest.document])


class Kinds(base.TestCase):

    def test_nova_makes_a_document_for_nearly_every_kind(self) -> None:
        made = len(release().guests)

        refused = release().refused_by_nova

        # Nova refuses what its host cannot do, but never a plain guest.
        self.assertLess(len(refused), made / 20, refused)
        self.assertEqual([], [
            kind for _, kind in refused if kind in ('default', 'config-drive')
        ])

    def test_the_table_in_the_documentation_says_what_is_found(self) -> None:
        if release().counts()['libvirt'] != table.LIBVIRT:
            self.skipTest(f'the table is of libvirt {table.LIBVIRT}')

        found = table.column(release())

        _, rows = table.read()
        self.assertEqual(
            {name: row[str(release().number)] for name, row in rows.items()},
            found)


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite,
               pattern: str | None) -> unittest.TestSuite:
    """All classes except base classes."""
    suite = unittest.TestSuite()
    for case in (Aarch64KvmDocuments, Aarch64TcgDocuments,
                 EmulatedOnX86Documents, X86Documents, Kinds):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
