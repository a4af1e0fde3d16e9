# SPDX-License-Identifier: Apache-2.0
"""The variable stores: their directory, free space, orphans, copies."""

import importlib
import importlib.util
import os
import re
import stat
from collections.abc import Iterator

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.cmd import stores
from nova_arm_ext.cmd.checks.base import fault
from nova_arm_ext.cmd.checks.base import Finding
from nova_arm_ext.cmd.checks.base import not_applicable
from nova_arm_ext.cmd.checks.base import ok
from nova_arm_ext.cmd.checks.base import Surroundings
from nova_arm_ext.cmd.checks.base import warning
from nova_arm_ext.cmd.checks.hypervisor import some

#: Bytes; less is not enough for a few more instances.
SCARCE = 1024 * varstore.MIB

DAY = 86400.0

_DYNAMIC_OWNERSHIP = re.compile(r'^\s*dynamic_ownership\s*=\s*(\d+)', re.M)


def folder(place: Surroundings) -> Iterator[Finding]:
    """Whether libvirt's directory exists and belongs to the right user."""
    survey = place.survey
    if not survey.is_local:
        yield not_applicable(f'{survey.uri} is on another machine')
        return
    path = place.folders.nvram
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if os.path.isdir(os.path.dirname(path)):
            yield ok(f'{path} does not exist yet; libvirt creates it')
        else:
            yield warning(
                f'{os.path.dirname(path)} does not exist',
                'in a container, mount /var/lib/libvirt: stores of instances '
                'that are older than nova-arm-ext are there')
        return
    except OSError as e:
        yield fault(f'cannot access {path}: {e.strerror}',
                    'run this command as root')
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fault(f'{path} is not a directory',
                    'remove it; libvirt creates it again')
        return
    user = survey.qemu_user
    wrong = False
    if user is not None and found.st_uid not in (0, user[0]):
        wrong = True
        yield fault(
            f'{path} belongs to user {found.st_uid}, and QEMU runs as '
            f'{user[0]}', f'chown {user[0]}:{user[1]} {path}')
    if found.st_mode & 0o002:
        wrong = True
        yield fault(f'everybody can write to {path} '
                    f'({stat.filemode(found.st_mode)})', f'chmod o-w {path}')
    closed = None if user is None else _closed_to(path, *user)
    if closed:
        wrong = True
        yield fault(f"{closed} is closed to QEMU's user {user}",
                    f'chmod o+x {closed}, or restart libvirt, which corrects '
                    f'it')
    if user is not None and not _changes_owner(place.qemu_conf):
        owner = os.stat(place.folders.instances).st_uid
        if user[0] not in (0, owner):
            wrong = True
            yield fault(
                f'{place.qemu_conf} has dynamic_ownership = 0, and QEMU runs '
                f'as {user[0]}: it cannot open the stores of nova-compute, '
                f'which runs as {owner}',
                "set user and group to nova-compute's there, or "
                "dynamic_ownership to 1, and restart libvirt")
    odd = sorted(store.path for store in stores.find(place.folders, ())
                 if not _is_plain(store.path))
    if odd:
        wrong = True
        yield fault(f'{len(odd)} stores are links or not regular files: '
                    f'{some(odd)}',
                    'no instance uses them; find out who created them, then '
                    'remove them')
    if not wrong:
        yield ok(f'{path}, of user {found.st_uid}, '
                 f'{stat.filemode(found.st_mode)}')


def _changes_owner(path: str) -> bool:
    """Whether libvirt gives a store to QEMU's user, as it does by default.

    :param path: of qemu.conf, which may be in another container
    """
    try:
        with open(path, encoding='utf-8') as file:
            found = _DYNAMIC_OWNERSHIP.findall(file.read())
    except OSError:
        return True
    return not found or int(found[-1]) != 0


def _closed_to(path: str, user: int, group: int) -> str | None:
    """The first directory on the path that a user may not enter."""
    if user == 0:
        return None
    parts = path.strip('/').split('/')
    for length in range(1, len(parts) + 1):
        part = '/' + '/'.join(parts[:length])
        found = os.stat(part)
        bit = (stat.S_IXUSR if found.st_uid == user else
               stat.S_IXGRP if found.st_gid == group else stat.S_IXOTH)
        if not found.st_mode & bit:
            return part
    return None


def _is_plain(path: str) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True     # it was just removed
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def free_space(place: Surroundings) -> Iterator[Finding]:
    """Whether there is space for the stores of new instances."""
    for path in (place.folders.nvram, place.folders.instances):
        there = path
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        found = os.statvfs(there)
        free = found.f_bavail * found.f_frsize
        if free < varstore.MAX_SIZE:
            yield fault(f'{free // varstore.MIB} MiB are free in {there}, and '
                        f'a store needs up to 64 MiB', 'free some space')
        elif free < SCARCE:
            yield warning(f'{free // varstore.MIB} MiB are free in {there}',
                          'free some space: a store needs up to 64 MiB')
        elif not found.f_favail and found.f_files:
            yield fault(f'no file can be created in {there}: it has no free '
                        f'inodes', 'remove files')
        else:
            yield ok(f'{free // SCARCE} GiB are free in {there}')


def unowned(place: Surroundings) -> Iterator[Finding]:
    """Whether there are stores without an instance."""
    survey = place.survey
    if not survey.is_local:
        yield not_applicable(f'{survey.uri} is on another machine')
        return
    left = [store.path for store, kept in stores.orphans(
        place.folders, stores.domains(place.uri, place.patience), DAY)
        if not kept]
    if left:
        yield warning(
            f'{len(left)} stores belong to no instance: {some(left)}',
            '"nova-arm-ext nvram orphans --yes" removes them')
    else:
        yield ok('no store without an instance is older than a day')


def copies(place: Surroundings) -> Iterator[Finding]:
    """Whether the store for copies can be used, if one is configured."""
    place.conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    name = place.conf.arm_nvram.store
    if not name:
        yield not_applicable(
            '[arm_nvram] store is not set: an instance that is unshelved, '
            'or evacuated without its files, gets new UEFI variables')
        return
    faults = driver_faults(place)
    if faults is None:
        yield not_applicable('unknown: Nova is not installed in this Python '
                             'environment')
        return
    for message in faults:
        yield fault(message, 'nova-compute refuses to start with it: install '
                             'the package that has the driver, or configure '
                             'another')
    if faults:
        return
    if name != 'directory':
        yield ok(f'the driver {name} is installed; the storage behind it is '
                 f'not checked')
        return
    yield from _directory(place.conf.arm_nvram.directory,
                          place.folders.instances)


def image_key(place: Surroundings) -> Iterator[Finding]:
    """Whether the key for stores in images can be used, if it is set."""
    place.conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    path = place.conf.arm_nvram.image_key_file
    if not path:
        yield not_applicable('[arm_nvram] image_key_file is not set: '
                             'snapshots have no UEFI variables')
        return
    faults = _faults(place, 'images', 'load_keys')
    if faults is None:
        yield not_applicable('unknown: Nova is not installed in this Python '
                             'environment')
        return
    for message in faults:
        yield fault(message, 'nova-compute refuses to start with it: all '
                             'compute hosts need the same file, and it must '
                             'belong to nova-compute\'s user')
    if not faults:
        yield ok(f'{path} has a key')


def driver_faults(place: Surroundings) -> list[str] | None:
    """Load the driver of the store for copies, as nova-compute does.

    :returns: why it cannot be loaded; None if Nova, which it needs, is not
        installed
    """
    return _faults(place, 'copies', 'load_store')


def _faults(place: Surroundings, module: str, load: str
            ) -> list[str] | None:
    """The faults that a function of compute/nvram finds; None without Nova."""
    if importlib.util.find_spec('nova') is None:
        return None
    place.conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    # this imports Nova, which only compute may do
    loads = importlib.import_module(f'nova_arm_ext.compute.nvram.{module}')
    try:
        getattr(loads, load)(place.conf)
    except errors.ConfigurationError as e:
        return list(e.faults)
    return []


def _directory(path: str, instances: str) -> Iterator[Finding]:
    """Whether copies can be kept in a directory.

    :param instances: a directory of nova-compute's user
    """
    mount = f'mount storage that all compute hosts share at {path}'
    try:
        found = os.stat(path)
    except OSError as e:
        yield fault(f'cannot access {path}: {e.strerror}', mount)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fault(f'{path} is not a directory', f'remove it, then {mount}')
        return
    wrong = False
    if stores.is_local(path):
        wrong = True
        yield warning(f'{path} is on a local file system of this host', mount)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        wrong = True
        yield fault(f'{path} is mounted read-only', 'mount it read-write')
    user = _owner(instances)
    if user is not None and found.st_uid != user:
        wrong = True
        yield fault(f'{path} belongs to user {found.st_uid}, and nova-compute '
                    f'runs as user {user}, the owner of {instances}',
                    f'chown {user} {path}')
    if found.st_mode & 0o077:
        wrong = True
        yield fault(f'others than its owner can access {path} '
                    f'({stat.filemode(found.st_mode)}): whoever writes to it '
                    f'decides which keys instances trust',
                    f'chmod 700 {path}')
    if not wrong:
        yield ok(f'{path}, of user {found.st_uid}, '
                 f'{stat.filemode(found.st_mode)}')


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except FileNotFoundError:
        return None
