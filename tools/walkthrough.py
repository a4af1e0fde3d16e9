# SPDX-License-Identifier: Apache-2.0
"""The first steps of a new operator, carried out one after the other.

``python -m tools.walkthrough`` writes what each command prints to
``doc/source/install/first-steps``, as the page of that name includes it. As
root, in an environment with Nova and the build tools; the package is built,
and installed into a copy of that environment.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

TREE = pathlib.Path(__file__).resolve().parents[1]
SHOWN = TREE / 'doc/source/install/first-steps'

INSTALL = {'install': ('pip install nova-arm-ext | tail -n 2',)}

#: While there is no guest.
BEFORE = {
    'hooks': ('nova-arm-ext hooks',),
    'doctor': ('nova-arm-ext doctor --define-test',),
    'preview': ('nova-arm-ext preview domain.xml',),
}

#: When one has booted.
RUNNING = {
    'boot': (
        'virsh list',
        "grep -hE '^(arch|efi|product|disk|virtio)=' "
        "/var/lib/nova/instances/*/console.log"),
    'audit': (
        'nova-arm-ext audit',
        'nova-arm-ext explain instance-00000001'),
    'removal': ('nova-arm-ext audit --before-removal',),
}

#: When nova-compute uses Nova's own driver again.
REMOVE = {
    'remove': (
        'pip uninstall --yes nova-arm-ext',
        'virsh list'),
}

#: What is not the same on every machine and in every run.
_VARYING = tuple((re.compile(pattern), word) for pattern, word in (
    (r'(?m)^.{16}(KVM|32-bit guests|GIC|PCI devices|free space): .*$', r'\1'),
    (r'(?m)^\d+ results: .*$', 'RESULTS'),
    # a table may break a UUID where it has a hyphen
    (r'\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-', 'UUID-'),
    (r'\b[0-9a-f]{12,16}\b', 'HEX'),
    (r'\d+(\.\w+)+', 'VERSION'),
    (r'of user \d+', 'of user N'),
    # the config drive's, with all that Nova has to say of the guest
    (r'disk=sr0 \d+', 'disk=sr0 SIZE'),
    # as wide as the widest cell
    (r'[ -]{2,}', ' '),
))


class Shell:
    """Runs commands as an operator types them, and keeps what is seen."""

    def __init__(self, folder: pathlib.Path,
                 places: dict[str, pathlib.Path],
                 home: pathlib.Path | None = None) -> None:
        """
        :param folder: where they are typed
        :param places: folders that stand for those which they name
        :param home: of the user who types them, if it is not this one's
        """
        self._folder = folder
        self._home = home or pathlib.Path.home()
        self._places = places

    def transcripts(self, steps: dict[str, tuple[str, ...]],
                    ) -> dict[str, str]:
        """The commands of each step with what they printed.

        :raises RuntimeError: when one failed
        """
        return {name: '\n'.join(map(self._typed, commands))
                for name, commands in steps.items()}

    def _typed(self, command: str) -> str:
        real = command
        for place, own in self._places.items():
            real = real.replace(place, str(own))
        done = subprocess.run(
            ['bash', '-o', 'pipefail', '-c',
             f'pip() {{ python -m pip "$@"; }}\n{real}'],
            cwd=self._folder, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200,
            check=False, env=os.environ | {
                'PATH': f'{pathlib.Path(sys.executable).parent}:'
                        f'{os.environ["PATH"]}',
                'HOME': str(self._home),
                'CLIFF_MAX_TERM_WIDTH': '100', 'LC_ALL': 'C.UTF-8',
                'PIP_DISABLE_PIP_VERSION_CHECK': '1',
                'PIP_ROOT_USER_ACTION': 'ignore'})
        # 1: the doctor has a warning
        if done.returncode not in ((0, 1) if 'doctor' in command else (0,)):
            raise RuntimeError(f'{command} ended with {done.returncode}\n'
                               f'{done.stdout}')
        said = done.stdout
        for place, own in self._places.items():
            said = said.replace(str(own), place)
        return f'$ {command}\n{said.rstrip()}\n'


def on_host(folder: pathlib.Path) -> dict[str, str]:
    """The steps that need a host; runs in the sandbox."""
    from tests.hosts.one import bed as beds
    here = folder / 'operator'
    here.mkdir()
    bed = beds.Bed(folder)
    (here / 'domain.xml').write_bytes((SHOWN / 'domain.xml').read_bytes())
    # Nova's own options, as the bed gives them to Nova
    (here / 'nova.conf').write_text(
        f'{(SHOWN / "nova.conf").read_text()}'
        f'instances_path = {bed.instances}\n[libvirt]\nvirt_type = qemu\n')
    bed.start()
    # where the command looks before it looks into /etc/nova
    own = folder / '.nova'
    own.symlink_to(here)
    shell = Shell(here, {'/etc/nova': own,
                         '/var/lib/nova/instances': bed.instances}, folder)
    said = shell.transcripts(BEFORE)
    bed.boot(config_drive=True).report()
    said |= shell.transcripts(RUNNING)
    bed.restart_compute(driver=beds.NOVA_DRIVER)
    return said | shell.transcripts(REMOVE)


def in_environment() -> dict[str, str]:
    """All steps, in the environment into which the package goes."""
    from tests.support import sandbox
    said = Shell(pathlib.Path.cwd(), {}).transcripts(INSTALL)
    return said | sandbox.call(f'{__name__}:on_host', timeout=400)


def walk() -> dict[str, str]:
    """The steps by name, each with its commands and what they printed.

    :raises RuntimeError: when a file stayed behind
    """
    from tests.packaging import environments
    from tests.support import paste
    environment = environments.with_nova()
    # what Nova's wheel has beside its modules
    etc = environment.directory / 'etc'
    etc.mkdir()
    (etc / 'nova').symlink_to(pathlib.Path(paste.locate()).resolve().parent)
    # the tests and tools, and not the package beside them
    here = environments.fresh('walkthrough')
    for folder in ('tests', 'tools'):
        (here / folder).symlink_to(TREE / folder)
    environments.run(
        sys.executable, '-m', 'pip', 'wheel', '--no-deps',
        '--no-build-isolation', '--wheel-dir', here, environments.checkout())
    before = environment.files()
    said = environments.run(
        'env', 'PIP_NO_INDEX=1', f'PIP_FIND_LINKS={here}',
        environment.interpreter, '-W', 'ignore', '-c',
        'import json, tools.walkthrough as w; '
        'print(json.dumps(w.in_environment()))', cwd=here)
    if left := environment.files() - before:
        raise RuntimeError(f'left behind: {", ".join(sorted(left))}')
    return dict(json.loads(said.splitlines()[-1]))


def masked(text: str) -> str:
    """A transcript without what differs from machine to machine."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def shown() -> dict[str, str]:
    """The transcripts as the page has them."""
    return {path.stem: path.read_text()
            for path in sorted(SHOWN.glob('*.txt'))}


def main() -> None:
    for name, text in walk().items():
        (SHOWN / f'{name}.txt').write_text(text)
        print('written', name)


if __name__ == '__main__':
    main()
