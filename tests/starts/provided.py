# SPDX-License-Identifier: Apache-2.0
"""What a start needs besides the domain XML, made inside a root folder.

None of it changes what libvirt or QEMU say of the domain XML.
"""

import contextlib
import pathlib
import shutil
import socket
import struct
import subprocess
import threading
import time
import typing
from collections.abc import Iterator

from lxml import etree

#: Folders of Nova that are removed after each guest.
NOVA = pathlib.Path('/var/lib/nova')
SIZE = 1 << 30

# Ports are plugged into Open vSwitch, which does not run here.
_OVS = '#!/bin/sh\nexit 0\n'

#: Requests of vhost-user that get an answer of eight bytes, and the answer:
#: features, protocol features, the number of queues.
_ANSWERS = {1: 1 << 32 | 1 << 30, 15: 1, 17: 8}
#: Version 1, and that it is an answer.
_REPLY = 0x1 | 0x4


def provide_host() -> None:
    """What all guests need."""
    program = pathlib.Path('/usr/bin/ovs-vsctl')
    program.write_text(_OVS)
    program.chmod(0o755)
    # SPICE listens only where an interface has an address.
    for command in ('link add br-int type bridge', 'link set br-int up',
                    'address add 192.0.2.1/24 dev br-int'):
        subprocess.run(('ip', *command.split()), check=True)
    # QEMU makes sockets of vhost-user there, where Open vSwitch has a folder
    # for them.
    pathlib.Path('/run').chmod(0o1777)


@contextlib.contextmanager
def provided(document: str, connection: typing.Any) -> Iterator[None]:
    """Files, secrets and peers for this guest, as long as it is needed."""
    domain = etree.fromstring(document)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, NOVA, ignore_errors=True)
        _files(domain)
        for folder in domain.findall('devices/filesystem/source[@dir]'):
            pathlib.Path(folder.get('dir')).mkdir(parents=True, exist_ok=True)
        for tpm in domain.findall('devices/tpm/backend/encryption[@secret]'):
            stack.enter_context(_secret(connection, tpm.get('secret')))
        for peer in domain.findall(
                "devices/interface[@type='vhostuser']/source"):
            stack.enter_context(_switch(peer.get('path')))
        yield


def _files(domain: typing.Any) -> None:
    for disk in domain.findall("devices/disk[@type='file']"):
        source = disk.find('source')
        if source is None:
            continue
        path = pathlib.Path(source.get('file'))
        path.parent.mkdir(parents=True, exist_ok=True)
        driver = disk.find('driver')
        kind = 'raw' if driver is None else driver.get('type', 'raw')
        subprocess.run(('qemu-img', 'create', '-q', '-f', kind, path,
                        str(SIZE)), check=True)
    for log in domain.findall('devices/*/log[@file]'):
        pathlib.Path(log.get('file')).parent.mkdir(
            parents=True, exist_ok=True)
    for name in ('kernel', 'initrd'):
        for file in domain.findall(f'os/{name}'):
            path = pathlib.Path(file.text)
            path.parent.mkdir(parents=True, exist_ok=True)
            # QEMU loads it without a look at it; a paused guest runs nothing.
            path.write_bytes(bytes(4096))


@contextlib.contextmanager
def _secret(connection: typing.Any, identity: str) -> Iterator[None]:
    """The passphrase of a TPM's state."""
    secret = connection.secretDefineXML(
        f"<secret ephemeral='yes' private='yes'><uuid>{identity}</uuid>"
        f"<usage type='vtpm'><name>{identity}</name></usage></secret>")
    secret.setValue(b'passphrase', 0)
    try:
        yield
    finally:
        secret.undefine()


@contextlib.contextmanager
def _switch(path: str) -> Iterator[None]:
    """The peer of a vhost-user interface, for which QEMU waits."""
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(path, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _serve(path: str, stop: threading.Event) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        while not stop.is_set():
            try:
                peer.connect(path)
                break
            except OSError:
                time.sleep(0.05)
        peer.settimeout(0.1)
        while not stop.is_set():
            try:
                # Descriptors that come with it are closed by the kernel.
                header = peer.recv(12)
            except TimeoutError:
                continue
            except OSError:
                return
            if not header:
                return
            request, _, size = struct.unpack('<III', header)
            if size:
                peer.recv(size)
            if request in _ANSWERS:
                peer.sendall(struct.pack('<IIIQ', request, _REPLY, 8,
                                         _ANSWERS[request]))
