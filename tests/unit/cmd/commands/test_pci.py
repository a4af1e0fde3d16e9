# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext pci`: the devices of a libvirt test host."""

import json

import fixtures

from nova_arm_ext import pci
from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import inventory
from tests.support import pci_tree
from tests.unit.cmd import base


class PciTest(base.CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        tree = pci_tree.Tree()
        pci_tree.thunderx(tree, 2)
        tree.pci((0, 0, 3, 0))
        # the test driver knows no kind of device but those of its own schema
        self.uri = 'test://' + self.file('node.xml', '<node>' + ''.join(
            node.document for node in tree.nodes.values()
            if node.document.startswith('<device><name>pci')) + '</node>')

    def listed(self, *arguments: str) -> dict[str, dict[str, str]]:
        ran = self.run_command('pci', '--connect', self.uri, '-f', 'json',
                               *arguments)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return {row['Address']: row for row in json.loads(ran.stdout)}

    def conf(self, text: str) -> tuple[str, str]:
        return '--config-file', self.file('nova.conf', text)

    def test_each_device_with_the_rule_that_skips_it(self) -> None:
        found = self.listed()

        self.assertEqual(
            ['0000:00:03.0', '0002:01:00.0', '0002:01:00.1', '0002:01:00.2'],
            list(found))
        self.assertEqual('yes', found['0000:00:03.0']['Inventory'])
        self.assertEqual('skipped by 177d:a034',
                         found['0002:01:00.1']['Inventory'])
        self.assertEqual('177d:a034', found['0002:01:00.1']['Vendor:Product'])

    def test_device_spec_is_heeded(self) -> None:
        found = self.listed(*self.conf(
            '[pci]\ndevice_spec = {"vendor_id": "177d", '
            '"product_id": "a034"}\n'))

        self.assertEqual('yes', found['0002:01:00.1']['Inventory'])
        self.assertEqual('skipped by 177d:a01e',
                         found['0002:01:00.0']['Inventory'])

    def test_why_there_is_no_inventory(self) -> None:
        disabled = self.listed(*self.conf('[arm_pci]\nenabled = false\n'))
        empty = self.listed(*self.conf(
            '[arm_pci]\nwhen_device_spec_empty = nothing\n'))

        self.assertEqual({'no: [arm_pci] enabled = false'},
                         {row['Inventory'] for row in disabled.values()})
        self.assertEqual({'no: [pci] device_spec is empty'},
                         {row['Inventory'] for row in empty.values()})

    def test_bad_rules_and_no_libvirt_are_one_line(self) -> None:
        self.assert_fails(self.run_command(
            'pci', '--connect', self.uri,
            *self.conf('[arm_pci]\nskip = nonsense\n')), "'nonsense'")
        self.assert_fails(self.run_command('pci'), 'does not answer')

    def test_facts_tell_what_is_left_out_and_why(self) -> None:
        ran = self.run_command('facts', '--connect', self.uri)
        named = self.run_command('facts', '--connect', self.uri, *self.conf(
            '[pci]\ndevice_spec = {"address": "0002:01:00.1"}\n'))

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertEqual(
            {'devices': 4, 'left_out': {
                'skipped by 177d:a01e': ['0002:01:00.0'],
                'skipped by 177d:a034': ['0002:01:00.1', '0002:01:00.2']}},
            ran.json['pci'])
        self.assertEqual(['0002:01:00.2'],
                         named.json['pci']['left_out']['skipped by 177d:a034'])

    def test_facts_fail_with_a_configuration_that_cannot_be_read(self) -> None:
        for conf in (('--config-file', '/nonexistent'),
                     self.conf('[arm_pci]\nskip = nonsense\n')):
            self.assert_fails(self.run_command(
                'facts', '--connect', self.uri, *conf), 'non')

    def test_facts_without_node_devices_are_null(self) -> None:
        def asked(uri: str, seconds: float, question: object) -> str:
            if question is inventory.read_documents:
                raise failure.Failure('no node devices')
            return '{"host": {"arch": "aarch64"}}'

        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.host.answer', asked))

        facts = self.run_command('facts').json

        self.assertIsNone(facts['pci'])
        self.assertEqual('aarch64', facts['host']['arch'])

    def test_a_broken_document_is_one_row(self) -> None:
        rows = inventory.rows(
            [('pci_0002_01_00_1', None, 'it\nis gone'),
             ('pci_0000_00_01_0', '<device/>', ''), ('odd', '', '')],
            pci.Settings(), pci.DeviceSpec())

        self.assertEqual(['odd', '0000:00:01.0', '0002:01:00.1'],
                         [row[0] for row in rows])
        self.assertEqual('BROKEN: it is gone', rows[-1][-1])
        self.assertEqual(['0002:01:00.1'],
                         inventory.left_out(rows)['BROKEN: it is gone'])
