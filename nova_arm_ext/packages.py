# SPDX-License-Identifier: Apache-2.0
"""The packages that have what is missing, by distribution."""

from collections.abc import Mapping

#: What a package may have.
UEFI_64 = 'aarch64'
UEFI_32 = 'armv7l'
QEMU = 'qemu'
QEMU_IMG = 'qemu-img'
SWTPM = 'swtpm'

_DEBIAN = 'Debian and Ubuntu'
_RED_HAT = 'CentOS Stream, Rocky and Fedora'
_OPENEULER = 'openEuler'
_SUSE = 'SUSE'

#: By family of distributions; a family without an entry has no such package.
_NAMES: Mapping[str, Mapping[str, str]] = {
    UEFI_64: {_DEBIAN: 'qemu-efi-aarch64', _RED_HAT: 'edk2-aarch64',
              _OPENEULER: 'edk2-aarch64', _SUSE: 'qemu-uefi-aarch64'},
    # not in Debian 14, CentOS Stream and Rocky
    UEFI_32: {'Debian up to 13 and Ubuntu': 'qemu-efi-arm',
              'Fedora': 'edk2-arm', _SUSE: 'qemu-uefi-aarch32'},
    QEMU: {_DEBIAN: 'qemu-system-arm', _RED_HAT: 'qemu-kvm',
           _OPENEULER: 'qemu', _SUSE: 'qemu-arm'},
    QEMU_IMG: {_DEBIAN: 'qemu-utils', _RED_HAT: 'qemu-img',
               _OPENEULER: 'qemu-img', _SUSE: 'qemu-img'},
    SWTPM: {_DEBIAN: 'swtpm and swtpm-tools',
            _RED_HAT: 'swtpm and swtpm-tools', _OPENEULER: 'swtpm',
            _SUSE: 'swtpm'},
}

#: The names in the order in which they are looked for in ID and ID_LIKE.
_FAMILIES = (
    (_OPENEULER, {'openeuler'}), (_SUSE, {'suse', 'opensuse', 'sles'}),
    (_RED_HAT, {'rhel', 'fedora', 'centos', 'rocky', 'almalinux'}),
    (_DEBIAN, {'debian', 'ubuntu'}))

_NONE_FOR_32 = 'this distribution has no 32-bit UEFI'


def everywhere(what: str) -> str:
    """The packages of all families, in words.

    :param what: one of the names above
    """
    return '; '.join(f'{family}: {name}'
                     for family, name in _NAMES[what].items())


def here(what: str, release: Mapping[str, str]) -> str:
    """The package of this host, or of all families if it is unknown.

    :param what: one of the names above
    :param release: the fields of /etc/os-release
    """
    words = {release.get('ID', '').lower(),
             *release.get('ID_LIKE', '').lower().split()}
    family = next((family for family, ids in _FAMILIES if words & ids), None)
    if family is None:
        return everywhere(what)
    if what != UEFI_32:
        return _NAMES[what][family]
    match release.get('ID'):
        case 'fedora':
            return 'edk2-arm'
        case 'debian' if not _is_up_to(release, 13):
            return _NONE_FOR_32
    return {_DEBIAN: 'qemu-efi-arm', _SUSE: 'qemu-uefi-aarch32'}.get(
        family, _NONE_FOR_32)


def os_release(text: str) -> dict[str, str]:
    """The fields of /etc/os-release."""
    return {name.strip(): value.strip().strip('\'"') for name, _, value
            in (line.partition('=') for line in text.splitlines()) if value}


def _is_up_to(release: Mapping[str, str], number: int) -> bool:
    """Whether the release has at most a number; testing has none."""
    version = release.get('VERSION_ID', '').partition('.')[0]
    return version.isdigit() and int(version) <= number
