# SPDX-License-Identifier: Apache-2.0
"""Collects facts: about the host from libvirt, about a guest from Nova."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

from lxml import etree
from oslo_log import log as logging

from nova_arm_ext import compat
from nova_arm_ext import facts
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute.binding import libvirt
from nova_arm_ext.domain import view

LOG = logging.getLogger(__name__)

#: Folders of QEMU's firmware descriptors. Of two files with the same name the
#: later one counts (docs/interop/firmware.json in QEMU).
DESCRIPTORS = ('/usr/share/qemu/firmware', '/etc/qemu/firmware')

#: Where distributions have the firmware, and links to it.
FIRMWARE_FOLDERS = ('/usr/share/AAVMF', '/usr/share/edk2/aarch64',
                    '/usr/share/edk2/arm', '/usr/share/qemu',
                    '/usr/share/qemu-efi-aarch64')

#: Loader and template of 32-bit firmware, where no descriptor names any:
#: Debian and Ubuntu, Fedora, SUSE.
FIRMWARE_32 = (
    ('/usr/share/AAVMF/AAVMF32_CODE.fd', '/usr/share/AAVMF/AAVMF32_VARS.fd'),
    ('/usr/share/edk2/arm/QEMU_EFI-pflash.raw',
     '/usr/share/edk2/arm/vars-template-pflash.raw'),
    ('/usr/share/qemu/aavmf-aarch32-code.bin',
     '/usr/share/qemu/aavmf-aarch32-vars.bin'))

#: libvirt's names of guest architectures by those of the descriptors
_DESCRIPTOR_ARCH = {'aarch64': 'aarch64', 'arm': 'armv7l'}

#: Seconds for an answer of QEMU, which takes a tenth of one.
PATIENCE = 20

T = TypeVar('T')


def host(connection: Any, *, local: bool = True,
         descriptors: Iterable[str] = DESCRIPTORS) -> facts.Host:
    """Facts about the host, from libvirt and this file system.

    An unknown value is None, and a WARNING is logged.

    :param connection: a libvirt connection; nothing is changed through it
    :param local: whether the connection leads to this machine; only then
        /dev/kvm and the files of this machine are used
    :param descriptors: folders of firmware descriptors
    """
    capabilities = _asked('capabilities', lambda: etree.fromstring(
        connection.getCapabilities()))
    virt_types = None if capabilities is None else _virt_types(capabilities)
    arch = None if capabilities is None else capabilities.findtext(
        'host/cpu/arch')
    able = aarch32_el1() if local else None
    return facts.Host(
        arch=arch,
        libvirt_version=_asked('libvirt version', lambda: _version(
            connection.getLibVersion())),
        qemu_version=_asked('QEMU version', lambda: _version(
            connection.getVersion())),
        virt_types=virt_types,
        aarch32_el1=able,
        firmware=(_firmware(connection, virt_types or {}, descriptors)
                  if local else None),
        cpu=(cpu.read(connection, aarch32_el1=able)
             if local and arch == 'aarch64' else None),
        machines=(None if capabilities is None
                  else _machines(capabilities)),
        lacks=(_lacking(capabilities) if local and capabilities is not None
               else None))


def guest(instance: Any, image_meta: Any = None,
          previous: str | None = None, sysinfo: Any = None,
          nvram: str | None = None,
          loader_is_gone: bool | None = None) -> facts.Guest:
    """Facts about a guest, from Nova's objects.

    :param instance: nova.objects.Instance
    :param image_meta: nova.objects.ImageMeta of the image that is booted; in
        rescue that is the rescue image
    :param previous: the guest's previous domain XML
    :param sysinfo: Nova's LibvirtConfigGuestSysinfo for it, if there is one
    :param nvram: the path of its variable store
    :param loader_is_gone: whether this host no longer has the loader of its
        previous domain XML
    """
    # not for the command, which asks only for facts of the host
    from nova.objects import base
    properties = image_properties(instance)
    if image_meta is not None and 'properties' in image_meta:
        known = image_meta.properties
        for name in known.fields:
            # not "name in known", which makes a list of all fields each time
            if (hasattr(known, base.get_attrname(name))
                    and isinstance(value := getattr(known, name), str | int)):
                properties[name] = str(value)
    return facts.Guest(
        extra_specs=dict(instance.flavor.extra_specs or {}),
        image_properties=properties, previous=previous,
        system_manufacturer=getattr(sysinfo, 'system_manufacturer', None),
        system_product=getattr(sysinfo, 'system_product', None),
        system_serial=getattr(sysinfo, 'system_serial', None),
        nvram=nvram, loader_is_gone=loader_is_gone)


def loader_is_gone(loader: str,
                   firmware: Iterable[facts.Firmware] | None) -> bool | None:
    """Whether a guest's loader is not on this host any more.

    libvirt may run in another container with other files. A loader that
    libvirt lists exists. Another one is looked for among the files of this
    process, but only if these include firmware that libvirt lists.

    :param loader: its path
    :param firmware: the firmware that libvirt has
    :returns: None if unknown
    """
    known = [one.loader for one in firmware or ()]
    if loader in known or os.path.exists(loader):
        return False
    return True if any(map(os.path.exists, known)) else None


def knowing(host: facts.Host, loader: str) -> facts.Host:
    """The facts about the host, in which a guest's loader is an alias of the
    firmware that its path reaches here.

    The folders of `_aliases` do not have all links that there may be.
    """
    if host.firmware is None or host.firmware_at(loader) is not None:
        return host
    same = _with_file(loader, host.firmware)
    if not _agree(same):
        return host
    return dataclasses.replace(host, firmware=tuple(
        dataclasses.replace(one, aliases=(*one.aliases, loader))
        if one in same else one for one in host.firmware))


def image_properties(instance: Any) -> dict[str, str]:
    """All properties of an instance's image, also those unknown to Nova."""
    return {
        name.removeprefix('image_'): str(value)
        for name, value in instance.system_metadata.items()
        if name.startswith('image_')}


def aarch32_el1(device: str = cpu.KVM) -> bool | None:
    """Whether KVM can run 32-bit Arm guests (KVM_CAP_ARM_EL1_32BIT).

    :returns: None without KVM, as in some containers
    """
    if os.uname().machine != 'aarch64':
        return False
    return cpu.kvm_can('run 32-bit Arm guests', cpu.CAP_EL1_32BIT, device)


def _asked(what: str, ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except libvirt.libvirtError as e:
        LOG.warning('The %s of this host is unknown to nova-arm-ext: %s',
                    what, e)
        return None


def _version(number: int) -> facts.Version:
    """libvirt's 9002003 as (9, 2, 3)."""
    return number // 1000000, number // 1000 % 1000, number % 1000


def _machines(capabilities: Any) -> tuple[str, ...] | None:
    """The versions of the machine ``virt``; None if libvirt names none."""
    return tuple(dict.fromkeys(
        machine.text for machine in capabilities.iterfind(
            "guest/arch[@name='aarch64']/machine")
        if (machine.text or '').startswith('virt-'))) or None


def _lacking(capabilities: Any) -> tuple[str, ...] | None:
    """What QEMU for AArch64 does not have of what hooks ask about.

    :returns: None if it cannot be asked, as where libvirt is in another
        container
    """
    emulator = capabilities.findtext(
        "guest/arch[@name='aarch64']/emulator", '')
    if not os.access(emulator, os.X_OK):
        return None
    try:
        said = subprocess.run(  # noqa: S603  libvirt names it
            (emulator, '-device', 'help'), check=True, timeout=PATIENCE,
            stdin=subprocess.DEVNULL, capture_output=True).stdout
    except (OSError, subprocess.SubprocessError) as e:
        LOG.warning('It is unknown which devices %s has: %s', emulator, e)
        return None
    there = set(re.findall(r'^name "([^"]+)"', said.decode(errors='replace'),
                           re.MULTILINE))
    return tuple(name for name in compat.ASKED_ABOUT if name not in there)


def _virt_types(capabilities: Any) -> dict[str, tuple[str, ...]]:
    """The domain types that libvirt offers for each guest architecture."""
    found: dict[str, tuple[str, ...]] = {}
    for arch in capabilities.iterfind('guest/arch'):
        found[arch.get('name')] = tuple(
            domain.get('type') for domain in arch.iterfind('domain'))
    return found


def _firmware(connection: Any, virt_types: Mapping[str, tuple[str, ...]],
              folders: Iterable[str]) -> tuple[facts.Firmware, ...] | None:
    """The firmware of the descriptors that exists for libvirt."""
    described = _described(folders)
    if described is None:
        return None
    there: dict[str, set[str] | None] = {}
    for arch in view.ARM & virt_types.keys():
        there[arch] = _asked(
            f'firmware for {arch}', functools.partial(
                _loaders, connection, arch, virt_types[arch]))
    found = [firmware for firmware in described
             if _exists(firmware.loader, there.get(firmware.arch))]
    if 'armv7l' in virt_types and not any(
            one.arch == 'armv7l' for one in found):
        # libvirt then names only 64-bit firmware in domain capabilities
        found += [
            facts.Firmware(arch='armv7l', machines=('virt-*',), loader=loader,
                           template=template, described=False)
            for loader, template in FIRMWARE_32
            if os.path.exists(loader) and os.path.exists(template)]
    # one whose template is not installed must not hide the next one
    found.sort(key=_is_incomplete)
    return tuple(
        dataclasses.replace(one, aliases=_aliases(one.loader))
        if _agree(_with_file(one.loader, found)) else one for one in found)


def _with_file(loader: str, found: Iterable[facts.Firmware]
               ) -> list[facts.Firmware]:
    """The firmware whose executable a path reaches."""
    file = os.path.realpath(loader)
    return [one for one in found if os.path.realpath(one.loader) == file]


def _agree(same: Iterable[facts.Firmware]) -> bool:
    """Whether all have Secure Boot, or none.

    Debian 12 has one executable for both, with different templates.
    """
    return len({one.secure_boot for one in same}) < 2


def _is_incomplete(one: facts.Firmware) -> bool:
    """Whether only the loader exists; False if libvirt has other files."""
    return os.path.exists(one.loader) and not os.path.exists(one.template)


def _aliases(loader: str) -> tuple[str, ...]:
    """The other paths of a firmware file, in the folders where it and its
    links are looked for."""
    file = os.path.realpath(loader)
    found = {file}
    for folder in {os.path.dirname(loader), os.path.dirname(file),
                   *FIRMWARE_FOLDERS}:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue     # a folder of another distribution
        found.update(entry.path for entry in entries if entry.is_symlink()
                     and os.path.realpath(entry.path) == file)
    return tuple(sorted(found - {loader}))


def _exists(path: str, there: set[str] | None) -> bool:
    # libvirt may run in another container with other files, so its answer
    # takes precedence
    return path in there if there is not None else os.path.exists(path)


def _loaders(connection: Any, arch: str,
             virt_types: Iterable[str]) -> set[str] | None:
    """The loaders in libvirt's domain capabilities."""
    virt_type = 'kvm' if 'kvm' in virt_types else 'qemu'
    capabilities = etree.fromstring(connection.getDomainCapabilities(
        None, arch, 'virt', virt_type, 0))
    loader = capabilities.find('os/loader')
    if loader is None:
        return None
    return {value.text for value in loader.findall('value') if value.text}


def _described(folders: Iterable[str]) -> list[facts.Firmware] | None:
    """The Arm firmware for split pflash in the descriptors.

    :returns: in the order of preference, which is that of the file names;
        None if there is no folder
    """
    files = descriptor_files(folders)
    if files is None:
        return None
    found = []
    for file in files:
        try:
            found += read_descriptor(file)
        except (OSError, ValueError) as e:
            LOG.warning('Firmware descriptor %s is ignored: %s', file, e)
    return found


def descriptor_files(folders: Iterable[str]) -> list[pathlib.Path] | None:
    """The firmware descriptors, in the order of preference.

    :returns: for each file name the file in the last folder; None if there is
        no folder
    """
    files: dict[str, pathlib.Path] = {}
    there = False
    for folder in folders:
        path = pathlib.Path(folder)
        if path.is_dir():
            there = True
            files.update((file.name, file) for file in path.glob('*.json'))
    return [files[name] for name in sorted(files)] if there else None


def read_descriptor(file: pathlib.Path) -> list[facts.Firmware]:
    """The Arm firmware for split pflash in one descriptor.

    :raises OSError: when it cannot be read
    :raises ValueError: when it is not a descriptor
    """
    data = file.read_bytes()
    if not data:
        return []     # an empty file hides that of an earlier folder
    try:
        return _descriptor(json.loads(data))
    except (ValueError, LookupError, TypeError, AttributeError,
            RecursionError) as e:
        raise ValueError(f'{type(e).__name__}: {e}') from e


def _descriptor(data: Any) -> list[facts.Firmware]:
    mapping = data['mapping']
    if ('uefi' not in data['interface-types'] or mapping['device'] != 'flash'
            or mapping.get('mode', 'split') != 'split'):
        return []
    features = data.get('features', ())
    return [
        facts.Firmware(
            arch=_DESCRIPTOR_ARCH[target['architecture']],
            machines=tuple(target['machines']),
            # fspath refuses a number
            loader=os.fspath(mapping['executable']['filename']),
            loader_format=mapping['executable'].get('format', 'raw'),
            template=os.fspath(mapping['nvram-template']['filename']),
            template_format=mapping['nvram-template'].get('format', 'raw'),
            secure_boot='secure-boot' in features,
            enrolled_keys='enrolled-keys' in features)
        for target in data['targets']
        if target['architecture'] in _DESCRIPTOR_ARCH]
