# SPDX-License-Identifier: Apache-2.0
"""The first process of a host: it mounts the host's folders, then waits.

All other processes of the host end with it. It reaps each process that ends,
because libvirt waits until a QEMU is gone, and a zombie is still there.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys


def _mount(*arguments: str) -> None:
    subprocess.run(['mount', *arguments], check=True)


def main(name: str, binds: str, shared: str) -> None:
    """
    :param binds: JSON, what to put in the place of which file or folder
    :param shared: the same of what other hosts have as well
    """
    socket.sethostname(name)
    # sysfs shows the devices of the network namespace in which it was mounted,
    # so mount it again.
    _mount('-t', 'sysfs', 'sysfs', '/sys')
    _mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/run')
    for place, own in json.loads(binds).items():
        _mount('--bind', own, place)
    for place, own in json.loads(shared).items():
        # Of FUSE's file systems libvirt treats GlusterFS as shared storage
        # (9.0, virFileIsSharedFixFUSE), only by the name of the type.
        subprocess.run(['bindfs', '-o', 'subtype=glusterfs', own, place],
                       check=True)
    if os.path.exists('/dev/kvm'):
        # Guests are emulated, as in tests.support.sandbox.
        hidden = pathlib.Path('/run/no-kvm')
        hidden.touch(mode=0o000)
        _mount('--bind', str(hidden), '/dev/kvm')
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print('ready', flush=True)
    while True:
        signal.pause()


if __name__ == '__main__':
    main(*sys.argv[1:])
