# SPDX-License-Identifier: Apache-2.0
"""An Arm host that runs: commands on it, and its end."""

import configparser
import contextlib
import json
import os
import pathlib
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time

from tests.guest import build
from tests.hosts.kvm import errors
from tests.hosts.kvm import image as images

TREE = pathlib.Path(__file__).resolve().parents[3]

#: An emulated host is slow, and libvirt 9.0 asks qemu-system-arm, which has no
#: KVM, again whenever somebody wants the capabilities (virQEMUCapsIsValid).
_FACTS = ('-m', 'nova_arm_ext.cmd.main', 'facts', '--timeout', '500')
#: Where an emulated host has what pip would have installed beside the tree.
_INSTALLED = '/var/lib/arm-host'

#: The exit status of ssh without a connection.
_NO_SSH = 255

#: QEMU has so many seconds to end before it is killed.
_PATIENCE = 10.0


class Shell:
    """A host on which commands can be run as root."""

    #: Where this tree and the probe guests are on it.
    tree = '/tree'
    guests = '/guests'

    def command(self, *command: str) -> list[str]:
        """What runs a command on the host, as a command on this machine."""
        raise NotImplementedError

    def run(self, *command: str, data: bytes | None = None,
            timeout: float = 900.0) -> str:
        """Run a command as root.

        :param data: its standard input
        :param timeout: seconds
        :returns: its standard output
        :raises CommandFailed: when it ends with another status than 0
        :raises HostError: when it does not end, or the host does not answer
        """
        words = shlex.join(command).partition('\n')[0]
        try:
            done = subprocess.run(
                self.command(*command), input=data or b'',
                capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as e:
            raise errors.HostError(
                f'{words} did not end within {timeout:.0f} s') from e
        if done.returncode == _NO_SSH:
            raise errors.HostError(
                f'the host does not answer: '
                f'{done.stderr.decode(errors="replace").strip()}')
        if done.returncode:
            raise errors.CommandFailed(
                f'{words} ended with {done.returncode}: '
                f'{done.stderr.decode(errors="replace").strip()[-2000:]}')
        return done.stdout.decode(errors='replace')

    def facts(self) -> str:
        """What ``nova-arm-ext facts`` of this tree prints there.

        :raises CommandFailed: when it fails
        """
        raise NotImplementedError

    def write(self, path: str, data: bytes) -> None:
        """Write a file, and the folders above it."""
        self.run('sh', '-c', 'mkdir -p "${0%/*}" && cat > "$0"', path,
                 data=data)

    def stop(self) -> None:
        """End it, if it was started."""
        raise NotImplementedError

    def console(self) -> str:
        """What its kernel and its first program have printed."""
        raise NotImplementedError


class Here(Shell):
    """This machine, where it is an Arm host with KVM itself."""

    def __init__(self) -> None:
        self.tree = str(TREE)
        self.guests = str(build.cache_folder() / 'guest')

    def command(self, *command: str) -> list[str]:
        return list(command)

    def facts(self) -> str:
        return self.run(sys.executable, '-W', 'ignore', *_FACTS)

    def stop(self) -> None:
        """It stays."""

    def console(self) -> str:
        return ''


class Host(Shell):
    """An emulated host that runs, known by its folder.

    :param folder: has its disk, its logs, and what is known of it
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        known = json.loads((folder / 'host.json').read_text())
        self.pid: int = known['pid']
        self.port: int = known['port']
        self.core: str = known['core']
        self.image = images.Image(place=pathlib.Path(known['image']))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def runs(self) -> bool:
        """Whether its QEMU runs, and not another process of that number."""
        try:
            line = pathlib.Path(f'/proc/{self.pid}/cmdline').read_bytes()
        except OSError:
            return False
        return os.fsencode(self.folder / 'disk.qcow2') in line

    def console(self) -> str:
        path = self.folder / 'console.log'
        return path.read_text(errors='replace') if path.exists() else ''

    def command(self, *command: str) -> list[str]:
        return [
            'ssh', '-p', str(self.port), '-i', str(self.image.key),
            '-o', 'LogLevel=ERROR', '-o', 'IdentitiesOnly=yes',
            '-o', 'StrictHostKeyChecking=no',
            '-o', 'UserKnownHostsFile=/dev/null', '-o', 'BatchMode=yes',
            '-o', 'ConnectTimeout=180', '-o', 'ControlMaster=auto',
            '-o', f'ControlPath={self.folder}/ssh', '-o', 'ControlPersist=yes',
            'root@127.0.0.1', shlex.join(command)]

    def install(self) -> None:
        """Let the host find the entry points of this tree's package."""
        read = configparser.RawConfigParser()
        read.read(TREE / 'setup.cfg')
        self.write(f'{_INSTALLED}/nova_arm_ext-0.dist-info/METADATA',
                   b'Metadata-Version: 2.1\nName: nova-arm-ext\nVersion: 0\n')
        self.write(
            f'{_INSTALLED}/nova_arm_ext-0.dist-info/entry_points.txt',
            ''.join(f'[{group}]{lines}\n' for group, lines
                    in read['options.entry_points'].items()).encode())

    def facts(self) -> str:
        return self.run('env', f'PYTHONPATH={self.tree}:{_INSTALLED}',
                        'python3', *_FACTS, timeout=600)

    def await_end(self, seconds: float) -> bool:
        """Whether its QEMU ends within so many seconds."""
        end = time.monotonic() + seconds
        while self.runs and time.monotonic() < end:
            time.sleep(0.05)
        return not self.runs

    def stop(self) -> None:
        """End it as if it lost power, and remove what it had."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.runs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)
                if self.await_end(_PATIENCE):
                    # Reap it where this process has started it.
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(self.pid, 0)
        shutil.rmtree(self.folder)


def abandon(folder: pathlib.Path) -> None:
    """End what a folder is of, and remove it, however much there is of it."""
    if (folder / 'host.json').exists():
        Host(folder).stop()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def has_own_kvm() -> bool:
    """Whether this machine is an Arm host with KVM itself."""
    return platform.machine() == 'aarch64' and os.path.exists('/dev/kvm')


def running() -> pathlib.Path:
    """Where the hosts are that outlive the command that started them."""
    return images.cache() / 'running'


def known() -> list[Host]:
    """All hosts that were started to be kept, also those that have died."""
    return [Host(place.parent)
            for place in sorted(running().glob('*/host.json'))]
