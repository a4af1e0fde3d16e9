# SPDX-License-Identifier: Apache-2.0
"""The QEMU that emulates an Arm host, with its hypervisor mode.

QEMU 7.2 emulates 32-bit guests of KVM wrongly: on their way to user mode they
find other status bits than they have left, and stop. QEMU 10 does not. It may
come from a root folder of another suite of Debian.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from collections.abc import Sequence

from tests.hosts.kvm import errors
from tests.hosts.kvm import image as images
from tests.support import tools

#: The oldest release that emulates 32-bit guests of KVM.
OLDEST = 10
#: The suite of Debian whose QEMU is taken where this machine's is older.
SUITE = 'trixie'

#: The cores that a host can have, as QEMU's -cpu. Pointer authentication by
#: the architecture's own algorithm takes most of the time in emulation.
CORES: Mapping[str, str] = {
    'cortex-a72': 'cortex-a72',
    'neoverse-n1': 'neoverse-n1',
    'max': 'max,pauth-impdef=on',
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Emulator:
    """A QEMU for AArch64.

    :param command: the program with what it needs to run here
    :param environment: variables that it needs
    :param version: as it tells it
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    version: str

    @property
    def release(self) -> int:
        return int(self.version.partition('.')[0])


def find(step: images.Step) -> Emulator:
    """The machine's own QEMU, or that of a root folder where it is too old.

    :raises Unsuitable: when there is none, or it cannot emulate EL2
    """
    own = shutil.which('qemu-system-aarch64')
    found = _asked((own,), {}) if own else None
    if found is None or found.release < OLDEST:
        found = _in_root_folder(found, step)
    if not has_virtualization(found):
        raise errors.Unsuitable(
            f'QEMU {found.version} has no virtualization=on for its machine '
            f'virt, so it cannot emulate an Arm host with KVM')
    return found


def _in_root_folder(own: Emulator | None, step: images.Step) -> Emulator:
    root_tool = tools.load('root')
    folder = root_tool.directory(SUITE)
    if not folder.is_dir():
        try:
            with step(f'QEMU of {SUITE} (about two minutes)'):
                root_tool.make(SUITE)
        except SystemExit as e:
            here = f'is {own.version}' if own else 'is not installed'
            raise errors.Unsuitable(
                f'the Arm host needs QEMU {OLDEST} or newer for AArch64, '
                f'which {here} here, and the one of {SUITE} cannot be had: '
                f'{e}') from e
    return in_root(folder / 'root')


def in_root(root: pathlib.Path) -> Emulator:
    """The QEMU of a root folder for this machine's architecture.

    It runs without entering the folder, so it needs no root.
    """
    [loader] = root.glob('lib64/ld-linux-*.so.*')
    [libraries] = root.glob('usr/lib/*-linux-gnu')
    return _asked(
        (str(loader), '--library-path', str(libraries),
         str(root / 'usr/bin/qemu-system-aarch64'),
         '-L', str(root / 'usr/share/qemu')),
        {'QEMU_MODULE_DIR': str(libraries / 'qemu')})


def _asked(command: Sequence[str], environment: Mapping[str, str]) -> Emulator:
    said = _output(command, environment, '--version')
    version = re.search(r'version (\d[\d.]*)', said)
    if not version:
        raise errors.HostError(f'{command[0]} does not tell its version: '
                               f'{said.strip()[:200]}')
    return Emulator(command=tuple(command), environment=environment,
                    version=version[1])


def has_virtualization(emulator: Emulator) -> bool:
    """Whether it can emulate EL2, the hypervisor mode."""
    return 'virtualization=' in _output(
        emulator.command, emulator.environment, '-M', 'virt,help')


def _output(command: Sequence[str], environment: Mapping[str, str],
            *arguments: str) -> str:
    done = subprocess.run(
        (*command, *arguments), capture_output=True, text=True, check=False,
        env=os.environ | dict(environment))
    return done.stdout + done.stderr
