# SPDX-License-Identifier: Apache-2.0
"""Commands and fragments in README, documentation and contrib."""

import dataclasses
import pathlib
import re
import textwrap
from collections.abc import Iterator

TREE = pathlib.Path(__file__).resolve().parents[2]

_DIRECTIVE = re.compile(r'( *)\.\. (code-block|literalinclude):: +(\S+)$')
_LITERAL = re.compile(r'( *)(?!\.\. ).*::$')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A literal block.

    :param page: its page, relative to the tree
    :param source: the file of its text: the page, or an included file
    :param line: its first line in the page
    :param language: as the page says, else ``text``
    """

    page: str
    source: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'

    @property
    def commands(self) -> list[str]:
        """The commands after a prompt."""
        typed: list[str] = []
        continued = False
        for line in self.text.splitlines():
            if continued:
                typed[-1] += f'\n{line}'
            elif line.startswith(('$ ', '# ')):
                typed.append(line[2:])
            else:
                continue
            continued = line.endswith('\\')
        return typed


def pages() -> list[pathlib.Path]:
    """All files of reStructuredText that people read."""
    found = [*TREE.glob('*.rst'), *(TREE / 'doc/source').rglob('*.rst'),
             *(TREE / 'contrib').rglob('*.rst')]
    return sorted(path for path in found
                  if path.parent.name != '_generated')


def blocks() -> Iterator[Block]:
    """The literal blocks of all pages."""
    for path in pages():
        yield from _blocks(path)


def _blocks(path: pathlib.Path) -> Iterator[Block]:
    lines = path.read_text().splitlines()
    page = str(path.relative_to(TREE))
    for number, line in enumerate(lines):
        directive, literal = _DIRECTIVE.match(line), _LITERAL.match(line)
        if not directive and not literal:
            continue
        indentation = len((directive or literal)[1])
        inside = list(_indented(lines[number + 1:], indentation))
        if literal:
            kind, what = 'code-block', 'text'
        else:
            kind, what = directive[2], directive[3]
        settings = dict(re.findall(r'^ *:([\w-]+): *(.*)$',
                                   '\n'.join(inside), re.M))
        if kind == 'literalinclude':
            source = (path.parent / what).resolve()
            yield Block(page=page, source=str(source.relative_to(TREE)),
                        line=number + 1, text=source.read_text(),
                        language=settings.get('language', 'text'))
        else:
            text = textwrap.dedent('\n'.join(inside)).strip('\n')
            yield Block(page=page, source=page, line=number + 1,
                        language=what, text=f'{text}\n')


def _indented(lines: list[str], indentation: int) -> Iterator[str]:
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indentation:
            return
        yield line


def inline() -> Iterator[tuple[str, str]]:
    """Each page with each text between double backquotes in it."""
    for path in pages():
        prose = re.sub(r'\s+', ' ', path.read_text())
        for text in re.findall(r'``([^`]+)``', prose):
            yield str(path.relative_to(TREE)), text
