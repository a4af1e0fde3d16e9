# SPDX-License-Identifier: Apache-2.0
"""The domain view, also with malicious XML."""

import hypothesis
from hypothesis import strategies

from nova_arm_ext import errors
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view
from tests.data import golden
from tests.support import base
from tests.unit import properties

DOMAIN = ('<domain type="kvm"><name>%s</name><os><type arch="aarch64" '
          'machine="virt">hvm</type></os></domain>')
BOMB = '<!DOCTYPE domain [<!ENTITY a0 "x">' + ''.join(
    f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">'
    for i in range(1, 30)) + ']>' + DOMAIN % '&a29;'


class ParseTest(base.TestCase):

    def wrong(self, xml: str | bytes) -> str:
        error = self.assertRaises(errors.InvalidDocument,
                                  view.Domain.parse, xml)
        sentence = str(error)
        self.assertEqual(1, len(sentence.splitlines()), sentence)
        self.assertLess(len(sentence), 400)
        return sentence

    def test_what_is_no_xml_is_one_sentence(self):
        for xml in ('', ' \n', 'hello', '<domain>', '<domain>\n<a\n</domain>',
                    '<domain/><domain/>', '<domain><a:b/></domain>',
                    b'<domain>\xff</domain>', b'\x00\x01',
                    b'<?xml version="1.0" encoding="nonsense"?><domain/>',
                    DOMAIN % '\0', DOMAIN % '&#0;', DOMAIN % '&nbsp;',
                    DOMAIN % '\x1b'):
            self.assertIn('the domain document is not XML: ',
                          self.wrong(xml))

    def test_lone_surrogates_are_no_xml(self):
        self.assertIn('surrogates not allowed', self.wrong(DOMAIN % '\ud800'))

    def test_another_root_is_named(self):
        self.assertEqual('the root element is <network>, not <domain>',
                         self.wrong('<network/>'))
        self.assertEqual('the root element is <{u:x}domain>, not <domain>',
                         self.wrong('<domain xmlns="u:x"/>'))
        self.wrong(f'<{"x" * 100000}/>')

    def test_an_entity_bomb_does_not_go_off(self):
        self.wrong(BOMB)
        self.wrong(BOMB.replace('<name>&a29;</name>', '<name a="&a29;"/>'))

    def test_no_document_type_is_taken_whatever_it_declares(self):
        for declared in ('<!DOCTYPE domain>',
                         '<!DOCTYPE d [<!ENTITY a "x">]>',
                         '<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/hostname'
                         '">]>',
                         '<!DOCTYPE d SYSTEM "http://192.0.2.1/x.dtd">',
                         '<!DOCTYPE d [<!ENTITY % a SYSTEM "/etc/hostname"> '
                         '%a;]>'):
            self.assertIn('document type declaration',
                          self.wrong(declared + DOMAIN % 'x'))

    def test_an_external_entity_is_not_read(self):
        self.wrong('<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
                   + DOMAIN % '&a;')

    def test_inclusions_are_left_as_they_stand(self):
        xml = DOMAIN % ('<i:include xmlns:i="http://www.w3.org/2001/XInclude" '
                        'href="/etc/hostname"/>')

        self.assertEqual(xml, base.compact(view.Domain.parse(xml)))

    def test_fifty_megabytes_are_not_even_parsed(self):
        self.assertIn(f'more than the {view.MAX_BYTES} that are read',
                      self.wrong(DOMAIN % ('x' * 50_000_000)))
        self.assertIn('more than', self.wrong(b'<a/>' * 12_500_000))

    def test_the_size_counts_bytes(self):
        self.wrong(DOMAIN % ('\N{SNOWMAN}' * (view.MAX_BYTES // 3)))

    def test_deep_nesting_is_no_xml_and_no_crash(self):
        self.assertIn('the domain document is not XML', self.wrong(
            DOMAIN % ('<a>' * 100_000 + '</a>' * 100_000)))

    def test_a_string_has_been_decoded_already(self):
        for declared in ('', '<?xml version="1.0" encoding="utf-16"?>',
                         '<?xml version="1.0" encoding="ascii"?>',
                         '<?xml version="1.0"?>', '\ufeff'):
            domain = view.Domain.parse(declared + DOMAIN % 'ä\N{SNOWMAN}')

            self.assertEqual('ä\N{SNOWMAN}', domain.name)

    def test_bytes_are_read_as_they_declare(self):
        self.assertEqual('é', view.Domain.parse(
            b'<?xml version="1.0" encoding="iso-8859-1"?>'
            b'<domain><name>\xe9</name></domain>').name)
        self.assertEqual('x', view.Domain.parse(
            (DOMAIN % 'x').encode('utf-16')).name)

    @hypothesis.given(strategies.text() | strategies.binary())
    @hypothesis.settings(properties.SETTINGS, max_examples=200)
    def test_any_text_is_a_domain_or_refused(self, xml):
        try:
            view.Domain.parse(xml)
        except errors.InvalidDocument as e:
            self.assertEqual(1, len(str(e).splitlines()))

    @hypothesis.given(strategies.integers(min_value=0, max_value=5000),
                      strategies.text(max_size=4))
    @hypothesis.settings(properties.SETTINGS, max_examples=200)
    def test_a_broken_document_is_a_domain_or_refused(self, place, text):
        xml = golden.before('new-guest')
        try:
            view.Domain.parse(xml[:place] + text + xml[place + 1:])
        except errors.InvalidDocument as e:
            self.assertEqual(1, len(str(e).splitlines()))


class PreviousTest(base.TestCase):

    def test_it_is_parsed_when_asked_for(self):
        domain = view.Domain.parse(DOMAIN % 'a', '<broken')

        error = self.assertRaises(errors.InvalidDocument,
                                  getattr, domain, 'previous')

        self.assertIn("the guest's previous document", str(error))

    def test_there_may_be_none(self):
        self.assertIsNone(view.Domain.parse(DOMAIN % 'a').previous)

    def test_it_is_a_domain(self):
        domain = view.Domain.parse(DOMAIN % 'a', DOMAIN % 'b')

        self.assertEqual('b', domain.previous.name)
        self.assertIs(domain.previous, domain.previous)


class QuestionsTest(base.TestCase):

    def domain(self, arch: str, machine: str) -> view.Domain:
        return view.Domain.parse(
            f'<domain><os><type arch="{arch}" machine="{machine}"/></os>'
            f'</domain>')

    def test_two_architectures_are_arm(self):
        for arch, arm in (('aarch64', True), ('armv7l', True),
                          ('x86_64', False), ('armv6l', False), ('', False)):
            self.assertEqual(arm, self.domain(arch, 'virt').is_arm, arch)

    def test_virt_comes_in_versions(self):
        for machine, virt in (('virt', True), ('virt-7.2', True),
                              ('virtual', False), ('sbsa-ref', False),
                              ('vexpress-a15', False), ('', False)):
            domain = self.domain('aarch64', machine)
            self.assertEqual((virt, virt), (domain.is_virt, domain.has_pcie))

    def test_memory_has_units(self):
        for text, kib in (
                ('<memory>2048</memory>', 2048),
                ('<memory unit="KiB"> 2048 </memory>', 2048),
                ('<memory unit="MiB">64</memory>', 65536),
                ('<memory unit="M">64</memory>', 65536),
                ('<memory unit="GiB">2</memory>', 2097152),
                ('<memory unit="MB">1</memory>', 977),
                ('<memory unit="b">1025</memory>', 2),
                ('<memory unit="acre">1</memory>', None),
                ('<memory>-1</memory>', None), ('<memory/>', None),
                ('', None)):
            domain = view.Domain.parse(f'<domain>{text}</domain>')

            self.assertEqual(kib, domain.memory_kib, text)

    def test_virt_of_another_architecture_has_no_pcie_of_arm(self):
        self.assertFalse(self.domain('riscv64', 'virt').has_pcie)

    def test_a_domain_without_os_answers_no(self):
        domain = view.Domain.parse('<domain/>')

        self.assertEqual((False, False, False, False), (
            domain.is_arm, domain.is_virt, domain.has_pcie,
            domain.has_graphics))
        self.assertEqual([], domain.all(devices.Disk))

    def test_extra_specs_are_those_of_novas_metadata(self):
        for version in ('1.0', '1.1', '9.9'):
            domain = view.Domain.parse(
                '<domain><metadata><other:instance xmlns:other="u:o"/>'
                '<n:instance xmlns:n="http://openstack.org/xmlns/libvirt/'
                f'nova/{version}"><n:flavor><n:extraSpecs>'
                '<n:extraSpec name="arm:x">4</n:extraSpec>'
                '<n:extraSpec name="empty"/></n:extraSpecs></n:flavor>'
                '</n:instance></metadata></domain>')
            self.assertEqual({'arm:x': '4', 'empty': ''}, domain.extra_specs)

    def test_the_release_is_that_of_novas_package(self):
        domain = view.Domain.parse(
            '<domain><metadata><package version="1"/>'
            '<o:instance xmlns:o="u:o"><o:package version="2"/></o:instance>'
            '<n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/1.1">'
            '<n:package version="34.0.0"/></n:instance></metadata></domain>')

        self.assertEqual('34.0.0', domain.nova_version)
        self.assertIsNone(view.Domain.parse('<domain/>').nova_version)

    def test_extra_specs_that_are_not_told_are_unknown(self):
        self.assertIsNone(view.Domain.parse('<domain/>').extra_specs)
        self.assertIsNone(view.Domain.parse(
            '<domain><metadata><!-- x --></metadata></domain>').extra_specs)
        self.assertEqual({}, view.Domain.parse(
            golden.before('new-guest')).extra_specs)


class ChangesTest(base.TestCase):

    def test_a_device_is_added_behind_the_last_of_its_kind(self):
        domain = view.Domain.parse(
            '<domain>\n  <devices>\n    <disk/>\n    <video/>\n  </devices>\n'
            '</domain>')

        added = domain.add(devices.Disk, dev='vdb', bus='virtio')

        self.assertEqual(
            '<domain>\n  <devices>\n    <disk/>\n    <disk>\n'
            '      <target dev="vdb" bus="virtio"/>\n    </disk>\n'
            '    <video/>\n  </devices>\n</domain>\n', domain.to_xml())
        self.assertEqual([added], domain.all(devices.Disk)[1:])

    def test_devices_are_made_where_there_are_none(self):
        domain = view.Domain.parse('<domain/>')

        domain.add(devices.Rng, model='virtio')

        self.assertEqual('''\
<domain>
  <devices>
    <rng model="virtio"/>
  </devices>
</domain>
''', domain.to_xml())

    def test_what_surrounds_the_root_stays(self):
        xml = '<!-- before --><domain/><!-- behind -->'

        self.assertEqual(
            xml, view.Domain.parse(xml).to_xml().replace('\n', ''))

    def test_any_indentation_becomes_novas(self):
        domain = view.Domain.parse(
            '<domain><a><b/>\n\n    <c> </c>  </a></domain>')

        self.assertEqual('''\
<domain>
  <a>
    <b/>
    <c> </c>
  </a>
</domain>
''', domain.to_xml())
