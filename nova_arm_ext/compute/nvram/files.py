# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the files of variable stores.

Others may write in the folders of guests, so a name is never followed where
it leads: each part of a path is opened by itself, beneath a folder that is
trusted, and a link, soft or hard, is an error. A file is replaced whole or not
at all, and only under a lock, whatever ends this process and when.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator

from nova_arm_ext import errors
from nova_arm_ext import varstore

#: More than a qcow2 image of a whole flash needs.
MAX_SIZE = varstore.MAX_SIZE + varstore.MIB

#: How long a running guest's store has to stay the same, and how often it may
#: not. While firmware rewrites a block it changes all the time, which took 0.3
#: seconds at most where the processor is emulated.
SETTLE_SECONDS = 0.5
SETTLE_TRIES = 20

#: What the name of a store that is put aside goes on with; then the time.
ASIDE = '.damaged-'

#: What the name of a store goes on with that "nova-arm-ext nvram" kept before
#: it replaced it.
BEFORE = '.before-'

#: Where SELinux keeps the label of a file.
LABEL = 'security.selinux'

_BLOCK = 4096
# struct flock: type, whence, start, length, process
_FLOCK = 'hhqqi4x'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Who may use a file: owner, group, permissions and SELinux label."""

    uid: int
    gid: int
    mode: int
    label: bytes | None = None


def own() -> Access:
    """Access for the user of this process alone."""
    return Access(uid=os.geteuid(), gid=os.getegid(), mode=0o600)


def exists(folder: str, name: str) -> bool:
    """Whether anything has a store's name, be it a store or not.

    :raises Damaged: when a folder on the way is a link
    """
    try:
        with _parent(folder, name) as (parent, base):
            os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def read(folder: str, name: str, limit: int = MAX_SIZE) -> bytes:
    """The content of a store.

    :param folder: a trusted folder, such as ``[DEFAULT] instances_path``
    :param name: the file's path from there
    :param limit: bytes that it may have
    :raises FileNotFoundError: when it, or a folder on the way, is not there
    :raises Damaged: when it is no plain file, or has more
    """
    with _parent(folder, name) as (parent, base), \
            _opened(parent, base, os.path.join(folder, name)) as file:
        _, size = _plain(file, os.path.join(folder, name), limit)
        with open(file, 'rb', closefd=False) as content:
            data = content.read(size + 1)
    if len(data) != size:
        raise errors.Damaged(f'{os.path.join(folder, name)} has changed while '
                             f'it was read')
    return data


def read_sound(folder: str, name: str, size: int | None = None) -> bytes:
    """The content of a store that firmware will find its variables in.

    To write one variable, firmware may erase and rewrite a block of flash with
    all of them (edk2 2022.11, NorFlashDxe): seen from outside, there are none
    for a moment, and then fewer than before. So of a running guest's store
    that is taken which stays the same for a while.

    :param folder: as in `read`
    :param name: as in `read`
    :param size: bytes of flash, as in `varstore.check`
    :raises FileNotFoundError: when it, or a folder on the way, is not there
    :raises Damaged: when it is no plain file, or not sound
    :raises Busy: when the guest writes it all the time
    """
    data = read(folder, name)
    for _ in range(SETTLE_TRIES):
        if not _may_be_in_use(folder, name):
            varstore.check(data, size)
            return data
        time.sleep(SETTLE_SECONDS)
        before, data = data, read(folder, name)
        # a guest that stands still may be within a write
        if data == before and _is_sound(data, size):
            return data
    varstore.check(data, size)
    raise errors.Busy(f'{os.path.join(folder, name)} is written by its guest '
                      f'all the time; try again')


def _may_be_in_use(folder: str, name: str) -> bool:
    try:
        return in_use(folder, name)
    except OSError as e:
        if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP,
                           errno.EINVAL):
            raise
        return True     # a file system without locks tells of none


def _is_sound(data: bytes, size: int | None) -> bool:
    try:
        varstore.check(data, size)
    except errors.Damaged:
        return False
    return True


def state(folder: str, name: str) -> tuple[int, int, int]:
    """What changes when a store is written.

    :returns: its size in bytes, the time of its last change in nanoseconds,
        and the number of its blocks
    :raises FileNotFoundError: when it, or a folder on the way, is not there
    :raises Damaged: when a folder on the way is a link
    """
    with _parent(folder, name) as (parent, base):
        found = os.stat(base, dir_fd=parent, follow_symlinks=False)
    return found.st_size, found.st_mtime_ns, found.st_blocks


def access_to(folder: str, name: str) -> Access:
    """Who may use a store.

    :raises FileNotFoundError: when it, or a folder on the way, is not there
    :raises Damaged: when it is no plain file
    """
    with _parent(folder, name) as (parent, base), \
            _opened(parent, base, os.path.join(folder, name)) as file:
        return _plain(file, os.path.join(folder, name), None)[0]


def in_use(folder: str, name: str) -> bool:
    """Whether a QEMU has a store open.

    QEMU locks bytes of its images from 100 on (block/file-posix.c,
    RAW_LOCK_PERM_BASE); the kernel tells it to anybody, in other containers
    as well.

    :raises FileNotFoundError: when it, or a folder on the way, is not there
    :raises Damaged: when it is no plain file
    """
    lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 100, 200, 0)
    with _parent(folder, name) as (parent, base), \
            _opened(parent, base, os.path.join(folder, name)) as file:
        _plain(file, os.path.join(folder, name), None)
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, lock)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def write_atomic(folder: str, name: str, data: bytes,
                 access: Access | None = None) -> None:
    """Write a store, in the place of the old one if there is one.

    At any moment the old file or the new one is there, whole. Blocks of zeros
    take no space. The folder that it is to be in must exist.

    :param access: who may use it; None for those who may use the old one, or
        for this process alone
    :raises Busy: when another process writes it
    :raises Damaged: when there is something else than a plain file in its
        place
    :raises OSError: when it cannot be written; the old one stays, and nothing
        else
    """
    path = os.path.join(folder, name)
    with _parent(folder, name) as (parent, base):
        with _temporary(parent, base, path) as (temporary, file):
            with contextlib.suppress(FileNotFoundError):
                if access is None:
                    with _opened(parent, base, path) as old:
                        access, _ = _plain(old, path, None)
                else:
                    # it may be root's, and closed to this user
                    _check_kind(os.stat(base, dir_fd=parent,
                                        follow_symlinks=False), path)
            _write(file, data)
            if access is not None:
                os.fchown(file, access.uid, access.gid)
                os.fchmod(file, access.mode)
                if access.label is not None:
                    os.setxattr(file, LABEL, access.label)
            os.fsync(file)
            os.rename(temporary, base, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)


def put_aside(folder: str, name: str) -> str:
    """Give a damaged store another name in the same folder.

    Whatever has the name is renamed, a link as well, and nothing is replaced.

    :returns: its new path, from the folder
    :raises FileNotFoundError: when there is nothing to put aside
    """
    stamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
    with _parent(folder, name) as (parent, base):
        os.stat(base, dir_fd=parent, follow_symlinks=False)
        number = 0
        while True:
            aside = ASIDE + stamp + (f'-{number}' if number else '')
            try:
                # an empty file keeps the name free: renaming replaces
                os.close(os.open(
                    base + aside, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                    0o600, dir_fd=parent))
                break
            except FileExistsError:
                number += 1
        try:
            os.rename(base, base + aside, src_dir_fd=parent,
                      dst_dir_fd=parent)
        except BaseException:
            os.unlink(base + aside, dir_fd=parent)
            raise
        os.fsync(parent)
    return name + aside


def remove(folder: str, name: str) -> bool:
    """Remove a store, and what a process left that was killed writing it.

    :returns: whether there was one
    """
    removed = False
    try:
        with _parent(folder, name) as (parent, base):
            changed = False
            for one in (temporary_name(base), base):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(one, dir_fd=parent)
                    changed, removed = True, one == base
            if changed:
                os.fsync(parent)
    except FileNotFoundError:
        return False     # no such folder
    return removed


def remove_all(folder: str, name: str) -> bool:
    """Remove a store, and what had its name and was put aside or kept.

    :returns: whether there was anything
    """
    removed = remove(folder, name)
    try:
        with _parent(folder, name) as (parent, base):
            for one in os.listdir(parent):
                if one.startswith((base + ASIDE, base + BEFORE)):
                    os.unlink(one, dir_fd=parent)
                    removed = True
    except FileNotFoundError:
        return removed      # no such folder
    return removed


def temporary_name(base: str) -> str:
    """What a file is called while it is written; there is one name alone, so
    that what a killed process leaves is found by the next."""
    return f'.{base}.new'


@contextlib.contextmanager
def _parent(folder: str, name: str) -> Iterator[tuple[int, str]]:
    """The folder that a file is in, open, and the file's name there."""
    *folders, base = name.split('/')
    if any(part in ('', '.', '..') for part in (*folders, base)):
        raise ValueError(f'{name!r} is not a path from a folder downwards')
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    parent = os.open(folder, flags)
    try:
        for part in folders:
            try:
                inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as e:
                if e.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                raise errors.Damaged(
                    f'{part!r} in the path {os.path.join(folder, name)} is '
                    f'not a folder, or a link') from e
            os.close(parent)
            parent = inner
        yield parent, base
    finally:
        os.close(parent)


@contextlib.contextmanager
def _opened(parent: int, base: str, path: str,
            flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file, open; not through a link, and without waiting for a pipe."""
    try:
        file = os.open(base, flags | os.O_NOFOLLOW | os.O_NONBLOCK
                       | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=parent)
    except OSError as e:
        # a soft link; a socket; a folder, which cannot be written
        if e.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
        raise errors.Damaged(f'{path} is a link or no plain file') from e
    try:
        yield file
    finally:
        os.close(file)


def _plain(file: int, path: str, limit: int | None) -> tuple[Access, int]:
    """Who may use a file, and its size.

    :raises Damaged: when it is something else than a plain file of its own
    """
    found = os.fstat(file)
    _check_kind(found, path)
    if limit is not None and found.st_size > limit:
        raise errors.Damaged(f'{path} has {found.st_size} bytes, more than '
                             f'the {limit} that are read')
    try:
        label = os.getxattr(file, LABEL)
    except OSError as e:
        if e.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        label = None
    return Access(uid=found.st_uid, gid=found.st_gid,
                  mode=stat.S_IMODE(found.st_mode), label=label), found.st_size


def _check_kind(found: os.stat_result, path: str) -> None:
    """Check that a file is a plain one of its own.

    :raises Damaged: when it is not
    """
    if not stat.S_ISREG(found.st_mode):
        raise errors.Damaged(f'{path} is a link or no plain file')
    if found.st_nlink > 1:
        raise errors.Damaged(f'{path} has {found.st_nlink} names (hard '
                             f'links), and must have one')


@contextlib.contextmanager
def _temporary(parent: int, base: str, path: str
               ) -> Iterator[tuple[str, int]]:
    """A new file, locked, which is gone afterwards unless it was renamed."""
    name = temporary_name(base)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        file = os.open(name, flags, 0o600, dir_fd=parent)
    except FileExistsError:
        _remove_left(parent, name, path)
        try:
            file = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError as e:
            raise _busy(path) from e
    try:
        _lock(parent, name, file, path)
        try:
            yield name, file
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            raise
    finally:
        os.close(file)


def _remove_left(parent: int, name: str, path: str) -> None:
    """Remove the temporary file that a killed process left."""
    with contextlib.suppress(FileNotFoundError), \
            _opened(parent, name, path, os.O_RDWR) as left:
        _lock(parent, name, left, path)
        os.unlink(name, dir_fd=parent)


def _lock(parent: int, name: str, file: int, path: str) -> None:
    """Lock a temporary file that has its name still.

    :raises Busy: when another process has the lock, or had it until it gave
        the file its final name
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        named = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError) as e:
        raise _busy(path) from e
    if not os.path.samestat(named, os.fstat(file)):
        raise _busy(path)


def _busy(path: str) -> errors.Busy:
    return errors.Busy(f'{path} is being written by another process')


def _write(file: int, data: bytes) -> None:
    """Write all but blocks of zeros, which become holes."""
    zeros = bytes(_BLOCK)
    for offset in range(0, len(data), _BLOCK):
        block = data[offset:offset + _BLOCK]
        if block == zeros[:len(block)]:
            continue
        while block:
            written = os.pwrite(file, block, offset)
            block, offset = block[written:], offset + written
    os.ftruncate(file, len(data))
