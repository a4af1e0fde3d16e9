# SPDX-License-Identifier: Apache-2.0
"""Inserting and removing so that a diff shows the change alone."""

import difflib

from lxml import etree

from nova_arm_ext.domain import tree
from tests import base

DOCUMENT = '''\
<domain>
  <features>
    <acpi/>
    <gic version="3"/>
  </features>
  <empty/>
  <devices>
    <disk>
      <target dev="vda"/>
    </disk>
    <!-- two -->
    <disk/>
  </devices>
  <last/>
</domain>'''


class TreeTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.root = etree.fromstring(DOCUMENT)

    def changes(self) -> list[str]:
        """The lines that differ now, without those around them."""
        now = etree.tostring(self.root, encoding='unicode')
        return [f'{line[0]} {line[1:]}' for line in difflib.unified_diff(
                    DOCUMENT.splitlines(), now.splitlines(), n=0)
                if line[0] in '+-' and line[:3] not in ('+++', '---')]

    def test_find_takes_the_first_and_passes_comments_by(self):
        found = tree.find(self.root, ('devices', 'disk', 'target'))

        self.assertEqual('vda', found.get('dev'))
        self.assertIsNone(tree.find(self.root, ('devices', 'nothing')))
        self.assertIs(self.root, tree.find(self.root, ()))

    def test_a_device_goes_behind_its_sibling_in_lines_of_its_own(self):
        devices = self.root.find('devices')
        new = etree.fromstring('<disk><target dev="vdb"/></disk>')

        tree.insert_after(devices, devices[0], new)

        self.assertEqual(['+     <disk>', '+       <target dev="vdb"/>',
                          '+     </disk>'], self.changes())

    def test_the_last_child_is_the_default_sibling(self):
        tree.insert_after(self.root.find('features'), None,
                          etree.Element('pmu'))

        self.assertEqual(['+     <pmu/>'], self.changes())

    def test_into_an_empty_element_between_others(self):
        tree.append(self.root.find('empty'), 'child')

        self.assertEqual(['-   <empty/>', '+   <empty>', '+     <child/>',
                          '+   </empty>'], self.changes())

    def test_into_an_empty_element_that_is_the_last(self):
        tree.append(self.root.find('last'), 'child')

        self.assertEqual(['-   <last/>', '+   <last>', '+     <child/>',
                          '+   </last>'], self.changes())

    def test_a_document_on_one_line_stays_on_one_line(self):
        root = etree.fromstring('<a><b/></a>')

        tree.insert_after(root, None, etree.fromstring('<c><d/></c>'))
        tree.append(root.find('b'), 'e')

        self.assertEqual(b'<a><b><e/></b><c><d/></c></a>',
                         etree.tostring(root))

    def test_detached_elements_take_their_lines_with_them(self):
        devices = self.root.find('devices')

        tree.detach(devices[0])

        self.assertEqual(['-     <disk>', '-       <target dev="vda"/>',
                          '-     </disk>'], self.changes())

    def test_the_last_child_leaves_the_end_tag_where_it_was(self):
        tree.detach(self.root.find('features/gic'))

        self.assertEqual(['-     <gic version="3"/>'], self.changes())

    def test_the_only_child_leaves_an_empty_element(self):
        tree.detach(self.root.find('devices/disk/target'))

        self.assertEqual(
            ['-     <disk>', '-       <target dev="vda"/>', '-     </disk>',
             '+     <disk/>'], self.changes())

    def test_inserting_and_detaching_leaves_no_trace(self):
        for parent in self.root.iter('features', 'devices'):
            for sibling in [None, *parent.iterchildren()]:
                new = etree.fromstring('<new><child/></new>')
                tree.insert_after(parent, sibling, new)
                tree.detach(new)

        self.assertEqual([], self.changes())

    def test_a_clone_is_free_of_its_surroundings(self):
        disk = self.root.find('devices/disk')

        copied = tree.clone(disk)
        copied.find('target').set('dev', 'vdz')

        self.assertIsNone(copied.tail)
        self.assertEqual([], self.changes())
