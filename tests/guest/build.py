# SPDX-License-Identifier: Apache-2.0
"""The recipe of the probe guest, carried out once and kept in the cache.

Debian's own Arm packages give kernel, busybox and the boot loader; apt fetches
them on a host of any architecture when it is given a state of its own. The
result is a disk that UEFI boots (loader, command line, kernel, initrd), and
kernel and initrd beside it for guests with a kernel of their own.
"""

import collections.abc
import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent

#: What the recipe calls, and the Debian package that has it.
TOOLS = {
    'apt-get': 'apt',
    'cpio': 'cpio',
    'depmod': 'kmod',
    'dpkg-deb': 'dpkg',
    'mcopy': 'mtools',
    'qemu-img': 'qemu-utils',
    'sgdisk': 'gdisk',
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ingredients:
    """What a guest of one architecture is made of.

    `kernel` is the meta package whose dependency is the kernel, `loader` the
    file of PACKAGES that becomes `program`, which UEFI looks for.
    """

    debian: str
    kernel: str
    loader: str
    program: str


#: The cloud kernel of arm64 would be smaller, but has no virtio-gpu. Without
#: LPAE a 32-bit kernel cannot reach the PCI configuration space, which QEMU
#: puts above 4 GiB where there is no firmware.
INGREDIENTS = {
    'aarch64': Ingredients(
        debian='arm64', kernel='linux-image-arm64',
        loader='systemd-bootaa64.efi', program='BOOTAA64.EFI'),
    'armv7l': Ingredients(
        debian='armhf', kernel='linux-image-armmp-lpae',
        loader='systemd-bootarm.efi', program='BOOTARM.EFI'),
}
PACKAGES = ('busybox-static', 'systemd-boot-efi')

#: The last console is /dev/console. The first shows the kernel's messages on
#: a graphical console, if there is one.
CMDLINE = 'console=tty0 console=ttyAMA0 loglevel=4'

#: Loaded by /init, each with what it depends on. sym53c8xx drives the SCSI
#: controller that libvirt before 11.6 chooses when none is named.
MODULES = (
    'virtio_pci', 'virtio_mmio', 'virtio_blk', 'virtio_scsi', 'virtio_net',
    'virtio_balloon', 'virtio_console', 'virtio_input', 'virtio-rng',
    'virtio-gpu', 'bochs', 'sd_mod', 'sr_mod', 'sym53c8xx', 'ahci',
    'usb-storage', 'uas', 'xhci-pci', 'usbhid', 'hid-generic', 'evdev',
    'gpio_keys', 'efivarfs', 'isofs', 'vfat', 'nls_ascii', 'nls_cp437',
    'nls_iso8859-1')

#: What the boot loader reads from the disk: it does not wait for anybody.
LOADER = {
    'loader.conf': 'timeout 0\n',
    'entries/probe.conf': ('linux /vmlinuz\ninitrd /initrd.gz\n'
                           f'options {CMDLINE}\n'),
}

MIB = 1 << 20


class MissingTools(Exception):
    """The host lacks programs that the recipe calls."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """Where the parts of the probe guest lie."""

    disk: pathlib.Path
    kernel: pathlib.Path
    initrd: pathlib.Path

    @classmethod
    def within(cls, folder: pathlib.Path) -> 'Guest':
        return cls(
            disk=folder / 'disk.qcow2',
            kernel=folder / 'vmlinuz',
            initrd=folder / 'initrd.gz')


def cache_folder() -> pathlib.Path:
    """The folder for what is expensive to make; outside the tree."""
    own = os.environ.get('NOVA_ARM_EXT_CACHE')
    if own:
        return pathlib.Path(own).absolute()
    base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    return pathlib.Path(base).absolute() / 'nova-arm-ext'


def recipe_hash() -> str:
    """A changed recipe is another guest."""
    digest = hashlib.sha256()
    for name in ('build.py', 'init'):
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:12]


def missing_tools() -> dict[str, str]:
    return {tool: package for tool, package in TOOLS.items()
            if shutil.which(tool, path=_search_path()) is None}


def cached(arch: str = 'aarch64') -> Guest | None:
    """The guest, if it has been built already."""
    folder = _folder(arch)
    return Guest.within(folder) if folder.is_dir() else None


def ensure(arch: str = 'aarch64') -> Guest:
    """The guest; built now unless this recipe's result is in the cache.

    :param arch: one of INGREDIENTS
    """
    folder = _folder(arch)
    if folder.is_dir():
        return Guest.within(folder)
    missing = missing_tools()
    if missing:
        raise MissingTools(
            f'the probe guest needs {", ".join(sorted(missing))} (Debian '
            f'packages {" ".join(sorted(set(missing.values())))})')
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / 'lock'):
        # Whoever held the lock before may have built the very same.
        if not folder.is_dir():
            _build(folder, arch)
    return Guest.within(folder)


def _folder(arch: str) -> pathlib.Path:
    return cache_folder() / 'guest' / f'{arch}-{recipe_hash()}'


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> collections.abc.Iterator[None]:
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say('waiting for another process that builds it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f'guest: {text}', file=sys.stderr, flush=True)


def _search_path() -> str:
    # sgdisk and depmod live in sbin, which an unprivileged PATH leaves out.
    return os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin'


def _run(*command: str | os.PathLike[str],
         cwd: pathlib.Path | None = None, data: bytes | None = None) -> str:
    result = subprocess.run(
        command, cwd=cwd, input=data, capture_output=True, check=False,
        env=os.environ | {'PATH': _search_path(), 'LC_ALL': 'C.UTF-8'})
    if result.returncode:
        words = ' '.join(os.fspath(word) for word in command)
        raise RuntimeError(
            f'{words} ended with {result.returncode}: '
            f'{result.stderr.decode(errors="replace")[-2000:]}')
    return result.stdout.decode(errors='replace')


def _build(folder: pathlib.Path, arch: str) -> None:
    with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix='building-') as name:
        work = pathlib.Path(name)
        root = work / 'root'
        root.mkdir()
        _fetch(work / 'apt', root, INGREDIENTS[arch])
        made = Guest.within(work / 'made')
        made.disk.parent.mkdir()
        made.disk.parent.chmod(0o755)
        _say('initrd')
        shutil.copyfile(next(root.glob('boot/vmlinuz-*')), made.kernel)
        _make_initrd(root, work / 'initrd', made.initrd)
        _say('disk')
        _make_disk(root, made, work / 'disk', INGREDIENTS[arch])
        made.disk.parent.rename(folder)
    _say(f'ready in {folder}')


def _fetch(state: pathlib.Path, root: pathlib.Path,
           wanted: Ingredients) -> None:
    """Unpack Debian's packages, from where this host gets its own."""
    for name in ('lists/partial', 'cache/archives/partial'):
        (state / name).mkdir(parents=True)
    # The status file is empty, so nothing counts as installed. The sandbox
    # user could not write into a folder below root's home.
    options = [
        f'-oAPT::Architecture={wanted.debian}',
        f'-oAPT::Architectures={wanted.debian}',
        '-oAPT::Sandbox::User=root',
        f'-oDir::State::Lists={state / "lists"}',
        f'-oDir::Cache={state / "cache"}',
        '-oDir::State::status=/dev/null',
    ]
    _say(f"lists of Debian's {wanted.debian} packages")
    try:
        _run('apt-get', *options, '-oAPT::Update::Error-Mode=any', 'update')
    except RuntimeError as error:
        # A mirror that is being updated has lists that do not fit together
        # for a while; the others will do, or else what is missing is named.
        _say(f'not all lists: {error}')
    kernel = next(
        words[1] for words in
        (line.split() for line in _run(
            'apt-cache', *options, 'depends', wanted.kernel).splitlines())
        if words[0] == 'Depends:' and words[1].startswith('linux-image-'))
    _say(f'{kernel}, {", ".join(PACKAGES)} (60 MB)')
    _run('apt-get', *options, 'download', kernel, *PACKAGES, cwd=state)
    for package in sorted(state.glob('*.deb')):
        _run('dpkg-deb', '-x', package, root)


def _make_initrd(root: pathlib.Path, tree: pathlib.Path,
                 initrd: pathlib.Path) -> None:
    for name in ('bin', 'dev', 'proc', 'sys'):
        (tree / name).mkdir(parents=True)
    shutil.copy(next(root.glob('**/bin/busybox')), tree / 'bin/busybox')
    shutil.copyfile(HERE / 'init', tree / 'init')
    (tree / 'init').chmod(0o755)

    source = next(root.glob('**/lib/modules/*'))
    target = tree / 'lib/modules' / source.name
    target.mkdir(parents=True)
    base = source.parents[2]
    _run('depmod', '-b', base, source.name)
    needs = {}
    for line in (source / 'modules.dep').read_text().splitlines():
        module, _, dependencies = line.partition(':')
        needs[_module_name(module)] = (module, dependencies.split())
    chosen = set()
    # What one architecture has as a module another has in its kernel.
    built_in = {_module_name(line) for line in
                (source / 'modules.builtin').read_text().splitlines()}
    for name in MODULES:
        if _module_name(name) in built_in:
            continue
        module, dependencies = needs[_module_name(name)]
        chosen.update((module, *dependencies))
    for module in sorted(chosen):
        place = target / module
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / module, place)
    for name in ('modules.order', 'modules.builtin'):
        shutil.copyfile(source / name, target / name)
    _run('depmod', '-b', tree, source.name)
    (tree / 'modules').write_text(' '.join(MODULES) + '\n')

    names = sorted(str(path.relative_to(tree)) for path in tree.rglob('*'))
    archive = subprocess.run(
        ['cpio', '--quiet', '-o', '-H', 'newc', '-R', '0:0'], cwd=tree,
        input='\n'.join(names).encode(), capture_output=True, check=True)
    initrd.write_bytes(gzip.compress(archive.stdout, 6, mtime=0))


def _module_name(path: str) -> str:
    return path.rpartition('/')[2].partition('.')[0].replace('-', '_')


def _make_disk(root: pathlib.Path, guest: Guest, work: pathlib.Path,
               wanted: Ingredients) -> None:
    """A GPT disk with one EFI system partition; no mount is needed."""
    files = work / 'files'
    (files / 'EFI/BOOT').mkdir(parents=True)
    (files / 'loader/entries').mkdir(parents=True)
    shutil.copyfile(root / 'usr/lib/systemd/boot/efi' / wanted.loader,
                    files / 'EFI/BOOT' / wanted.program)
    for name, text in LOADER.items():
        (files / 'loader' / name).write_text(text)
    shutil.copyfile(guest.kernel, files / guest.kernel.name)
    shutil.copyfile(guest.initrd, files / guest.initrd.name)

    size = sum(path.stat().st_size for path in files.rglob('*')) // MIB + 8
    raw = work / 'disk.raw'
    with raw.open('wb') as file:
        file.truncate((size + 2) * MIB)
    _run('sgdisk', '-n', f'1:2048:+{size}M', '-t', '1:ef00', raw)
    partition = f'{raw}@@{MIB}'
    # 63 sectors a track, 255 heads are invented but must be given: mformat
    # cannot ask a file.
    _run('mformat', '-i', partition, '-T', str(size * MIB // 512),
         '-h', '255', '-s', '63', '::')
    _run('mcopy', '-s', '-i', partition, *sorted(files.iterdir()), '::')
    _run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, guest.disk)
    guest.disk.chmod(0o644)
