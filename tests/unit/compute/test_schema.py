# SPDX-License-Identifier: Apache-2.0
"""libvirt's schema as a check."""

import os
import pathlib

import fixtures
from lxml import etree

from nova_arm_ext.compute import schema
from tests.support import base

RNG = ('<element name="domain" xmlns="http://relaxng.org/ns/structure/1.0">'
       '<attribute name="type"/></element>')


class LoadTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'domain.rng'

    def test_a_valid_document_has_nothing_wrong(self):
        self.path.write_text(RNG)
        validate = schema.load(str(self.path))

        self.assertIsNone(validate(etree.fromstring('<domain type="kvm"/>')))

    def test_an_invalid_one_is_told_in_words_and_for_each_document_anew(self):
        self.path.write_text(RNG)
        validate = schema.load(str(self.path))

        for _ in range(2):
            self.assertIn('typo', validate(
                etree.fromstring('<domain type="x" typo="y"/>')))
            self.assertIsNone(validate(etree.fromstring(
                '<domain type="kvm"/>')))

    def test_a_missing_schema_is_no_check_and_no_alarm(self):
        self.assertIsNone(schema.load(str(self.path)))

        self.assertIn('INFO', self.log.output)
        self.assertNotIn('WARNING', self.log.output)

    def test_a_schema_that_cannot_be_used_is_a_warning(self):
        for number, text in enumerate(('', '<not closed', '<domain/>',
                                       RNG.replace('type', ' '),
                                       RNG.replace('<attribute', '<ref'))):
            path = self.path.with_name(f'{number}.rng')
            path.write_text(text)
            self.assertIsNone(schema.load(str(path)), text)
            self.assertIn(f'WARNING The libvirt schema {path}',
                          self.log.output)

    def test_it_is_loaded_once_in_a_process(self):
        self.path.write_text(RNG)

        first = schema.load(str(self.path))
        self.path.unlink()

        self.assertIs(first, schema.load(str(self.path)))

    def test_it_is_loaded_again_when_it_has_changed(self):
        self.path.write_text(RNG)
        validate = schema.load(str(self.path))
        document = etree.fromstring('<domain kind="kvm"/>')
        self.assertIn('attributes', validate(document))

        self.path.write_text(RNG.replace('"type"', '"kind"'))
        os.utime(self.path, ns=(0, 0))
        self.assertIsNone(validate(document))
        self.path.unlink()
        self.assertIsNone(validate(document))
        self.path.write_text('broken')
        self.assertIsNone(validate(etree.fromstring('<domain typo="y"/>')))
        self.assertIn('cannot be used', self.log.output)

    def test_one_that_is_there_later_is_found(self):
        self.assertIsNone(schema.load(str(self.path)))

        self.path.write_text(RNG)

        self.assertIsNotNone(schema.load(str(self.path)))
