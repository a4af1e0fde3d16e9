# SPDX-License-Identifier: Apache-2.0
"""The variable stores: their folder, free space, leftovers, copies."""

import importlib.util
import os
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

#: Less is not enough for a few guests more.
SCARCE = 1024 * varstore.MIB

DAY = 86400.0


def folder(place: Surroundings) -> Iterator[Finding]:
    """Whether libvirt's folder is there and belongs to the right user."""
    survey = place.survey
    if not survey.is_local:
        yield not_applicable(f'{survey.uri} is on another machine')
        return
    path = place.folders.nvram
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if os.path.isdir(os.path.dirname(path)):
            yield ok(f'there is no {path} yet, libvirt makes it')
        else:
            yield warning(
                f'{os.path.dirname(path)} is not there',
                'in a container mount /var/lib/libvirt, where the stores of '
                'guests are that are older than the extension')
        return
    except OSError as e:
        yield fault(f'{path} cannot be looked at: {e.strerror}',
                    'run this as root')
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fault(f'{path} is no folder', 'remove it, libvirt makes it anew')
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
        yield fault(f'{path} can be written by everybody '
                    f'({stat.filemode(found.st_mode)})', f'chmod o-w {path}')
    closed = None if user is None else _closed_to(path, *user)
    if closed:
        wrong = True
        yield fault(f"{closed} is closed to QEMU's user {user}",
                    f'chmod o+x {closed}, or restart libvirt, which sets it '
                    f'right')
    odd = sorted(store.path for store in stores.find(place.folders, ())
                 if not _is_plain(store.path))
    if odd:
        wrong = True
        yield fault(f'{len(odd)} stores are links or no plain files: '
                    f'{some(odd)}',
                    'no guest uses them; find out who made them, and remove '
                    'them')
    if not wrong:
        yield ok(f'{path}, of user {found.st_uid}, '
                 f'{stat.filemode(found.st_mode)}')


def _closed_to(path: str, user: int, group: int) -> str | None:
    """The first folder on the way that a user may not pass."""
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
        return True     # it has just gone
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def free_space(place: Surroundings) -> Iterator[Finding]:
    """Whether there is room for the stores of new guests."""
    for path in (place.folders.nvram, place.folders.instances):
        there = path
        while not os.path.isdir(there):
            there = os.path.dirname(there)
        found = os.statvfs(there)
        free = found.f_bavail * found.f_frsize
        if free < varstore.MAX_SIZE:
            yield fault(f'{free // varstore.MIB} MiB are free in {there}, and '
                        f'a store has up to 64', 'make room')
        elif free < SCARCE:
            yield warning(f'{free // varstore.MIB} MiB are free in {there}',
                          'make room: a store has up to 64')
        elif not found.f_favail and found.f_files:
            yield fault(f'no file can be made in {there}: it has no free '
                        f'inodes', 'make room')
        else:
            yield ok(f'{free // SCARCE} GiB in {there}')


def unowned(place: Surroundings) -> Iterator[Finding]:
    """Whether stores lie about that no guest has any more."""
    survey = place.survey
    if not survey.is_local:
        yield not_applicable(f'{survey.uri} is on another machine')
        return
    left = [store.path for store, kept in stores.orphans(
        place.folders, stores.domains(place.uri), DAY) if not kept]
    if left:
        yield warning(
            f'{len(left)} stores belong to no guest: {some(left)}',
            '"nova-arm-ext nvram orphans --yes" removes them')
    else:
        yield ok('none is older than a day')


def copies(place: Surroundings) -> Iterator[Finding]:
    """Whether the store for copies can be used, if one is asked for."""
    place.conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    name = place.conf.arm_nvram.store
    if not name:
        yield not_applicable(
            '[arm_nvram] store is not set: a guest that is unshelved, or '
            'evacuated without its files, gets new variables')
        return
    faults = driver_faults(place)
    if faults is None:
        yield not_applicable('unknown: Nova is not installed in this '
                             'environment')
        return
    for message in faults:
        yield fault(message, 'nova-compute does not start with it: install '
                             'the package that brings the driver, or name '
                             'another')
    if faults:
        return
    if name != 'directory':
        yield ok(f'the driver {name} is installed; what it stores on is its '
                 f'own')
        return
    yield from _directory(place.conf.arm_nvram.directory,
                          place.folders.instances)


def image_key(place: Surroundings) -> Iterator[Finding]:
    """Whether the secret for stores in images can be used, if one is named."""
    place.conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    path = place.conf.arm_nvram.image_key_file
    if not path:
        yield not_applicable('[arm_nvram] image_key_file is not set: no '
                             'snapshot carries variables')
        return
    faults = _faults(place, 'load_key')
    if faults is None:
        yield not_applicable('unknown: Nova is not installed in this '
                             'environment')
        return
    for message in faults:
        yield fault(message, 'nova-compute does not start with it: all '
                             'compute hosts need the same file, of '
                             'nova-compute\'s user')
    if not faults:
        yield ok(f'{path} has one')


def driver_faults(place: Surroundings) -> list[str] | None:
    """Make the driver of the store for copies, as nova-compute does.

    :returns: what keeps it from being made; None where Nova, which it needs,
        is not installed
    """
    return _faults(place, 'load_store')


def _faults(place: Surroundings, load: str) -> list[str] | None:
    """What a function of ``compute.nvram`` objects to; None without Nova."""
    if importlib.util.find_spec('nova') is None:
        return None
    # Nova's modules, which only compute may name, come with it
    from nova_arm_ext.compute import nvram as compute_nvram
    place.conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    try:
        getattr(compute_nvram, load)(place.conf)
    except errors.ConfigurationError as e:
        return list(e.faults)
    return []


def _directory(path: str, instances: str) -> Iterator[Finding]:
    """Whether copies can be kept in a folder.

    :param instances: a folder of nova-compute's user
    """
    mount = f'mount the storage that all compute hosts share at {path}'
    try:
        found = os.stat(path)
    except OSError as e:
        yield fault(f'{path} is not there: {e.strerror}', mount)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fault(f'{path} is no folder', f'remove it, and {mount}')
        return
    wrong = False
    if stores.is_local(path):
        wrong = True
        yield warning(f'{path} is on a file system of this host alone', mount)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        wrong = True
        yield fault(f'{path} is mounted read-only', 'mount it for writing')
    user = _owner(instances)
    if user is not None and found.st_uid != user:
        wrong = True
        yield fault(f'{path} belongs to user {found.st_uid}, and nova-compute '
                    f'is user {user}, as {instances} is', f'chown {user} '
                    f'{path}')
    if found.st_mode & 0o077:
        wrong = True
        yield fault(f'{path} is open to others than its owner '
                    f'({stat.filemode(found.st_mode)}): who writes in it '
                    f'decides which keys guests trust', f'chmod 700 {path}')
    if not wrong:
        yield ok(f'{path}, of user {found.st_uid}, '
                 f'{stat.filemode(found.st_mode)}')


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except FileNotFoundError:
        return None
