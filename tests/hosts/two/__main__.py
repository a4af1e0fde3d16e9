# SPDX-License-Identifier: Apache-2.0
"""Two compute hosts for experiments.

    python -m tests.hosts.two up [--shared] [--stock]
    python -m tests.hosts.two shell [ctl | host1 | host2] [COMMAND ...]
    python -m tests.hosts.two down
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from tests.hosts.two import bed
from tests.hosts.two import cloud
from tests.hosts.two import container

#: What runs, for the other commands; there is at most one.
STATE = pathlib.Path(tempfile.gettempdir(), 'nova-arm-ext-two-hosts.json')

READY = """\
{folder}
    has the hosts' disks and logs. Nova's API, which takes every request for an
    administrator's:
        python -m tests.hosts.two shell ctl curl http://10.77.0.1:8774/v2.1/
    A guest is made of image {image}, flavor {flavor}, networks none.
    The end: python -m tests.hosts.two down"""


def up(*, shared: bool, stock: bool) -> int:
    """Start a process that runs the hosts, and wait until they are ready."""
    if reason := bed.why_not():
        return _complain(reason)
    if STATE.exists():
        return _complain(f'{STATE} says that they are up; if that is not so, '
                         f'remove it')
    keeper = subprocess.Popen(
        [sys.executable, '-m', 'tests.hosts.two', 'keep',
         *(['--shared'] if shared else []), *(['--stock'] if stock else [])],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        cwd=container.TREE, start_new_session=True)
    assert keeper.stdout is not None
    for line in keeper.stdout:
        print(line, end='', flush=True)
    return 0 if STATE.exists() else _complain('they did not come up')


def keep(*, shared: bool, stock: bool) -> int:
    """Run the hosts until a signal arrives."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with bed.Bed(shared=shared,
                 progress=lambda text: print(text, flush=True)) as running:
        if stock:
            running.use_driver(cloud.STOCK_DRIVER)
        hosts = running.ctl, *running.hosts.values()
        try:
            STATE.write_text(json.dumps({
                'keeper': os.getpid(),
                'hosts': {host.name: host.pid for host in hosts}}))
            print(READY.format(folder=running.folder, image=running.image,
                               flavor=running.flavor), flush=True)
            # Close the output, so that its reader does not wait longer.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            while True:
                signal.pause()
        finally:
            STATE.unlink()


def down() -> int:
    """End the process that runs the hosts, and wait for it."""
    if not STATE.exists():
        return _complain('they are not up')
    keeper = json.loads(STATE.read_text())['keeper']
    os.kill(keeper, signal.SIGTERM)
    while pathlib.Path(f'/proc/{keeper}').exists():
        time.sleep(0.1)
    return 0


def shell(host: str, command: list[str]) -> int:
    """Run a command, or a shell, on a host."""
    if not STATE.exists():
        return _complain('they are not up')
    pid = json.loads(STATE.read_text())['hosts'][host]
    return subprocess.call(
        [*container.enter(pid), *(command or ['bash'])])


def _complain(text: str) -> int:
    print(f'hosts: {text}', file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog='python -m tests.hosts.two', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest='action', required=True)
    for name in ('up', 'keep'):
        starting = actions.add_parser(name)
        starting.add_argument(
            '--shared', action='store_true',
            help='both hosts have one instances folder')
        starting.add_argument(
            '--stock', action='store_true', help="Nova's own driver")
    actions.add_parser('down')
    entering = actions.add_parser('shell')
    entering.add_argument('host', nargs='?', default='ctl',
                          choices=('ctl', 'host1', 'host2'))
    entering.add_argument('command', nargs=argparse.REMAINDER)
    asked = vars(parser.parse_args())
    return {'up': up, 'keep': keep, 'down': down,
            'shell': shell}[asked.pop('action')](**asked)


if __name__ == '__main__':
    sys.exit(main())
