# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext explain`: a guest's record."""

import json

from nova_arm_ext import provenance
from nova_arm_ext.cmd.commands import explain
from nova_arm_ext.domain.view import Domain
from tests.data import golden
from tests.unit.cmd import base
from tests.unit.cmd.commands import hosts


class ExplainTest(hosts.RecordedTestCase):

    def explained(self, *arguments: str) -> base.Ran:
        return self.run_command('explain', '--connect', self.host(),
                                *arguments)

    def test_a_guest_that_is_not_there(self) -> None:
        self.assert_fails(self.explained('instance-00000001'),
                          "no instance 'instance-00000001'")

    def test_an_x86_guest(self) -> None:
        ran = self.explained('instance-0000002a')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('not an Arm guest', ran.stdout)

    def test_as_json_by_uuid(self) -> None:
        ran = self.explained(hosts.UUID, '--json')

        self.assertEqual('0.9', ran.json['record']['version'])
        self.assertEqual(
            {'place': 'features/ioapic', 'essential': True,
             'text': 'libvirt refuses /var/lib/x'},
            ran.json['record']['hooks'][2]['reasons'][0])

    def test_redacted(self) -> None:
        ran = self.explained(hosts.UUID, '--json', '--redact')

        said = json.loads(ran.stdout)
        self.assertEqual(('name-1', 'uuid-1'),
                         (said['guest']['name'], said['guest']['uuid']))
        self.assertEqual('libvirt refuses /path-1',
                         said['record']['hooks'][2]['reasons'][0]['text'])

    def test_in_words(self) -> None:
        document = hosts.defined('viommu', provenance.Record(
            version='1.0', options='abc'))
        domain = Domain.parse(document)

        lines = list(explain.to_text(domain, provenance.read(domain)))

        self.assertEqual(
            ['instance instance-00000001 (' + domain.uuid + '), aarch64',
             'adjusted by nova-arm-ext 1.0, options abc', '',
             'libvirt_compat: changed the domain XML'], lines[:4])
        self.assertIn('uefi: changed nothing', lines)
        self.assertTrue([line for line in lines if line.startswith(
            '  features/ioapic: libvirt refuses the feature')], lines)

    def test_a_guest_without_a_record(self) -> None:
        domain = Domain.parse(golden.before('viommu'))

        self.assertEqual('not adjusted: nova-arm-ext did not define it',
                         list(explain.to_text(domain, None))[-1])
