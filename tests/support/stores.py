# SPDX-License-Identifier: Apache-2.0
"""UEFI variable stores as edk2 lays them out, small enough for many tests."""

import struct
import uuid

MIB = 1024 * 1024

#: EFI_GLOBAL_VARIABLE, the GUID of BootOrder and others.
GLOBAL = uuid.UUID('8be4df61-93ca-11d2-aa0d-00e098032b8c')

VOLUME = 0xc0000
BLOCK = 0x40000
HEADER = 0x48
#: The offset of the first variable.
FIRST = HEADER + 28

ADDED = 0x3f


def variable(name: str, data: bytes, *, guid: uuid.UUID = GLOBAL,
             attributes: int = 7, state: int = ADDED) -> bytes:
    """One variable with its header, padded up to the next one."""
    text = (name + '\0').encode('utf-16-le')
    whole = struct.pack('<HBxIQ16xIII', 0x55aa, state, attributes, 0, 0,
                        len(text), len(data)) + guid.bytes_le + text + data
    return whole.ljust(len(whole) + -len(whole) % 4, b'\xff')


def store(*variables: bytes, size: int = MIB) -> bytes:
    """A formatted store with these variables.

    :param size: of the flash; AAVMF's has 64 MiB
    """
    volume = bytearray(struct.pack(
        '<16x16sQ4sIHHHBBIIII',
        uuid.UUID('fff12b8d-7696-4c8b-a985-2747075b4f50').bytes_le, VOLUME,
        b'_FVH', 0x4feff, HEADER, 0, 0, 0, 2, VOLUME // BLOCK, BLOCK, 0, 0))
    total = sum(struct.unpack(f'<{HEADER // 2}H', volume))
    struct.pack_into('<H', volume, 50, -total & 0xffff)
    volume += struct.pack(
        '<16sIBBHI',
        uuid.UUID('aaf32c78-947b-439a-a180-2e144ec37792').bytes_le,
        BLOCK - HEADER, 0x5a, 0xfe, 0, 0)
    volume += b''.join(variables)
    return bytes(volume).ljust(VOLUME, b'\xff').ljust(size, b'\0')


def qcow2(*, version: int = 3, backing: int = 0, bits: int = 16,
          size: int = 64 * MIB, encryption: int = 0, table: int = 0x10000,
          features: int = 0) -> bytes:
    """An image with only a header."""
    return struct.pack(
        '>4sIQIIQIIQQIIQQ', b'QFI\xfb', version, backing, 0, bits, size,
        encryption, 1, table, 0, 0, 0, 0, features).ljust(0x20000, b'\0')
