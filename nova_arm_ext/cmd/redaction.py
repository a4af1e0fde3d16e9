# SPDX-License-Identifier: Apache-2.0
"""Takes out what says whose cloud it is, for bug reports in public."""

import ipaddress
import re
import socket
from collections.abc import Iterable

#: Paths that are the same on all hosts, or say what a bug report needs.
KEPT = ('/usr', '/dev', '/proc', '/sys', '/etc/libvirt', '/etc/nova',
        '/etc/qemu', '/run/libvirt', '/var/run/libvirt',
        '/var/lib/libvirt/qemu/nvram')

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', re.I)
_MAC = re.compile(r'(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-f:])',
                  re.I)
_ADDRESS = re.compile(r'(?<![\w.:])[0-9a-f:.]*[.:][0-9a-f:.]*[.:][0-9a-f]+'
                      r'(?![\w:])', re.I)
# http is that of namespaces
_HOST = re.compile(r'(?<=://)(?<!http://)(?<!https://)[^/\s?\'"<>]+')
# behind '<' it is the end of an element, behind a word a place in a document
_PATH = re.compile(r'(?<![\w<./:\]])/[\w.+@%~-]+(?:/[\w.+@%~:=-]*)*')


class Redaction:
    """Replaces each name, UUID, address and path by one that says nothing.

    The same thing gets the same word wherever it stands, so that a report
    can be followed.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """
        :param names: of guests, users, projects; the host's own is known
        """
        self._words: dict[tuple[str, str], str] = {}
        known = sorted({name for name in (*names, socket.gethostname())
                        if len(name) > 2}, key=len, reverse=True)
        self._names = re.compile(
            rf'(?<![\w-])(?:{"|".join(map(re.escape, known))})(?![\w-])'
            if known else '(?!)')

    def __call__(self, text: str) -> str:
        """The text without them."""
        text = _UUID.sub(lambda m: self._word('uuid', m[0].lower()), text)
        text = self._names.sub(lambda m: self._word('name', m[0]), text)
        text = _MAC.sub(lambda m: self._word('mac', m[0].lower()), text)
        text = _HOST.sub(lambda m: self._word('host', m[0]), text)
        text = _PATH.sub(self._path, text)
        return _ADDRESS.sub(self._address, text)

    def _word(self, kind: str, value: str) -> str:
        number = sum(known == kind for known, _ in self._words) + 1
        return self._words.setdefault((kind, value), f'{kind}-{number}')

    def _path(self, found: re.Match[str]) -> str:
        path = found[0]
        if any(path == kept or path.startswith(f'{kept}/') for kept in KEPT):
            # what is left of the name of a guest in it has gone before
            return path
        return '/' + self._word('path', path)

    def _address(self, found: re.Match[str]) -> str:
        try:
            ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]     # a version, a PCI address, a time
        return self._word('ip', found[0])
