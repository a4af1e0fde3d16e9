# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext audit`: guests of a libvirt, with real domain XML."""

from nova_arm_ext import provenance
from nova_arm_ext.cmd import guests
from nova_arm_ext.cmd.commands import audit
from tests.data import golden
from tests.support import embed
from tests.unit.cmd import base
from tests.unit.cmd.commands import hosts


class JudgeTest(base.CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.hooks = golden.default_pipeline()
        self.ours = provenance.Record(
            version='1.0', options=provenance.digest(self.hooks))

    def judge(self, case: str, document: str) -> audit.Verdict:
        return audit.judge(
            guests.Guest(name='guest', uuid=hosts.UUID, number=None,
                         document=document, live=document),
            golden.known(case).host, self.hooks, self.ours)

    def test_hooks_have_nothing_to_add_to_what_libvirt_keeps(self) -> None:
        try:
            process = embed.Process()
            process.__enter__()
        except embed.Unavailable as e:
            self.skipTest(str(e))
        self.addCleanup(process.__exit__, None, None, None)
        judged = 0
        for case in golden.cases():
            verdict = process.define(hosts.defined(case, self.ours))
            if verdict.define or case == 'x86-stays':
                continue     # facts of another libvirt than this one
            judged += 1

            found = self.judge(case, verdict.stored)

            self.assertEqual((audit.SAME, audit.UNCHANGED, ''),
                             (found.recorded, found.now, found.diff), case)
        self.assertGreater(judged, len(golden.cases()) / 2)

    def test_what_would_be_adjusted(self) -> None:
        found = self.judge('viommu', golden.before('viommu'))

        self.assertEqual((audit.UNTOUCHED, audit.ADJUSTED),
                         (found.recorded, found.now))
        self.assertIn('libvirt_compat', found.hooks)
        self.assertIn('-    <ioapic driver="qemu"/>', found.diff)

    def test_who_adjusted_it(self) -> None:
        document = hosts.defined('viommu', self.ours)
        older = document.replace('version="1.0"', 'version="0.9"', 1)
        other = document.replace(self.ours.options, '0' * 16)

        self.assertEqual(
            [audit.SAME, 'adjusted by another version (0.9)',
             audit.OTHER_OPTIONS, audit.UNTOUCHED],
            [self.judge('viommu', text).recorded for text in (
                document, older, other, golden.before('viommu'))])

    def test_what_stock_nova_could_not_start(self) -> None:
        cases = ('viommu', 'new-guest-nova-29', 'x86-stays')

        found = [self.judge(case, hosts.defined(case, self.ours))
                 for case in cases]

        self.assertEqual(
            [audit.CANNOT_START, audit.DIFFERENT, audit.AS_IT_IS],
            [one.without for one in found])
        self.assertIn('features/ioapic', found[0].why)

    def test_a_loader_that_is_named_is_no_hindrance(self) -> None:
        found = self.judge('new-guest', hosts.defined('new-guest', self.ours))

        self.assertEqual(audit.DIFFERENT, found.without)

    def test_an_instance_without_the_secure_boot_that_it_has_to_have(
            self) -> None:
        plain = hosts.defined('new-guest', self.ours)
        by_flavor = plain.replace('<nova:extraSpecs/>', (
            '<nova:extraSpecs><nova:extraSpec name="os:secure_boot">required'
            '</nova:extraSpec></nova:extraSpecs>'))
        by_image = plain.replace('<nova:properties/>', (
            '<nova:properties><nova:property name="os_secure_boot">required'
            '</nova:property></nova:properties>'))
        for document, lacks in ((plain, ''), (by_flavor, 'without'),
                                (by_image, 'without')):
            found = self.judge('new-guest', document)
            self.assertEqual(
                audit.WITHOUT_SECURE_BOOT if lacks else '', found.lacks)
            self.assertEqual(bool(lacks), audit.WITHOUT_SECURE_BOOT
                             in audit.in_words(found))
            secure = document.replace('AAVMF_CODE.fd', 'AAVMF_CODE.ms.fd')
            self.assertEqual('', self.judge('new-guest', secure).lacks)

    def test_a_guest_that_we_did_not_touch_stays_as_it_is(self) -> None:
        found = self.judge('viommu', golden.before('viommu'))

        self.assertEqual(audit.AS_IT_IS, found.without)

    def test_one_guest_s_fault_is_its_own(self) -> None:
        found = self.judge('viommu', '<domain>')

        self.assertEqual((audit.UNKNOWN, audit.UNKNOWN),
                         (found.now, found.without))
        self.assertIn('not XML', found.why)


class CommandTest(hosts.RecordedTestCase):

    def test_audit_of_a_host_without_arm_guests(self) -> None:
        ran = self.run_command('audit', '--connect', self.host(),
                               '--config-file', self.conf, '--json')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertEqual([{
            'Guest': 'instance-0000002a', 'UUID': hosts.UUID,
            'Recorded': 'adjusted by another version (0.9)',
            'Now': 'not an Arm guest', 'Unread': None}], ran.json)

    def test_forms(self) -> None:
        for arguments, words in (
                (('--diff',), '# instance instance-0000002a'),
                (('--before-removal',), 'Without'),
                (('-f', 'csv'), '"instance-0000002a"'), ((), '| Guest ')):
            ran = self.run_command('audit', '--connect', self.host(),
                                   '--config-file', self.conf, *arguments)

            self.assertEqual((0, ''), (ran.status, ran.stderr))
            self.assertIn(words, ran.stdout)

    def test_redacted(self) -> None:
        ran = self.run_command('audit', '--connect', self.host(), '--diff',
                               '--config-file', self.conf, '--redact')

        self.assertEqual('# instance name-1 (uuid-1): not an Arm guest\n',
                         ran.stdout)

    def test_errors_are_one_line(self) -> None:
        self.assert_fails(self.run_command(
            'audit', '--config-file', self.conf), 'does not answer')
        self.assert_fails(self.run_command(
            'audit', '--connect', self.host(), '--config-file',
            self.file('bad.conf', '[arm]\nhooks = nonsense\n')), 'nonsense')
