# SPDX-License-Identifier: Apache-2.0
"""The firmware that instances boot: descriptors, files, libvirt's view."""

import os
import struct
from collections.abc import Iterator

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import packages
from nova_arm_ext import varstore
from nova_arm_ext.cmd.checks.base import fault
from nova_arm_ext.cmd.checks.base import Finding
from nova_arm_ext.cmd.checks.base import not_applicable
from nova_arm_ext.cmd.checks.base import ok
from nova_arm_ext.cmd.checks.base import Surroundings
from nova_arm_ext.cmd.checks.base import warning
from nova_arm_ext.compute import gather


def _install_64(place: Surroundings) -> str:
    return f'install UEFI for AArch64 ({place.package(packages.UEFI_64)})'

#: What descriptors of Debian 12 and 13 name although no package has it
#: (qemu-efi-aarch64, 50-edk2-aarch64-secure.json).
NOT_PACKAGED = frozenset(('/usr/share/AAVMF/AAVMF_CODE.secboot.fd',))


def descriptors(place: Surroundings) -> Iterator[Finding]:
    """Whether there are descriptors that can be read."""
    files = gather.descriptor_files(place.descriptors)
    if files is None:
        yield fault(
            f'there is no directory of firmware descriptors: '
            f'{", ".join(place.descriptors)}', _install_64(place))
        return
    found = []
    for file in files:
        try:
            found += gather.read_descriptor(file)
        except OSError as e:
            yield fault(f'{file} cannot be read: {e.strerror}',
                        'correct its permissions')
        except ValueError as e:
            # libvirt stops at the first one that it cannot parse
            # (qemuFirmwareFetchParsedConfigs)
            yield fault(f'{file} is not a firmware descriptor: {e}',
                        'libvirt cannot select any firmware because of it: '
                        'correct it, or mask it with an empty file of the '
                        'same name in /etc/qemu/firmware')
    aarch64 = sum(one.arch == 'aarch64' for one in found)
    if not aarch64:
        yield fault(f'none of {len(files)} descriptors is for AArch64 with a '
                    f'separate flash for variables', _install_64(place))
    else:
        yield ok(f'{aarch64} for AArch64, {len(found) - aarch64} for 32-bit '
                 f'Arm')


def _described(place: Surroundings) -> Iterator[tuple[str, facts.Firmware]]:
    """The firmware of every descriptor that can be read, and its file."""
    for file in gather.descriptor_files(place.descriptors) or ():
        try:
            for one in gather.read_descriptor(file):
                yield str(file), one
        except (OSError, ValueError):
            continue     # the check "firmware descriptors" reports it


def files(place: Surroundings) -> Iterator[Finding]:
    """Whether the files that descriptors name exist and fit."""
    found, sound = 0, 0
    for descriptor, one in _described(place):
        found += 1
        objections = list(_objections(descriptor, one))
        yield from objections
        sound += not objections
    if not found:
        yield not_applicable('no descriptor names a file')
    elif sound:
        yield ok(f'{sound} of {found} firmware images are complete')
    else:
        yield fault('no firmware image for Arm is complete',
                    _install_64(place))


def _objections(descriptor: str, one: facts.Firmware) -> Iterator[Finding]:
    for path, form, is_template in (
            (one.loader, one.loader_format, False),
            (one.template, one.template_format, True)):
        try:
            size, wrong = _looked_at(path, form, is_template)
        except FileNotFoundError:
            if path in NOT_PACKAGED:
                yield not_applicable(
                    f'{path} does not exist, but {descriptor} names it: no '
                    f'package of Debian has it, and no instance gets it')
                continue
            yield warning(
                f'{path} does not exist, but {descriptor} names it',
                'install the package that has it, or mask the descriptor '
                'with an empty file of the same name in /etc/qemu/firmware')
            continue
        except OSError as e:
            yield fault(f'{path} cannot be read: {e.strerror}',
                        'QEMU\'s user must be able to: correct its '
                        'permissions')
            continue
        if size != varstore.MAX_SIZE:
            yield fault(
                f'{path} has {size} bytes, and the flash of the virt machine '
                f'has {varstore.MAX_SIZE}',
                'instances with it do not start: pad it with "truncate -s '
                '64M", or install a package whose firmware is padded')
        elif wrong:
            yield fault(f'{path}: {wrong}',
                        'install its package again: each new instance gets a '
                        'copy of it')


def _looked_at(path: str, form: str, is_template: bool) -> tuple[int, str]:
    """The size of the flash in a file, and what is wrong with its content."""
    with open(path, 'rb') as file:
        if form == 'qcow2':
            head = file.read(32)
            if len(head) == 32 and head.startswith(varstore.QCOW2):
                return struct.unpack('>Q', head[24:])[0], ''
            return file.seek(0, os.SEEK_END), ''
        size = file.seek(0, os.SEEK_END)
        if not is_template or size != varstore.MAX_SIZE:
            return size, ''
        file.seek(0)
        try:
            varstore.check(file.read())
        except errors.Damaged as e:
            return size, str(e)
        return size, ''


def seen_by_libvirt(place: Surroundings) -> Iterator[Finding]:
    """Whether libvirt and this file system have the same firmware.

    They may be in two containers. Nova 33 and newer look here for the file
    that libvirt has chosen (_copy_guest_firmware_elements).
    """
    survey = place.survey
    if not survey.is_local:
        yield not_applicable(f'{survey.uri} is on another machine')
        return
    described = list(_described(place))
    for arch, document in survey.domain_capabilities.items():
        theirs = [value.text for value in document.findall('os/loader/value')
                  if value.text]
        if not theirs and arch == 'aarch64':
            yield fault('libvirt has found no UEFI firmware for AArch64',
                        f'where libvirt runs, {_install_64(place)}')
        for path in theirs:
            if not os.path.exists(path):
                yield fault(
                    f'libvirt has {path} for {arch} guests, but it does not '
                    f'exist here',
                    'Nova selects other firmware for an instance whose loader '
                    'it does not find: install the same package here')
        for _, one in described:
            if (one.arch == arch and os.path.exists(one.loader)
                    and one.loader not in theirs):
                yield warning(
                    f'{one.loader} exists here, but libvirt does not have it '
                    f'for {arch} guests',
                    'install the same package where libvirt runs')
        if arch == 'armv7l' and theirs and not _known_32(place) & {*theirs}:
            # without a descriptor for it libvirt names all that it has
            yield not_applicable(
                f'libvirt has only 64-bit firmware for armv7l guests: '
                f'{", ".join(theirs)}')
        elif theirs and all(map(os.path.exists, theirs)):
            yield ok(f'{arch}: {", ".join(theirs)}')
    if not survey.domain_capabilities:
        yield not_applicable('unknown: libvirt does not show the domain '
                             'capabilities of Arm guests to this user')


def _fitting(place: Surroundings, arch: str) -> list[facts.Firmware]:
    return [one for _, one in _described(place) if one.arch == arch
            and os.path.exists(one.loader) and os.path.exists(one.template)]


def _known_32(place: Surroundings) -> set[str]:
    """The loaders of 32-bit firmware, of descriptors and known places."""
    return {one.loader for _, one in _described(place)
            if one.arch == 'armv7l'} | {
        loader for loader, _ in gather.FIRMWARE_32}


def for_32_bit(place: Surroundings) -> Iterator[Finding]:
    """Whether 32-bit instances can boot with UEFI."""
    fitting = [one.loader for one in _fitting(place, 'armv7l')] + [
        loader for loader, template in gather.FIRMWARE_32
        if os.path.exists(loader) and os.path.exists(template)]
    if fitting:
        yield ok(fitting[0])
    else:
        yield warning(
            'there is none: 32-bit instances need an image with a kernel '
            '(kernel_id)', f'install it if 32-bit instances need it '
                           f'({place.package(packages.UEFI_32)})')


def for_secure_boot(place: Surroundings) -> Iterator[Finding]:
    """Whether instances can have Secure Boot."""
    fitting = [one for one in _fitting(place, 'aarch64') if one.secure_boot]
    if any(one.enrolled_keys for one in fitting):
        yield ok(next(one for one in fitting if one.enrolled_keys).loader)
    else:
        yield not_applicable('there is none with keys: this host refuses '
                             'instances that ask for Secure Boot')
