# SPDX-License-Identifier: Apache-2.0
"""The start of an emulated Arm host."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import typing
import uuid

from tests.guest import build
from tests.hosts.kvm import emulator
from tests.hosts.kvm import errors
from tests.hosts.kvm import host as hosts
from tests.hosts.kvm import image as images

_MIB = 1 << 20
#: Of a host, MiB.
MEMORY = 4096
#: For code that QEMU has translated, beside the memory of the host.
_TRANSLATED = 1024
#: Free room for its disk, bytes; an hour of guests writes a tenth of that.
_ROOM = 1024 * _MIB

#: So many seconds a host has to start: 40 were seen beside little other work,
#: 170 beside 30 processes that want the same two cores.
PATIENCE = 900.0
_MARK = re.compile(r'^=== arm-host: (.+) ===\s*$', re.MULTILINE)

# Reads the capabilities of all emulators, and compiles what the command
# nova-arm-ext imports.
_WARM = """\
set -e
virsh -q capabilities > /dev/null
python3 -c 'import cliff.app, cliff.commandmanager, libvirt, lxml.etree, \
oslo_config.cfg, oslo_log.log, oslo_upgradecheck.upgradecheck, stevedore'
"""
_POWER_OFF = """\
kill $(pidof libvirtd virtlogd)
sleep 1
sync
mount -o remount,ro /
sync
busybox poweroff -f
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a host is to be.

    :param name: its host name
    :param core: one of emulator.CORES
    :param memory: MiB
    :param port: of ssh on this machine; None for a free one
    :param keeps: whether it outlives the process that has started it
    """

    name: str = 'arm'
    core: str = 'cortex-a72'
    memory: int = MEMORY
    port: int | None = None
    keeps: bool = False


def start(wanted: Wanted, image: images.Image, folder: pathlib.Path,
          step: images.Step) -> hosts.Host:
    """Start a host, and wait until libvirt answers on it.

    :param folder: does not exist yet
    :raises HostError: when it does not come up; nothing of it is left then
    """
    found = emulator.find(step)
    _warm(wanted.core, image, found, step)
    return _boot(wanted, image, found, image.warm(wanted.core), folder, step)


def _warm(core: str, image: images.Image, found: emulator.Emulator,
          step: images.Step) -> None:
    """Let libvirt ask QEMU once, and keep a disk on which it has.

    What QEMU answers depends on the core.
    """
    disk = image.warm(core)
    if disk.exists():
        return
    with images.locked(disk.with_suffix('.lock'), step):
        if disk.exists():
            return
        folder = disk.with_suffix('.unfinished')
        if folder.exists():
            hosts.abandon(folder)
        host = _boot(Wanted(name='warm', core=core), image, found, image.disk,
                     folder, step)
        try:
            with step(f'questions of libvirt to QEMU on {core} '
                      f'(once, about two minutes)') as log:
                log.write(host.run('sh', '-c', _WARM, timeout=900))
                # The connection breaks.
                with contextlib.suppress(errors.HostError):
                    host.run('sh', '-c', _POWER_OFF, timeout=60)
                host.await_end(60)
            (folder / 'disk.qcow2').rename(disk)
        finally:
            host.stop()


def _boot(wanted: Wanted, image: images.Image, found: emulator.Emulator,
          below: pathlib.Path, folder: pathlib.Path,
          step: images.Step) -> hosts.Host:
    check_memory(wanted.memory + _TRANSLATED)
    port = free_port() if wanted.port is None else wanted.port
    check_port(port)
    images.check_room(images.cache(), _ROOM, 'the disk of an Arm host')
    folder.mkdir(parents=True)
    process = None
    try:
        kind = 'raw' if below == image.disk else 'qcow2'
        subprocess.run(
            ('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', kind,
             '-b', str(below), str(folder / 'disk.qcow2')), check=True)
        with (folder / 'qemu.log').open('wb') as log:
            process = subprocess.Popen(
                line(wanted, image, found, folder, port),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
                env=os.environ | dict(found.environment))
        (folder / 'host.json').write_text(json.dumps({
            'pid': process.pid, 'port': port, 'core': wanted.core,
            'image': str(image.place)}))
        host = hosts.Host(folder)
        with step(f'boot of an emulated Arm host, {wanted.core}') as out:
            _await_libvirt(host, process, out)
    except BaseException:
        if process is not None:
            process.kill()
            process.wait()
        hosts.abandon(folder)
        raise
    return host


def line(wanted: Wanted, image: images.Image, found: emulator.Emulator,
         folder: pathlib.Path, port: int) -> list[str]:
    """The command line of its QEMU."""
    # A host that nobody keeps ends with the process that has started it.
    tie = [] if wanted.keeps else ['setpriv', '--pdeathsig', 'KILL']
    ident = uuid.uuid5(uuid.NAMESPACE_DNS, f'{wanted.name}.arm-host')
    shared = {'tree': hosts.TREE, 'guests': build.cache_folder() / 'guest'}
    shared['guests'].mkdir(parents=True, exist_ok=True)
    return [
        *tie, *found.command,
        '-M', 'virt,virtualization=on,gic-version=3',
        '-cpu', emulator.CORES[wanted.core], '-smp', '2',
        '-m', str(wanted.memory),
        '-accel', f'tcg,thread=multi,tb-size={_TRANSLATED}',
        '-nodefaults', '-display', 'none', '-no-reboot',
        '-serial', f'file:{folder}/console.log',
        '-kernel', str(image.kernel), '-initrd', str(image.initrd),
        '-append', f'console=ttyAMA0 panic=-1 host={wanted.name} '
                   f'uuid={ident}',
        '-drive', f'file={folder}/disk.qcow2,if=none,id=root,cache=unsafe,'
                  f'discard=unmap',
        '-device', 'virtio-blk-pci,drive=root',
        '-netdev', f'user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22',
        '-device', 'virtio-net-pci,netdev=net,romfile=',
        '-device', 'virtio-rng-pci',
        *(word for name, path in shared.items() for word in (
            '-fsdev', f'local,id={name},path={path},security_model=none,'
                      f'readonly=on',
            '-device', f'virtio-9p-pci,fsdev={name},mount_tag={name}'))]


def _await_libvirt(host: hosts.Host, process: subprocess.Popen[bytes],
                   out: typing.IO[str]) -> None:
    end = time.monotonic() + PATIENCE
    told = ''
    while told != 'ready':
        if process.poll() is not None:
            said = (host.folder / 'qemu.log').read_text(errors='replace')
            reason = (said.strip() or host.console().strip()
                      or 'it said nothing').splitlines()[-1]
            raise errors.HostError(
                f'QEMU ended with {process.returncode} while the Arm host '
                f'booted: {reason}')
        if time.monotonic() > end:
            raise errors.HostError(
                f'the Arm host did not start within {PATIENCE:.0f} s; it '
                f'came as far as {told or "its kernel"}')
        time.sleep(0.1)
        marks = _MARK.findall(host.console())
        if marks and marks[-1] != told:
            told = marks[-1]
            print(told, file=out, flush=True)
    host.run('virsh', '-q', 'uri', timeout=PATIENCE)
    host.install()


def check_memory(needed: int) -> None:
    """
    :param needed: MiB
    :raises HostError: when less is free
    """
    told = pathlib.Path('/proc/meminfo').read_text()
    free = int(re.search(r'^MemAvailable: *(\d+) kB', told, re.M)[1]) // 1024
    if free < needed:
        raise errors.Unsuitable(
            f'an Arm host needs {needed} MiB of memory, and {free} MiB are '
            f'free')


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as trial:
        trial.bind(('127.0.0.1', 0))
        return trial.getsockname()[1]


def check_port(port: int) -> None:
    """
    :raises HostError: when this TCP port is taken
    """
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(('127.0.0.1', port))
        except OSError as e:
            raise errors.HostError(
                f'port {port} of 127.0.0.1 cannot be had for ssh to the Arm '
                f'host: {e.strerror}') from e
