# SPDX-License-Identifier: Apache-2.0
"""Devices keep the addresses that the guest saw."""

import dataclasses
import re
import shutil
import unittest

import hypothesis
from hypothesis import strategies
from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import view
from tests.data import golden
from tests.support import base
from tests.support import embed
from tests.unit import properties

HEAD = ('<domain type="kvm"><name>a</name><os><type arch="aarch64" '
        'machine="virt">hvm</type></os><devices>')
TAIL = '</devices></domain>'
ROOT = '<controller type="pci" index="0" model="pcie-root"/>'


def document(*inside: str) -> str:
    return HEAD + ''.join(inside) + TAIL


def port(index: int | str) -> str:
    return f'<controller type="pci" index="{index}" model="pcie-root-port"/>'


def pci(bus: int, slot: int = 0) -> str:
    return (f'<address type="pci" domain="0x0000" bus="{bus:#04x}" '
            f'slot="{slot:#04x}" function="0x0"/>')


def drive(unit: int, controller: int = 0) -> str:
    return (f'<address type="drive" controller="{controller}" bus="0" '
            f'target="0" unit="{unit}"/>')


def disk(dev: str, bus: str, address: str = '') -> str:
    return f'<disk><target dev="{dev}" bus="{bus}"/>{address}</disk>'


def nic(mac: str, address: str = '') -> str:
    return (f'<interface><mac address="{mac}"/><model type="virtio"/>'
            f'{address}</interface>')


def taken_over(now: str, had: str) -> view.Domain:
    domain = view.Domain.parse(now, had)
    previous.restore_places(domain)
    return domain


def where(domain: view.Domain) -> dict[str | None, str | None]:
    """The PCI bus or the drive unit of each disk and interface."""
    found: dict[str | None, str | None] = {}
    for device in domain.element.iterfind('devices/*'):
        name = device.xpath('string(target/@dev | mac/@address)')
        if name:
            found[name] = device.xpath(
                'string(address/@bus[../@type="pci"] | address/@unit)') or None
    return found


class TakeOverTest(base.TestCase):

    def test_each_device_gets_the_address_that_it_had(self):
        had = document(ROOT, port(1), port(2), port(3),
                       disk('vda', 'virtio', pci(1)),
                       disk('vdb', 'virtio', pci(3)),
                       nic('fa:16:3e:00:00:01', pci(2)))
        now = document(nic('FA:16:3E:00:00:01'), disk('vdb', 'virtio'),
                       disk('vda', 'virtio'))

        domain = taken_over(now, had)

        self.assertEqual({'vda': '0x01', 'vdb': '0x03',
                          'FA:16:3E:00:00:01': '0x02'}, where(domain))
        self.assertEqual([0, 1, 2, 3], [
            c.index for c in domain.all(devices.Controller)])

    def test_a_new_device_gets_none_and_a_gone_one_leaves_its_port(self):
        had = document(ROOT, port(1), port(2), disk('vda', 'virtio', pci(1)),
                       disk('vdb', 'virtio', pci(2)))

        domain = taken_over(
            document(disk('vdb', 'virtio'), disk('vdc', 'virtio')), had)

        self.assertEqual({'vdb': '0x02', 'vdc': None}, where(domain))
        self.assertEqual(3, len(domain.all(devices.Controller)))

    def test_the_same_name_on_another_bus_is_another_disk(self):
        had = document(ROOT, port(1), disk('sda', 'usb', pci(1)))

        domain = taken_over(document(disk('sda', 'scsi')), had)

        self.assertEqual({'sda': None}, where(domain))

    def test_another_architecture_or_board_is_no_guide(self):
        now = document(disk('vda', 'virtio'))
        had = document(ROOT, port(1), disk('vda', 'virtio', pci(1)))
        for other in (had.replace('aarch64', 'x86_64'),
                      had.replace('"virt"', '"sbsa-ref"'),
                      '<domain/>', had.replace('arch="aarch64" ', '')):
            self.assertEqual(now, base.compact(taken_over(now, other)))

    def test_no_previous_document_changes_nothing(self):
        now = document(disk('vda', 'virtio'))
        domain = view.Domain.parse(now)

        self.assertEqual({}, previous.restore_places(domain))
        self.assertEqual(0, previous.keep_a_port_free(domain))
        self.assertEqual(now, base.compact(domain))

    def test_controllers_keep_their_models(self):
        had = document('<controller type="scsi" index="0" model="lsilogic"/>',
                       '<controller type="usb" index="0" model="nec-xhci"/>',
                       disk('sda', 'scsi', drive(0)))
        now = document('<controller type="usb" index="0"/>',
                       disk('sda', 'scsi'), '<input type="x" bus="usb"/>')

        domain = taken_over(now, had)

        self.assertEqual(
            {('usb', 0, 'nec-xhci'), ('scsi', 0, 'lsilogic')},
            {(c.type, c.index, c.model)
             for c in domain.all(devices.Controller)})

    def test_a_model_that_is_asked_for_now_wins(self):
        had = document('<controller type="scsi" index="0" model="lsilogic"/>')

        domain = taken_over(document(
            '<controller type="scsi" index="0" model="virtio-scsi"/>'), had)

        self.assertEqual(['virtio-scsi'], [
            c.model for c in domain.all(devices.Controller)])

    def test_usb_that_was_off_is_on_when_a_device_needs_it(self):
        had = document('<controller type="usb" index="0" model="none"/>')

        domain = taken_over(document('<controller type="usb" index="0"/>',
                                     '<input type="tablet" bus="usb"/>'), had)

        self.assertEqual([None], [
            c.model for c in domain.all(devices.Controller)])

    def test_controllers_that_nothing_hangs_on_any_more_do_not_come_back(self):
        had = document('<controller type="scsi" index="0" model="lsilogic"/>',
                       '<controller type="virtio-serial" index="0"/>')

        domain = taken_over(document(disk('vda', 'virtio')), had)

        self.assertEqual([], domain.all(devices.Controller))

    def test_every_scsi_controller_comes_back(self):
        had = document('<controller type="scsi" index="0" model="v"/>'
                       '<controller type="scsi" index="1" model="v"/>',
                       disk('sdh', 'scsi', drive(0, controller=1)))

        domain = taken_over(document(disk('sdh', 'scsi')), had)

        self.assertEqual([0, 1], [
            c.index for c in domain.all(devices.Controller)])
        self.assertEqual(1, domain.all(devices.Disk)[0].address.controller)

    def test_ports_without_numbers_are_the_ones_that_were_there(self):
        had = document(ROOT, port(1), port(2), disk('vda', 'virtio', pci(1)))
        now = document(
            '<controller type="pci" model="pcie-root"/>',
            '<controller type="pci" model="pcie-root-port"/>' * 4,
            '<controller type="usb" index="0"/>', disk('vda', 'virtio'))

        domain = taken_over(now, had)

        pci_ones = [c for c in domain.all(devices.Controller)
                    if c.type == 'pci']
        self.assertEqual([0, 1, 2, None, None], [c.index for c in pci_ones])

    def test_a_second_time_no_port_goes_away(self):
        had = document(ROOT, *map(port, range(1, 8)))
        now = document(
            '<controller type="pci" model="pcie-root"/>',
            '<controller type="pci" model="pcie-root-port"/>' * 16)

        once = base.compact(taken_over(now, had))

        self.assertEqual(17, once.count('<controller'))
        self.assertEqual(once, base.compact(taken_over(once, had)))

    def test_a_previous_document_without_numbers_takes_nothing_away(self):
        had = document('<controller type="pci" model="pcie-root"/>',
                       '<controller type="pci" model="pcie-root-port"/>')
        now = document('<controller type="pci" model="pcie-root"/>',
                       '<controller type="pci" model="pcie-root-port"/>' * 2)

        self.assertEqual(now, base.compact(taken_over(now, had)))

    def test_what_libvirt_adds_to_a_running_guest_stays_behind(self):
        had = document(
            ROOT, '<controller type="pci" index="1" model="pcie-root-port">'
            f'<alias name="pci.1"/>{pci(0, 1)}</controller>',
            '<controller type="pci" index="2" model="pcie-root-port">'
            f'<alias name="ua-mine"/>{pci(0, 2)}</controller>')

        domain = taken_over(document(), had)

        self.assertEqual(['ua-mine'], domain.element.xpath(
            'devices/controller/alias/@name'))
        self.assertEqual(['0x01', '0x02'], domain.element.xpath(
            'devices/controller/address/@slot'))

    def test_an_address_that_the_document_gives_already_is_not_given_twice(
            self):
        had = document(ROOT, port(1), disk('vda', 'virtio', pci(1)))
        same = ('<address type="pci" domain="0" bus="1" slot="0" '
                'function="0"/>')

        domain = taken_over(document(disk('vdb', 'virtio', same),
                                     disk('vda', 'virtio')), had)

        self.assertEqual({'vda': None, 'vdb': '1'}, where(domain))

    def test_drives_of_different_buses_do_not_meet(self):
        had = document('<controller type="scsi" index="0" model="v"/>'
                       '<controller type="sata" index="0"/>',
                       disk('sda', 'scsi', drive(0)),
                       disk('sdb', 'sata', drive(0)))

        domain = taken_over(document(disk('sda', 'scsi'),
                                     disk('sdb', 'sata')), had)

        self.assertEqual({'sda': '0', 'sdb': '0'}, where(domain))

    def test_an_address_on_a_bus_that_is_not_there_is_left(self):
        had = document(ROOT, disk('vda', 'virtio', pci(7)))

        domain = taken_over(document(disk('vda', 'virtio')), had)

        self.assertEqual({'vda': None}, where(domain))

    def test_many_devices_share_the_mmio_transport(self):
        mmio = '<address type="virtio-mmio"/>'
        had = document(disk('vda', 'virtio', mmio),
                       disk('vdb', 'virtio', mmio))

        domain = taken_over(document(disk('vda', 'virtio'),
                                     disk('vdb', 'virtio')), had)

        self.assertEqual(2, base.compact(domain).count('virtio-mmio'))

    def test_twins_keep_their_order(self):
        rng = '<rng model="virtio">%s</rng>'
        had = document(ROOT, port(1), port(2), rng % pci(2), rng % pci(1))

        domain = taken_over(document(rng % '', rng % '', rng % ''), had)

        self.assertEqual(['0x02', '0x01'], domain.element.xpath(
            'devices/rng/address/@bus'))

    def test_a_host_device_is_known_by_its_place_on_the_host(self):
        def hostdev(bus: str, address: str = '') -> str:
            return ('<hostdev type="pci"><source><address domain="0x0000" '
                    f'bus="{bus}" slot="0x00" function="0x0"/></source>'
                    f'{address}</hostdev>')
        had = document(ROOT, port(1), port(2), hostdev('0x06', pci(1)),
                       hostdev('0x07', pci(2)))

        domain = taken_over(document(hostdev('0x7'), hostdev('0x06')), had)

        self.assertEqual(['0x02', '0x01'], domain.element.xpath(
            'devices/hostdev/address/@bus'))


class KeepPluggedTest(base.TestCase):

    MMIO = '<address type="virtio-mmio"/>'

    def check(self, live: str, stored: str, becomes: str, count: int) -> None:
        domain = view.Domain.parse(document(stored))

        self.assertEqual(count, previous.keep_plugged(
            domain, view.Domain.parse(document(live))))
        self.assertEqual(document(becomes), base.compact(domain))

    def test_what_was_plugged_in_is_stored_where_it_is(self):
        for device in (lambda address: disk('vdb', 'virtio', address),
                       lambda address: nic('fa:16:3e:00:00:01', address)):
            self.check(device(pci(5)), device(self.MMIO), device(pci(5)), 1)

    def test_all_else_stays(self):
        rest = (disk('vda', 'virtio', self.MMIO)
                + disk('vdb', 'virtio', pci(2)) + disk('sda', 'scsi', drive(1))
                + disk('vdd', 'virtio') + f'<rng model="virtio">{self.MMIO}'
                '</rng>')

        self.check(
            disk('vda', 'virtio', self.MMIO) + disk('vdb', 'virtio', pci(3))
            + disk('sda', 'scsi', drive(2)) + disk('vdd', 'virtio', pci(4))
            + f'<rng model="virtio">{pci(6)}</rng>', rest, rest, 0)


class OddDocumentsTest(base.TestCase):

    def test_a_wrong_number_is_told_with_its_place(self):
        now = document(disk('vda', 'virtio'),
                       '<controller type="usb" index="0"/>')
        for had, place in (
                (document(port('x')), "controller/@index is 'x'"),
                (document(ROOT, port(1), disk(
                    'vda', 'virtio',
                    '<address type="pci" bus="zz"/>')),
                 "address/@bus is 'zz'"),
                (document('<hostdev type="pci"><source><address bus="0xq"/>'
                          '</source></hostdev>'),
                 "hostdev/source/address/@bus is '0xq'")):
            domain = view.Domain.parse(
                now.replace(TAIL, '<hostdev type="pci"/>' + TAIL), had)

            error = self.assertRaises(errors.InvalidDocument,
                                      previous.restore_places, domain)

            self.assertIn(place, str(error))

    def test_numbers_twice_in_the_previous_document_come_once(self):
        domain = taken_over(document(), document(ROOT, port(1), port(1)))

        self.assertEqual([0, 1], [
            c.index for c in domain.all(devices.Controller)])

    def test_one_address_for_two_devices_goes_to_one(self):
        had = document(ROOT, port(1), disk('vda', 'virtio', pci(1)),
                       disk('vdb', 'virtio', pci(1)))

        domain = taken_over(document(disk('vda', 'virtio'),
                                     disk('vdb', 'virtio')), had)

        self.assertEqual({'vda': '0x01', 'vdb': None}, where(domain))

    def test_empty_elements_are_no_trouble(self):
        empty = ''.join(f'<{kind.tag}/>' for kind in devices.ADDRESSED)

        domain = taken_over(document(empty, empty), document(empty))

        self.assertEqual(document(empty, empty), base.compact(domain))

    def test_addresses_of_other_kinds_stay_behind(self):
        for address in ('<address type="isa" iobase="0x505"/>',
                        '<address type="dimm" slot="0"/>',
                        '<address type="ccw" cssid="0xfe"/>',
                        '<address type="unassigned"/>', '<address/>'):
            domain = taken_over(
                document('<rng model="virtio"/>'),
                document(f'<rng model="virtio">{address}</rng>'))

            self.assertEqual(document('<rng model="virtio"/>'),
                             base.compact(domain))


class KeepAPortFreeTest(base.TestCase):

    def added(self, now: str, had: str) -> tuple[int, view.Domain]:
        domain = view.Domain.parse(now, had)
        previous.restore_places(domain)
        return previous.keep_a_port_free(domain), domain

    def test_one_is_left_free_when_all_are_taken(self):
        had = document(ROOT, port(1), disk('vda', 'virtio', pci(1)))

        count, domain = self.added(document(disk('vda', 'virtio')), had)

        self.assertEqual(1, count)
        self.assertEqual([0, 1, None], [
            c.index for c in domain.all(devices.Controller)])

    def test_new_devices_get_ports_and_one_more_is_free(self):
        had = document(ROOT, port(1), disk('vda', 'virtio', pci(1)))

        count, _ = self.added(document(
            disk('vda', 'virtio'), disk('vdb', 'virtio'),
            disk('vdc', 'virtio')), had)

        self.assertEqual(3, count)

    def test_a_free_port_is_enough(self):
        had = document(ROOT, port(1), port(2), disk('vda', 'virtio', pci(1)))

        self.assertEqual(0, self.added(
            document(disk('vda', 'virtio')), had)[0])

    def test_a_guest_without_ports_gets_none(self):
        mmio = '<address type="virtio-mmio"/>'

        self.assertEqual(0, self.added(
            document(disk('vda', 'virtio')),
            document(disk('vda', 'virtio', mmio)))[0])

    def test_there_is_an_end_to_the_slots(self):
        had = document(ROOT, *map(port, range(1, 249)))

        count, domain = self.added(document(*(
            disk(f'vd{i}', 'virtio') for i in range(260))), had)

        self.assertEqual(0, count)
        self.assertEqual(249, len(domain.all(devices.Controller)))


# Guests as hypothesis makes them: what a device is in the previous document
# and whether it is still there.

_DEVICES = strategies.lists(strategies.one_of(
    strategies.builds(lambda c: ('disk', f'vd{c}', 'virtio'),
                      strategies.sampled_from('abcdef')),
    strategies.builds(lambda c, b: ('disk', f'sd{c}', b),
                      strategies.sampled_from('abcdefghij'),
                      strategies.sampled_from(('scsi', 'sata', 'usb'))),
    strategies.builds(lambda n: ('nic', f'fa:16:3e:00:00:{n:02x}', ''),
                      strategies.integers(0, 5)),
    strategies.builds(lambda k: ('input', k, 'usb'),
                      strategies.sampled_from(('tablet', 'keyboard'))),
    strategies.builds(lambda n: ('hostdev', f'{n:#04x}', ''),
                      strategies.integers(1, 4)),
    strategies.just(('rng', 'virtio', '')),
    strategies.just(('comment', '', '')),
), max_size=12, unique=True)

_FORMS = {
    'disk': '<disk><target dev="{0}" bus="{1}"/>{2}</disk>',
    'nic': '<interface><mac address="{0}"/>{2}</interface>',
    'input': '<input type="{0}" bus="{1}">{2}</input>',
    'hostdev': '<hostdev type="pci"><source><address domain="0x0000" '
               'bus="{0}" slot="0x00" function="0x0"/></source>{2}</hostdev>',
    'rng': '<rng model="{0}">{2}</rng>',
    'comment': '<!-- {0} kept -->',
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Previous domain XML with addresses, and new XML without."""

    had: str
    now: str
    slots: dict[tuple[str, ...], str]
    stay: list[tuple[str, ...]]


@strategies.composite
def pairs(draw: strategies.DrawFn) -> Pair:
    before = draw(_DEVICES)
    buses = iter(draw(strategies.permutations(range(1, 31))))
    units = iter(range(100))
    parts, slots = [], {}
    for device in before:
        kind, name, bus = device
        if kind == 'comment':
            continue
        address = (drive(next(units)) if bus in ('scsi', 'sata')
                   else f'<address type="usb" bus="0" port="{next(units)}"/>'
                   if bus == 'usb' else pci(next(buses)))
        slots[device] = address
        parts.append(_FORMS[kind].format(name, bus, address))
    ports = draw(strategies.integers(30, 40))
    controllers = [ROOT, *map(port, range(1, ports + 1)),
                   *(f'<controller type="{kind}" index="0" model="m"/>'
                     for kind in ('scsi', 'sata', 'usb'))]
    stay = [device for device in before if draw(strategies.booleans())]
    new = [device for device in draw(_DEVICES) if device not in before]
    after = draw(strategies.permutations(stay + new))
    unnumbered = draw(strategies.integers(0, 45))
    now = ['<controller type="pci" model="pcie-root"/>',
           *['<controller type="pci" model="pcie-root-port"/>'] * unnumbered
           ] if unnumbered else []
    now += draw(strategies.lists(strategies.sampled_from((
        '<controller type="usb" index="0"/>',
        '<controller type="scsi" index="0" model="virtio-scsi"/>')),
        unique=True))
    now += [_FORMS[kind].format(name, bus, '') for kind, name, bus in after]
    return Pair(had=document(*draw(strategies.permutations(
                    controllers + parts))),
                now=document(*draw(strategies.permutations(now))),
                slots=slots, stay=stay)


def key(element: etree._Element) -> tuple[str, ...] | None:
    match element.tag:
        case 'disk':
            target = element.find('target')
            return 'disk', target.get('dev'), target.get('bus')
        case 'interface':
            return 'nic', element.find('mac').get('address'), ''
        case 'input':
            return 'input', element.get('type'), 'usb'
        case 'hostdev':
            return 'hostdev', element.find('source/address').get('bus'), ''
        case 'rng':
            return 'rng', 'virtio', ''
    return None


class PropertiesTest(base.TestCase):

    @hypothesis.given(pairs())
    @hypothesis.settings(properties.SETTINGS, max_examples=80)
    def test_what_holds_for_every_guest(self, pair):
        domain = view.Domain.parse(pair.now, pair.had)
        strangers = pair.now.count('<!--')

        previous.restore_places(domain)
        previous.keep_a_port_free(domain)

        # every device that was there is where it was, the others nowhere
        for element in domain.element.iterfind('devices/*'):
            name = key(element)
            if name is not None:
                address = element.find('address')
                self.assertEqual(
                    pair.slots.get(name),
                    None if address is None else etree.tostring(
                        address, encoding='unicode', with_tail=False))
        # no two share an address
        places = [(
            device.element.getparent().tag, device.address.type,
            getattr(device, 'bus', '') if device.address.type == 'drive'
            else '', *sorted(device.address.element.attrib.items()))
            for kind in devices.ADDRESSED for device in domain.all(kind)
            if device.address is not None]
        self.assertEqual(len(places), len(set(places)))
        # no two controllers share a number
        numbers = [(c.type, c.index) for c in domain.all(devices.Controller)
                   if c.index is not None]
        self.assertEqual(len(numbers), len(set(numbers)))
        # numbered PCI controllers come first, for libvirt to number the rest
        pci_ones = [c.index is None for c in domain.all(devices.Controller)
                    if c.type == 'pci']
        self.assertEqual(sorted(pci_ones), pci_ones)
        # no port that was asked for is gone
        self.assertGreaterEqual(
            base.compact(domain).count('pcie-root-port'),
            max(pair.now.count('pcie-root-port'),
                pair.had.count('pcie-root-port')))
        self.assertEqual(strangers, base.compact(domain).count('<!--'))

    @hypothesis.given(pairs())
    @hypothesis.settings(properties.SETTINGS, max_examples=60)
    def test_twice_is_once(self, pair):
        domain = view.Domain.parse(pair.now, pair.had)
        previous.restore_places(domain)
        previous.keep_a_port_free(domain)
        once = base.compact(domain)

        again = view.Domain.parse(once, pair.had)

        self.assertEqual({}, previous.restore_places(again))
        self.assertEqual(0, previous.keep_a_port_free(again))
        self.assertEqual(once, base.compact(again))

    @hypothesis.given(pairs())
    @hypothesis.settings(properties.SETTINGS, max_examples=25)
    def test_it_takes_nothing_from_the_previous_document(self, pair):
        had = view.Domain.parse(pair.had)
        domain = view.Domain.parse(pair.now, had)

        previous.restore_places(domain)

        self.assertEqual(pair.had, base.compact(had))


class LibvirtTest(base.TestCase):
    """libvirt itself accepts the addresses that were kept."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for emulator in ('qemu-system-aarch64', 'qemu-system-arm'):
            if shutil.which(emulator) is None:
                raise unittest.SkipTest(f'{emulator} is not installed')
        cls.libvirt = embed.Process()
        try:
            cls.libvirt.__enter__()
        except embed.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e
        cls.addClassCleanup(cls.libvirt.__exit__, None, None, None)

    def setUp(self):
        super().setUp()
        self.pipeline = golden.default_pipeline()

    def defined(self, xml: str) -> str:
        verdict = self.libvirt.define(xml)
        self.assertEqual((None, None), (verdict.define, verdict.start), xml)
        return verdict.stored

    @staticmethod
    def slots(xml: str) -> dict[str, str]:
        return {
            device.xpath('string(target/@dev | mac/@address | '
                         '@type[../@index])') + (device.get('index') or ''):
            str(sorted(device.find('address').attrib.items()))
            for device in etree.fromstring(xml).iterfind('devices/*')
            if device.find('address') is not None
            and device.tag in ('disk', 'interface', 'controller')}

    def again(self, case: str, stored: str, change) -> tuple[str, str]:
        """The redefined guest, with its XML changed before."""
        known = golden.known(case)
        known = dataclasses.replace(known, guest=dataclasses.replace(
            known.guest, previous=stored))
        root = etree.fromstring(golden.before(case))
        change(root.find('devices'))
        made = self.pipeline.run(
            etree.tostring(root, encoding='unicode'), known).xml
        return made, self.defined(made)

    def test_new_devices_move_no_old_one(self):
        for case in ('existing-guest', 'hot-plugged-disk',
                     'made-by-stock-nova-with-lsi', 'ports-16-existing',
                     'config-drive-emulated-existing'):
            stored = self.defined(golden.after(case))

            def change(home):
                for dev in ('vdx', 'vdy', 'vdz'):
                    home.insert(0, etree.fromstring(
                        f'<disk type="file" device="disk"><source file="/{dev}'
                        f'"/><target dev="{dev}" bus="virtio"/></disk>'))
                for _ in range(2):
                    home.append(etree.fromstring(
                        '<controller type="pci" model="pcie-root-port"/>'))

            _, now = self.again(case, stored, change)

            was, slots = self.slots(stored), self.slots(now)
            self.assertEqual(was, {name: slots[name] for name in was}, case)
            self.assertIn('vdz', slots)

    def test_a_device_that_is_gone_leaves_the_others_where_they_were(self):
        stored = self.defined(golden.after('hot-plugged-disk'))

        def change(home):
            for element in home.xpath(
                    'disk[target/@dev="vdb"] | interface[1] | rng'):
                home.remove(element)

        _, now = self.again('hot-plugged-disk', stored, change)

        was, slots = self.slots(stored), self.slots(now)
        del was['vdb']
        for name, slot in slots.items():
            self.assertEqual(was[name], slot, name)

    def test_a_redefinition_as_it_was_changes_nothing(self):
        for case in ('existing-guest', 'ports-16-existing', 'armv7l',
                     'scsi-without-model'):
            stored = self.defined(golden.after(case))

            _, now = self.again(case, stored, lambda home: None)

            self.assertEqual(_lines(stored), _lines(now), case)

    def test_hot_plug_finds_a_free_port_after_a_redefinition(self):
        stored = self.defined(golden.after('existing-guest'))
        for count in range(3):
            def change(home, count=count):
                for letter in 'xyz'[:count + 1]:
                    home.append(etree.fromstring(
                        f'<disk type="file" device="disk"><source file="/'
                        f'{letter}"/><target dev="vd{letter}" bus="virtio"/>'
                        f'</disk>'))

            _, stored = self.again('existing-guest', stored, change)

            root = etree.fromstring(stored)
            used = set(root.xpath('devices/*/address[@type="pci"]/@bus'))
            ports = {f'{int(index):#04x}' for index in root.xpath(
                'devices/controller[@model="pcie-root-port"]/@index')}
            self.assertNotEqual(set(), ports - used)


def _lines(xml: str) -> list[str]:
    """The lines, sorted, because libvirt has its own order of controllers."""
    return sorted(re.sub(r'\s+', ' ', line).strip()
                  for line in xml.splitlines())
