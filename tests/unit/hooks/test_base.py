# SPDX-License-Identifier: Apache-2.0
"""What the hooks share."""

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from tests.data import golden
from tests.support import base

METADATA = (
    '<metadata><n:instance xmlns:n="http://openstack.org/xmlns/libvirt/nova/'
    '1.1"><n:flavor><n:extraSpecs><n:extraSpec name="arm:x">document'
    '</n:extraSpec></n:extraSpecs></n:flavor></n:instance></metadata>')


class ExtraSpecsTest(base.TestCase):

    def test_the_facts_speak_before_the_document(self):
        domain = view.Domain.parse(f'<domain>{METADATA}</domain>')

        for said, expected in (({'arm:x': 'facts'}, {'arm:x': 'facts'}),
                               ({}, {}), (None, {'arm:x': 'document'})):
            self.assertEqual(expected, hooks.extra_specs(
                domain, facts.Facts(guest=facts.Guest(extra_specs=said))))

    def test_where_nobody_tells_them_there_are_none(self):
        self.assertEqual({}, hooks.extra_specs(
            view.Domain.parse('<domain/>'), facts.Facts()))

    def test_every_hook_that_reads_one_finds_it_in_the_document(self):
        specs = {'arm:video_model': 'ramfb', 'arm:virtio_transport': 'mmio',
                 'arm:free_pcie_root_ports': '7'}
        before, none, after = golden.before('new-guest').partition(
            '<nova:extraSpecs/>')
        document = (before + none.replace('/', '') + ''.join(
            f'<nova:extraSpec name="{name}">{value}</nova:extraSpec>'
            for name, value in specs.items()) + '</nova:extraSpecs>' + after)

        reasons = ' '.join(
            reason for report in golden.default_pipeline().run(
                document, facts.Facts()).reports
            for _, reason in report.reasons)

        for name in specs:
            self.assertIn(name, reasons)


class AskedTest(base.TestCase):

    def asked(self, specs, properties, *args, **more):
        return hooks.asked(
            view.Domain.parse('<domain/>'), facts.Facts(guest=facts.Guest(
                extra_specs=specs, image_properties=properties)),
            'arm:x', *args, **more)

    def test_the_flavor_takes_precedence_over_the_image(self):
        both = self.asked({'arm:x': 'a'}, {'arm_x': 'b'})
        one = self.asked({}, {'arm_x': 'b'})

        self.assertEqual(
            ('a', 'the extra spec arm:x of the flavor', False),
            (both.value, both.place, both.by_image))
        self.assertEqual(('b', 'the property arm_x of the image', True),
                         (one.value, one.place, one.by_image))

    def test_nobody_asks(self):
        for specs, properties in (({}, {}), (None, None)):
            self.assertIsNone(self.asked(specs, properties))

    def test_an_unknown_value_is_refused_with_its_place(self):
        for specs, properties in (({'arm:x': 'c'}, {}), ({}, {'arm_x': 'c'})):
            error = self.assertRaises(errors.Refused, self.asked, specs,
                                      properties, ('a', 'b'))
            self.assertIn("is 'c', not one of a, b", str(error))

    def test_what_images_may_not_ask_for_a_flavor_may(self):
        more = {'images_may': ('a',), 'option': '[arm_x] allow_image'}

        error = self.assertRaises(errors.Refused, self.asked, {},
                                  {'arm_x': 'b'}, ('a', 'b'), **more)

        self.assertIn('[arm_x] allow_image', str(error))
        self.assertEqual('a', self.asked({}, {'arm_x': 'a'}, **more).value)
        self.assertEqual('b', self.asked({'arm:x': 'b'}, {}, **more).value)
