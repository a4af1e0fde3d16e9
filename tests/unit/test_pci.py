# SPDX-License-Identifier: Apache-2.0
"""Identities of PCI devices, rules that skip devices, and options."""

import pathlib

import fixtures
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import pci
from nova_arm_ext.pipeline.run import Pipeline
from tests.support import base
from tests.support import pci_tree

VF = (2, 1, 0, 1)


def identity(address: pci.Address = VF, **what: object) -> pci.Identity:
    return pci.identify(pci.parse(pci_tree.pci_document(
        address, **{'vendor': 0x177d, 'product': 0xa034,
                    'driver': 'thunder-nicvf', 'physical': (2, 1, 0, 0),
                    **what})))


class IdentityTest(base.TestCase):

    def test_a_virtual_function(self) -> None:
        self.assertEqual(pci.Identity(
            name='pci_0002_01_00_1', address=VF, vendor=0x177d,
            product=0xa034, driver='thunder-nicvf', class_code=0x020000,
            physical_function=(2, 1, 0, 0)), identity())

    def test_a_physical_function(self) -> None:
        found = identity(physical=None, virtual=[VF], driver=None)

        self.assertTrue(found.has_virtual_functions)
        self.assertIsNone(found.driver)

    def test_a_class_code_that_is_none_does_no_harm(self) -> None:
        for text in (None, '', 'network'):
            self.assertIsNone(identity(class_code=text).class_code)

    def test_the_place_of_a_fault_is_named(self) -> None:
        sound = pci_tree.pci_document(VF)
        for old, new, place in (
                ('<bus>1<', '<bus>x<', "bus is 'x'"),
                ('<slot>0</slot>', '', 'slot is missing'),
                ("<vendor id='0x8086'>", '<vendor>', 'vendor/@id is missing'),
                ('0x8086', '0x18086', 'vendor/@id is 0x18086'),
                ('0x8086', '0x10000', 'vendor/@id is 0x10000'),
                ('0x8086', '-0x1', 'vendor/@id is -0x1'),
                ('<name>pci_0002_01_00_1</name>', '', 'device/name')):
            self.assertIn(old, sound)

            error = self.assertRaises(
                errors.InvalidDocument, pci.identify,
                pci.parse(sound.replace(old, new)))

            self.assertIn(place, str(error))

    def test_ids_have_four_digits(self) -> None:
        self.assertEqual('ffff:0000', identity(vendor=0xffff, product=0).ids)

    def test_the_serial_number_is_that_of_the_card(self) -> None:
        def field(access: str, serial: str) -> str:
            return (f'<fields access="{access}"><serial_number>{serial}'
                    f'</serial_number></fields>')

        def serial(*data: str) -> str | None:
            return pci.card_serial(pci.parse(
                '<device><capability type="pci"><capability type="other">'
                + field('readonly', 'no') + '</capability>'
                + ''.join(f'<capability type="vpd">{one}</capability>'
                          for one in data) + '</capability></device>'))

        self.assertIsNone(serial())
        self.assertIsNone(serial(field('readwrite', 'mine')))
        self.assertEqual('A', serial(
            field('readonly', 'A') + field('readwrite', 'mine')))
        # of several the last one counts, as in Nova
        self.assertEqual('B', serial(field('readonly', 'A'),
                                     field('readonly', 'B')))
        self.assertIsNone(serial(field('readonly', 'A'), ''))

    def test_the_features_of_an_interface(self) -> None:
        self.assertEqual(['rx', 'tx'], pci.net_features(pci.parse(
            '<device><capability type="net"><feature name="rx"/>'
            '<feature name="tx"/><link/></capability></device>')))

    def test_entities_are_not_read(self) -> None:
        name = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'x')
        name.write_text('secret')
        document = pci_tree.pci_document(VF).replace(
            'thunder', 'igb').replace('igb', '&x;')

        found = pci.identify(pci.parse(
            f'<!DOCTYPE device [<!ENTITY x SYSTEM "file://{name}">]>'
            + document))

        self.assertNotEqual('secret', found.driver)


class RuleTest(base.TestCase):

    def assert_matches(self, text: str, device: pci.Identity) -> None:
        self.assertTrue(pci.Rule.parse(text).matches(device), text)

    def assert_differs(self, text: str, device: pci.Identity) -> None:
        self.assertFalse(pci.Rule.parse(text).matches(device), text)

    def test_each_form_matches(self) -> None:
        for text in ('177d:a034', '177D:A034', ' 177d:a034 ', '177d:*',
                     '0002:01:00.1', '0002:01:00.1-0002:01:00.1',
                     '0002:01:00.0-0002:01:1f.7', '0000:00:00.0-ffff:ff:1f.7',
                     'driver=thunder-nicvf', 'class=02', 'class=0200',
                     'class=0x020000'):
            self.assert_matches(text, identity())

    def test_each_form_differs(self) -> None:
        for text in ('177d:a01e', '177e:*', '0002:01:00.2', '0000:01:00.1',
                     '0002:01:00.2-0002:01:1f.7', 'driver=thunder', 'class=03',
                     'class=0201', 'class=020001'):
            self.assert_differs(text, identity())

    def test_what_is_unknown_never_matches(self) -> None:
        device = identity(driver=None, class_code=None)

        self.assert_differs('driver=thunder-nicvf', device)
        self.assert_differs('class=00', device)

    def test_addresses_with_a_wide_domain(self) -> None:
        self.assert_matches('10000:e1:00.0', identity((0x10000, 0xe1, 0, 0)))
        self.assertEqual((0x10000, 0xe1, 0, 0),
                         pci.address_in('pci_10000_e1_00_0'))

    def test_drivers_have_capital_letters(self) -> None:
        self.assert_matches('driver=Mine', identity(driver='Mine'))
        self.assert_differs('driver=mine', identity(driver='Mine'))

    def test_what_is_no_rule(self) -> None:
        for text in ('', 'x', '177d', '177d:', ':a034', '*:a034', '177d:a03',
                     '177d:a0345', '0002:01:00', '0002:01:00.8',
                     '0002:01:20.0', '0002:01:00.1-', 'driver=',
                     'driver=a b', 'class=', 'class=2', 'class=0200000',
                     'vendor=177d', '0002:01:00.1-0002:01:00.0',
                     '0002:01:00.0-0002:01:20.0'):
            error = self.assertRaises(ValueError, pci.Rule.parse, text)
            self.assertIn(repr(text), str(error))


class SettingsTest(base.TestCase):

    def conf(self, text: str) -> cfg.ConfigOpts:
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'conf')
        path.write_text(text)
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        return conf

    def load(self, text: str = '') -> pci.Settings:
        return pci.Settings.load(self.conf(f'[arm_pci]\n{text}\n'))

    def test_the_nic_of_thunderx_is_skipped_by_default(self) -> None:
        settings = self.load()

        for product in (0xa01e, 0xa034, 0x0011):
            device = identity(product=product)
            self.assertEqual(device.ids, settings.skipped_by(
                device, pci.DeviceSpec()))
        self.assertIsNone(settings.skipped_by(
            identity(product=0xa035), pci.DeviceSpec()))

    def test_rules_are_added_to_the_default_ones(self) -> None:
        settings = self.load('skip = $default_skip,driver=mine')

        self.assertEqual(4, len(settings.skip))
        self.assertEqual('driver=mine', settings.skipped_by(
            identity(vendor=1, driver='mine'), pci.DeviceSpec()))

    def test_nothing_is_skipped_if_so_wanted(self) -> None:
        self.assertIsNone(self.load('skip =').skipped_by(
            identity(), pci.DeviceSpec()))

    def test_default_rules_give_way_to_device_spec(self) -> None:
        settings = self.load()

        for spec in ('{"vendor_id": "177d", "product_id": "a034"}',
                     '{"vendor_id": "177D", "product_id": "A034"}',
                     '[{"vendor_id": "1"}, {"vendor_id": "177d"}]',
                     '{"address": "0002:01:00.1"}',
                     '{"address": "0002:01:00.0"}',     # its physical one
                     '{"address": "0002:*:*.*"}', '{"address": "2:1:0.*"}',
                     '{"address": {"domain": ".*", "bus": "01", '
                     '"slot": "00", "function": "[0-3]"}}'):
            self.assertIsNone(settings.skipped_by(
                identity(), pci.DeviceSpec([spec])), spec)

    def test_and_not_to_other_entries(self) -> None:
        settings = self.load()

        for spec in ('{"vendor_id": "177d", "product_id": "a01e"}',
                     '{"vendor_id": "8086"}', '{"product_id": "a034"}',
                     '{"physical_network": "p"}', '{"address": "*:*:*.*"}',
                     '{"address": "0000:01:00.1"}', '{"devname": "eth0"}',
                     '{"vendor_id": "177d", "address": "0000:01:00.1"}',
                     '{"address": {"bus": "("}}', '{"address": 7}',
                     '{"address": "1:2:3:4.5"}', 'nonsense', '7'):
            self.assertEqual('177d:a034', settings.skipped_by(
                identity(), pci.DeviceSpec([spec])), spec)

    def test_rules_of_the_operator_do_not(self) -> None:
        named = pci.DeviceSpec(['{"vendor_id": "177d", "product_id": "a034"}'])

        for rule in ('177d:*', '0002:01:00.1', 'driver=thunder-nicvf'):
            self.assertEqual(rule, self.load(f'skip = {rule}').skipped_by(
                identity(), named))

    def test_an_address_is_skipped_before_its_device_is_read(self) -> None:
        settings = self.load('default_skip = 0002:01:00.2\n'
                             'skip = $default_skip,177d:*,0002:01:00.1')

        self.assertEqual('0002:01:00.1', settings.skipped_address(VF))
        # device_spec may name it by vendor and product
        self.assertIsNone(settings.skipped_address((2, 1, 0, 2)))
        self.assertIsNone(settings.skipped_address((2, 1, 0, 3)))

    def test_a_part_of_an_address_that_is_no_number_names_nothing(
            self) -> None:
        self.assertFalse(pci.DeviceSpec(
            ['{"address": "0002:01:xx.1"}']).names(identity()))

    def test_all_faults_come_together_with_the_right_forms(self) -> None:
        conf = self.conf('[arm_pci]\nskip = 177d:a034,nonsense,driver=\n'
                         'max_age = -1\nwhen_device_spec_empty = maybe\n'
                         '[arm]\nhooks = nosuch\n')

        error = self.assertRaises(
            errors.ConfigurationError, Pipeline.load, conf,
            checks=[pci.faults])

        for part in ("'nosuch'", "[arm_pci] skip: 'nonsense'", "'driver='",
                     "max_age is '-1'", "when_device_spec_empty is 'maybe'"):
            self.assertIn(part, str(error))
        self.assertEqual(1, str(error).count(pci.FORMS))

    def test_a_sound_configuration_has_no_fault(self) -> None:
        self.assertEqual((), pci.faults(self.conf('')))


class SummaryTest(base.TestCase):

    def test_it_counts_by_rule(self) -> None:
        self.assertEqual('3 skipped: 2 by a, 1 by b', pci.summary(
            {'b': ['x'], 'a': ['y', 'z']}))
        self.assertEqual('no device is skipped', pci.summary({}))
