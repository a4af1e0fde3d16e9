# SPDX-License-Identifier: Apache-2.0
"""A host: a process tree with its own namespaces and folders.

It ends with the process that started it, or when its power is cut.
"""

import collections.abc
import json
import os
import pathlib
import signal
import subprocess
import sys

TREE = pathlib.Path(__file__).parents[3]

_NAMESPACES = ('--mount', '--net', '--uts', '--ipc', '--pid')


class HostError(Exception):
    """A command on a host failed; the error has its output."""


def enter(pid: int, *namespaces: str) -> tuple[str, ...]:
    """The command prefix that runs a command on a host.

    :param pid: of the host's first process
    :param namespaces: options of nsenter, all if there are none
    """
    return ('nsenter', '-t', str(pid), *(namespaces or _NAMESPACES), '--')


class Daemon:
    """A program that keeps running on a host."""

    def __init__(self, process: subprocess.Popen[bytes],
                 log: pathlib.Path) -> None:
        self._process = process
        self.log = log

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_stopped(self) -> bool:
        """Whether it was sent SIGSTOP, which nsenter then sends itself."""
        return _state(self._process.pid) == 'T'

    def go_on(self) -> None:
        """Continue after SIGSTOP."""
        for pid in (*_children(self._process.pid), self._process.pid):
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once, as the kernel does when memory is short."""
        if not self.ended:
            _kill(_children(self._process.pid))
            # nsenter stops itself when its child is stopped
            self._process.send_signal(signal.SIGCONT)
        self._process.wait()


class Container:
    """One host."""

    def __init__(self, name: str, folder: pathlib.Path,
                 binds: dict[str, pathlib.Path],
                 shared: dict[str, pathlib.Path] | None = None) -> None:
        """
        :param folder: for its logs
        :param binds: what stands in the place of a file or a folder of the
            machine, for this host alone
        :param shared: the same on storage that other hosts have as well
        """
        self.name = name
        self.folder = folder
        self._binds = binds
        self._shared = shared or {}
        self._daemons: list[Daemon] = []

    def start(self) -> None:
        """Start it. Its only network is lo, which is down.

        It loses its power when the thread that called this ends.
        """
        self.folder.mkdir(exist_ok=True)
        mounts = [json.dumps({place: str(own) for place, own in one.items()})
                  for one in (self._binds, self._shared)]
        with (self.folder / 'first.log').open('ab') as log:
            self._unshare = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', 'unshare', *_NAMESPACES,
                 '--fork', '--mount-proc', '--kill-child', sys.executable,
                 '-m', 'tests.hosts.two.first', self.name, *mounts],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                cwd=TREE, env=_environment())
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != b'ready\n':
            raise HostError(f'{self.name} does not start')
        [self.pid] = _children(self._unshare.pid)

    def path(self, place: str) -> pathlib.Path:
        """The path of a running host's file or folder, for the machine."""
        return pathlib.Path(f'/proc/{self.pid}/root{place}')

    @property
    def has_power(self) -> bool:
        return self._unshare.poll() is None

    def power_off(self) -> None:
        """Cut its power: all processes end at once, the disk stays."""
        if self.has_power:
            _kill([self.pid])
        self._unshare.wait()
        assert self._unshare.stdout is not None
        self._unshare.stdout.close()
        for daemon in self._daemons:
            daemon.kill()
        self._daemons = []

    def run(self, *command: str | os.PathLike[str], timeout: float = 300,
            **environment: str) -> str:
        """Run a command there, and return its output."""
        words = f'{self.name}: {" ".join(map(str, command))}'
        with subprocess.Popen(
                [*enter(self.pid), *command], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=_environment() | environment) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as error:
                _kill(_children(process.pid))
                output, errors = process.communicate()
                raise HostError(
                    f'{words} took longer than {timeout:.0f} s: '
                    f'{output[-2000:]}{errors[-3000:]}') from error
        if process.returncode:
            raise HostError(f'{words} ended with {process.returncode}: '
                            f'{output[-2000:]}{errors[-3000:]}')
        return output

    def spawn(self, name: str, *command: str | os.PathLike[str],
              **environment: str) -> Daemon:
        """Start a command there in the background; its output is NAME.log."""
        path = self.folder / f'{name}.log'
        with path.open('ab') as log:
            daemon = Daemon(subprocess.Popen(
                [*enter(self.pid), *command], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=_environment() | environment),
                path)
        self._daemons.append(daemon)
        return daemon


def _environment() -> dict[str, str]:
    return os.environ | {
        'PATH': os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin',
        # nsenter starts in the root folder.
        'PYTHONPATH': str(TREE),
        'PYTHONDONTWRITEBYTECODE': '1',
        # The recommended mode of Nova 34, but not always its default.
        'OS_NOVA_DISABLE_EVENTLET_PATCHING': '1',
        'LC_ALL': 'C.UTF-8'}


def _children(pid: int) -> list[int]:
    path = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
    return [int(word) for word in path.read_text().split()]


def _state(pid: int) -> str:
    """``S``, ``R``, ``T``...: see proc(5)."""
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
    return stat.rpartition(')')[2].split()[0]


def _kill(pids: collections.abc.Iterable[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
