# SPDX-License-Identifier: Apache-2.0
"""The default pipeline with hostile XML and requests."""

import collections
import copy
import dataclasses
import functools
import itertools
import logging
import pathlib
import re
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies
from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import metadefs
from nova_arm_ext.compute import schema
from nova_arm_ext.domain import view
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import golden
from tests.support import base
from tests.unit import properties

SCHEMAS = pathlib.Path('/usr/share/libvirt/schemas')

#: How many documents, and how many requests, are tried.
DOCUMENTS, REQUESTS = 400, 400

#: What an attacker, or a bug, may write where something sensible is expected.
TEXTS = (
    '', ' ', '0', '-1', '1', '7', '32', '255', '65536', '4294967296', '9' * 40,
    '0x10', '1e9', 'nan', 'yes', 'no', 'on', 'none', 'auto', 'virtio', 'mmio',
    'pci', 'usb', 'scsi', 'efi', 'qemu', 'kvm', 'hvm', 'armv7l', 'virt',
    'pcie-root', 'pcie-root-port', '0000:00:01.0', '\u0663', '\u202e', 'é' * 9,
    '../../etc/shadow', '/dev/kvm', '%s%n%(x)s', '{0.__class__}', '$HOME',
    '<disk/>', '&amp;', ']]>', "' or 1=1", 'a' * 5000, 'true\nfalse', '\t7\n')

Moves = list[tuple[int, int, int, int]]
_NUMBERS = strategies.integers(0, 2 ** 16)
_MOVES = strategies.lists(
    strategies.tuples(_NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS), max_size=12)


@functools.cache
def known_cases() -> tuple[tuple[str, facts.Facts], ...]:
    """Domain XML of Arm guests, with their facts."""
    found = [(golden.before(case), golden.known(case))
             for case in golden.cases()]
    return tuple((xml, known) for xml, known in found
                 if view.Domain.parse(xml).is_arm)


@functools.cache
def vocabulary() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Elements, attributes and values of libvirt's schema.

    Without libvirt, those of the golden cases.
    """
    names: dict[str, set[str]] = {'element': set(), 'attribute': set(),
                                  'value': set()}
    for path in SCHEMAS.glob('domain*.rng'):
        for one in etree.parse(path).iter(etree.Element):
            kind = etree.QName(one).localname
            if kind == 'value':
                names[kind].add(one.text or '')
            elif kind in names and one.get('name'):
                names[kind].add(one.get('name'))
    for xml, _ in known_cases():
        for one in etree.fromstring(xml).iter(etree.Element):
            names['element'].add(etree.QName(one).localname)
            names['attribute'].update(map(str, one.attrib))
            names['value'].update(map(str, one.attrib.values()))
    elements, attributes, values = (
        tuple(sorted(names[kind])) for kind in names)
    return elements, attributes, values


def mutated(xml: str, moves: Moves) -> str:
    """The XML with some parts changed, removed, doubled or added.

    :param moves: what, where, and two choices, for each
    """
    elements, attributes, values = vocabulary()
    values += TEXTS
    root = etree.fromstring(xml)
    for kind, where, one, other in moves:
        every = list(root.iter(etree.Element))
        at = every[where % len(every)]
        parent = at.getparent()
        names = sorted(map(str, at.attrib))
        match kind % 10:
            case 0 if parent is not None:
                parent.remove(at)
            case 1 if parent is not None:
                parent.insert(one % (len(parent) + 1), copy.deepcopy(at))
            case 2 if parent is not None:
                at.tag = elements[one % len(elements)]
            case 3 if names:
                at.set(names[one % len(names)], values[other % len(values)])
            case 4 if names:
                del at.attrib[names[one % len(names)]]
            case 5:
                at.set(attributes[one % len(attributes)].rpartition(':')[2],
                       values[other % len(values)])
            case 6:
                at.text = values[other % len(values)]
            case 7:
                etree.SubElement(at, elements[one % len(elements)])
            case 8:
                others, _ = known_cases()[one % len(known_cases())]
                given = list(etree.fromstring(others).iter(etree.Element))
                at.append(given[other % len(given)])
            case 9:
                at.insert(0, etree.Comment(f' {one} '))
                etree.SubElement(at, f'{{urn:foreign}}x{one % 3}')
    return etree.tostring(root, encoding='unicode')


@functools.cache
def ordered(order: tuple[str, ...]) -> Pipeline:
    """The pipeline with these hooks in this order."""
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    Pipeline.load(conf)               # registers the options
    conf.set_override('hooks', list(order), group='arm')
    return Pipeline.load(conf)


@functools.cache
def orders() -> tuple[tuple[str, ...], ...]:
    """Each allowed order of the default hooks, and of some of them."""
    names = golden.default_pipeline().hooks
    found = []
    for count in range(len(names) + 1):
        for order in itertools.permutations(names, count):
            try:
                ordered(order)
            except errors.ConfigurationError:
                continue
            found.append(order)
    return tuple(found)


def slots(xml: str) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """The slots of the disks and interfaces that can be identified."""
    found: dict[tuple[str, ...], list[list[tuple[str, str]]]] = {}
    for path, parts in (
            ('disk', (('.', 'device'), ('target', 'dev'), ('target', 'bus'))),
            ('interface', (('mac', 'address'), ('model', 'type')))):
        for device in etree.fromstring(xml).findall(f'devices/{path}'):
            identity = [path]
            for place, name in parts:
                part = device.find(place)
                identity.append('' if part is None else part.get(name, ''))
            address = device.find('address')
            found.setdefault(tuple(identity), []).append(
                [] if address is None else sorted(address.attrib.items()))
    return {identity: several[0] for identity, several in found.items()
            if len(several) == 1 and all(identity)}


def board(xml: str) -> tuple[str | None, bool]:
    """Architecture and machine, which decide what the slots mean."""
    domain = view.Domain.parse(xml)
    return domain.arch, domain.is_virt


def fine(error: errors.ArmExtError) -> bool:
    """Whether an error is a refusal, and not a crash of a hook.

    A value of the wrong kind is named with its place.
    """
    if isinstance(error, errors.HookFailed):
        return isinstance(error.__cause__, errors.InvalidDocument)
    return isinstance(error, errors.Refused | errors.InvalidDocument)


class HostileTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # thousands of messages take longer than what they tell of
        log = logging.getLogger('nova_arm_ext')
        self.addCleanup(log.setLevel, log.level)
        log.setLevel(logging.CRITICAL)

    def check(self, holds: Callable[..., None], count: int,
              *given: strategies.SearchStrategy[Any]) -> None:
        hypothesis.settings(properties.SETTINGS, max_examples=count)(
            hypothesis.given(*given)(holds))()

    def result(self, xml: str, known: facts.Facts,
               order: tuple[str, ...] | None = None) -> str | None:
        """The XML after the hooks, None if the extension raises an error."""
        made = golden.default_pipeline() if order is None else ordered(order)
        try:
            return made.run(xml, known).xml
        except errors.ArmExtError as e:
            if not fine(e):
                raise
            return None


class DocumentsTest(HostileTest):

    def test_a_mutated_document_is_adjusted_or_refused_and_twice_is_once(
            self) -> None:
        cases = known_cases()
        outcomes = collections.Counter[bool]()

        def holds(number: int, moves: Moves) -> None:
            xml, known = cases[number % len(cases)]
            once = self.result(mutated(xml, moves), known)
            outcomes[once is not None] += 1
            if once is not None:
                self.assertEqual(once, self.result(once, known))

        self.check(holds, DOCUMENTS, _NUMBERS, _MOVES)
        self.assertGreater(outcomes[True], DOCUMENTS // 2)

    def test_any_order_of_hooks_that_starts_may_be_had(self) -> None:
        cases = known_cases()
        self.assertGreater(len(orders()), 100)

        def holds(number: int, order: int, moves: Moves) -> None:
            xml, known = cases[number % len(cases)]
            chosen = orders()[order % len(orders())]
            once = self.result(mutated(xml, moves), known, chosen)
            if once is not None:
                self.assertEqual(once, self.result(once, known, chosen))

        self.check(holds, DOCUMENTS // 2, _NUMBERS, _NUMBERS, _MOVES)

    def test_guests_of_other_architectures_stay_the_same_string(self) -> None:
        cases = known_cases()
        tried = 0

        def holds(number: int, arch: int, moves: Moves) -> None:
            nonlocal tried
            xml, known = cases[number % len(cases)]
            other = ('x86_64', 'i686', 'ppc64le', 's390x', 'riscv64')[arch % 5]
            xml = mutated(re.sub('arch="[a-z0-9_]+"', f'arch="{other}"', xml),
                          moves)
            try:
                if view.Domain.parse(xml).is_arm:
                    return        # a mutation has made it one
                result = self.result(xml, known)
            except errors.InvalidDocument:
                return
            tried += 1
            self.assertIs(xml, result)

        self.check(holds, DOCUMENTS // 2, _NUMBERS, _NUMBERS, _MOVES)
        self.assertGreater(tried, DOCUMENTS // 4)

    def test_what_was_valid_stays_valid(self) -> None:
        place = SCHEMAS / 'domain.rng'
        if not place.exists():
            self.skipTest(f'libvirt is not installed: no {place}')
        validate = schema.load(str(place))
        cases = [case for case in known_cases()
                 if validate(etree.fromstring(case[0])) is None]
        tried = 0

        def holds(number: int, moves: Moves) -> None:
            nonlocal tried
            xml, known = cases[number % len(cases)]
            xml = mutated(xml, moves)
            if validate(etree.fromstring(xml)) is not None:
                return
            result = self.result(xml, known)
            if result is not None:
                tried += 1
                self.assertIsNone(validate(etree.fromstring(result)))

        # few mutations, as most of them make a document invalid
        self.check(holds, DOCUMENTS // 2, _NUMBERS, strategies.lists(
            strategies.tuples(_NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS),
            max_size=2))
        self.assertGreater(tried, DOCUMENTS // 20)

    def test_a_guest_that_exists_keeps_its_addresses(self) -> None:
        cases = [case for case in known_cases() if case[1].guest.previous]
        checked = 0

        def holds(number: int, moves: Moves) -> None:
            nonlocal checked
            xml, known = cases[number % len(cases)]
            previous = known.guest.previous
            assert previous is not None
            asked = mutated(xml, moves)
            result = self.result(asked, known)
            if result is None or board(result) != board(previous):
                return
            had, wanted, has = map(slots, (previous, asked, result))
            for device, address in has.items():
                # not where the document itself says another place
                if had.get(device) and device in wanted and not wanted[device]:
                    checked += 1
                    self.assertEqual(had[device], address, device)

        self.check(holds, DOCUMENTS // 2, _NUMBERS, _MOVES)
        self.assertGreater(checked, DOCUMENTS // 2)

    def test_a_previous_document_may_be_anything(self) -> None:
        cases = [case for case in known_cases() if case[1].guest.previous]

        def holds(number: int, moves: Moves) -> None:
            xml, known = cases[number % len(cases)]
            assert known.guest.previous is not None
            self.result(xml, dataclasses.replace(
                known, guest=dataclasses.replace(
                    known.guest,
                    previous=mutated(known.guest.previous, moves))))

        self.check(holds, DOCUMENTS // 2, _NUMBERS, _MOVES)


class RequestsTest(HostileTest):
    """Image properties and extra specs as an attacker would write them."""

    #: all of ours, what the hooks look at, and what is nobody's
    IMAGE = (*(metadefs.IMAGE + one.name for one in metadefs.PROPERTIES
               if one.of_image),
             'hw_firmware_type', 'hw_video_model', 'hw_input_bus',
             'hw_architecture', 'os_command_line', 'hw_machine_type',
             'arm_nonsense')
    FLAVOR = (*(metadefs.FLAVOR + one.name for one in metadefs.PROPERTIES
                if one.of_flavor),
              'hw:serial_port_count', 'arm:nonsense')

    def test_no_text_does_more_than_be_refused(self) -> None:
        cases = known_cases()
        hooks = (*golden.default_pipeline().hooks, 'cpu_features')
        outcomes = collections.Counter[bool]()
        texts = strategies.sampled_from(TEXTS) | strategies.text(max_size=40)

        def holds(number: int, image: dict[str, str],
                  flavor: dict[str, str]) -> None:
            xml, known = cases[number % len(cases)]
            guest = dataclasses.replace(
                known.guest, image_properties=image, extra_specs=flavor)
            known = dataclasses.replace(known, guest=guest)
            result = self.result(xml, known, hooks)
            outcomes[result is not None] += 1
            if result is None:
                return
            self.assertEqual(result, self.result(result, known, hooks))
            self.assertLess(len(result), 4 * len(xml) + 40000)
            for text in (*image.values(), *flavor.values()):
                # a path is never taken from a tenant
                if '/' in text.strip('/') and text not in xml + (
                        known.guest.previous or ''):
                    self.assertNotIn(text, result)

        self.check(holds, REQUESTS, _NUMBERS, *(
            strategies.dictionaries(strategies.sampled_from(names), texts)
            for names in (self.IMAGE, self.FLAVOR)))
        self.assertGreater(outcomes[True], REQUESTS // 4)
        self.assertGreater(outcomes[False], REQUESTS // 4)
