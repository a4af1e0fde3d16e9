# SPDX-License-Identifier: Apache-2.0
"""Emulated Arm hosts in which KVM works, on any machine.

    tools/arm-host make                   build the image, once
    tools/arm-host up                     start a host (about a minute)
    tools/arm-host run virsh version      run a command on it, as root
    tools/arm-host run                    a shell
    tools/arm-host down                   end it; nothing of it is left
    tools/arm-host list                   the hosts that run, and the images
    tools/arm-host record                 write what a host tells of itself
                                          into tests/data/arm-hosts

QEMU emulates the whole machine with its hypervisor mode (EL2). The guests on
it are KVM's. It sees this tree read-only as /tree, and the probe guests as
/guests. Images lie in the cache directory (NOVA_ARM_EXT_CACHE, else
nova-arm-ext in XDG_CACHE_HOME or ~/.cache); making one needs root.
"""

import argparse
import contextlib
import datetime
import os
import signal
import sys
import time
import typing
from collections.abc import Iterator
from collections.abc import Sequence

from tests.hosts.kvm import emulator
from tests.hosts.kvm import errors
from tests.hosts.kvm import host as hosts
from tests.hosts.kvm import image as images
from tests.hosts.kvm import record
from tests.hosts.kvm import root
from tests.hosts.kvm import start
from tools import progress

#: The exit status after Ctrl-C, as shells have it.
_INTERRUPTED = 128 + signal.SIGINT


def _steps(screen: progress.Screen) -> images.Step:
    """Steps that the user sees; their output goes to a log in the cache."""
    log = images.cache() / 'log'
    log.parent.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def step(name: str) -> Iterator[typing.IO[str]]:
        log.write_text('')
        with screen.step(name, log, quiet=True), log.open('a') as out:
            yield out

    return step


@contextlib.contextmanager
def silent(name: str) -> Iterator[typing.IO[str]]:
    """A step of a test, which nobody watches."""
    with open(os.devnull, 'w') as out:
        yield out


def _make(suite: str) -> None:
    with progress.Screen(sys.stderr) as screen:
        image = images.ensure(suite, _steps(screen))
    print(image.place)


def _up(wanted: start.Wanted, suite: str) -> None:
    if hosts.has_own_kvm():
        raise errors.HostError(
            'this machine is an Arm host with KVM: no other one is needed, '
            'and the tests use this one')
    folder = hosts.running() / wanted.name
    if folder.exists():
        old = _named(wanted.name) if (folder / 'host.json').exists() else None
        if old and old.runs:
            raise errors.HostError(
                f'the host {wanted.name} runs already: tools/arm-host down '
                f'--name {wanted.name} ends it')
        hosts.abandon(folder)
    began = time.monotonic()
    with progress.Screen(sys.stderr) as screen:
        image = images.ensure(suite, _steps(screen))
        host = start.start(wanted, image, folder, _steps(screen))
    print(f'{host.name}: emulated {host.core}, Debian {suite}, libvirt '
          f'{image.version("libvirt-daemon-system")}, QEMU '
          f'{image.version("qemu-system-arm")}; up after '
          f'{progress.spent(time.monotonic() - began)}')


def _named(name: str) -> hosts.Host:
    folder = hosts.running() / name
    if not (folder / 'host.json').exists():
        raise errors.HostError(f'the host {name} is not up')
    return hosts.Host(folder)


def _run(name: str, command: Sequence[str]) -> None:
    host = _named(name)
    if not host.runs:
        raise errors.HostError(f'the host {name} has ended: tools/arm-host '
                               f'down --name {name} removes what it left')
    line = host.command(*command)
    if not command:
        line.pop()
    if sys.stdin.isatty():
        line.insert(1, '-t')
    os.execvp(line[0], line)


def _down(name: str) -> None:
    _named(name).stop()


def _record(name: str) -> None:
    host = _named(name)
    with progress.Screen(sys.stderr) as screen:
        folder = record.record(host, _steps(screen),
                               today=datetime.date.today())
    print(folder)


def _list() -> None:
    for host in hosts.known():
        state = f'pid {host.pid}' if host.runs else 'has ended'
        print(f'{host.name}  {host.core}  {host.image.suite}  {state}')
    for suite in root.SUITES:
        image = images.cached(suite)
        print(f'{suite}  {image.place if image else "not made"}')


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    try:
        match asked.verb:
            case 'make':
                _make(asked.suite)
            case 'up':
                _up(start.Wanted(name=asked.name, core=asked.core,
                                 memory=asked.memory, port=asked.port,
                                 keeps=True), asked.suite)
            case 'run':
                _run(asked.name, asked.command)
            case 'down':
                _down(asked.name)
            case 'record':
                _record(asked.name)
            case 'list':
                _list()
    except errors.HostError as e:
        print(f'arm-host: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('arm-host: interrupted', file=sys.stderr)
        return _INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    top = argparse.ArgumentParser(
        prog='tools/arm-host', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest='verb', required=True, metavar='VERB')
    verbs.add_parser('list', help='the hosts that run, and the images')
    making = verbs.add_parser('make', help='build the image of a suite')
    making.add_argument('suite', nargs='?', default='bookworm',
                        choices=root.SUITES, help=', '.join(root.SUITES))
    upping = verbs.add_parser('up', help='start a host')
    upping.add_argument('--suite', default='bookworm', choices=root.SUITES,
                        help='of Debian (default: bookworm)')
    upping.add_argument('--core', default='cortex-a72',
                        choices=emulator.CORES,
                        help='that it has (default: cortex-a72)')
    upping.add_argument('--memory', type=int, default=start.MEMORY,
                        metavar='MIB', help='default: %(default)s')
    upping.add_argument('--port', type=int,
                        help='of ssh on 127.0.0.1 (default: a free one)')
    running = verbs.add_parser('run', help='run a command on a host')
    downing = verbs.add_parser('down', help='end a host')
    recording = verbs.add_parser(
        'record', help='write what a host tells of itself')
    for verb in (upping, running, downing, recording):
        verb.add_argument('--name', default='arm', type=_name,
                          help='of the host, if there are several '
                               '(default: arm)')
    running.add_argument('command', nargs=argparse.REMAINDER)
    return top


def _name(text: str) -> str:
    if not text.replace('-', '').isalnum():
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a host name: letters, digits and hyphens')
    return text
