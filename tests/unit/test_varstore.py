# SPDX-License-Identifier: Apache-2.0
"""Variable stores: checks, and the packed form."""

import hashlib
import pathlib
import random
import struct
import tracemalloc
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import hypothesis
import testtools
from hypothesis import strategies as st

from nova_arm_ext import errors
from nova_arm_ext import varstore
from tests.support import base
from tests.support import stores
from tests.unit import properties

#: Of Debian's package qemu-efi-aarch64.
AAVMF = pathlib.Path('/usr/share/AAVMF')
needs_aavmf = testtools.skipUnless(
    (AAVMF / 'AAVMF_VARS.fd').is_file(), 'qemu-efi-aarch64 is not installed')

ORDER = stores.variable('BootOrder', b'\1\0\0\0')
LABEL = stores.variable('Label', b'debian')
SOUND = stores.store(ORDER, LABEL)


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value):]


def flipped(data: bytes, bit: int) -> bytes:
    byte = data[bit // 8] ^ 1 << bit % 8
    return changed(data, bit // 8, bytes([byte]))


def with_checksum(data: bytes) -> bytes:
    """The same with the right checksum in its header."""
    data = changed(data, 50, b'\0\0')
    total = sum(struct.unpack_from('<36H', data))
    return changed(data, 50, struct.pack('<H', -total & 0xffff))


def fault(function: Callable[..., Any], *arguments: Any) -> str:
    """The text of the Damaged error of a function; empty without an error.

    Not with assertRaises, which would print the whole store.
    """
    try:
        function(*arguments)
    except errors.Damaged as e:
        return str(e)
    return ''


class CheckTest(base.TestCase):

    def assert_damaged(self, part: str, data: bytes,
                       size: int | None = None) -> None:
        said = fault(varstore.check, data, size)

        self.assertTrue(said)
        self.assertIn(part, said)

    def test_a_store_with_variables_is_sound(self) -> None:
        varstore.check(SOUND)
        varstore.check(SOUND, stores.MIB)
        varstore.check(stores.store(size=stores.VOLUME))

    def test_a_store_that_was_never_written_is_sound(self) -> None:
        for blank in (b'\0' * 8192, b'\xff' * 8192):
            varstore.check(blank, 8192)
            self.assertTrue(varstore.is_blank(blank))
        self.assertFalse(varstore.is_blank(SOUND))
        self.assertFalse(varstore.is_blank(b''))
        self.assertFalse(varstore.is_blank(b'\1' * 8))

    def test_a_store_for_another_flash_is_told_with_both_sizes(self) -> None:
        self.assert_damaged(f'{stores.MIB} bytes of flash, and the firmware '
                            f'is made for 67108864', SOUND, 64 * stores.MIB)
        self.assert_damaged('for 8192', b'\0' * 4096, 8192)

    def test_a_truncated_store_is_damaged_wherever_it_ends(self) -> None:
        self.assert_damaged('ends at byte 0, inside the header', b'')
        self.assert_damaged('ends at byte 55, inside', SOUND[:55])
        self.assert_damaged(f'ends at byte {stores.FIRST}, and its firmware '
                            f'volume at {stores.VOLUME}',
                            SOUND[:stores.FIRST])
        self.assert_damaged('and its firmware volume',
                            SOUND[:stores.VOLUME - 1])

    def test_a_store_whose_end_was_lost_and_became_zeros_is_damaged(
            self) -> None:
        place = stores.FIRST + len(ORDER)
        self.assert_damaged(
            f'no variable and no free space at byte {place}: 0x0000',
            SOUND[:place].ljust(stores.MIB, b'\0'))

    def test_each_bit_of_the_headers_that_flips_is_found(self) -> None:
        # the last six bytes are reserved: edk2 does not look at them
        found = {bit for bit in range(8 * (stores.FIRST - 6))
                 if fault(varstore.check, flipped(SOUND, bit))}

        # and a store of two or three blocks is possible
        self.assertEqual({8 * 88 + 18, 8 * 88 + 19},
                         set(range(8 * (stores.FIRST - 6))) - found)

    def test_a_state_or_length_that_went_astray_is_found(self) -> None:
        data = stores.store(ORDER)
        for byte in (2, 39, 43):
            for bit in range(8):
                other = flipped(data, 8 * (stores.FIRST + byte) + bit)
                if other[stores.FIRST + 2] not in (0x7f, 0x3e, 0x3d):
                    self.assertTrue(fault(varstore.check, other),
                                    (byte, bit))

    def test_what_is_wrong_is_told_with_its_place(self) -> None:
        first = stores.FIRST
        for part, data in {
                "b'nova' instead of b'_FVH' at byte 40":
                    changed(SOUND, 40, b'nova'),
                'holds no variables: its GUID at byte 16 is 00000000-0000':
                    changed(SOUND, 16, bytes(16)),
                'revision 3 instead of 2 at byte 55':
                    changed(SOUND, 55, b'\3'),
                'has 73 bytes, says byte 48': changed(SOUND, 48, b'\x49\0'),
                'has 2 bytes, says byte 48': changed(SOUND, 48, b'\2\0'),
                'checksum of the first 72 bytes':
                    changed(SOUND, 44, b'nova'),
                'no variable store: its GUID at byte 72 is 00000000':
                    changed(SOUND, 72, bytes(16)),
                'not marked as healthy at byte 92: 0x5a 0xff':
                    changed(SOUND, 93, b'\xff'),
                f'store cannot end at byte {72 + 0x40000000}: its':
                    changed(SOUND, 88, struct.pack('<I', 0x40000000)),
                f'no free space at byte {first}: 0xaa55':
                    changed(SOUND, first, b'\x55\xaa'),
                f'at byte {first} has an unknown state: 0x00':
                    changed(SOUND, first + 2, b'\0'),
                f'at byte {first} has a wrong length: 3 bytes of name':
                    changed(SOUND, first + 36, b'\3'),
                f'name of the variable at byte {first} does not end':
                    changed(SOUND, first + 60 + 18, b'x'),
        }.items():
            self.assert_damaged(part, data)

    def test_a_header_of_another_length_is_read_as_it_says(self) -> None:
        # one more entry in the block map
        longer = with_checksum(changed(changed(
            SOUND[:72] + bytes(8) + SOUND[72:-8], 48, b'\x50\0'),
            96, struct.pack('<I', stores.BLOCK - 80)))

        varstore.check(longer)

    def test_a_variable_that_was_being_written_is_none_yet(self) -> None:
        for begun in (b'\xaa\x55' + b'\xff' * 62,
                      stores.variable('New', b'\xff' * 9, state=0x7f)):
            varstore.check(stores.store(ORDER, begun))

    def test_deleted_variables_stand_where_they_were(self) -> None:
        varstore.check(stores.store(*(
            stores.variable('Old', b'old', state=state)
            for state in (0x3e, 0x3d, 0x3c)), ORDER))

    def test_a_full_store_ends_at_its_end(self) -> None:
        free = stores.BLOCK - stores.FIRST
        varstore.check(stores.store(
            stores.variable('A', bytes(free - 64 - 8)), b'\0' * 8))
        self.assert_damaged('wrong length', stores.store(
            stores.variable('A', bytes(free - 64 + 1))))

    def test_a_qcow2_store_is_known_by_its_header(self) -> None:
        varstore.check(stores.qcow2(), 64 * stores.MIB)
        varstore.check(stores.qcow2(version=2))
        for part, data in {
                'is made for 64': stores.qcow2(size=32),
                'inside its qcow2 header': stores.qcow2()[:79],
                'of version 4': stores.qcow2(version=4),
                'names another file': stores.qcow2(backing=0x68),
                'which a variable store must not': stores.qcow2(features=4),
                'encrypted': stores.qcow2(encryption=2),
                'as corrupt': stores.qcow2(features=2),
                'have 8 bits': stores.qcow2(bits=8),
                'its qcow2 table at 131080': stores.qcow2(table=0x20000),
                'no store more than 67108864':
                    stores.qcow2(size=64 * stores.MIB + 1),
        }.items():
            self.assert_damaged(part, data, 64)

    @needs_aavmf
    def test_the_templates_of_debian_are_sound(self) -> None:
        for template in sorted(AAVMF.glob('*VARS*.fd')):
            varstore.check(template.read_bytes(), 64 * stores.MIB)

    @properties.SETTINGS
    @hypothesis.given(st.binary(max_size=200), st.integers(0, 400))
    def test_damage_is_the_only_error(self, noise: bytes,
                                      offset: int) -> None:
        for data in (noise, changed(SOUND, offset, noise),
                     changed(stores.qcow2(), offset, noise)):
            try:
                varstore.check(data)
            except errors.Damaged as e:
                self.assertNotIn('\n', str(e))


class VariablesTest(base.TestCase):

    def test_each_with_its_name_guid_attributes_and_data(self) -> None:
        other = uuid.UUID(int=7)
        label = stores.variable('Läbel', b'', guid=other, attributes=3)

        first, second = varstore.variables(stores.store(ORDER, label))

        self.assertEqual(varstore.Variable(
            name='BootOrder', guid=stores.GLOBAL, attributes=7,
            data=b'\1\0\0\0'), first)
        self.assertEqual(varstore.Variable(
            name='Läbel', guid=other, attributes=3, data=b''), second)

    def test_a_blank_store_has_none(self) -> None:
        self.assertEqual((), varstore.variables(b'\0' * 4096))

    def test_what_was_deleted_or_not_written_is_none(self) -> None:
        found = varstore.variables(stores.store(
            stores.variable('A', b'1', state=0x3d),
            stores.variable('B', b'1', state=0x3c),
            stores.variable('C', b'1', state=0x7f),
            stores.variable('D', b'1')))

        self.assertEqual(['D'], [one.name for one in found])

    def test_a_value_that_is_replaced_holds_until_there_is_another(
            self) -> None:
        old = stores.variable('A', b'old', state=0x3e)
        new = stores.variable('A', b'new')
        for expected, parts in ((b'old', (old,)), (b'new', (old, new)),
                                (b'new', (new, old))):
            [found] = varstore.variables(stores.store(*parts))

            self.assertEqual(expected, found.data)

    def test_a_name_with_two_guids_is_two_variables(self) -> None:
        twin = stores.variable('BootOrder', b'', guid=uuid.UUID(int=7))

        self.assertEqual(2, len(varstore.variables(
            stores.store(ORDER, twin))))


class PackTest(base.TestCase):

    def assert_not_whole(self, part: str, packed: bytes,
                         limit: int = stores.MIB) -> None:
        said = fault(varstore.unpack, packed, limit)

        self.assertTrue(said)
        self.assertIn(part, said)

    def assert_same(self, data: bytes, other: bytes) -> None:
        # assertEqual would print them
        self.assertTrue(data == other)

    def test_a_store_of_64_mib_travels_in_one_at_most(self) -> None:
        # variables that cannot be compressed, and as many as there is room
        noise = random.Random(1).randbytes(stores.VOLUME)
        data = noise.ljust(64 * stores.MIB, b'\0')

        packed = varstore.pack(data)

        self.assertLess(len(packed), varstore.MAX_PACKED)
        self.assert_same(data, varstore.unpack(packed))

    @needs_aavmf
    def test_the_templates_of_debian_travel_in_a_few_kib(self) -> None:
        for template in sorted(AAVMF.glob('*VARS*.fd')):
            data = template.read_bytes()

            packed = varstore.pack(data)

            self.assertLess(len(packed), 8 * 1024)
            self.assert_same(data, varstore.unpack(packed))

    @properties.SETTINGS
    @hypothesis.given(st.binary(max_size=300), st.sampled_from(
        (b'', b'\0', b'\xff', b'ab')), st.integers(0, 3000))
    def test_it_comes_back_byte_for_byte(self, data: bytes, end: bytes,
                                         count: int) -> None:
        whole = data + end * count

        self.assert_same(whole, varstore.unpack(varstore.pack(whole)))

    def test_long_ends_of_one_byte_come_back(self) -> None:
        for content in (b'', b'a', b'a' * stores.MIB):
            for size in (stores.MIB - 1, stores.MIB, stores.MIB + 1):
                whole = content + b'\xff' * size

                packed = varstore.pack(whole)

                self.assertLess(len(packed), 2048)
                self.assert_same(whole, varstore.unpack(packed))

    def test_what_holds_more_than_variables_does_not_travel(self) -> None:
        noise = random.Random(2).randbytes(2 * stores.MIB)

        self.assertIn(f'{varstore.MAX_PACKED}: there is more',
                      fault(varstore.pack, noise))
        self.assert_same(noise, varstore.unpack(
            varstore.pack(noise, limit=4 * stores.MIB)))

    def test_no_bit_that_flips_on_the_way_makes_another_store(self) -> None:
        data = SOUND[:4096]
        packed = varstore.pack(data)
        passed = []
        for bit in range(8 * len(packed)):
            try:
                found = varstore.unpack(flipped(packed, bit), stores.MIB)
            except errors.Damaged:
                continue
            self.assert_same(data, found)
            passed.append(bit)

        # bits that mean nothing to zlib
        self.assertLess(len(passed), 12)

    def test_what_was_cut_or_grew_on_the_way_is_found(self) -> None:
        packed = varstore.pack(SOUND)
        for end in (0, 8, 51, 52, 53, len(packed) - 1):
            self.assert_not_whole('', packed[:end])
        self.assert_not_whole('does not end where it says', packed + b'x')

    def test_another_form_is_told(self) -> None:
        packed = changed(varstore.pack(SOUND), 8, b'\0\2')
        self.assert_not_whole('packed in form 2, and this nova-arm-ext knows '
                              '1', packed)
        self.assert_not_whole('not a packed', SOUND)

    def test_more_than_the_limit_takes_no_memory(self) -> None:
        bomb = zlib.compress(bytes(64 * stores.MIB), 9)
        header = struct.Struct('>8sHBxQ32s')
        honest, liar = (header.pack(
            b'UEFIVARS', 1, 0, size, hashlib.sha256(b'').digest()) + bomb
            for size in (64 * stores.MIB, 1000))

        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assert_not_whole('67108864 bytes, more than 1048576', honest)
        self.assert_not_whole('does not end where it says', liar)

        self.assertLess(tracemalloc.get_traced_memory()[1], stores.MIB)


class SealTest(base.TestCase):

    KEY = b'k' * varstore.MIN_KEY
    IMAGE = '7a0c1a51-3a3b-4a92-8a8a-6d5b2f6f0f0d'

    def seal(self, packed: bytes, *, secure_boot: bool) -> str:
        return varstore.seal(packed, self.KEY, self.IMAGE,
                             secure_boot=secure_boot)

    def test_what_an_image_carries_comes_back_with_the_key(self) -> None:
        packed = varstore.pack(SOUND)

        for secure_boot in (False, True):
            value = self.seal(packed, secure_boot=secure_boot)

            self.assertTrue(value.isascii())
            self.assertEqual((packed, secure_boot),
                             varstore.unseal(value, [self.KEY], self.IMAGE))

    def test_no_character_of_it_can_be_changed(self) -> None:
        value = self.seal(b'packed', secure_boot=True)
        for place, character in enumerate(value):
            other = 'B' if character == 'A' else 'A'
            changed = value[:place] + other + value[place + 1:]
            self.assertRaises(errors.Damaged, varstore.unseal, changed,
                              [self.KEY], self.IMAGE)

    def test_another_key_does_not_open_it(self) -> None:
        self.assertIn('another key', fault(
            varstore.unseal,
            self.seal(b'packed', secure_boot=False),
            [self.KEY[:-1] + b'l'], self.IMAGE))

    def test_nor_does_it_open_in_another_image(self) -> None:
        value = self.seal(b'packed', secure_boot=False)

        for image in ('', self.IMAGE[:-1], self.IMAGE[:-1] + 'e'):
            self.assertIn('another image', fault(
                varstore.unseal, value, [self.KEY], image))

    def test_nova_cuts_off_each_one(self) -> None:
        """It keeps 255 characters of an image property."""
        value = self.seal(b'', secure_boot=False)

        self.assertEqual(256, len(value))
        self.assertEqual((b'', False), varstore.unseal(
            value, [self.KEY], self.IMAGE))

    def test_each_of_some_keys_opens_it(self) -> None:
        value = self.seal(b'packed', secure_boot=False)

        for keys in ([self.KEY, bytes(32)], [bytes(32), self.KEY]):
            self.assertEqual((b'packed', False),
                             varstore.unseal(value, keys, self.IMAGE))

    def test_it_has_room_for_60_kib(self) -> None:
        most = varstore.MAX_PROPERTY // 4 * 3 - len(self.KEY) - 4
        value = self.seal(bytes(most), secure_boot=False)

        self.assertLessEqual(len(value), 61440)
        self.assertEqual(bytes(most), varstore.unseal(
            value, [self.KEY], self.IMAGE)[0])
        self.assertIn('may have 61440', fault(lambda: self.seal(
            bytes(most + 3), secure_boot=False)))
