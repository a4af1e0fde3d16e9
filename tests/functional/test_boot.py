# SPDX-License-Identifier: Apache-2.0
"""The main job: Nova builds a guest, the hooks adjust it, it boots."""

from unittest import mock

from tests.functional import base


class DefaultGuestTest(base.GuestTestCase):

    def test_what_libvirt_refuses_as_generated_boots_adjusted(self):
        import libvirt
        from nova.virt.libvirt import driver
        generated = []
        make = driver.LibvirtDriver._get_guest_xml

        def listen(*args, **kwargs):
            generated.append(make(*args, **kwargs))
            return generated[-1]

        with mock.patch.object(
                driver.LibvirtDriver, '_get_guest_xml', listen):
            server = self.bed.boot()
        report = server.report()

        self.assertEqual('aarch64', report.arch)
        self.assertTrue(report.efi)
        self.assertEqual(1, report.boots)
        self.assertIn('QEMU QEMU USB Keyboard', report.inputs)
        self.assertEqual(('fb0',), report.framebuffers)

        version = self.bed.connection.getLibVersion()
        if not 8006000 <= version < 9002000:
            self.skipTest(f'the guest booted; libvirt {version} takes what '
                          f'Nova generates, too')
        error = self.assertRaises(
            libvirt.libvirtError, self.bed.connection.defineXML, generated[0])
        self.assertIn("loader attribute 'secure'", str(error))
