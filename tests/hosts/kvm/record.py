# SPDX-License-Identifier: Apache-2.0
"""What libvirt, QEMU and the kernel of an Arm host say, as files."""

import datetime
import json
import pathlib
import shutil
import typing
from collections.abc import Mapping

from tests.hosts.kvm import emulator
from tests.hosts.kvm import errors
from tests.hosts.kvm import host as hosts
from tests.hosts.kvm import image as images

FOLDER = hosts.TREE / 'tests/data/arm-hosts'

#: Seconds for one answer of a slow host. Silence is not an answer.
_PATIENCE = 1200.0

#: The packages whose versions matter.
_PACKAGES = ('libvirt-daemon-system', 'qemu-system-arm', 'qemu-efi-aarch64',
             'qemu-efi-arm', 'linux-image-arm64')

#: The command whose output is each file.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    'capabilities.xml': ('virsh', '-q', 'capabilities'),
    **{f'domcapabilities-{arch}-{kind}.xml': (
        'virsh', '-q', 'domcapabilities', '--virttype', kind, '--arch', arch,
        '--machine', 'virt')
       for arch in ('aarch64', 'armv7l') for kind in ('kvm', 'qemu')},
    'cpuinfo': ('cat', '/proc/cpuinfo'),
    'kernel': ('uname', '-a'),
    'kvm': ('sh', '-c', "dmesg | grep -iE 'kvm|CPU features|EL2'"),
}


def record(host: hosts.Host, step: images.Step, *,
           today: datetime.date) -> pathlib.Path:
    """Write everything into the folder of this kind of host.

    What a host refuses to answer has its error as text instead.
    """
    answers = {}
    for name, command in COMMANDS.items():
        with step(name):
            try:
                answers[name] = host.run(*command, timeout=_PATIENCE)
            except errors.CommandFailed as e:
                answers[f'{name}.error'] = f'{e}\n'
    with step('facts.json'):
        answers['facts.json'] = host.facts()
    answers['host.json'] = json.dumps(
        _described(host, step, today), indent=2) + '\n'
    # Only now, so that an interruption leaves the earlier recording.
    folder = FOLDER / f'{host.core}-{host.image.suite}'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in answers.items():
        (folder / name).write_text(text)
    return folder


def _described(host: hosts.Host, step: images.Step,
               today: datetime.date) -> dict[str, typing.Any]:
    return {
        'emulated': True,
        'emulator': f'QEMU {emulator.find(step).version}',
        'core': host.core,
        'debian': host.image.suite,
        'packages': {name: host.image.version(name) for name in _PACKAGES},
        'date': today.isoformat(),
    }
