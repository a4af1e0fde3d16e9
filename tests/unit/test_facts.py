# SPDX-License-Identifier: Apache-2.0
"""Facts and their JSON form, also with wrong content."""

import json

import hypothesis
from hypothesis import strategies

from nova_arm_ext import errors
from nova_arm_ext import facts
from tests.support import base
from tests.unit import properties

_WORDS = strategies.text(max_size=8)
_FLAGS = strategies.none() | strategies.booleans()
_VERSIONS = strategies.none() | strategies.tuples(
    *[strategies.integers(min_value=0, max_value=99999)] * 3)
_STRINGS = strategies.none() | strategies.dictionaries(
    _WORDS, _WORDS, max_size=3)
_FIRMWARE = strategies.builds(
    facts.Firmware, arch=_WORDS,
    machines=strategies.lists(_WORDS, max_size=2).map(tuple),
    loader=_WORDS, loader_format=_WORDS.filter(bool), template=_WORDS,
    template_format=_WORDS.filter(bool), secure_boot=strategies.booleans(),
    enrolled_keys=strategies.booleans(),
    aliases=strategies.lists(_WORDS, max_size=2).map(tuple),
    described=strategies.booleans())
FACTS = strategies.builds(
    facts.Facts,
    host=strategies.builds(
        facts.Host, arch=strategies.none() | _WORDS,
        libvirt_version=_VERSIONS, qemu_version=_VERSIONS,
        virt_types=strategies.none() | strategies.dictionaries(
            _WORDS, strategies.lists(_WORDS, max_size=2).map(tuple),
            max_size=2),
        aarch32_el1=_FLAGS,
        machines=strategies.none() | strategies.lists(
            _WORDS, min_size=1, max_size=2).map(tuple),
        lacks=strategies.none() | strategies.lists(
            _WORDS, min_size=1, max_size=2).map(tuple),
        firmware=strategies.none() | strategies.lists(
            _FIRMWARE, max_size=2).map(tuple)),
    guest=strategies.builds(
        facts.Guest, extra_specs=_STRINGS, image_properties=_STRINGS,
        previous=strategies.none() | _WORDS,
        system_manufacturer=strategies.none() | _WORDS,
        system_product=strategies.none() | _WORDS,
        system_serial=strategies.none() | _WORDS))

_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.floats() | strategies.text(max_size=5),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(
        strategies.sampled_from((
            'format', 'host', 'guest', 'arch', 'libvirt_version',
            'virt_types', 'aarch32_el1', 'firmware', 'extra_specs',
            'image_properties', 'previous', 'loader', 'template',
            'machines', 'aarch64')),
        inner, max_size=5),
    max_leaves=20)


class FromJsonTest(base.TestCase):

    def wrong(self, text: str | bytes) -> str:
        error = self.assertRaises(errors.InvalidFacts,
                                  facts.Facts.from_json, text)
        sentence = str(error)
        self.assertEqual(1, len(sentence.splitlines()), sentence)
        self.assertLess(len(sentence), 400)
        return sentence

    def test_an_empty_object_knows_nothing(self):
        self.assertEqual(facts.Facts(), facts.Facts.from_json('{}'))

    def test_null_is_unknown_everywhere(self):
        known = facts.Facts.from_json(json.dumps({
            'format': None,
            'host': dict.fromkeys((
                'arch', 'libvirt_version', 'qemu_version', 'virt_types',
                'aarch32_el1', 'firmware')),
            'guest': dict.fromkeys((
                'extra_specs', 'image_properties', 'previous'))}))

        self.assertEqual(facts.Facts(), known)
        self.assertEqual(known, facts.Facts.from_json(
            '{"host": null, "guest": null}'))

    def test_no_is_not_unknown(self):
        known = facts.Facts.from_json(
            '{"host": {"aarch32_el1": false, "firmware": [], '
            '"virt_types": {}}, "guest": {"extra_specs": {}}}')

        self.assertIs(False, known.host.aarch32_el1)
        self.assertEqual((), known.host.firmware)
        self.assertEqual({}, known.host.virt_types)
        self.assertEqual({}, known.guest.extra_specs)

    def test_names_of_a_newer_release_are_left_alone(self):
        known = facts.Facts.from_json(
            '{"format": 1, "later": 1, "host": {"arch": "aarch64", "new": 2}}')

        self.assertEqual('aarch64', known.host.arch)

    def test_every_field_is_read(self):
        known = facts.Facts.from_json(json.dumps({
            'format': 1,
            'host': {'arch': 'aarch64', 'libvirt_version': '9.0.0',
                     'qemu_version': '7.2.22',
                     'virt_types': {'aarch64': ['kvm', 'qemu']},
                     'aarch32_el1': True,
                     'firmware': [{'arch': 'aarch64', 'loader': '/code',
                                   'machines': ['virt-*'],
                                   'template': '/vars',
                                   'loader_format': 'qcow2',
                                   'secure_boot': True}]},
            'guest': {'extra_specs': {'arm:x': '1'},
                      'image_properties': {'arm_x': '2'},
                      'previous': '<domain/>'}}))

        self.assertEqual(facts.Facts(
            host=facts.Host(
                arch='aarch64', libvirt_version=(9, 0, 0),
                qemu_version=(7, 2, 22),
                virt_types={'aarch64': ('kvm', 'qemu')}, aarch32_el1=True,
                firmware=(facts.Firmware(
                    arch='aarch64', machines=('virt-*',), loader='/code',
                    loader_format='qcow2', template='/vars',
                    secure_boot=True),)),
            guest=facts.Guest(
                extra_specs={'arm:x': '1'}, image_properties={'arm_x': '2'},
                previous='<domain/>')), known)

    def test_numbers_and_flags_of_flavor_and_image_become_their_strings(self):
        known = facts.Facts.from_json(
            '{"guest": {"extra_specs": {"a": 4, "b": true, "c": null, '
            '"d": "x"}}}')

        self.assertEqual({'a': '4', 'b': 'true', 'd': 'x'},
                         known.guest.extra_specs)

    def test_a_wrong_type_is_told_with_place_and_value(self):
        for text, sentence in (
                ('[]', 'facts is [], not an object'),
                ('null', 'facts is null, not an object'),
                ('{"format": true}',
                 'facts/format is true, not a whole number'),
                ('{"format": false}',
                 'facts/format is false, not a whole number'),
                ('{"format": 1.0}',
                 'facts/format is 1.0, not a whole number'),
                ('{"format": 2}',
                 'facts/format is 2, this release reads 1'),
                ('{"host": "aarch64"}',
                 'facts/host is "aarch64", not an object'),
                ('{"host": {"arch": 64}}',
                 'facts/host/arch is 64, not a string'),
                ('{"host": {"aarch32_el1": "yes"}}',
                 'facts/host/aarch32_el1 is "yes", not true or false'),
                ('{"host": {"aarch32_el1": 1}}',
                 'facts/host/aarch32_el1 is 1, not true or false'),
                ('{"host": {"libvirt_version": 9000000}}',
                 'facts/host/libvirt_version is 9000000, not a string'),
                ('{"host": {"virt_types": {"aarch64": "kvm"}}}',
                 'facts/host/virt_types/aarch64 is "kvm", not a list'),
                ('{"host": {"virt_types": {"aarch64": ["kvm", 1]}}}',
                 'facts/host/virt_types/aarch64[1] is 1, not a string'),
                ('{"host": {"firmware": [{}]}}',
                 'facts/host/firmware[0]/arch is missing'),
                ('{"host": {"firmware": [[]]}}',
                 'facts/host/firmware[0] is [], not an object'),
                ('{"guest": {"extra_specs": {"hw:x": [1]}}}',
                 'facts/guest/extra_specs/hw:x is [1], not a string'),
                ('{"guest": {"image_properties": []}}',
                 'facts/guest/image_properties is [], not an object'),
                ('{"guest": {"previous": {}}}',
                 'facts/guest/previous is {}, not a string')):
            self.assertEqual(sentence, self.wrong(text))

    def test_a_version_has_three_numbers(self):
        for value in ('9', '9.0', '9.0.0.0', '9.0.x', ' 9.0.0', '9..0',
                      '-1.0.0', '9.0.\N{ARABIC-INDIC DIGIT THREE}', '9' * 200,
                      '', '9.0.0\n', '1e3.0.0', '9.0.1234567'):
            sentence = self.wrong(json.dumps(
                {'host': {'libvirt_version': value}}))
            self.assertIn('facts/host/libvirt_version is "', sentence)
            self.assertIn('not a version such as "9.0.0"', sentence)

    def test_what_is_no_json_is_one_sentence(self):
        for text in ('', '{', 'x', '{"a": "\0"}', '1' * 5000, '[' * 100000,
                     '{"a":' * 100000, b'\xff\xfe\xff', b'\x00',
                     '{"format": ' + '1' * 5000 + '}'):
            self.assertIn('facts are not JSON: ', self.wrong(text))

    def test_odd_names_stay_on_one_line(self):
        self.assertEqual(
            r'facts/guest/extra_specs/"a\nb\ud800" is [], not a string',
            self.wrong(r'{"guest": {"extra_specs": {"a\nb\ud800": []}}}'))
        self.wrong(json.dumps({'guest': {'extra_specs': {'x' * 9999: []}}}))
        self.wrong(json.dumps({'host': {'virt_types': {'a\nb': 1}}}))

    def test_a_long_value_is_cut(self):
        self.assertLess(len(self.wrong(
            json.dumps({'host': 'x' * 1000000}))), 100)

    @hypothesis.given(_JSON)
    @hypothesis.settings(properties.SETTINGS, max_examples=200)
    def test_any_json_is_read_or_refused_with_its_place(self, data):
        try:
            facts.Facts.from_json(json.dumps(data))
        except errors.InvalidFacts as e:
            self.assertTrue(str(e).startswith('facts'), e)


class ToJsonTest(base.TestCase):

    @hypothesis.given(FACTS)
    @hypothesis.settings(properties.SETTINGS, max_examples=100)
    def test_what_is_written_is_read_back(self, known):
        self.assertEqual(known, facts.Facts.from_json(known.to_json()))

    def test_the_names_are_those_that_are_promised(self):
        data = json.loads(facts.Facts(host=facts.Host(
            libvirt_version=(9, 0, 0))).to_json())

        self.assertEqual({'format', 'host', 'guest'}, data.keys())
        self.assertEqual(
            {'arch', 'libvirt_version', 'qemu_version', 'virt_types',
             'aarch32_el1', 'firmware'}, data['host'].keys())
        self.assertEqual({'extra_specs', 'image_properties', 'previous'},
                         data['guest'].keys())
        self.assertEqual('9.0.0', data['host']['libvirt_version'])
        self.assertIsNone(data['host']['qemu_version'])
        self.assertEqual(1, data['format'])
