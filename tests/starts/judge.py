# SPDX-License-Identifier: Apache-2.0
"""libvirt's and QEMU's verdict on domain XML: the guest is started, paused.

It runs inside a root folder (``tools/root``), where ``python -m
tests.starts.judge`` first writes the facts of the host, then reads one JSON
string per line and writes one verdict per line.
"""

import dataclasses
import json
import sys
import typing

import libvirt

from nova_arm_ext import facts
from nova_arm_ext.compute import gather
from tests.nova.documents.judge import Verdict
from tests.starts import provided

#: A start is tried so often if QEMU's own words are missing.
ATTEMPTS = 5
_UNCONNECTED = 'failed to connect to monitor socket: Connection refused'


def host(connection: typing.Any) -> dict[str, typing.Any]:
    """The facts of this host, its firmware included."""
    known = facts.Facts(host=gather.host(connection))
    return json.loads(known.to_json())['host']


def verdict(connection: typing.Any, document: str) -> Verdict:
    """Define the domain, start it, and remove it."""
    with provided.provided(document, connection):
        try:
            domain = connection.defineXML(document)
        except libvirt.libvirtError as e:
            return Verdict(define=_sentence(e))
        stored = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        try:
            _start(domain)
            domain.destroy()
            return Verdict(stored=stored)
        except libvirt.libvirtError as e:
            return Verdict(start=_sentence(e), stored=stored)
        finally:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def _start(domain: typing.Any) -> None:
    """Start it, paused.

    If QEMU ends in the moment in which libvirt connects to it, libvirt only
    says that it could not connect, and not what QEMU said. Then it is tried
    again.
    """
    for attempt in range(ATTEMPTS):
        try:
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            return
        except libvirt.libvirtError as e:
            if (_UNCONNECTED not in e.get_error_message()
                    or attempt == ATTEMPTS - 1):
                raise


def _sentence(error: typing.Any) -> str:
    return f'[{error.get_error_code()}] {error.get_error_message()}'


def main() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.open('qemu:///system')
    provided.provide_host()
    print(json.dumps(host(connection)), flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(
            verdict(connection, json.loads(line)))), flush=True)


if __name__ == '__main__':
    main()
