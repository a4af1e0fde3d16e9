# SPDX-License-Identifier: Apache-2.0
"""As many free root ports as requested."""

import dataclasses
import types
import unittest

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.hooks import pcie_root_ports
from tests.data import golden
from tests.support import base
from tests.support import contract
from tests.support import embed

NOVA_PORTS = ('<controller type="pci" model="pcie-root"/>'
              + '<controller type="pci" model="pcie-root-port"/>' * 3)
#: takes two ports
TWO = ('<disk><target dev="vda" bus="virtio"/></disk>'
       '<rng model="virtio"/>')
UNKNOWN = facts.Facts()


def hook(free: int = 4, most: int = 16) -> pcie_root_ports.PcieRootPorts:
    return pcie_root_ports.PcieRootPorts(types.SimpleNamespace(
        free=free, max_per_image=most))


def document(inside: str = TWO, *, arch: str = 'aarch64',
             machine: str = 'virt-7.2', os: str = '') -> str:
    return (f'<domain type="kvm"><os{os}><type arch="{arch}" '
            f'machine="{machine}">hvm</type></os>'
            f'<devices>{inside}</devices></domain>')


def asking(flavor: str | None = None,
           image: str | None = None) -> facts.Facts:
    return facts.Facts(guest=facts.Guest(
        extra_specs={} if flavor is None
        else {'arm:free_pcie_root_ports': flavor},
        image_properties={} if image is None
        else {'arm_free_pcie_root_ports': image}))


class PortsTestCase(base.TestCase):

    def adjusted(self, xml: str, known: facts.Facts = UNKNOWN, *,
                 previous: str | None = None, free: int = 4,
                 most: int = 16) -> tuple[view.Domain, list[str]]:
        """The domain XML and the reported reasons."""
        domain = view.Domain.parse(xml, previous)
        report = hooks.Report()
        made = hook(free, most)
        if made.applies_to(domain, known):
            made.adjust(domain, known, report)
        return domain, [reason for _, reason in report.reasons]

    def ports(self, *args, **more) -> int:
        return len(pcie.root_ports(self.adjusted(*args, **more)[0]))

    def check_left(self, xml: str, *args, **more) -> None:
        domain, reasons = self.adjusted(xml, *args, **more)
        self.assertEqual((xml, []), (base.compact(domain), reasons))


class NewGuestTest(PortsTestCase):

    def test_each_device_has_a_port_and_so_many_are_free(self):
        domain, reasons = self.adjusted(document(), free=3)

        self.assertEqual(5, len(pcie.root_ports(domain)))
        self.assertEqual(3, pcie.slots(domain).free)
        self.assertEqual(['5 root ports, 3 of them free for hotplug, as '
                          '[arm_pcie_root_ports] free asks'], reasons)

    def test_present_ports_count_and_stay(self):
        self.assertEqual(5, self.ports(document(NOVA_PORTS + TWO), free=3))
        self.check_left(document(NOVA_PORTS + TWO), free=1)
        self.check_left(document(NOVA_PORTS), free=2)

    def test_free_0_leaves_it_to_libvirt(self):
        self.check_left(document(), free=0)
        self.check_left(document(), asking(flavor='0'))
        self.check_left(document(), asking(image='0'))

    def test_a_bridge_has_a_port_too(self):
        domain, _ = self.adjusted(
            document(TWO + '<watchdog model="i6300esb"/>'), free=2)

        self.assertEqual(5, len(pcie.root_ports(domain)))
        self.assertEqual('pcie-to-pci-bridge',
                         domain.all(devices.Controller)[-1].model)

    def test_nics_that_will_be_plugged_in_have_a_bridge(self):
        legacy = facts.Facts(guest=facts.Guest(image_properties={
            'hw_vif_model': 'rtl8139'}))

        for xml, free in ((document(), 2), (document(NOVA_PORTS + TWO), 3),
                          (document(NOVA_PORTS), 1)):
            domain, reasons = self.adjusted(xml, legacy, free=free)
            self.assertIn('pcie-to-pci-bridge', base.compact(domain))
            self.assertIn('rtl8139', reasons[-1])
            self.assertLessEqual(free, pcie.slots(domain).free)
            self.assertEqual(free == 1, pcie.slots(domain).free > free)
        self.check_left(document(NOVA_PORTS), facts.Facts(
            guest=facts.Guest(image_properties={'hw_vif_model': 'virtio'})),
            free=1)

    def test_ports_that_addresses_imply_count(self):
        far = ('<disk><target dev="vda" bus="virtio"/><address type="pci" '
               'bus="0x09" slot="0x00"/></disk>')
        self.check_left(document(far), free=8)
        domain, reasons = self.adjusted(document(far), free=9)
        self.assertEqual(9, pcie.slots(domain).free)
        self.assertIn('10 root ports, 9 of them free', reasons[0])

    def test_a_guest_without_pci_devices_gets_the_free_ones(self):
        mmio = '<rng model="virtio"><address type="virtio-mmio"/></rng>'

        self.assertEqual(4, self.ports(document(mmio)))

    def test_it_is_the_guests_machine_that_decides(self):
        self.assertEqual(6, self.ports(document(arch='armv7l')))
        self.check_left(document(machine='sbsa-ref'))
        self.check_left(document(machine='vexpress-a15', arch='armv7l'))
        self.check_left(document(machine='q35', arch='x86_64'))


class AskedTest(PortsTestCase):

    def test_flavor_wins_over_image_over_option(self):
        self.assertEqual(2 + 7, self.ports(document(), asking('7', '9')))
        self.assertEqual(2 + 9, self.ports(document(), asking(None, '9')))
        self.assertEqual(2 + 4, self.ports(document(), asking()))

    def test_the_reason_names_who_asked(self):
        for known, name in (
                (asking('7', '9'), 'arm:free_pcie_root_ports of the flavor'),
                (asking(None, '9'), 'arm_free_pcie_root_ports of the image')):
            _, [reason] = self.adjusted(document(), known)
            self.assertIn(name, reason)

    def test_the_documents_own_flavor_speaks_where_facts_do_not(self):
        metadata = (
            '<metadata><n:instance xmlns:n="http://openstack.org/xmlns/libvirt'
            '/nova/1.1"><n:flavor><n:extraSpecs>'
            '<n:extraSpec name="arm:free_pcie_root_ports">7</n:extraSpec>'
            '</n:extraSpecs></n:flavor></n:instance></metadata>')
        xml = document().replace('<devices>', metadata + '<devices>')

        self.assertEqual(9, self.ports(xml))
        self.assertEqual(6, self.ports(xml, asking()))

    def test_an_image_is_bounded_and_a_flavor_is_not(self):
        self.assertEqual(2 + 16, self.ports(document(), asking(image='16')))
        self.assertEqual(2 + 40, self.ports(document(), asking('40')))
        error = self.assertRaises(errors.Refused, self.adjusted, document(),
                                  asking(image='17'))
        for words in ('arm_free_pcie_root_ports of the image', "'17'",
                      'from 0 to 16', 'max_per_image'):
            self.assertIn(words, str(error))

    def test_bad_values_are_refused_by_name_and_value(self):
        for value in ('', 'many', '-1', '1.5', ' 4', '4 ', '0x4', '+4', '٤',
                      '249', '9' * 400, '4\n'):
            for known, name in (
                    (asking(value), 'extra spec arm:free_pcie_root_ports'),
                    (asking(image=value),
                     'property arm_free_pcie_root_ports')):
                error = self.assertRaises(
                    errors.Refused, self.adjusted, document(), known)
                self.assertIn(name, str(error))
                self.assertIn(repr(value[:60]), str(error))
                self.assertFalse(error.this_host)

    def test_a_machine_has_an_end(self):
        self.assertEqual(248, self.ports(document(), asking('246')))
        error = self.assertRaises(errors.Refused, self.adjusted, document(),
                                  asking('247'))
        self.assertIn('need 249', str(error))
        self.assertIn('at most 248', str(error))

    def test_32_bit_uefi_machines_end_earlier(self):
        xml = document(arch='armv7l', os=' firmware="efi"')

        self.assertEqual(15, self.ports(xml, asking('13')))
        error = self.assertRaises(errors.Refused, self.adjusted, xml,
                                  asking('14'))
        self.assertIn('need 16', str(error))
        self.assertIn('at most 15', str(error))


class ExistingGuestTest(PortsTestCase):

    def test_it_keeps_the_total_that_it_had(self):
        had = document(NOVA_PORTS + TWO)

        for known in (UNKNOWN, asking('12'), asking(image='9')):
            self.check_left(document(), known, previous=had)

    def test_one_that_had_none_gets_none(self):
        self.check_left(document(), previous=document())

    def test_on_another_board_it_is_a_new_one(self):
        self.assertEqual(6, self.ports(
            document(), previous=document(machine='sbsa-ref')))
        self.assertEqual(6, self.ports(
            document(), previous=document(arch='armv7l')))

    def test_bad_values_are_told_all_the_same(self):
        self.assertRaises(errors.Refused, self.adjusted, document(),
                          asking('many'), previous=document())


class LibvirtTest(base.TestCase):
    """libvirt itself finds enough ports, and adds none."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.libvirt = embed.Process()
        try:
            cls.libvirt.__enter__()
        except embed.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e
        cls.addClassCleanup(cls.libvirt.__exit__, None, None, None)

    def setUp(self):
        super().setUp()
        self.pipeline = golden.default_pipeline()

    def stored(self, xml: str, known: facts.Facts) -> view.Domain:
        made = self.pipeline.run(xml, known).xml
        verdict = self.libvirt.define(made)
        self.assertEqual((None, None), (verdict.define, verdict.start), made)
        return view.Domain.parse(verdict.stored)

    def asking(self, case: str, free: int) -> facts.Facts:
        known = golden.known(case)
        return facts.Facts(
            # some cases are of hosts with another libvirt than this one
            host=golden.known('new-guest').host,
            guest=dataclasses.replace(known.guest, extra_specs={
                'arm:free_pcie_root_ports': str(free)}))

    def test_so_many_are_free_as_were_asked_for(self):
        for case in ('new-guest', 'viommu', 'armv7l', 'scsi-without-model',
                     'config-drive-emulated', 'windows'):
            for free in (1, 5, 40):
                domain = self.stored(golden.before(case),
                                     self.asking(case, free))

                self.assertEqual(free, pcie.slots(domain).free, case)

    def test_libvirt_keeps_one_free_where_none_is_asked_for(self):
        domain = self.stored(golden.before('new-guest'),
                             self.asking('new-guest', 0))

        self.assertEqual(1, pcie.slots(domain).free)

    def test_every_kind_of_device_is_counted_as_libvirt_counts(self):
        plain = etree.fromstring(golden.before('new-guest'))
        for more in (
                '<watchdog model="i6300esb"/>',
                '<controller type="sata" index="0"/>',
                '<controller type="scsi" index="0" model="lsilogic"/>',
                '<controller type="scsi" index="0" model="virtio-scsi"/>',
                '<controller type="virtio-serial"/>',
                '<interface type="ethernet"><model type="e1000"/>'
                '</interface>',
                '<interface type="ethernet"><model type="e1000e"/>'
                '</interface>',
                '<interface type="ethernet"/>',
                '<sound model="ich9"/>', '<vsock model="virtio"/>',
                '<channel type="unix"><target type="virtio" name="a"/>'
                '</channel>',
                '<disk type="file" device="disk"><source file="/x"/>'
                '<target dev="sda" bus="sata"/></disk>',
                '<disk type="file" device="disk"><source file="/x"/>'
                '<target dev="sda" bus="scsi"/></disk>',
                '<shmem name="s"><model type="ivshmem-plain"/>'
                '<size unit="M">4</size></shmem>',
                '<serial type="pty"><target type="pci-serial" port="1"/>'
                '</serial>',
                '<hostdev mode="subsystem" type="mdev" model="vfio-pci">'
                '<source><address uuid="916180a7-0b43-5c08-b3c8-c738826880bb"'
                '/></source></hostdev>'):
            document = etree.fromstring(etree.tostring(plain))
            document.find('devices').append(etree.fromstring(more))

            domain = self.stored(
                etree.tostring(document, encoding='unicode'),
                self.asking('new-guest', 3))

            self.assertEqual(3, pcie.slots(domain).free, more)

    def test_the_most_that_is_allowed_is_what_libvirt_takes(self):
        iommu = '<iommu model="virtio"/></devices>'
        case = 'new-guest'
        for xml in (golden.before(case), golden.before(case).replace(
                '</devices>', iommu)):
            few = len(pcie.root_ports(self.stored(
                xml, self.asking(case, 1)))) - 1
            most = pcie.slots(view.Domain.parse(xml)).limit

            domain = self.stored(xml, self.asking(case, most - few))

            self.assertEqual(most, len(pcie.root_ports(domain)))
            self.assertRaises(
                errors.Refused, self.pipeline.run, xml,
                self.asking(case, most - few + 1))

    def test_a_redefined_guest_gains_nothing_by_another_number(self):
        before = golden.before('new-guest')
        was = self.stored(before, self.asking('new-guest', 6))
        for free in (0, 2, 30):
            known = self.asking('new-guest', free)
            now = self.stored(before, dataclasses.replace(
                known, guest=dataclasses.replace(
                    known.guest, previous=was.to_xml())))

            self.assertEqual(
                [(d.element.tag, d.element.findtext('.'), str(d.address))
                 for d in devices.addressed(was)],
                [(d.element.tag, d.element.findtext('.'), str(d.address))
                 for d in devices.addressed(now)])


class PcieRootPortsContractTest(contract.HookContract, base.TestCase):

    def make_hook(self) -> hooks.Hook:
        return hook()
