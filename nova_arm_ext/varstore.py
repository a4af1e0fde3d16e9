# SPDX-License-Identifier: Apache-2.0
"""UEFI variable stores: checks, and the packed form that is sent and saved.

A raw store is a flash image of edk2: it begins with a firmware volume (768 KiB
in AAVMF), and the rest of the flash (64 MiB) is unused. Firmware erases a
damaged volume silently, and starts without variables (edk2,
OvmfPkg/VirtNorFlashDxe, ValidateFvHeader). Therefore the same checks are made
here first.
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import struct
import uuid
import zlib
from collections.abc import Iterable

from nova_arm_ext import errors

MIB = 1024 * 1024

#: Bytes of flash that QEMU's virt machine has for variables.
MAX_SIZE = 64 * MIB
#: Bytes that a packed store may have; valid stores have far less.
MAX_PACKED = 1 * MIB

#: gEfiSystemNvDataFvGuid and gEfiAuthenticatedVariableGuid of edk2.
NV_DATA = uuid.UUID('fff12b8d-7696-4c8b-a985-2747075b4f50').bytes_le
VARIABLES = uuid.UUID('aaf32c78-947b-439a-a180-2e144ec37792').bytes_le

# EFI_FIRMWARE_VOLUME_HEADER without its block map
_VOLUME = struct.Struct('<16x16sQ4sIHHHBB')
_VOLUME_REVISION = 2
# the only entry of AAVMF's block map: number and size of the blocks
_BLOCKS = struct.Struct('<II')
# VARIABLE_STORE_HEADER: formatted and healthy
_STORE = struct.Struct('<16sIBBHI')
_FORMATTED, _HEALTHY = 0x5a, 0xfe
# AUTHENTICATED_VARIABLE_HEADER: start, state, attributes, lengths of name and
# data, GUID
_VARIABLE = struct.Struct('<HBxI28xII16s')
_START, _ERASED = 0x55aa, 0xffff
_UNWRITTEN, _HEADER_ONLY = 0xff, 0x7f
_ADDED, _REPLACED = 0x3f, 0x3e
#: States of a complete variable: these two, and deleted in either state.
_WRITTEN = (_ADDED, _REPLACED, 0x3d, 0x3c)

QCOW2 = b'QFI\xfb'
# version, backing file, cluster bits, size, encryption, level 1 table
_QCOW2 = struct.Struct('>4sIQIIQIIQ')
_QCOW2_FEATURES = struct.Struct('>72xQ')
_QCOW2_CORRUPT, _QCOW2_DATA_FILE = 1 << 1, 1 << 2

MAGIC = b'UEFIVARS'
VERSION = 1
_BLOCK = 64 * 1024
# magic, version, the byte that fills the unused rest, firmware, size. The
# SHA-256 that follows covers these and the content; leaving out the unused
# 63 MiB saves half a second.
_PACKED = struct.Struct('>8sHBBQ')
# 0 where the firmware is unknown
_FIRMWARE = {None: 0, False: 1, True: 2}
_HEADER = _PACKED.size + hashlib.sha256().digest_size

#: Characters of the image property. Glance allows 65,535.
MAX_PROPERTY = 60 * 1024
#: The shortest key in bytes: the length of the HMAC.
MIN_KEY = hashlib.sha256().digest_size
_PROPERTY = '2:'
#: And the fewest: Nova cuts off each one where it copies the properties of an
#: image, so that such a copy is known by its length.
MIN_PROPERTY = 256
_PADDING = '.'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """One variable; name and GUID together are unique."""

    name: str
    guid: uuid.UUID
    attributes: int     #: EFI_VARIABLE_*
    data: bytes


def check(data: bytes, size: int | None = None) -> None:
    """Check that firmware will find the variables in a store.

    A raw store that was never written (all zeros or all ones) is valid:
    Debian 12 has such a template, and firmware creates the volume at the first
    start. Of a qcow2 store only the header is checked. A header that names
    another file is not valid, because it could name any file of the host.

    :param data: the whole file
    :param size: bytes of flash for which the loader's template is made; None
        if unknown
    :raises Damaged: with what is wrong, and at which byte
    """
    actual = len(data)
    if data.startswith(QCOW2):
        actual = _check_qcow2(data)
    else:
        variables(data)
    if size is not None and actual != size:
        raise errors.Damaged(
            f'it is for {actual} bytes of flash, and the firmware is made '
            f'for {size}')


def is_blank(data: bytes) -> bool:
    """Whether a raw store was never written: all zeros, or all ones."""
    return data[:1] in (b'\0', b'\xff') and data == data[:1] * len(data)


def variables(data: bytes) -> tuple[Variable, ...]:
    """The variables of a raw store, in the order of the file.

    If the guest stopped while it wrote a variable, the old value counts (edk2,
    MdeModulePkg/Universal/Variable, UpdateVariableStore).

    :param data: the whole file
    :raises Damaged: with what is wrong, and at which byte
    """
    if is_blank(data):
        return ()
    place, end = _volume(data)
    found: dict[tuple[str, bytes], tuple[int, Variable]] = {}
    while place + _VARIABLE.size < end:
        (start, state, attributes, length, size,
         guid) = _VARIABLE.unpack_from(data, place)
        if start == _ERASED or (start == _START and state == _UNWRITTEN):
            break
        # edk2 takes anything else as the end, and the rest as free space
        if start != _START:
            raise errors.Damaged(
                f'no variable and no free space at byte {place}: {start:#06x}')
        if state not in (*_WRITTEN, _HEADER_ONLY):
            raise errors.Damaged(f'the variable at byte {place} has an '
                                 f'unknown state: {state:#04x}')
        content = place + _VARIABLE.size + length
        if content + size > end or length % 2 or length < 4:
            raise errors.Damaged(
                f'the variable at byte {place} has a wrong length: {length} '
                f'bytes of name and {size} of data, and the store ends at '
                f'byte {end}')
        name = data[place + _VARIABLE.size:content]
        if state in _WRITTEN and name[-2:] != b'\0\0':
            raise errors.Damaged(f'the name of the variable at byte {place} '
                                 f'does not end at byte {content - 2}')
        if state in (_ADDED, _REPLACED):
            one = Variable(
                name=name[:-2].decode('utf-16-le', 'replace'),
                guid=uuid.UUID(bytes_le=guid), attributes=attributes,
                data=data[content:content + size])
            # the replaced one counts until the new one is complete
            known = found.get((one.name, guid))
            if known is None or state >= known[0]:
                found[one.name, guid] = state, one
        place = content + size
        place += -place % 4
    return tuple(one for _, one in found.values())


def _volume(data: bytes) -> tuple[int, int]:
    """Check the firmware volume and the header of its variable store.

    :returns: where the variables begin, and where the store ends
    """
    if len(data) < _VOLUME.size:
        raise errors.Damaged(f'it ends at byte {len(data)}, inside the header '
                             f'of its firmware volume')
    (guid, length, signature, _, header, _, _, _,
     revision) = _VOLUME.unpack_from(data)
    if signature != b'_FVH':
        raise errors.Damaged(f'no firmware volume: {signature!r} instead of '
                             f"b'_FVH' at byte 40")
    if guid != NV_DATA:
        raise errors.Damaged(
            f'the firmware volume holds no variables: its GUID at byte 16 is '
            f'{uuid.UUID(bytes_le=guid)}')
    if revision != _VOLUME_REVISION:
        raise errors.Damaged(f'the firmware volume has revision {revision} '
                             f'instead of {_VOLUME_REVISION} at byte 55')
    if length > len(data):
        raise errors.Damaged(f'it ends at byte {len(data)}, and its firmware '
                             f'volume at {length}')
    if (header % 2 or header < _VOLUME.size + _BLOCKS.size
            or header + _STORE.size > length):
        raise errors.Damaged(f'the header of the firmware volume has {header} '
                             f'bytes, says byte 48')
    words = struct.unpack_from(f'<{header // 2}H', data)
    if sum(words) & 0xffff:
        raise errors.Damaged(
            f'the checksum of the first {header} bytes, the header of the '
            f'firmware volume, is wrong')
    guid, size, formatted, healthy, _, _ = _STORE.unpack_from(data, header)
    if guid != VARIABLES:
        raise errors.Damaged(
            f'no variable store: its GUID at byte {header} is '
            f'{uuid.UUID(bytes_le=guid)}')
    if (formatted, healthy) != (_FORMATTED, _HEALTHY):
        raise errors.Damaged(
            f'the variable store is not marked as healthy at byte '
            f'{header + 20}: {formatted:#x} {healthy:#x}')
    _, block = _BLOCKS.unpack_from(data, _VOLUME.size)
    if header + size > length or not block or (header + size) % block:
        raise errors.Damaged(
            f'the variable store cannot end at byte {header + size}: its '
            f'firmware volume has {length} bytes, in blocks of {block}')
    return header + _STORE.size, header + size


def _check_qcow2(data: bytes) -> int:
    """The header of a qcow2 image (QEMU, docs/interop/qcow2.rst).

    :returns: the size of the disk in it
    """
    if len(data) < _QCOW2_FEATURES.size:
        raise errors.Damaged(f'it ends at byte {len(data)}, inside its qcow2 '
                             f'header')
    (_, version, backing, _, bits, size, encryption, entries,
     table) = _QCOW2.unpack_from(data)
    if version not in (2, 3):
        raise errors.Damaged(f'it is qcow2 of version {version}, which is not '
                             f'known')
    features = (_QCOW2_FEATURES.unpack_from(data)[0] if version == 3 else 0)
    if backing or features & _QCOW2_DATA_FILE:
        raise errors.Damaged('its qcow2 header names another file, which a '
                             'variable store must not need')
    if encryption:
        raise errors.Damaged('its qcow2 header says that it is encrypted')
    if features & _QCOW2_CORRUPT:
        raise errors.Damaged('QEMU has marked the qcow2 image as corrupt')
    if not 9 <= bits <= 21:
        raise errors.Damaged(f'its qcow2 clusters have {bits} bits')
    if table + 8 * entries > len(data):
        raise errors.Damaged(
            f'it ends at byte {len(data)}, and its qcow2 table at '
            f'{table + 8 * entries}')
    if size > MAX_SIZE:
        raise errors.Damaged(f'its qcow2 disk has {size} bytes, and no store '
                             f'more than {MAX_SIZE}')
    return int(size)


def pack(data: bytes, limit: int = MAX_PACKED, *,
         secure_boot: bool | None = None) -> bytes:
    """A store in its packed form: small, and with a checksum.

    :param data: the whole file, raw or qcow2
    :param limit: bytes that the result may have
    :param secure_boot: whether its firmware is for Secure Boot, if known
    :raises Damaged: when it is longer, because the guest has written to the
        unused part of its flash; firmware does not
    """
    fill = data[-1:] or b'\0'
    content = _without_end(data, fill)
    told = _PACKED.pack(MAGIC, VERSION, fill[0], _FIRMWARE[secure_boot],
                        len(data))
    packed = told + _digest(told, content) + zlib.compress(content, 9)
    if len(packed) > limit:
        raise errors.Damaged(
            f'it has {len(packed)} bytes when packed, more than {limit}: '
            f'there is more in it than variables')
    return packed


def _digest(told: bytes, content: bytes) -> bytes:
    digest = hashlib.sha256(told)
    digest.update(content)
    return digest.digest()


def _without_end(data: bytes, fill: bytes) -> bytes:
    """The data up to its last byte that differs from the fill byte.

    A raw store ends with 63 MiB of one byte. zlib needs half a second for
    them, bytes.rstrip ten seconds.
    """
    block, end = fill * _BLOCK, len(data)
    while end >= _BLOCK and data[end - _BLOCK:end] == block:
        end -= _BLOCK
    return data[:end].rstrip(fill)


def unpack(packed: bytes, limit: int = MAX_SIZE) -> bytes:
    """The store that was packed, byte for byte.

    :param limit: bytes that it may have; this also limits the memory used
    :raises Damaged: when it is incomplete or longer
    """
    if len(packed) < _HEADER or not packed.startswith(MAGIC):
        raise errors.Damaged('this is not a packed variable store')
    told, digest = packed[:_PACKED.size], packed[_PACKED.size:_HEADER]
    _, version, fill, _, size = _PACKED.unpack(told)
    if version != VERSION:
        raise errors.Damaged(
            f'the variable store is packed in form {version}, and this '
            f'nova-arm-ext knows {VERSION}')
    if size > limit:
        raise errors.Damaged(f'the packed variable store has {size} bytes, '
                             f'more than {limit}')
    expanding = zlib.decompressobj()
    try:
        # with a limit of just this size it stops before the stream's end
        content = expanding.decompress(packed[_HEADER:], size + 1)
    except zlib.error as e:
        raise errors.Damaged(
            f'the packed variable store is not whole: {e}') from e
    if not expanding.eof or expanding.unused_data or len(content) > size:
        raise errors.Damaged('the packed variable store is not whole: it '
                             'does not end where it says')
    if _digest(told, content) != digest:
        raise errors.Damaged('the packed variable store is not whole: its '
                             'checksum is wrong')
    return content.ljust(size, bytes([fill]))


def is_for_secure_boot(packed: bytes) -> bool | None:
    """Whether a packed store is one of firmware for Secure Boot.

    :returns: by what was told when it was packed; else False if it has no
        platform key (PK), without which firmware does not insist on Secure
        Boot, and None if nothing is known
    :raises Damaged: when it is not whole
    """
    data = unpack(packed)
    told = _PACKED.unpack_from(packed)[3]
    for secure_boot, number in _FIRMWARE.items():
        if number == told and secure_boot is not None:
            return secure_boot
    return None if data.startswith(QCOW2) or has_platform_key(data) else False


def has_platform_key(data: bytes) -> bool:
    """Whether a raw store has the variable PK.

    :raises Damaged: as `variables` does
    """
    return any(one.name == 'PK' and one.data for one in variables(data))


def seal(packed: bytes, key: bytes, image: str, *,
         secure_boot: bool) -> str:
    """A packed store as the property of an image.

    The owner of an image can write its properties, and a store has the keys
    that the guest trusts. Therefore the value is authenticated (HMAC-SHA256),
    and belongs to this one image: an old one, with keys that were revoked
    since, is of no use in another image.

    :param key: the operator's, at least MIN_KEY bytes
    :param image: the image's uuid
    :param secure_boot: whether the store belongs to firmware for Secure Boot
    :raises Damaged: when the result is longer than MAX_PROPERTY
    """
    data = bytes([secure_boot]) + packed
    value = _PROPERTY + base64.b64encode(
        _code(data, key, image) + data).decode()
    if len(value) > MAX_PROPERTY:
        raise errors.Damaged(
            f'it has {len(value)} characters when packed for an image, and '
            f'a property may have {MAX_PROPERTY}')
    return value.ljust(MIN_PROPERTY, _PADDING)


def unseal(value: str, keys: Iterable[bytes],
           image: str) -> tuple[bytes, bool]:
    """The packed store in the property of an image.

    :param image: the image's uuid
    :returns: the store, and whether it belongs to firmware for Secure Boot
    :raises Damaged: when the value was made with none of these keys, or for
        another image
    """
    if len(value) > MAX_PROPERTY or not value.startswith(_PROPERTY):
        raise errors.Damaged(f'this is no variable store of form '
                             f'{_PROPERTY[:-1]}')
    try:
        data = base64.b64decode(
            value.removeprefix(_PROPERTY).rstrip(_PADDING), validate=True)
    except (binascii.Error, ValueError) as e:
        raise errors.Damaged(f'the property is not whole: {e}') from e
    size = hashlib.sha256().digest_size
    code, data = data[:size], data[size:]
    if not any(hmac.compare_digest(code, _code(data, key, image))
               for key in keys):
        raise errors.Damaged('the property is not whole, or was made with '
                             'another key or for another image')
    return data[1:], bool(data[0])


def _code(data: bytes, key: bytes, image: str) -> bytes:
    return hmac.digest(key, f'{_PROPERTY}{image}\0'.encode() + data, 'sha256')
