# SPDX-License-Identifier: Apache-2.0
"""What identifies a cloud is removed; what a bug report needs is kept."""

from nova_arm_ext.cmd import redaction
from tests.data import golden
from tests.support import base


class RedactionTest(base.TestCase):

    def test_each_kind(self) -> None:
        said = redaction.Redaction(['web-7', 'Alice'])(
            'web-7 of Alice, web-70, '
            '8D5E4B6A-93c1-4e07-8f6e-3f2b1c9a7d10 at 192.0.2.7 and '
            '2001:db8::1, fa:16:3e:00:00:01, qemu+ssh://compute-7/system, '
            '/srv/instances/disk')

        self.assertEqual(
            'name-1 of name-2, web-70, uuid-1 at ip-1 and ip-2, mac-1, '
            'qemu+ssh://host-1/system, /path-1', said)

    def test_the_same_thing_gets_the_same_word(self) -> None:
        redacted = redaction.Redaction(['web-7'])

        self.assertEqual(
            'ip-1 ip-2 ip-1 name-1 | ip-2 name-1',
            redacted('192.0.2.7 192.0.2.8 192.0.2.7 web-7') + ' | '
            + redacted('192.0.2.8 web-7'))

    def test_what_a_report_needs_stays(self) -> None:
        for text in (
                'libvirt 9.0.0, QEMU 7.2.22', '0002:01:00.1', '10:42:01',
                '/usr/share/AAVMF/AAVMF_CODE.fd', '/dev/kvm',
                'features/ioapic: gone', "devices/disk/target/@bus='ide'",
                '</domain>', '<os/>', '2026-11-21 00:25:14', '177d:a034',
                '[arm] hooks', 'os/loader/@secure', '4 ports/8 ports'):
            self.assertEqual(text, redaction.Redaction()(text))

    def test_a_whole_document_has_nothing_left(self) -> None:
        text = redaction.Redaction(['instance-00000001'])(
            golden.before('new-guest'))

        for secret in ('instance-00000001', '916180a7', 'fa:16:3e',
                       '192.0.2.20', '/var/lib/nova'):
            self.assertNotIn(secret, text)
        for needed in ('</devices>', 'http://',
                       '/dev/urandom', 'tickpolicy="delay"'):
            self.assertIn(needed, text)
