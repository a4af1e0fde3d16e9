# SPDX-License-Identifier: Apache-2.0
"""What a hook may know besides the domain XML: facts of host and guest.

All values are immutable. None means "unknown", not "no".
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

from nova_arm_ext import errors
from nova_arm_ext.cpu import Cpu

#: The number of the JSON form that this release reads and writes.
FORMAT = 1

#: A version of libvirt or QEMU: (major, minor, micro).
Version = tuple[int, int, int]

#: The first libvirt with which nobody has tried this release.
UNTRIED_LIBVIRT: Version = (13, 0, 0)

_SYSTEM = ('system_manufacturer', 'system_product', 'system_serial')

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Firmware:
    """One UEFI firmware that the host offers for split pflash use.

    It has what a guest's ``<os>`` element needs of a firmware descriptor
    (docs/interop/firmware.json in QEMU).
    """

    arch: str                        #: libvirt's name: aarch64, armv7l
    machines: tuple[str, ...]        #: machine globs, such as ``virt-*``
    loader: str                      #: path of the executable
    loader_format: str = 'raw'       #: raw or qcow2
    template: str                    #: path of the variable store template
    template_format: str = 'raw'
    secure_boot: bool = False        #: feature secure-boot
    enrolled_keys: bool = False      #: feature enrolled-keys
    #: other paths that reach the executable, such as links, if all firmware
    #: with that executable has Secure Boot, or none
    aliases: tuple[str, ...] = ()
    #: whether a descriptor names it; libvirt selects no other
    described: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What is known about the compute host."""

    arch: str | None = None
    libvirt_version: Version | None = None
    qemu_version: Version | None = None
    #: guest architecture to the domain types that libvirt offers for it
    virt_types: Mapping[str, tuple[str, ...]] | None = None
    #: whether KVM can run AArch32 at EL1 (KVM_CAP_ARM_EL1_32BIT)
    aarch32_el1: bool | None = None
    #: in the order of libvirt's preference
    firmware: tuple[Firmware, ...] | None = None
    #: None on a host that is not AArch64
    cpu: Cpu | None = None
    #: the devices that its QEMU for AArch64 does not have, by QEMU's names, of
    #: those that hooks ask about
    lacks: tuple[str, ...] | None = None
    #: the versioned machines that QEMU here has, such as ``virt-7.2``
    machines: tuple[str, ...] | None = None

    def firmware_at(self, loader: str | None) -> Firmware | None:
        """The firmware that a guest's loader is; None if it is unknown.

        Distributions rename the files and leave links, and libvirt 12.8
        writes the descriptor's path for them, so links count too. A path that
        a descriptor names takes precedence.
        """
        found = None
        for one in self.firmware or ():
            if one.loader == loader:
                return one
            if found is None and loader in one.aliases:
                found = one
        return found


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """What is known about the guest besides its domain XML."""

    extra_specs: Mapping[str, str] | None = None
    image_properties: Mapping[str, str] | None = None
    #: the guest's previous domain XML; None for a new guest
    previous: str | None = None
    #: SMBIOS system information, as Nova gives it to x86 guests: the first two
    #: after its release file (/etc/nova/release)
    system_manufacturer: str | None = None
    system_product: str | None = None
    #: as ``[libvirt] sysinfo_serial`` has it; None also where that is ``none``
    system_serial: str | None = None
    #: path of its UEFI variable store; after ``_VARS`` the suffix of the
    #: store's template is added
    nvram: str | None = None
    #: whether this host no longer has the loader of its previous domain XML
    loader_is_gone: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that a hook may know besides the domain XML and its own options."""

    host: Host = Host()
    guest: Guest = Guest()

    @classmethod
    def from_json(cls, text: str | bytes) -> 'Facts':
        """Read facts from their JSON form.

        A value that is missing or null is unknown. Unknown names are ignored,
        so that facts of a newer release can be read.

        :param text: a JSON object; an empty object is valid
        :raises InvalidFacts: with the place and the wrong value
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise errors.InvalidFacts(f'facts are not JSON: {e}') from e
        top = _Reader(data, 'facts')
        number = top.take('format', int)
        if number not in (None, FORMAT):
            raise errors.InvalidFacts(
                f'facts/format is {number}, this release reads {FORMAT}')
        host = _Reader(top.take('host', dict) or {}, 'facts/host')
        guest = _Reader(top.take('guest', dict) or {}, 'facts/guest')
        return cls(
            host=Host(
                arch=host.take('arch', str),
                libvirt_version=host.version('libvirt_version'),
                qemu_version=host.version('qemu_version'),
                virt_types=host.virt_types('virt_types'),
                aarch32_el1=host.take('aarch32_el1', bool),
                firmware=host.firmware('firmware'),
                lacks=host.list_of('lacks', str),
                machines=host.list_of('machines', str),
                cpu=(None if (data := host.take('cpu', dict)) is None
                     else Cpu.from_data(data))),
            guest=Guest(
                extra_specs=guest.strings('extra_specs'),
                image_properties=guest.strings('image_properties'),
                previous=guest.take('previous', str),
                nvram=guest.take('nvram', str),
                loader_is_gone=guest.take('loader_is_gone', bool),
                **{name: guest.take(name, str) for name in _SYSTEM}))

    def to_json(self) -> str:
        """The JSON form of these facts, which ``from_json`` reads."""
        data: dict[str, Any] = {'format': FORMAT, **dataclasses.asdict(self)}
        for name in ('libvirt_version', 'qemu_version'):
            version = data['host'][name]
            data['host'][name] = version and format_version(version)
        for one in data['host']['firmware'] or ():
            if not one['aliases']:
                del one['aliases']
            if one['described']:
                del one['described']
        for name in ('lacks', 'machines'):
            if not data['host'][name]:
                del data['host'][name]
        if self.host.cpu is None:
            del data['host']['cpu']
        else:
            data['host']['cpu'] = self.host.cpu.to_data()
        for name in (*_SYSTEM, 'nvram', 'loader_is_gone'):
            if data['guest'][name] is None:
                del data['guest'][name]
        return json.dumps(data, indent=2, sort_keys=True)


def format_version(version: Version) -> str:
    """``(9, 0, 0)`` as ``9.0.0``."""
    return '.'.join(map(str, version))


class _Reader:
    """Takes typed values out of a JSON object, naming what is wrong."""

    def __init__(self, data: Any, place: str) -> None:
        self._place = place
        self._data: dict[str, Any] = self._typed(data, dict, place)

    @staticmethod
    def _typed(value: Any, kind: type[T], place: str) -> T:
        # bool is a subclass of int, and "format: true" is no number
        if (not isinstance(value, kind)
                or (kind is int and isinstance(value, bool))):
            names = {str: 'a string', bool: 'true or false',
                     int: 'a whole number', dict: 'an object', list: 'a list'}
            raise errors.InvalidFacts(
                f'{place} is {_shown(value)}, not {names[kind]}')
        return value

    def take(self, name: str, kind: type[T]) -> T | None:
        value = self._data.get(name)
        if value is None:
            return None
        return self._typed(value, kind, f'{self._place}/{_step(name)}')

    def need(self, name: str, kind: type[T]) -> T:
        value = self.take(name, kind)
        if value is None:
            raise errors.InvalidFacts(f'{self._place}/{name} is missing')
        return value

    def version(self, name: str) -> Version | None:
        text = self.take(name, str)
        if text is None:
            return None
        parts = text.split('.')
        if len(parts) != 3 or not all(
                p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
            raise errors.InvalidFacts(
                f'{self._place}/{name} is {_shown(text)}, '
                f'not a version such as "9.0.0"')
        return (int(parts[0]), int(parts[1]), int(parts[2]))

    def list_of(self, name: str, kind: type[T]) -> tuple[T, ...] | None:
        values: list[Any] | None = self.take(name, list)
        if values is None:
            return None
        place = f'{self._place}/{_step(name)}'
        return tuple(self._typed(value, kind, f'{place}[{i}]')
                     for i, value in enumerate(values))

    def virt_types(self, name: str) -> Mapping[str, tuple[str, ...]] | None:
        data = self.take(name, dict)
        if data is None:
            return None
        inner = _Reader(data, f'{self._place}/{name}')
        return {arch: inner.list_of(arch, str) or () for arch in data}

    def strings(self, name: str) -> Mapping[str, str] | None:
        """A mapping whose values Nova keeps as strings; null is dropped."""
        data = self.take(name, dict)
        if data is None:
            return None
        result = {}
        for key, value in data.items():
            if isinstance(value, str):
                result[key] = value
            elif isinstance(value, bool | int | float):
                result[key] = json.dumps(value)
            elif value is not None:
                raise errors.InvalidFacts(
                    f'{self._place}/{name}/{_step(key)} is {_shown(value)}, '
                    f'not a string')
        return result

    def firmware(self, name: str) -> tuple[Firmware, ...] | None:
        entries: tuple[dict[str, Any], ...] | None = self.list_of(name, dict)
        if entries is None:
            return None
        result = []
        for i, entry in enumerate(entries):
            one = _Reader(entry, f'{self._place}/{name}[{i}]')
            result.append(Firmware(
                arch=one.need('arch', str),
                machines=one.list_of('machines', str) or (),
                loader=one.need('loader', str),
                loader_format=one.take('loader_format', str) or 'raw',
                template=one.need('template', str),
                template_format=one.take('template_format', str) or 'raw',
                secure_boot=one.take('secure_boot', bool) or False,
                enrolled_keys=one.take('enrolled_keys', bool) or False,
                aliases=one.list_of('aliases', str) or (),
                described=one.take('described', bool) is not False))
        return tuple(result)


def _step(name: str) -> str:
    """A name in a place, quoted if it does not fit on one line."""
    return name if name.isprintable() and len(name) <= 60 else _shown(name)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + '...'
