# SPDX-License-Identifier: Apache-2.0
"""The disk, the kernel and the initrd of an Arm host, made once and cached.

An image is made beside its place and renamed, so that an interruption leaves
nothing that looks complete; the next run makes it again.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import typing
from collections.abc import Callable
from collections.abc import Iterator

from tests.guest import build
from tests.hosts.kvm import errors
from tests.hosts.kvm import initrd
from tests.hosts.kvm import root as roots

#: What making an image calls, and the Debian package that has it.
TOOLS = {
    'cpio': 'cpio',
    'depmod': 'kmod',
    'mkfs.ext4': 'e2fsprogs',
    'mmdebstrap': 'mmdebstrap',
    'ssh-keygen': 'openssh-client',
}

_GIB = 1 << 30
#: Free room for making an image: packages, root folder, disk.
ROOM = 5 * _GIB

#: Runs a step, which writes to the log, and tells the user.
Step = Callable[[str], contextlib.AbstractContextManager[typing.IO[str]]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """Where the parts of an Arm host are."""

    place: pathlib.Path

    @property
    def disk(self) -> pathlib.Path:
        return self.place / 'disk.img'

    @property
    def kernel(self) -> pathlib.Path:
        return self.place / 'vmlinuz'

    @property
    def initrd(self) -> pathlib.Path:
        return self.place / 'initrd.gz'

    @property
    def key(self) -> pathlib.Path:
        """The private key with which root logs in."""
        return self.place / 'key'

    @property
    def suite(self) -> str:
        return self.place.name.partition('-')[0]

    def version(self, package: str) -> str:
        """The version of a Debian package in the image."""
        return json.loads(
            (self.place / 'packages.json').read_text())[package]

    def warm(self, core: str) -> pathlib.Path:
        """The disk of hosts with this core, which knows its QEMU already."""
        return self.place / f'{core}.qcow2'


def cache() -> pathlib.Path:
    return build.cache_folder() / 'arm-hosts'


def place(suite: str) -> pathlib.Path:
    """The place of a suite's image, which names everything that is in it."""
    parts = [pathlib.Path(module.__file__) for module in (roots, initrd)]
    parts += sorted(roots.FILES.iterdir())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes())
    return cache() / f'{suite}-{digest.hexdigest()[:12]}'


def cached(suite: str) -> Image | None:
    """The image of a suite, if it has been made already."""
    found = Image(place=place(suite))
    return found if found.place.is_dir() else None


def ensure(suite: str, step: Step) -> Image:
    """The image of a suite, which is made unless it is cached.

    :param suite: one of root.SUITES
    :param step: see Step
    :raises HostError: when it cannot be made
    """
    if found := cached(suite):
        return found
    check_tools()
    cache().mkdir(parents=True, exist_ok=True)
    with locked(cache() / f'.{suite}.lock', step):
        if found := cached(suite):
            return found
        check_room(cache(), ROOM, 'an Arm host')
        target = place(suite)
        unfinished = target.with_name(f'.{target.name}.unfinished')
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        _make(suite, unfinished, step)
        unfinished.rename(target)
    return Image(place=target)


def check_tools() -> None:
    """
    :raises Unsuitable: when this machine cannot make an image
    """
    if os.geteuid():
        raise errors.Unsuitable(
            'the image of an Arm host is not made yet, which needs root: '
            'tools/arm-host make')
    missing = {package for tool, package in TOOLS.items()
               if shutil.which(tool, path=roots.search_path()) is None}
    if missing:
        raise errors.Unsuitable(
            f'the image of an Arm host needs the Debian packages '
            f'{" ".join(sorted(missing))}: tools/packages kvm')


def check_room(folder: pathlib.Path, needed: int, what: str) -> None:
    """
    :param needed: bytes
    :raises Unsuitable: when there is less free room than needed
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise errors.Unsuitable(
            f'{what} needs {needed / _GIB:.1f} GiB in {folder}, where '
            f'{free / _GIB:.1f} GiB are free')


@contextlib.contextmanager
def locked(path: pathlib.Path, step: Step) -> Iterator[None]:
    """Wait until no other process holds this lock."""
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step('waiting for another process that makes it'):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mirror() -> str:
    """The mirror of Debian from which this machine gets its packages.

    :raises Unsuitable: when apt names none
    """
    told = subprocess.run(
        ('apt-get', 'indextargets', '--format',
         '$(ORIGIN)|$(LABEL)|$(REPO_URI)', 'Created-By: Packages'),
        check=False, capture_output=True, text=True).stdout
    for line in told.splitlines():
        origin, label, address = line.split('|', 2)
        if (origin, label) == ('Debian', 'Debian'):
            return address
    raise errors.Unsuitable('apt names no mirror of Debian: run apt-get '
                            'update on a Debian machine')


def _make(suite: str, folder: pathlib.Path, step: Step) -> None:
    made = Image(place=folder)
    root = folder / 'root'
    log = cache() / f'{suite}.log'
    try:
        with step(f'packages of {suite} for arm64 (about 4 minutes)') as out:
            roots.unpack(suite, mirror(), root, out)
        with step('accounts, keys and settings') as out:
            key = roots.set_up(root, out)
        with step('initrd'):
            made.initrd.write_bytes(initrd.make(root))
            shutil.copyfile(next(root.glob('boot/vmlinuz-*')), made.kernel)
        with step('disk') as out:
            roots.make_disk(root, made.disk, out)
    except subprocess.CalledProcessError as e:
        raise errors.HostError(
            f'{e.cmd[0]} ended with {e.returncode}; {log} says why') from e
    made.key.touch(mode=0o600)
    made.key.write_text(key)
    (folder / 'packages.json').write_text(
        json.dumps(roots.versions(root), indent=1))
    with step('removing the root folder'):
        shutil.rmtree(root)
