# SPDX-License-Identifier: Apache-2.0
"""libvirt's daemons in the sandbox."""

import fcntl
import os
import pathlib
import socket
import struct
import subprocess
import time
import uuid

import libvirt

#: Without security drivers, namespaces and control groups, which belong to the
#: machine. QEMU's user is libvirt's default, so that files have real owners.
QEMU_CONF = """\
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
"""


def start(folder: pathlib.Path, timeout: float = 60) -> None:
    """Start virtlogd and libvirtd, and wait until libvirt answers."""
    pathlib.Path('/etc/libvirt/qemu.conf').write_text(QEMU_CONF)
    pathlib.Path('/etc/libvirt/libvirtd.conf').write_text(
        f'host_uuid = "{uuid.uuid4()}"\n')
    pathlib.Path('/etc/libvirt/virtlogd.conf').touch()
    _raise_loopback()
    daemons = []
    for name in ('virtlogd', 'libvirtd'):
        with (folder / f'{name}.log').open('wb') as log:
            daemons.append(subprocess.Popen(
                [name], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {'LC_ALL': 'C.UTF-8'}))
    deadline = time.monotonic() + timeout
    while True:
        try:
            libvirt.open('qemu:///system').close()
            return
        except libvirt.libvirtError:
            dead = [daemon for daemon in daemons if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError(
                    f'libvirt does not answer: '
                    f'{(folder / "libvirtd.log").read_text()[-2000:]}'
                ) from None
        time.sleep(0.1)


def _raise_loopback() -> None:
    """The namespace's only interface is down at first; VNC listens on it."""
    siocsifflags, iff_up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, siocsifflags,
                    struct.pack('16sh14x', b'lo', iff_up))
