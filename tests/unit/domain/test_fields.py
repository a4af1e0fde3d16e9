# SPDX-License-Identifier: Apache-2.0
"""Fields: a place and a conversion."""

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain import fields
from tests.support import base


class Thing:
    """A view as in a third-party package."""

    deep = fields.text('a/b/@c')
    content = fields.text('a/b')
    own = fields.text('@own')
    count = fields.number('a/@count')
    on = fields.yes_no('a/@on')

    def __init__(self, xml: str) -> None:
        self.element = etree.fromstring(xml)

    def __str__(self) -> str:
        return etree.tostring(self.element, encoding='unicode')


class FieldsTest(base.TestCase):

    def test_what_is_not_there_is_none(self):
        thing = Thing('<thing><a/></thing>')

        for name in ('deep', 'content', 'own', 'count', 'on'):
            self.assertIsNone(getattr(thing, name), name)

    def test_two_views_on_one_element_never_disagree(self):
        one = Thing('<thing/>')
        other = Thing('<thing/>')
        other.element = one.element

        one.deep = 'x'

        self.assertEqual('x', other.deep)

    def test_writing_makes_the_elements_on_the_way_once(self):
        thing = Thing('<thing/>')

        thing.deep = 'x'
        thing.content = 'y'
        thing.count = 3

        self.assertEqual('<thing><a count="3"><b c="x">y</b></a></thing>',
                         str(thing))

    def test_deleting_and_none_take_away_the_value_alone(self):
        thing = Thing('<thing own="1"><a><b c="x">y</b></a></thing>')

        del thing.deep
        thing.content = None
        thing.own = None
        del thing.own

        self.assertEqual('<thing><a><b/></a></thing>', str(thing))

    def test_deleting_what_is_not_there_makes_nothing(self):
        thing = Thing('<thing/>')

        del thing.deep

        self.assertEqual('<thing/>', str(thing))

    def test_numbers_are_read_as_libvirt_writes_them(self):
        for text, number in (('10', 10), ('0x0a', 10), ('0X1f', 31),
                             ('0', 0), ('007', 7)):
            self.assertEqual(
                number, Thing(f'<thing><a count="{text}"/></thing>').count)

    def test_a_wrong_number_is_told_with_place_and_value(self):
        for text in ('two', '', '0x', '1.5', '0xzz', '9' * 5000):
            thing = Thing(f'<thing><a count="{text}"/></thing>')

            error = self.assertRaises(errors.InvalidDocument,
                                      getattr, thing, 'count')

            self.assertIn(f'thing/a/@count is {text[:60]!r}', str(error))
            self.assertLess(len(str(error)), 400)

    def test_yes_and_no_are_the_only_booleans(self):
        self.assertIs(True, Thing('<thing><a on="yes"/></thing>').on)
        self.assertIs(False, Thing('<thing><a on="no"/></thing>').on)
        for text in ('on', 'true', '1', '', 'Yes'):
            thing = Thing(f'<thing><a on="{text}"/></thing>')
            error = self.assertRaises(errors.InvalidDocument,
                                      getattr, thing, 'on')
            self.assertIn('thing/a/@on is', str(error))

    def test_booleans_are_written_as_words(self):
        thing = Thing('<thing/>')

        thing.on = False

        self.assertEqual('<thing><a on="no"/></thing>', str(thing))

    def test_comments_and_namespaces_are_passed_by(self):
        thing = Thing('<thing xmlns:o="u:o"><!-- a --><o:a o:on="no"/>'
                      '<?a b?><a on="yes"/></thing>')

        self.assertIs(True, thing.on)
