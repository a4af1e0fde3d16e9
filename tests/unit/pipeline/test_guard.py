# SPDX-License-Identifier: Apache-2.0
"""What no hook may change unless it declares to."""

from collections.abc import Mapping

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain import view
from nova_arm_ext.pipeline import guard
from nova_arm_ext.pipeline import reports
from tests.support import base

XML = ('<domain><uuid>one</uuid><name>a</name><memory unit="KiB">1</memory>'
       '<vcpu>2</vcpu><devices>'
       '<disk type="file" device="disk"><source file="/a"><auth user="u">'
       '<secret uuid="s"/></auth></source><target dev="vda" bus="virtio"/>'
       '</disk><interface type="bridge"><mac address="fa:16:3e:00:00:01"/>'
       '<source bridge="br"/><target dev="tap"/><model type="virtio"/>'
       '</interface><serial type="pty"/><graphics type="vnc"/>'
       '<rng model="virtio"/></devices></domain>')
#: Changes that the guard notices, by the element to which they count.
CHANGES = {
    'uuid': ('one<', 'two<'), 'name': ('>a<', '>b<'),
    'memory': ('>1<', '>2<'), 'vcpu': ('>2<', '>3<'),
    'disk': ('file="/a"', 'file="/b"'),
    'interface': ('00:01"', '00:02"'),
    'serial': ('"pty"', '"tcp"'), 'graphics': ('"vnc"', '"spice"'),
}
MORE = (
    ('unit="KiB"', 'unit="MiB"'), ('device="disk"', 'device="cdrom"'),
    ('type="file"', 'type="block"'), ('dev="vda"', 'dev="vdb"'),
    ('user="u"', 'user="v"'), ('uuid="s"', 'uuid="t"'),
    ('bridge="br"', 'bridge="other"'), ('dev="tap"', 'dev="tun"'),
    ('<serial type="pty"/>', ''), ('<vcpu>2</vcpu>', ''),
    ('<rng model', '<serial type="tcp"/><rng model'),
)
FREE = (('bus="virtio"', 'bus="scsi"'), ('<rng model="virtio"/>', ''),
        ('<model type="virtio"/>', '<model type="e1000"/>'))


def fingerprint(old: str = '', new: str = '') -> guard.Fingerprint:
    return guard.Fingerprint.of(domain(old, new))


def domain(old: str = '', new: str = '') -> view.Domain:
    return view.Domain.parse(XML.replace(old, new) if old else XML)


class FingerprintTest(base.TestCase):

    def test_each_change_is_noticed_and_named(self) -> None:
        self.assertEqual(guard.CHECKED, set(CHANGES))
        for tag, change in CHANGES.items():
            [wrong] = fingerprint().differences(fingerprint(*change),
                                                frozenset())

            self.assertRegex(wrong, f'^{tag} was .* and became .*, which the '
                                    'hook does not declare in "changes"$')
            self.assertEqual([], fingerprint().differences(
                fingerprint(*change), frozenset([tag])))
            self.assertFalse(guard.is_intact(domain(*change), fingerprint()))

    def test_so_are_their_attributes_and_places(self) -> None:
        for change in MORE:
            self.assertFalse(guard.is_intact(domain(*change), fingerprint()),
                             change)

    def test_all_else_is_free(self) -> None:
        for change in (('', ''), *FREE):
            self.assertTrue(guard.is_intact(domain(*change), fingerprint()),
                            change)

    def test_an_entity_is_a_breach(self) -> None:
        changed = domain()
        changed.element.append(etree.Entity('x'))

        self.assertFalse(guard.is_intact(changed, fingerprint()))

    def test_a_long_value_is_cut(self) -> None:
        for length, cut in ((298 - len("[''"), False), (600, True)):
            text = 'x' * length
            [wrong] = fingerprint().differences(
                fingerprint('one<', f'{text}<'), frozenset())

            self.assertEqual(not cut, text in wrong)
            self.assertEqual(cut, f"['{'x' * 295}..." in wrong)


class RootTest(base.TestCase):

    def test_what_is_no_domain_is_named(self) -> None:
        whole = domain()
        self.assertIsNone(guard.check_root(whole))
        for root, text in ((etree.fromstring('<x/>'), '<Element x at'),
                           (None, 'None')):
            whole.element = root

            error = self.assertRaises(TypeError, guard.check_root, whole)

            self.assertRegex(str(error), f'^it left {text}.* instead of '
                                         '<domain>$')


class BlameTest(base.TestCase):

    def blame(self, *after: str, declared: Mapping[str, str] | None = None,
              left: str | None = None) -> tuple[str, str] | None:
        """Whom the guard blames when hooks a, b, ... left these."""
        done = []
        before = XML
        for name, text in zip('abc', after, strict=False):
            one = reports.HookReport(name, before)
            one.after = before = text
            done.append(one)
        return guard.blame(
            fingerprint(), done,
            view.Domain.parse(before if left is None else left),
            {name: frozenset((declared or {}).get(name, '').split())
             for name in 'abc'})

    UUID = XML.replace('one<', 'two<')
    BOTH = UUID.replace('>a<', '>b<')

    def test_the_first_that_did_not_declare_its_change(self) -> None:
        hook, why = self.blame(XML, self.UUID, self.BOTH)

        self.assertEqual('b', hook)
        self.assertEqual("uuid was ['one'] and became ['two'], which the "
                         'hook does not declare in "changes"', why)

    def test_all_that_it_changed_is_told(self) -> None:
        _, why = self.blame(self.BOTH)

        self.assertEqual(2, len(why.split('; ')))

    def test_what_is_declared_is_nobodys_fault(self) -> None:
        self.assertIsNone(self.blame(XML, self.UUID,
                                     declared={'b': 'uuid'}))
        self.assertEqual('c', self.blame(
            XML, self.UUID, self.BOTH, declared={'b': 'uuid name'})[0])
        self.assertEqual('b', self.blame(
            XML, self.UUID, declared={'a': 'uuid'})[0])

    def test_what_cannot_be_read_is_a_fault(self) -> None:
        hook, why = self.blame(XML, '<domain', left=XML)

        self.assertEqual('b', hook)
        self.assertIn('what it left cannot be read: ', why)

    def test_a_change_that_nobody_did_again(self) -> None:
        error = self.assertRaises(errors.InvalidResult, self.blame, XML,
                                  left=self.UUID)

        self.assertRegex(
            str(error), 'one of the hooks a, b, c changed what it does not '
            'declare, but none did so again when they ran a second time: '
            'uuid was .*')
        self.assertIsNone(self.blame(XML, left=self.UUID,
                                     declared={'c': 'uuid'}))
