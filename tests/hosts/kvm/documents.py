# SPDX-License-Identifier: Apache-2.0
"""Domain XML of the installed Nova for an Arm host with KVM.

``python -m tests.hosts.kvm.documents LIBVIRT QEMU`` reads kinds of guests as
JSON from standard input, and writes the domain XML of each to standard output.
It needs a process of its own, because Nova's test base patches threads.
"""

import json
import os
import subprocess
import sys
import typing
from collections.abc import Mapping

from tests.hosts.kvm import host as hosts

#: What is asked of Nova for a guest: fields of a Kind.
Asked = Mapping[str, typing.Any]


def generate(asked: Mapping[str, Asked], libvirt: str,
             qemu: str) -> dict[str, str]:
    """The domain XML of each guest that is asked for, by its name.

    :param libvirt: the host's version, such as ``9.0.0``
    :param qemu: likewise
    :raises RuntimeError: when Nova refuses one
    """
    done = subprocess.run(
        (sys.executable, '-W', 'ignore', '-m', __name__, libvirt, qemu),
        input=json.dumps(asked), capture_output=True, text=True, check=False,
        cwd=hosts.TREE,
        env=os.environ | {'OS_NOVA_DISABLE_EVENTLET_PATCHING': '1'})
    if done.returncode:
        raise RuntimeError(f'Nova made no domain XML: {done.stderr[-4000:]}')
    return json.loads(done.stdout)


def main(libvirt: str, qemu: str) -> None:
    from tests.nova.documents import generate as generating
    from tests.nova.documents import kinds

    wanted = [kinds.Kind(name=name, **asked)
              for name, asked in json.load(sys.stdin).items()]
    outcomes = generating.Build(
        kinds.AARCH64_KVM, wanted, generating.number(libvirt),
        generating.number(qemu), None).outcomes()
    refused = {name: outcome.refusal for name, outcome in outcomes.items()
               if outcome.document is None}
    if refused:
        sys.exit(f'Nova refuses {refused}')
    json.dump({name: outcome.document for name, outcome in outcomes.items()},
              sys.stdout)


if __name__ == '__main__':
    main(*sys.argv[1:])
