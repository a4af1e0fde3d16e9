# SPDX-License-Identifier: Apache-2.0
"""libvirt accepts the result for all combinations of settings.

Options, extra specs, image properties and devices are combined, with golden
guests and with generated ones. libvirt itself defines each result.
"""

import collections
import dataclasses
import functools
import itertools
import unittest
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import hypothesis
from hypothesis import strategies
from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import golden
from tests.support import base
from tests.support import embed
from tests.unit import properties

Options = tuple[tuple[str, str, object], ...]


def _asks(known: facts.Facts, name: str) -> bool:
    return name in (known.guest.image_properties or {})


#: The options and their values, and the guests for which one has a say.
OPTIONS: tuple[tuple[str, str, tuple[object, ...],
                     Callable[[view.Domain, facts.Facts], bool]], ...] = (
    ('arm_console', 'unfit_video', ('replace', 'refuse'),
     lambda guest, known: any(video.model in ('vga', 'bochs', 'qxl')
                              for video in guest.all(devices.Video))),
    ('arm_console', 'resolution', ('', '1280x800'),
     lambda guest, known: bool(guest.all(devices.Video))),
    ('arm_console', 'input_bus', ('usb', 'virtio'),
     lambda guest, known: guest.has_graphics),
    ('arm_virtio_mmio', 'transport', ('pci', 'mmio'),
     lambda guest, known: True),
    ('arm_virtio_mmio', 'allow_image', (True, False),
     lambda guest, known: _asks(known, 'arm_virtio_transport')),
    ('arm_armv7', 'accel', ('kvm', 'prefer_kvm', 'tcg'),
     lambda guest, known: guest.arch == 'armv7l'),
    ('arm_pcie_root_ports', 'free', (0, 12), lambda guest, known: True),
    ('arm_pcie_root_ports', 'max_per_image', (0, 16),
     lambda guest, known: _asks(known, 'arm_free_pcie_root_ports')),
)


@functools.cache
def configured(options: Options) -> Pipeline:
    """The default hooks with these options."""
    conf = cfg.ConfigOpts()
    conf([], project='t', default_config_files=[], default_config_dirs=[])
    Pipeline.load(conf)
    for group, name, value in options:
        conf.set_override(name, value, group=group)
    return Pipeline.load(conf)


class _LibvirtTestCase(base.TestCase):

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.libvirt = embed.Process()
        try:
            cls.libvirt.__enter__()
        except embed.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e
        cls.addClassCleanup(cls.libvirt.__exit__, None, None, None)

    def here(self, known: facts.Facts) -> facts.Facts:
        """The facts of a host with this libvirt."""
        import libvirt
        version = libvirt.getVersion()
        return dataclasses.replace(known, host=dataclasses.replace(
            known.host, libvirt_version=(
                version // 1000000, version // 1000 % 1000, version % 1000)))

    def defined(self, xml: str) -> str:
        """The XML that libvirt stores for this one."""
        verdict = self.libvirt.define(xml)
        self.assertEqual((None, None), (verdict.define, verdict.start), xml)
        assert verdict.stored is not None
        return verdict.stored


class EveryOptionTest(_LibvirtTestCase):
    """Every combination of the options with the golden guests."""

    def check(self, cases: list[str]) -> None:
        self.assertGreater(len(cases), 5)
        for case in cases:
            xml, known = golden.before(case), self.here(golden.known(case))
            made = set()
            for options in self.combinations(xml, known):
                hooks = configured(options)
                try:
                    result = hooks.run(xml, known).xml
                except errors.Refused as e:
                    # a guest that exists keeps what it had instead
                    self.assertIsNone(known.guest.previous)
                    self.assertRegex(str(e), 'arm_|arm:|hw_')
                    continue
                if result not in made:
                    made.add(result)
                    self.assertIs(result, hooks.run(result, known).xml)
            for result in made:
                self.defined(result)

    @staticmethod
    def combinations(xml: str, known: facts.Facts) -> Iterator[Options]:
        guest = view.Domain.parse(xml)
        yield from itertools.product(*(
            [(group, name, value) for value in values]
            for group, name, values, has_a_say in OPTIONS
            if has_a_say(guest, known)))

    def cases(self, *, existing: bool, arch: str) -> list[str]:
        return [case for case in golden.cases()
                if (golden.known(case).guest.previous is not None) == existing
                and self.is_for_here(
                    view.Domain.parse(golden.before(case)),
                    golden.known(case))
                and view.Domain.parse(golden.before(case)).arch == arch]

    def is_for_here(self, guest: view.Domain, known: facts.Facts) -> bool:
        """Whether this libvirt can define a case.

        The hooks leave other machines than virt as they are, also what makes
        libvirt refuse them. This libvirt has no secrets, huge pages or
        devices to pass through.
        """
        newest = known.host.libvirt_version or (0,)
        here = self.here(known).host.libvirt_version or (0,)
        return (guest.is_virt and newest <= here
                and not list(guest.element.iter('encryption', 'hugepages',
                                                'hostdev')))

    def test_new_guests(self) -> None:
        self.check(self.cases(existing=False, arch='aarch64'))

    def test_new_32_bit_guests(self) -> None:
        self.check(self.cases(existing=False, arch='armv7l'))

    def test_guests_that_exist(self) -> None:
        self.check(self.cases(existing=True, arch='aarch64')
                   + self.cases(existing=True, arch='armv7l'))

    def test_an_option_that_is_left_out_has_no_say(self) -> None:
        for case in golden.cases():
            xml, known = golden.before(case), golden.known(case)
            guest = view.Domain.parse(xml)
            for group, name, values, has_a_say in OPTIONS:
                if guest.is_arm and not has_a_say(guest, known):
                    self.assertEqual(1, len({
                        configured(((group, name, value),)).run(xml, known).xml
                        for value in values}), (case, name))


# Generated guests: devices as Nova writes them.

_FORMS: Mapping[str, str] = {
    'disk': '<disk type="file" device="disk"><source file="/var/lib/{0}"/>'
            '<target dev="{0}" bus="{1}"/></disk>',
    'cdrom': '<disk type="file" device="cdrom"><source file="/var/lib/{0}"/>'
             '<target dev="{0}" bus="{1}"/></disk>',
    'nic': '<interface type="bridge"><mac address="fa:16:3e:00:00:0{0}"/>'
           '<model type="{1}"/><source bridge="b"/></interface>',
    'channel': '<channel type="unix"><source mode="bind" path="/var/lib/{0}"/>'
               '<target type="virtio" name="org.{0}"/></channel>',
    'rng': '<rng model="virtio"><backend model="random">/dev/urandom'
           '</backend></rng>',
    'balloon': '<memballoon model="virtio"/>',
    'watchdog': '<watchdog model="i6300esb" action="reset"/>',
    'vsock': '<vsock model="virtio"><cid auto="no" address="{0}"/></vsock>',
    'controller': '<controller type="{0}" index="0"{1}/>',
    'tablet': '<input type="tablet" bus="{0}"/>',
    'serial': '<serial type="pty"/>' * 2,
    'video': '<graphics type="vnc"/><video><model type="{0}"/></video>',
    'ports': '<controller type="pci" index="0" model="pcie-root"/>'
             + '<controller type="pci" model="pcie-root-port"/>' * 3,
}

Piece = tuple[str, str, str]


def _one_of(kind: str, names: str | tuple[str, ...],
            more: tuple[str, ...] = ('',)) -> strategies.SearchStrategy[Piece]:
    return strategies.tuples(
        strategies.just(kind), strategies.sampled_from(names),
        strategies.sampled_from(more))


def _any_number() -> strategies.SearchStrategy[list[Piece]]:
    """Devices that a guest may have several times, or get later."""
    return strategies.lists(
        _one_of('disk', ('vda', 'vdb', 'vdc'), ('virtio',))
        | _one_of('disk', ('sda', 'sdb', 'sdc'), ('scsi', 'sata', 'usb'))
        | _one_of('cdrom', ('sdz',), ('scsi', 'sata'))
        | _one_of('cdrom', ('vdz',), ('virtio',))
        | _one_of('nic', '123', ('virtio', 'e1000'))
        | _one_of('channel', ('a', 'b')),
        max_size=7, unique_by=lambda piece: piece[:2])


def _at_most_one() -> strategies.SearchStrategy[list[Piece]]:
    """Devices that only a new guest can get."""
    return strategies.lists(
        _one_of('rng', ('',)) | _one_of('balloon', ('',))
        | _one_of('watchdog', ('',)) | _one_of('vsock', ('3',))
        | _one_of('controller', ('scsi',), ('', ' model="virtio-scsi"'))
        | _one_of('serial', ('',)) | _one_of('ports', ('',))
        | _one_of('video', ('virtio', 'vga', 'qxl', 'none')),
        max_size=6, unique_by=lambda piece: piece[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guest:
    """Two versions of one guest's XML, with the settings of each."""

    first: str
    then: str
    stays: frozenset[Piece]
    known: tuple[facts.Facts, facts.Facts]
    options: tuple[Options, Options]


def _document(case: str, pieces: list[Piece]) -> str:
    """A golden guest with other devices."""
    domain = etree.fromstring(golden.before(case))
    home = domain.find('devices')
    for child in list(home):
        home.remove(child)
    usb = any(kind == 'disk' and bus == 'usb' for kind, _, bus in pieces)
    if any(kind == 'video' for kind, _, _ in pieces):
        # Nova adds them to every guest with graphics
        pieces = [*pieces, ('tablet', 'usb', '')]
        usb = True
    if usb:
        pieces = [*pieces, ('controller', 'usb', '')]
    for kind, *values in pieces:
        home.extend(etree.fromstring(
            f'<d>{_FORMS[kind].format(*values)}</d>'))
    return etree.tostring(domain, encoding='unicode')


_ASKED = strategies.fixed_dictionaries({}, optional={
    'virtio_transport': strategies.sampled_from(('pci', 'mmio')),
    'video_model': strategies.sampled_from(('virtio', 'ramfb', 'none')),
    'free_pcie_root_ports': strategies.sampled_from(('0', '3', '9'))})


@strategies.composite
def guests(draw: strategies.DrawFn) -> Guest:
    case = draw(strategies.sampled_from((
        'new-guest', 'kernel-without-uefi', 'armv7l', 'armv7l-uefi')))
    fixed, first = draw(_at_most_one()), draw(_any_number())
    stays = [piece for piece in first if draw(strategies.booleans())]
    new = [piece for piece in draw(_any_number())
           if piece[:2] not in [old[:2] for old in first]]
    known = golden.known(case)
    return Guest(
        first=_document(case, fixed + first),
        then=_document(case, fixed + draw(strategies.permutations(
            stays + new))),
        stays=frozenset(fixed + stays),
        known=tuple(dataclasses.replace(known, guest=facts.Guest(
            extra_specs={f'arm:{name}': value
                         for name, value in draw(_ASKED).items()},
            image_properties={f'arm_{name}': value
                              for name, value in draw(_ASKED).items()}))
            for _ in range(2)),
        options=tuple(tuple(
            (group, name, draw(strategies.sampled_from(values)))
            for group, name, values, _ in OPTIONS) for _ in range(2)))


def _places(xml: str) -> collections.Counter[tuple[str, ...]]:
    """Each device by its identity, with its address."""
    found: collections.Counter[tuple[str, ...]] = collections.Counter()
    for device in etree.fromstring(xml).iterfind('devices/*'):
        address = device.find('address')
        if address is not None:
            # the first function of a slot says so when it gets a neighbour
            address.attrib.pop('multifunction', None)
            found[(device.tag, *device.xpath(
                '@type | @index | @model | target/@dev | target/@name | '
                'mac/@address'), str(sorted(address.items())))] += 1
    return found


class GeneratedGuestTest(_LibvirtTestCase):

    @hypothesis.given(guests())
    @hypothesis.settings(properties.SETTINGS, max_examples=60)
    def test_it_is_defined_and_nothing_of_it_moves_later(
            self, guest: Guest) -> None:
        try:
            first = self.made(guest, 0, guest.first, None)
        except errors.Refused as e:
            self.assertRegex(str(e), 'arm_|arm:|hw_')
            return
        had = self.defined(first)

        # the same guest, with other devices and other wishes
        then = self.defined(self.made(guest, 1, guest.then, had))
        gone = _places(had) - _places(self.defined(self.made(
            guest, 1, guest.first, had)))

        self.assertEqual(collections.Counter(), gone)
        stay = {place for place in _places(had) if self.stays(guest, place)}
        self.assertEqual(set(), stay - set(_places(then)))

    def stays(self, guest: Guest, place: tuple[str, ...]) -> bool:
        """Whether both versions have the device."""
        names = {f'fa:16:3e:00:00:0{name}' if kind == 'nic'
                 else f'org.{name}' if kind == 'channel' else name
                 for kind, name, _ in guest.stays}
        return place[0] in ('disk', 'interface', 'channel') and any(
            part in names for part in place)

    def made(self, guest: Guest, number: int, xml: str,
             previous: str | None) -> str:
        """The result of the hooks, and of a second run."""
        known = self.here(guest.known[number])
        known = dataclasses.replace(known, guest=dataclasses.replace(
            known.guest, previous=previous))
        hooks = configured(guest.options[number])

        result = hooks.run(xml, known)

        self.assertIs(result.xml, hooks.run(result.xml, known).xml)
        domain = view.Domain.parse(result.xml)
        numbers = [(one.type, one.index)
                   for one in domain.all(devices.Controller)
                   if one.index is not None]
        self.assertEqual(len(set(numbers)), len(numbers))
        return result.xml


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite,
               pattern: str | None) -> unittest.TestSuite:
    """All classes except the base class."""
    suite = unittest.TestSuite()
    for case in (EveryOptionTest, GeneratedGuestTest):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite
