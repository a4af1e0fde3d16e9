# SPDX-License-Identifier: Apache-2.0
"""Faults of firmware."""

import os
import struct

import fixtures

from nova_arm_ext.cmd.checks import firmware
from tests.unit.cmd.checks import base


class FirmwareTest(base.ChecksTestCase):

    def test_nothing_is_found_where_nothing_is_wrong(self) -> None:
        for check in (firmware.descriptors, firmware.files,
                      firmware.seen_by_libvirt, firmware.for_32_bit):
            self.assert_ok(check)

    def test_no_descriptors_at_all(self) -> None:
        for file in (self.directory / 'descriptors').iterdir():
            file.unlink()
        (self.directory / 'descriptors').rmdir()

        self.assert_finds('failure', firmware.descriptors, 'no directory',
                          'qemu-efi-aarch64')
        self.assert_finds('not applicable', firmware.files, 'no descriptor')

    def test_the_package_is_that_of_the_distribution(self) -> None:
        (self.directory / 'descriptors/AAVMF.json').unlink()
        (self.directory / 'descriptors/AAVMF32.json').unlink()
        for release, package, package_32 in (
                ('ID=ubuntu\nVERSION_ID="24.04"', '(qemu-efi-aarch64)',
                 '(qemu-efi-arm)'),
                ('ID=debian\nVERSION_CODENAME=forky', '(qemu-efi-aarch64)',
                 'no 32-bit UEFI'),
                ('ID="rocky"\nID_LIKE="rhel centos fedora"',
                 '(edk2-aarch64)', 'no 32-bit UEFI'),
                ('ID=fedora', '(edk2-aarch64)', '(edk2-arm)'),
                ('ID="openEuler"', '(edk2-aarch64)', 'no 32-bit UEFI'),
                ('ID="opensuse-leap"\nID_LIKE="suse opensuse"',
                 '(qemu-uefi-aarch64)', '(qemu-uefi-aarch32)'),
                ('ID=unheard', 'Ubuntu: qemu-efi-aarch64',
                 'Fedora: edk2-arm')):
            self.file('os-release', release)

            self.assert_finds('failure', firmware.descriptors, package)
            with fixtures.MonkeyPatch(
                    'nova_arm_ext.compute.gather.FIRMWARE_32', ()):
                self.assert_finds('warning', firmware.for_32_bit, package_32)
        self.os_release = '/nonexistent/os-release'
        self.assert_finds('failure', firmware.descriptors,
                          'Ubuntu: qemu-efi-aarch64')

    def test_64_bit_firmware_is_none_for_32_bit_guests(self) -> None:
        (self.directory / 'descriptors/AAVMF32.json').unlink()
        self.loaders['armv7l'] = self.loaders['aarch64']

        found = [sentence for _, sentence
                 in self.found(firmware.seen_by_libvirt)]

        self.assertTrue(any(one.startswith('libvirt has only 64-bit firmware')
                            for one in found), found)
        self.assertFalse(any(one.startswith('armv7l: ') for one in found))

    def test_32_bit_firmware_in_a_known_place_is_enough(self) -> None:
        (self.directory / 'descriptors/AAVMF32.json').unlink()
        with fixtures.MonkeyPatch(
                'nova_arm_ext.compute.gather.FIRMWARE_32',
                ((str(self.directory / 'AAVMF32_CODE.fd'),
                  str(self.directory / 'AAVMF32_VARS.fd')),)):
            self.assert_ok(firmware.for_32_bit)

    def test_no_descriptor_for_aarch64(self) -> None:
        (self.directory / 'descriptors/AAVMF.json').unlink()

        self.assert_finds('failure', firmware.descriptors,
                          'none of 1 descriptors', 'qemu-efi-aarch64')

    def test_a_descriptor_that_is_none(self) -> None:
        for content in ('{', '{"targets": []}', '[]'):
            self.file('descriptors/10-broken.json', content)

            self.assert_finds('failure', firmware.descriptors,
                              '10-broken.json is not a firmware descriptor',
                              'mask it')

    def test_an_empty_descriptor_masks_another(self) -> None:
        self.file('descriptors/10-empty.json', '')

        self.assert_ok(firmware.descriptors)

    def test_a_descriptor_that_cannot_be_read(self) -> None:
        os.symlink('/nonexistent/file',
                   self.directory / 'descriptors/10-gone.json')

        self.assert_finds('failure', firmware.descriptors,
                          '10-gone.json cannot be read')

    def test_firmware_that_is_not_there(self) -> None:
        (self.directory / 'AAVMF_CODE.fd').unlink()

        self.assert_finds('warning', firmware.files,
                          'AAVMF_CODE.fd does not exist', 'AAVMF.json',
                          'install the package')

    def test_what_no_package_has_is_no_fault_of_this_host(self) -> None:
        self.firmware('aarch64', 'secboot')
        gone = self.directory / 'secboot_CODE.fd'
        gone.unlink()
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.checks.firmware.NOT_PACKAGED', {str(gone)}))

        self.assertEqual({'ok', 'not applicable'}, {
            status for status, _ in self.found(firmware.files)})
        self.assert_finds('not applicable', firmware.files, str(gone),
                          'no instance gets it')

    def test_no_firmware_is_whole(self) -> None:
        for file in self.directory.glob('*_VARS.fd'):
            file.unlink()

        self.assert_finds('failure', firmware.files,
                          'no firmware image for Arm is complete')

    def test_firmware_that_is_not_padded(self) -> None:
        os.truncate(self.directory / 'AAVMF_CODE.fd', 2 * base.MIB)

        self.assert_finds('failure', firmware.files,
                          'AAVMF_CODE.fd has 2097152 bytes', '67108864',
                          'truncate -s 64M')

    def test_firmware_in_a_small_qcow2_image(self) -> None:
        self.firmware('aarch64', 'small', form='qcow2')
        for part in ('CODE', 'VARS'):
            self.file(f'small_{part}.fd', b'QFI\xfb' + bytes(20) + struct.pack(
                '>Q', 2 * base.MIB))

        self.assert_finds('failure', firmware.files,
                          'small_CODE.fd has 2097152 bytes')

    def test_firmware_in_a_qcow2_image(self) -> None:
        self.firmware('aarch64', 'right', form='qcow2')
        for part in ('CODE', 'VARS'):
            self.file(f'right_{part}.fd', b'QFI\xfb' + bytes(20) + struct.pack(
                '>Q', 64 * base.MIB))

        self.assert_ok(firmware.files)

    def test_a_damaged_template(self) -> None:
        path = self.directory / 'AAVMF_VARS.fd'
        with path.open('r+b') as file:
            file.write(b'not a firmware volume')

        self.assert_finds('failure', firmware.files, 'AAVMF_VARS.fd',
                          'install its package again')

    def test_firmware_that_is_a_folder(self) -> None:
        (self.directory / 'AAVMF_CODE.fd').unlink()
        (self.directory / 'AAVMF_CODE.fd').mkdir()

        self.assert_finds('failure', firmware.files, 'cannot be read',
                          'Is a directory')

    def test_firmware_that_libvirt_alone_has(self) -> None:
        self.loaders['aarch64'].append('/nonexistent/OTHER.fd')

        self.assert_finds('failure', firmware.seen_by_libvirt,
                          'libvirt has /nonexistent/OTHER.fd',
                          'install the same package here')

    def test_firmware_that_libvirt_does_not_see(self) -> None:
        self.firmware('aarch64', 'ours')
        self.loaders['aarch64'].pop()

        self.assert_finds('warning', firmware.seen_by_libvirt,
                          'ours_CODE.fd exists here', 'where libvirt runs')

    def test_libvirt_without_firmware(self) -> None:
        self.loaders['aarch64'] = []

        self.assert_finds('failure', firmware.seen_by_libvirt,
                          'libvirt has found no UEFI', 'qemu-efi-aarch64')

    def test_a_libvirt_elsewhere_is_not_compared(self) -> None:
        self.assert_finds(
            'not applicable', firmware.seen_by_libvirt,
            'on another machine', place=self.place(
                uri='qemu+ssh://compute-7/system'))

    def test_no_32_bit_firmware(self) -> None:
        (self.directory / 'AAVMF32_CODE.fd').unlink()

        self.assert_finds('warning', firmware.for_32_bit, 'there is none',
                          'qemu-efi-arm')

    def test_secure_boot(self) -> None:
        self.assert_finds('not applicable', firmware.for_secure_boot,
                          'refuses instances that ask for Secure Boot')

        self.firmware('aarch64', 'ms', ('secure-boot', 'enrolled-keys'))

        self.assert_finds('ok', firmware.for_secure_boot, 'ms_CODE.fd')
