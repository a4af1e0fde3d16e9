# SPDX-License-Identifier: Apache-2.0
"""A guest with Secure Boot, with Debian's firmware for it."""

import hashlib
import pathlib
import subprocess

import pefile
from virt.firmware.varstore import autodetect

from tests.hosts.one import base

#: Debian's, of the package qemu-efi-aarch64; its template has vendors' keys.
LOADER = '/usr/share/AAVMF/AAVMF_CODE.ms.fd'

#: The owner in the entries of db.
OWNER = '6f5d4c3b-2a19-4807-b6e5-d4c3b2a19087'


def digest(program: pathlib.Path) -> str:
    """The digest that firmware compares: without checksum and signatures.

    virt-firmware pads the program to eight bytes, like a signed one.
    """
    pe = pefile.PE(program, fast_load=True)
    data = bytes(pe.__data__)
    checksum = pe.OPTIONAL_HEADER.get_file_offset() + 64
    signatures = pe.OPTIONAL_HEADER.DATA_DIRECTORY[4]
    place = signatures.get_file_offset()
    end = signatures.VirtualAddress or len(data)
    return hashlib.sha256(data[:checksum] + data[checksum + 4:place]
                          + data[place + 8:end]).hexdigest()


class SecureBootTest(base.GuestTestCase):

    def programs(self) -> list[pathlib.Path]:
        """What the guest's firmware starts: boot loader and kernel."""
        parts = self.bed.parts()
        raw, loader = self.bed.folder / 'disk', self.bed.folder / 'loader'
        subprocess.run(['qemu-img', 'convert', '-O', 'raw', parts.disk, raw],
                       check=True)
        subprocess.run(['mcopy', '-i', f'{raw}@@1M',
                        '::EFI/BOOT/BOOTAA64.EFI', loader], check=True)
        return [loader, parts.kernel]

    def enroll(self, store: str) -> None:
        """Let the firmware with this store start the guest's system."""
        varstore = autodetect.open_varstore(store)
        variables = varstore.get_varlist()
        for program in self.programs():
            variables.add_hash('db', OWNER, digest(program))
        varstore.write_varstore(store, variables)

    def test_firmware_starts_what_is_enrolled_and_nothing_else(self):
        self.bed.offer_secure_boot()
        server = self.bed.boot(extra_specs={'os:secure_boot': 'required'})
        self.assertIn(f'>{LOADER}</loader>', server.inactive_xml())
        server.await_console('Access Denied')
        self.assertEqual([], server.reports())

        server.stop()
        self.enroll(str(self.bed.instances / server.uuid
                        / f'{server.uuid}_VARS.fd'))
        server.start()

        self.assertEqual(1, server.report().boots)
        self.assertIn('UEFI Secure Boot is enabled', server.console)
        server.hard_reboot()
        self.assertEqual(2, server.report().boots)
        self.assertIn('UEFI Secure Boot is enabled', server.console)
