# SPDX-License-Identifier: Apache-2.0
"""Removes what identifies a cloud, for public bug reports."""

import ipaddress
import re
import socket
from collections.abc import Iterable

#: Paths that are the same on all hosts, or that a bug report needs.
KEPT = ('/usr', '/dev', '/proc', '/sys', '/etc/libvirt', '/etc/nova',
        '/etc/qemu', '/run/libvirt', '/var/run/libvirt',
        '/var/lib/libvirt/qemu/nvram')

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', re.I)
_MAC = re.compile(r'(?<![0-9a-f:])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![0-9a-f:])',
                  re.I)
_ADDRESS = re.compile(r'(?<![\w.:])[0-9a-f:.]*[.:][0-9a-f:.]*[.:][0-9a-f]+'
                      r'(?![\w:])', re.I)
# XML namespaces begin with http
_HOST = re.compile(r'(?<=://)(?<!http://)(?<!https://)[^/\s?\'"<>]+')
# after '<' it is the end of an element, after a word a place in XML
_PATH = re.compile(r'(?<![\w<./:\]])/[\w.+@%~-]+(?:/[\w.+@%~:=-]*)*')


class Redaction:
    """Replaces each name, UUID, address and path with a placeholder.

    The same value always gets the same placeholder, so that a report stays
    readable.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """
        :param names: of instances, users, projects; the name of this host is
            always replaced
        """
        self._words: dict[tuple[str, str], str] = {}
        known = sorted({name for name in (*names, socket.gethostname())
                        if len(name) > 2}, key=len, reverse=True)
        self._names = re.compile(
            rf'(?<![\w-])(?:{"|".join(map(re.escape, known))})(?![\w-])'
            if known else '(?!)')

    def __call__(self, text: str) -> str:
        """The text with placeholders."""
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
            # names of instances in it were replaced before
            return path
        return '/' + self._word('path', path)

    def _address(self, found: re.Match[str]) -> str:
        try:
            ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]     # a version, a PCI address, a time
        return self._word('ip', found[0])
