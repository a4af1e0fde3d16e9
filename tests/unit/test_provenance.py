# SPDX-License-Identifier: Apache-2.0
"""The record in a domain's metadata."""

from nova_arm_ext import provenance
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import golden
from tests.support import base

RECORD = provenance.Record(
    version='1.0', options='0123456789abcdef', hooks=(
        provenance.Hook(name='uefi'),
        provenance.Hook(name='console', failure='it is kept away'),
        provenance.Hook(name='libvirt_compat', reasons=(
            provenance.Reason(place='features/ioapic', text='refused & <odd>',
                              essential=True),
            provenance.Reason(place='os/loader', text='better so')))))

PLAIN = '''\
<domain type="kvm">
  <name>plain</name>
  <os>
    <type arch="aarch64" machine="virt">hvm</type>
  </os>
</domain>'''


class RecordTest(base.TestCase):

    def test_what_is_written_is_read(self) -> None:
        for document in (golden.before('new-guest'), PLAIN):
            domain = Domain.parse(document)

            provenance.write(domain, RECORD)

            self.assertEqual(RECORD,
                             provenance.read(Domain.parse(domain.to_xml())))

    def test_a_second_one_replaces_the_first(self) -> None:
        domain = Domain.parse(golden.before('new-guest'))
        provenance.write(domain, RECORD)
        once = domain.to_xml()

        provenance.write(domain, provenance.Record(version='0', options=''))
        provenance.write(domain, RECORD)

        self.assertEqual(once, domain.to_xml())
        self.assertEqual(1, once.count('<arm:adjusted'))

    def test_what_others_wrote_stays(self) -> None:
        domain = Domain.parse(golden.before('new-guest'))

        provenance.write(domain, RECORD)

        before = golden.before('new-guest').splitlines()
        self.assertEqual([], [line for line in before
                              if line not in domain.to_xml().splitlines()])

    def test_a_document_without_one(self) -> None:
        self.assertIsNone(provenance.read(Domain.parse(PLAIN)))
        self.assertIsNone(
            provenance.read(Domain.parse(golden.before('new-guest'))))

    def test_a_hook_may_write_anything(self) -> None:
        reason = provenance.Reason(place='a\x00b', text='\x1b[31m' * 500)
        domain = Domain.parse(PLAIN)

        provenance.write(domain, provenance.Record(
            version='1', options='', hooks=(provenance.Hook(
                name='strange', reasons=(reason,) * 1000),)))

        [hook] = provenance.read(Domain.parse(domain.to_xml())).hooks
        self.assertEqual(provenance.MAX_REASONS, len(hook.reasons))
        self.assertEqual(('a b', ' [31m' * 100),
                         (hook.reasons[0].place, hook.reasons[0].text))

    def test_a_record_that_somebody_spoilt(self) -> None:
        domain = Domain.parse(PLAIN.replace(
            '</name>', f'</name><metadata><a:adjusted '
                       f'xmlns:a="{provenance.NAMESPACE}"><a:hook><a:reason/>'
                       f'</a:hook><other/></a:adjusted></metadata>'))

        record = provenance.read(domain)

        self.assertEqual(('', ''), (record.version, record.options))
        self.assertEqual('', record.hooks[0].reasons[0].text)


class OfTest(base.TestCase):

    def test_what_the_pipeline_tells(self) -> None:
        hooks = golden.default_pipeline()
        ours = provenance.Record(version='1.0',
                                 options=provenance.digest(hooks))

        result = hooks.run(
            golden.before('viommu'), golden.known('viommu'),
            finish=lambda domain, reports: provenance.write(
                domain, ours.of(reports)))

        record = provenance.read(Domain.parse(result.xml))
        self.assertEqual(ours.options, record.options)
        self.assertEqual(hooks.hooks,
                         tuple(hook.name for hook in record.hooks))
        compat = record.hooks[0]
        self.assertIn(('features/ioapic', True), [
            (reason.place, reason.essential) for reason in compat.reasons])
        # and nothing else has changed
        without = hooks.run(golden.before('viommu'), golden.known('viommu'))
        domain = Domain.parse(result.xml)
        metadata = domain.part('metadata')
        metadata.remove(metadata[-1])
        self.assertEqual(
            _packed(without.xml), _packed(domain.to_xml()))

    def test_a_guest_of_another_architecture_gets_none(self) -> None:
        document = golden.before('x86-stays')

        result = golden.default_pipeline().run(
            document, golden.known('x86-stays'),
            finish=lambda domain, reports: provenance.write(domain, RECORD))

        self.assertIs(document, result.xml)


class DigestTest(base.TestCase):

    def digest(self, conf: str = '') -> str:
        import tempfile

        from nova_arm_ext.cmd import reading
        with tempfile.NamedTemporaryFile('w', suffix='.conf') as file:
            file.write(conf)
            file.flush()
            return provenance.digest(Pipeline.load(
                reading.configuration([file.name])))

    def test_it_is_that_of_hooks_and_their_options(self) -> None:
        self.assertEqual(self.digest(), self.digest())
        self.assertEqual(self.digest(),
                         self.digest('[arm]\non_hook_failure = skip\n'))
        self.assertEqual(4, len({
            self.digest(), self.digest('[arm_pcie_root_ports]\nfree = 9\n'),
            self.digest('[arm]\nhooks = uefi\n'),
            self.digest('[arm]\nhooks = uefi,console\n')}))


def _packed(document: str) -> str:
    return ''.join(document.split())
