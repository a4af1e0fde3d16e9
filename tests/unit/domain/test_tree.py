# SPDX-License-Identifier: Apache-2.0
"""Finding and removing."""

from lxml import etree

from nova_arm_ext.domain import tree
from tests.support import base

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

    def test_find_takes_the_first_and_passes_comments_by(self):
        found = tree.find(self.root, ('devices', 'disk', 'target'))

        self.assertEqual('vda', found.get('dev'))
        self.assertIsNone(tree.find(self.root, ('devices', 'nothing')))
        self.assertIs(self.root, tree.find(self.root, ()))

    def test_a_detached_element_takes_what_is_below_it_along(self):
        tree.detach(self.root.find('devices/disk'))

        self.assertEqual(
            ['<!-- two -->', '<disk/>'],
            [etree.tostring(e, encoding='unicode', with_tail=False)
             for e in self.root.find('devices')])
