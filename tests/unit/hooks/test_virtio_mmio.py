# SPDX-License-Identifier: Apache-2.0
"""virtio devices on virtio-mmio."""

import types

import hypothesis
from hypothesis import strategies

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.hooks import virtio_mmio
from nova_arm_ext.pipeline.run import Pipeline
from tests.support import base
from tests.support import contract
from tests.unit import properties

MMIO = '<address type="virtio-mmio"/>'
PCI = '<address type="pci"/>'
SLOT = '<address type="pci" bus="0x03" slot="0x00" function="0x0"/>'
MODERN = ('<qemu:commandline xmlns:qemu="http://libvirt.org/schemas/domain/'
          'qemu/1.0"><qemu:arg value="-global"/>'
          '<qemu:arg value="virtio-mmio.force-legacy=off"/>'
          '</qemu:commandline>')

DISK = '<disk type="file"><target dev="vda" bus="virtio"/>{}</disk>'
NIC = ('<interface type="bridge"><mac address="52:54:00:00:00:01"/>'
       '<model type="virtio"/>{}</interface>')
RNG = '<rng model="virtio">{}</rng>'
BALLOON = '<memballoon model="virtio">{}</memballoon>'
SCSI = '<controller type="scsi" index="0" model="virtio-scsi">{}</controller>'
SERIAL = '<controller type="virtio-serial" index="0">{}</controller>'
#: old enough for QEMU's transports as they are
OLD = (DISK, NIC, RNG, BALLOON, SCSI, SERIAL)
VIDEO = '<video><model type="virtio"/>{}</video>'
KEYBOARD = '<input type="keyboard" bus="virtio">{}</input>'
SOUND = '<sound model="virtio">{}</sound>'
CRYPTO = '<crypto model="virtio" type="qemu">{}</crypto>'
NEW = (VIDEO, KEYBOARD, SOUND, CRYPTO)

#: what QEMU has on PCI alone, or what is no virtio device
OTHERS = (
    '<filesystem type="mount"><target dir="x"/></filesystem>',
    '<vsock model="virtio"/>',
    '<hostdev mode="subsystem" type="pci"><source/></hostdev>',
    '<interface type="hostdev"><source/></interface>',
    '<interface type="bridge"><model type="e1000e"/></interface>',
    '<tpm model="tpm-tis"/>',
    '<controller type="usb" index="0" model="qemu-xhci"/>',
    '<controller type="pci" model="pcie-root-port"/>',
    '<input type="tablet" bus="usb"/>',
    '<disk type="file" device="cdrom"><target dev="sda" bus="scsi"/></disk>',
    '<disk type="file"><target dev="sdb" bus="sata"/></disk>',
    '<watchdog model="i6300esb"/>', '<memballoon model="none"/>',
    '<video><model type="ramfb"/></video>', '<sound model="ich9"/>',
    '<iommu model="virtio"/>', '<shmem name="x"/>')
#: what libvirt would move with the others, though QEMU cannot
FOLLOWERS = (
    '<memory model="virtio-mem">{}</memory>',
    '<memory model="virtio-pmem">{}</memory>',
    '<hostdev mode="subsystem" type="scsi_host"><source/>{}</hostdev>',
    '<disk type="vhostuser"><target dev="vdz" bus="virtio"/>{}</disk>',
    '<interface type="vdpa"><model type="virtio"/>{}</interface>',
    '<controller type="scsi" index="0" model="lsilogic">{}</controller>')


def hook(transport: str = 'pci', *,
         allow_image: bool = True) -> virtio_mmio.VirtioMmio:
    return virtio_mmio.VirtioMmio(types.SimpleNamespace(
        transport=transport, allow_image=allow_image))


def document(*content: str, address: str = '', machine: str = 'virt',
             arch: str = 'aarch64', behind: str = '') -> str:
    kind = f'<type arch="{arch}" machine="{machine}">hvm</type>'
    inside = ''.join(content).replace('{}', address)
    return base.compact(view.Domain.parse(
        f'<domain type="kvm"><os>{kind}</os><devices>{inside}</devices>'
        f'{behind}</domain>'))


def asking(*, flavor: str | None = None,
           image: str | None = None) -> facts.Facts:
    return facts.Facts(guest=facts.Guest(
        extra_specs={'arm:virtio_transport': flavor} if flavor else {},
        image_properties={'arm_virtio_transport': image} if image else {}))


ASKED = asking(image='mmio')


class MmioTestCase(base.TestCase):

    def adjusted(self, xml: str, known: facts.Facts = ASKED, *,
                 using: virtio_mmio.VirtioMmio | None = None,
                 previous: str | None = None) -> tuple[str, list[str]]:
        """The domain XML and the reported places."""
        domain = view.Domain.parse(xml, previous)
        report = hooks.Report()
        using = using or hook()
        if using.applies_to(domain, known):
            using.adjust(domain, known, report)
        return base.compact(domain), [place for place, _ in report.reasons]

    def refused(self, xml: str, known: facts.Facts = ASKED,
                using: virtio_mmio.VirtioMmio | None = None) -> str:
        return str(self.assertRaises(errors.Refused, self.adjusted, xml,
                                     known, using=using))

    def check_left(self, xml: str, known: facts.Facts = ASKED,
                   **more: object) -> None:
        self.assertEqual((xml, []), self.adjusted(xml, known, **more))


class ChoiceTest(MmioTestCase):

    def is_mmio(self, known: facts.Facts, transport: str = 'pci') -> bool:
        made, _ = self.adjusted(document(DISK), known, using=hook(transport))
        return made == document(DISK, address=MMIO)

    def test_flavor_wins_over_image_and_image_over_option(self):
        for flavor, image, option, mmio in (
                (None, None, 'pci', False), (None, None, 'mmio', True),
                (None, 'mmio', 'pci', True), (None, 'pci', 'mmio', False),
                ('pci', 'mmio', 'mmio', False), ('mmio', 'pci', 'pci', True)):
            self.assertEqual(mmio, self.is_mmio(
                asking(flavor=flavor, image=image), option))

    def test_without_facts_the_option_decides(self):
        self.assertFalse(self.is_mmio(facts.Facts()))
        self.assertTrue(self.is_mmio(facts.Facts(), 'mmio'))

    def test_an_unknown_value_is_refused_by_the_name_of_what_says_it(self):
        for value in ('MMIO', 'virtio-mmio', 'ccw', ' ', 'pci,mmio'):
            for known, name in (
                    (asking(image=value), 'arm_virtio_transport'),
                    (asking(flavor=value), 'arm:virtio_transport')):
                for transport in ('pci', 'mmio'):
                    said = self.refused(document(DISK), known,
                                        hook(transport))
                    self.assertIn(name, said)
                    self.assertIn(repr(value), said)
                    self.assertIn('pci, mmio', said)

    def test_an_image_that_may_not_choose_is_refused(self):
        for image, transport in (('mmio', 'pci'), ('pci', 'mmio')):
            said = self.refused(
                document(DISK), asking(image=image),
                hook(transport, allow_image=False))
            self.assertIn('arm_virtio_transport', said)
            self.assertIn('allow_image', said)

    def test_an_image_that_asks_for_what_it_gets_is_not(self):
        closed = hook('pci', allow_image=False)
        self.check_left(document(DISK), asking(image='pci'), using=closed)
        self.check_left(document(DISK), asking(image='mmio', flavor='pci'),
                        using=closed)
        self.assertEqual(
            document(DISK, address=MMIO),
            self.adjusted(document(DISK), asking(image='pci', flavor='mmio'),
                          using=closed)[0])

    def test_a_machine_without_transports_is_refused_if_asked(self):
        xml = document(DISK, machine='sbsa-ref')
        for known in (ASKED, asking(flavor='mmio')):
            self.assertIn('sbsa-ref', self.refused(xml, known))
        self.check_left(xml, facts.Facts(), using=hook('mmio'))
        self.check_left(document(DISK, machine='vexpress-a15'))


class DevicesTest(MmioTestCase):

    def test_what_has_an_mmio_form_gets_it(self):
        for arch in ('aarch64', 'armv7l'):
            self.assertEqual(
                (document(*OLD, address=MMIO, arch=arch),
                 ['devices/*/address']),
                self.adjusted(document(*OLD, arch=arch)))

    def test_a_nic_without_a_model_is_virtio(self):
        nic = '<interface type="bridge">{}</interface>'
        self.assertEqual(document(nic, address=MMIO),
                         self.adjusted(document(nic))[0])

    def test_what_is_virtio_1_alone_has_the_transports_speak_it(self):
        for device in NEW:
            made, places = self.adjusted(document(device))

            self.assertEqual(
                document(device, address=MMIO, behind=MODERN), made)
            self.assertIn('qemu:commandline', places)

    def test_arguments_that_are_there_stay(self):
        behind = MODERN.replace('-global', '-mine').replace(
            'virtio-mmio.force-legacy=off', 'x')

        made, _ = self.adjusted(document(VIDEO, behind=behind))

        self.assertEqual(
            ['-mine', 'x', '-global', 'virtio-mmio.force-legacy=off'],
            view.Domain.parse(made).element.xpath(
                '//*[local-name()="arg"]/@value'))

    def test_what_has_none_is_left(self):
        for device in OTHERS:
            self.check_left(document(device))

    def test_what_would_follow_the_others_is_kept_on_pci(self):
        for device in FOLLOWERS:
            made, places = self.adjusted(document(device))

            self.assertEqual(document(device, address=PCI), made)
            self.assertEqual(['devices/*/address'], places)

    def test_an_address_that_is_there_stays(self):
        for address in (SLOT, PCI, MMIO):
            self.check_left(document(*OLD, *FOLLOWERS[:2], address=address))

    def test_a_channel_gets_the_controller_that_libvirt_would_add(self):
        channel = '<channel type="unix"><target type="virtio" name="a"/>' \
            '</channel>'

        made, _ = self.adjusted(document(channel))

        self.assertEqual(
            document(channel, SERIAL.format(MMIO)), made)
        self.check_left(document(channel.replace('"virtio"', '"xen"')))

    def test_a_mixed_domain_says_so(self):
        for address, mixed in ((MMIO, True), (PCI, False), ('', False)):
            self.assertIs(mixed, view.Domain.parse(
                document(DISK, VIDEO, address=address)).has_virtio_mmio)

    def test_a_device_that_waits_for_a_pci_place_needs_a_port(self):
        domain = view.Domain.parse(document(
            DISK, NIC, '<controller type="pci" model="pcie-root-port"/>',
            address=PCI))

        self.assertEqual(-1, pcie.slots(domain).free)


class TidyTest(MmioTestCase):

    def check(self, device: str, made: str, place: str) -> None:
        adjusted, places = self.adjusted(document(device))

        self.assertEqual(document(made, address=MMIO), adjusted)
        self.assertIn(place, places)

    def test_what_only_pci_has_goes(self):
        for name in ('ats', 'page_per_vq', 'ioeventfd'):
            self.check(
                '<disk type="file"><driver name="qemu" iommu="on" '
                f'{name}="on"/><target dev="vda" bus="virtio"/>{{}}</disk>',
                '<disk type="file"><driver name="qemu" iommu="on"/>'
                '<target dev="vda" bus="virtio"/>{}</disk>',
                f'devices/disk/driver/@{name}')

    def test_vectors_and_option_roms_go(self):
        self.check(SERIAL.replace('index', 'vectors="4" index'), SERIAL,
                   'devices/controller/@vectors')
        self.check(NIC.replace('{}', '<rom bar="off"/>{}'), NIC,
                   'devices/interface/rom')

    def test_transitional_models_become_plain(self):
        for model in ('virtio-transitional', 'virtio-non-transitional'):
            for device, made, place in (
                    (DISK.replace(' type', f' model="{model}" type', 1), DISK,
                     'devices/disk/@model'),
                    (NIC.replace('"virtio"', f'"{model}"'), NIC,
                     'devices/interface/model/@type'),
                    (RNG.replace('"virtio"', f'"{model}"'), RNG,
                     'devices/rng/@model'),
                    (BALLOON.replace('"virtio"', f'"{model}"'), BALLOON,
                     'devices/memballoon/@model'),
                    (SCSI.replace('"virtio-scsi"', f'"{model}"'), SCSI,
                     'devices/controller/@model'),
                    (SERIAL.replace(' type', f' model="{model}" type', 1),
                     SERIAL, 'devices/controller/@model')):
                self.check(device, made, place)

    def test_several_queues_become_one(self):
        self.check(
            NIC.replace('{}', '<driver name="vhost" queues="4"/>{}'),
            NIC.replace('{}', '<driver name="vhost"/>{}'),
            'devices/interface/driver/@queues')

    def test_several_queues_of_a_tap_that_nova_made_are_refused(self):
        xml = document(NIC.replace('bridge', 'ethernet').replace(
            '{}', '<driver queues="4"/>'))

        said = self.refused(xml)

        for name in ('hw_vif_multiqueue_enabled',
                     'hw:vif_multiqueue_enabled', 'arm_virtio_transport'):
            self.assertIn(name, said)
        self.check_left(xml, asking(image='pci'))

    def test_on_pci_nothing_is_tidied(self):
        self.check_left(document(NIC.replace(
            '{}', f'<driver queues="4" ats="on"/>{SLOT}')))


def disks(count: int, address: str = '') -> list[str]:
    return [DISK.replace('vda', f'vd{number}').format(address)
            for number in range(count)]


class LimitTest(MmioTestCase):

    def test_32_devices_are_the_most(self):
        made, _ = self.adjusted(document(*disks(32)))
        said = self.refused(document(*disks(33)))

        self.assertEqual(document(*disks(32, MMIO)), made)
        self.assertIn('33 virtio devices', said)
        self.assertIn('room for 32', said)

    def test_what_libvirt_will_add_counts(self):
        channel = '<channel type="unix"><target type="virtio"/></channel>'
        scsi = ''.join(f'<disk type="file"><target dev="sd{letter}" '
                       'bus="scsi"/></disk>' for letter in 'abcdefgh')
        self.assertIn('33 virtio', self.refused(document(
            *disks(32), channel)))
        self.assertIn('33 virtio', self.refused(document(
            *disks(31), scsi)))
        self.assertIn('33 virtio', self.refused(document(
            *disks(31), scsi, SCSI)))
        self.adjusted(document(*disks(30), scsi))

    def test_what_is_on_pci_does_not(self):
        self.adjusted(document(*disks(32), *disks(3, SLOT), *(
            device for device in OTHERS if 'scsi' not in device)))


class ExistingGuestTest(MmioTestCase):

    def test_it_stays_where_it_is_whatever_is_asked_for(self):
        for known in (ASKED, asking(flavor='mmio'), asking(image='junk')):
            self.check_left(document(*OLD), known, using=hook('mmio'),
                            previous=document(*OLD, address=SLOT))
            self.check_left(document(*OLD), known, using=hook('mmio'),
                            previous=document('<serial type="pty"/>'))
        for known in (facts.Facts(), asking(flavor='pci'),
                      asking(image='junk')):
            made, _ = self.adjusted(
                document(*OLD), known, using=hook('pci', allow_image=False),
                previous=document(*OLD, address=MMIO))
            self.assertEqual(document(*OLD, address=MMIO), made)

    def test_a_disk_that_was_plugged_in_stays_on_pci(self):
        whole = Pipeline([('virtio_mmio', hook())])
        port = ('<controller type="pci" index="0" model="pcie-root"/>'
                '<controller type="pci" index="3" model="pcie-root-port"/>')
        had = document(*disks(1, MMIO), DISK.replace('vda', 'vdx').format(
            SLOT), port)

        made = whole.run(
            document(*disks(1), DISK.replace('vda', 'vdx').format('')),
            facts.Facts(guest=facts.Guest(previous=had))).xml

        self.assertEqual(
            ['virtio-mmio', 'pci'],
            view.Domain.parse(made).element.xpath(
                'devices/disk/address/@type'))

    def test_what_has_no_room_goes_to_pci(self):
        made, places = self.adjusted(
            document(*disks(32, MMIO), *disks(2)),
            previous=document(*disks(32, MMIO)))

        self.assertEqual(document(*disks(32, MMIO), *disks(2, PCI)), made)
        self.assertEqual(['devices/*/address'], places)

    def test_a_guest_of_old_transports_keeps_them(self):
        made, _ = self.adjusted(document(DISK, VIDEO),
                                previous=document(DISK, address=MMIO))

        self.assertEqual(document(DISK.format(MMIO), VIDEO.format(PCI)), made)

    def test_a_guest_of_new_transports_keeps_them(self):
        for content in ((DISK, VIDEO), (KEYBOARD,)):
            made, _ = self.adjusted(
                document(*content),
                previous=document(VIDEO, address=MMIO, behind=MODERN))

            self.assertEqual(
                document(*content, address=MMIO, behind=MODERN), made)

    def test_new_transports_are_kept_without_a_device_that_needs_them(self):
        made, _ = self.adjusted(
            document(DISK),
            previous=document(DISK, VIDEO, address=MMIO, behind=MODERN))

        self.assertEqual(document(DISK, address=MMIO, behind=MODERN), made)

    def test_several_queues_do_not_stop_it(self):
        made, _ = self.adjusted(
            document(NIC.replace('bridge', 'ethernet').replace(
                '{}', '<driver queues="4"/>{}')),
            previous=document(NIC, address=MMIO))

        self.assertNotIn('queues', made)

    def test_another_architecture_is_no_guide(self):
        self.check_left(document(DISK), facts.Facts(), previous=document(
            DISK, address=MMIO, arch='armv7l'))


_ADDRESSES = strategies.sampled_from(('', '', MMIO, SLOT, PCI))
_DEVICES = strategies.lists(
    strategies.sampled_from((*OLD, *NEW, *FOLLOWERS, *OTHERS)).flatmap(
        lambda text: _ADDRESSES.map(lambda a: text.replace('{}', a))),
    max_size=12)


class PropertyTest(MmioTestCase):

    @hypothesis.given(
        _DEVICES, strategies.integers(0, 34),
        strategies.sampled_from(('aarch64', 'armv7l')),
        strategies.sampled_from((None, 'pci', 'mmio')),
        strategies.sampled_from((None, 'pci', 'mmio')),
        strategies.sampled_from(('pci', 'mmio')), strategies.booleans(),
        strategies.none() | _DEVICES)
    @hypothesis.settings(properties.SETTINGS, max_examples=300)
    def test_twice_is_once_and_no_address_is_lost(
            self, content, more, arch, flavor, image, option, allowed, had):
        xml = document(*content, *disks(more), arch=arch)
        previous = None if had is None else document(*had, arch=arch)
        known = asking(flavor=flavor, image=image)
        using = hook(option, allow_image=allowed)
        try:
            made, _ = self.adjusted(xml, known, using=using,
                                    previous=previous)
        except errors.Refused:
            self.assertIsNone(previous)
            return

        self.check_left(made, known, using=using, previous=previous)
        before = devices.addressed(view.Domain.parse(xml))
        after = devices.addressed(view.Domain.parse(made))
        self.assertEqual(
            [repr(one.address) for one in before if one.address is not None],
            [repr(new.address) for old, new in zip(
                before, _matching(before, after), strict=True)
             if old.address is not None])
        new = sum(one.address is not None and one.address.is_virtio_mmio
                  for one in after)
        given = sum(one.address is not None and one.address.is_virtio_mmio
                    for one in before)
        self.assertLessEqual(new, max(32, given))


def _matching(before: list[devices.Device],
              after: list[devices.Device]) -> list[devices.Device]:
    """The devices that existed before; controllers may be added."""
    added = len(after) - len(before)
    controllers = [one for one in after if isinstance(one, devices.Controller)]
    extra = controllers[len(controllers) - added:] if added else []
    return [one for one in after if one not in extra]


class VirtioMmioContractTest(contract.HookContract, base.TestCase):

    def make_hook(self):
        return hook()

    def documents(self):
        yield from super().documents()
        yield document(*OLD, *NEW, *OTHERS[:-1]), ASKED


class EverywhereContractTest(VirtioMmioContractTest):

    def make_hook(self):
        return hook('mmio')
