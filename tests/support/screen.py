# SPDX-License-Identifier: Apache-2.0
"""Reads the text on a picture of a Linux text console.

There is no font, so the text is decoded like a cipher: a known text on the
screen gives the shape of each character. With these shapes the rest is read.
"""

import collections.abc
import struct
import typing
import zlib

#: Linux's font for frame buffers of this size (lib/fonts/font_8x16.c)
WIDTH, HEIGHT = 8, 16

Shape = tuple[bytes, ...]
BLANK: Shape = (b'\0' * WIDTH,) * HEIGHT


def take(connection: typing.Any, domain: typing.Any) -> bytes:
    """A screenshot of the guest's first screen, as PNG or portable pixmap."""
    stream = connection.newStream(0)
    domain.screenshot(stream, 0, 0)
    parts: list[bytes] = []
    stream.recvAll(lambda _, data, parts: parts.append(data), parts)
    stream.finish()
    return b''.join(parts)


def pixels(picture: bytes) -> tuple[int, int, int, bytes]:
    """Width, height, bytes of a pixel and the pixels.

    The format of QEMU is PNG since 7.1 (libvirt 9), before that a pixmap.

    :raises ValueError: for a picture of another kind
    """
    if picture.startswith(b'P6'):
        _, width, height, _ = picture[:30].split(None, 4)[:4]
        size = int(width) * int(height) * 3
        return int(width), int(height), 3, picture[-size:]
    width, height, depth, colours, _, _, interlaced = struct.unpack_from(
        '>IIBBBBB', picture, 16)
    if (not picture.startswith(b'\x89PNG') or depth != 8
            or colours not in (2, 6) or interlaced):
        raise ValueError(f'a picture of another kind: {picture[:32]!r}')
    data, place = b'', 8
    while place < len(picture):
        length, kind = struct.unpack_from('>I4s', picture, place)
        if kind == b'IDAT':
            data += picture[place + 8:place + 8 + length]
        place += length + 12
    step = 3 if colours == 2 else 4
    lines = zlib.decompress(data)
    stride = width * step
    above = bytearray(stride)
    made = bytearray()
    for start in range(0, len(lines), stride + 1):
        line = bytearray(lines[start + 1:start + 1 + stride])
        _unfilter(lines[start], line, above, step)
        made += line
        above = line
    return width, height, step, bytes(made)


def _unfilter(kind: int, line: bytearray, above: bytearray,
              step: int) -> None:
    """Undo a PNG line's filter (PNG specification, section 9)."""
    for i in range(len(line) if kind else 0):
        left = line[i - step] if i >= step else 0
        corner = above[i - step] if i >= step else 0
        match kind:
            case 1:
                guess = left
            case 2:
                guess = above[i]
            case 3:
                guess = (left + above[i]) // 2
            case _:
                whole = left + above[i] - corner
                guess = min((left, above[i], corner),
                            key=lambda one: abs(whole - one))
        line[i] = (line[i] + guess) & 0xff


class Screen:
    """The shapes on a picture, in rows and columns of characters."""

    def __init__(self, picture: bytes) -> None:
        self.width, self.height, step, data = pixels(picture)
        # text is light on black
        light = bytes(any(data[i:i + 3]) for i in range(0, len(data), step))
        self.rows: list[list[Shape]] = [
            [tuple(light[y * self.width + x:y * self.width + x + WIDTH]
                   for y in range(top, top + HEIGHT))
             for x in range(0, self.width - WIDTH + 1, WIDTH)]
            for top in range(0, self.height - HEIGHT + 1, HEIGHT)]

    def alphabet(self, lines: collections.abc.Sequence[str],
                 ) -> dict[Shape, str] | None:
        """The shapes of the characters if these lines are on the screen."""
        for top in range(len(self.rows) - len(lines) + 1):
            found = self._fits(top, lines)
            if found is not None:
                return found
        return None

    def _fits(self, top: int, lines: collections.abc.Sequence[str],
              ) -> dict[Shape, str] | None:
        shapes: dict[str, Shape] = {' ': BLANK}
        for row, line in zip(self.rows[top:], lines, strict=False):
            text = line.ljust(len(row))
            if len(text) > len(row):
                return None
            for character, shape in zip(text, row, strict=True):
                if shapes.setdefault(character, shape) != shape:
                    return None
        if len(set(shapes.values())) != len(shapes):
            return None
        return {shape: character for character, shape in shapes.items()}

    def read(self, alphabet: dict[Shape, str]) -> list[str]:
        """Every row as text; what is not in the alphabet is a question
        mark."""
        return [''.join(alphabet.get(shape, '?') for shape in row).rstrip()
                for row in self.rows]
