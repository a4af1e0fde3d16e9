# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext doctor` finds what is wrong with a host, and nothing else.

The host and its libvirtd are real. Shell commands plant each fault in its own
mount namespace, as if nova-compute were in another container than libvirt, so
nothing has to be repaired. Faults that need Arm hardware or broken devices are
in tests/unit/cmd/checks.
"""

import contextlib
import ctypes
import dataclasses
import io
import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import typing

from tests.support import base
from tests.support import sandbox

NVRAM = '/var/lib/libvirt/qemu/nvram'
DESCRIPTORS = '/usr/share/qemu/firmware'
FIRMWARE = '/usr/share/AAVMF'

CONF = ('[DEFAULT]\ncompute_driver = arm_ext.ArmLibvirtDriver\n'
        'instances_path = {here}/instances\n'
        '[arm_nvram]\ndirectory = {here}/copies\n')

#: The commands run in a folder with nova.conf, instances and copies.
COMMANDS = r'''
set -e
set_option() { printf '[%s]\n%s\n' "$1" "$2" >> nova.conf; }
# mount_tmpfs FOLDER [OPTIONS]
mount_tmpfs() { mount -t tmpfs -o "${2-mode=755}" tmpfs "$1"; }
# our_own FOLDER: files can come and go in it, libvirt goes on with its own
our_own() {
    mkdir -p originals"$1"
    mount --bind "$1" originals"$1"
    mount_tmpfs "$1"
    ln -s "$PWD"/originals"$1"/* "$1"
}
# install NAMESPACE ENTRY_POINT: what pip leaves of a package that brings it
install() {
    mkdir -p packages/own-1.0.dist-info
    printf 'Metadata-Version: 2.1\nName: own\nVersion: 1.0\n' \
        > packages/own-1.0.dist-info/METADATA
    printf '[%s]\n%s\n' "$1" "$2" > packages/own-1.0.dist-info/entry_points.txt
}
# place_of MODULE
place_of() { python -c "import $1; print($1.__file__)"; }
mkdir packages
export PYTHONPATH="$PWD/packages:$PYTHONPATH"
'''


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that is wrong.

    :param plant: shell commands
    :param words: what the doctor says, by the checks that have to find it
    :param fresh: whether it is in what a Python process finds when it starts
    """

    plant: str
    words: dict[str, tuple[str, ...]]
    fresh: bool = False


FAULTS = {
    # libvirt
    'libvirt cannot be reached': Fault(
        plant='mount_tmpfs /run',
        words={'libvirt': (
            'qemu:///system does not answer', 'start libvirtd')}),

    # firmware, in nova-compute's view
    'no descriptor for AArch64': Fault(
        plant=f'our_own {DESCRIPTORS}; rm {DESCRIPTORS}/*aarch64*',
        words={'firmware descriptors': (
            'descriptors is for AArch64 with a separate flash',
            'install UEFI for AArch64 (qemu-efi-aarch64)')}),
    'a descriptor that is no JSON': Fault(
        plant=f'our_own {DESCRIPTORS}; echo "{{" > {DESCRIPTORS}/10-own.json',
        words={'firmware descriptors': (
            f'{DESCRIPTORS}/10-own.json is not a firmware descriptor',
            'correct it, or mask it')}),
    'a descriptor that cannot be read': Fault(
        plant=f'our_own {DESCRIPTORS}; '
              f'ln -s /nonexistent {DESCRIPTORS}/10-own.json',
        words={'firmware descriptors': (
            f'{DESCRIPTORS}/10-own.json cannot be read: No such file',
            'correct its permissions')}),
    'firmware that is missing': Fault(
        plant=f'our_own {FIRMWARE}; rm {FIRMWARE}/AAVMF_CODE.fd',
        words={'firmware files': (
            f'{FIRMWARE}/AAVMF_CODE.fd does not exist, but {DESCRIPTORS}/',
            'install the package that has it'),
            'firmware seen by libvirt': (
            f'libvirt has {FIRMWARE}/AAVMF_CODE.fd',
            'install the same package here')}),
    'a template that is missing': Fault(
        plant=f'our_own {FIRMWARE}; rm {FIRMWARE}/AAVMF_VARS.fd',
        words={'firmware files': (
            f'{FIRMWARE}/AAVMF_VARS.fd does not exist',
            'install the package that has it')}),
    'no firmware at all': Fault(
        plant=f'mount_tmpfs {FIRMWARE}',
        words={'firmware files': (
            'no firmware image for Arm is complete', 'qemu-efi-aarch64'),
            'firmware seen by libvirt': (
            f'libvirt has {FIRMWARE}/AAVMF_CODE.fd',),
            '32-bit firmware': ('there is none', 'qemu-efi-arm')}),
    'firmware that is not padded': Fault(
        plant=f'our_own {FIRMWARE}; rm {FIRMWARE}/AAVMF_CODE.fd; head -c 2M '
              f'originals{FIRMWARE}/AAVMF_CODE.fd > {FIRMWARE}/AAVMF_CODE.fd',
        words={'firmware files': (
            f'{FIRMWARE}/AAVMF_CODE.fd has 2097152 bytes',
            'pad it with "truncate -s 64M"')}),
    'a damaged template': Fault(
        plant=f'our_own {FIRMWARE}; rm {FIRMWARE}/AAVMF_VARS.fd; '
              f'echo 404 not found > {FIRMWARE}/AAVMF_VARS.fd; '
              f'truncate -s 64M {FIRMWARE}/AAVMF_VARS.fd',
        words={'firmware files': (
            f'{FIRMWARE}/AAVMF_VARS.fd: ', 'install its package again')}),
    'no 32-bit firmware': Fault(
        plant=f'our_own {DESCRIPTORS}; rm {DESCRIPTORS}/*-arm.json; '
              f'our_own {FIRMWARE}; rm {FIRMWARE}/AAVMF32_*',
        words={'32-bit firmware': ('there is none', 'qemu-efi-arm'),
               'firmware seen by libvirt': (
                   f'libvirt has {FIRMWARE}/AAVMF32_CODE.fd',)}),
    'firmware that libvirt has not': Fault(
        plant=f'our_own {FIRMWARE}; our_own {DESCRIPTORS}; '
              f'cp {FIRMWARE}/AAVMF_CODE.fd {FIRMWARE}/OWN_CODE.fd; sed s/'
              f'AAVMF_CODE/OWN_CODE/ {DESCRIPTORS}/60-edk2-aarch64.json '
              f'> {DESCRIPTORS}/70-own.json',
        words={'firmware seen by libvirt': (
            f'{FIRMWARE}/OWN_CODE.fd exists here, but libvirt does not have ',
            'install the same package where libvirt runs')}),

    # variable stores
    'a wrong owner': Fault(
        plant=f'mount_tmpfs {NVRAM} mode=711,uid=1000',
        words={'variable stores': (
            f'{NVRAM} belongs to user 1000', 'chown ')}),
    'a folder that everybody may write': Fault(
        plant=f'mount_tmpfs {NVRAM} mode=777',
        words={'variable stores': (
            f'everybody can write to {NVRAM} (drwxrwxrwx)',
            'chmod o-w')}),
    'a folder that is closed to QEMU': Fault(
        plant=f'mount_tmpfs {NVRAM} mode=700',
        words={'variable stores': (
            f"{NVRAM} is closed to QEMU's user", 'chmod o+x')}),
    'a store that is a link': Fault(
        plant=f'our_own {NVRAM}; rm -f {NVRAM}/*; '
              f'ln -s /etc/hostname {NVRAM}/instance-00000001_VARS.fd',
        words={'variable stores': (
            f'1 stores are links or not regular files: {NVRAM}/instance-0',
            'find out who created them, then remove them')}),
    'a container without the folder': Fault(
        plant='mount_tmpfs /var/lib/libvirt',
        words={'variable stores': (
            '/var/lib/libvirt/qemu does not exist',
            'in a container, mount /var/lib/libvirt')}),
    'no space': Fault(
        plant=f'mount_tmpfs {NVRAM} mode=711,size=1m',
        words={'free space': (
            f'1 MiB are free in {NVRAM}', 'free some space')}),
    'little space': Fault(
        plant='mount_tmpfs instances mode=755,size=200m',
        words={'free space': (
            '200 MiB are free in ', '/instances; free some space')}),
    'no inodes': Fault(
        plant=f'mount_tmpfs {NVRAM} mode=711,nr_inodes=1',
        words={'free space': (
            f'no file can be created in {NVRAM}', 'no free inodes')}),
    'a store that no guest has': Fault(
        plant=f'mount_tmpfs {NVRAM} mode=711; '
              f'truncate -s 64M {NVRAM}/instance-00000001_VARS.fd; '
              # nobody can write in its inode when it was changed
              'echo "import time; now = time.time; '
              'time.time = lambda: now() + 2 * 86400" '
              '> packages/sitecustomize.py',
        words={'unowned stores': (
            f'1 stores belong to no instance: {NVRAM}/instance-00000001_VARS',
            '"nova-arm-ext nvram orphans --yes"')}, fresh=True),

    # the store for copies
    'a driver that is not installed': Fault(
        plant='set_option arm_nvram "store = tape"',
        words={'store for copies': (
            "[arm_nvram] store names 'tape'", 'install the package')}),
    'a driver that cannot be imported': Fault(
        plant='install nova_arm_ext.nvram_stores "tape = no_such:Tape"; '
              'set_option arm_nvram "store = tape"',
        words={'store for copies': (
            'tape cannot be imported', "No module named 'no_such'",
            'install the package')}, fresh=True),
    'shared storage that is not mounted': Fault(
        plant='rmdir copies; set_option arm_nvram "store = directory"',
        words={'store for copies': (
            '/copies: No such file',
            'mount storage that all compute hosts share at ')}),
    'storage of this host alone': Fault(
        plant='chmod 700 copies; set_option arm_nvram "store = directory"',
        words={'store for copies': (
            '/copies is on a local file system of this host',
            'mount storage that all compute hosts share at ')}),
    'storage that cannot be written': Fault(
        plant='mount_tmpfs copies ro,mode=700; '
              'set_option arm_nvram "store = directory"',
        words={'store for copies': (
            '/copies is mounted read-only', 'mount it read-write')}),
    'storage of another user': Fault(
        plant='mount_tmpfs copies mode=700,uid=1000; '
              'set_option arm_nvram "store = directory"',
        words={'store for copies': (
            '/copies belongs to user 1000, and nova-compute runs as user 0',
            'chown 0 ')}),
    'storage that is open to others': Fault(
        plant='mount_tmpfs copies mode=770; '
              'set_option arm_nvram "store = directory"',
        words={'store for copies': (
            'others than its owner can access', '(drwxrwx---)',
            'chmod 700 ')}),
    'a secret that is not there': Fault(
        plant='set_option arm_nvram "image_key_file = /nonexistent/key"',
        words={'key for images': (
            'image_key_file /nonexistent/key: No such file',
            'all compute hosts need the same file')}),
    'a secret that all can read': Fault(
        plant='head -c 32 /dev/urandom | base64 > key; chmod 644 key; '
              'set_option arm_nvram "image_key_file = $PWD/key"',
        words={'key for images': (
            '/key has the permissions 644', 'chmod 0640')}),

    # configuration
    'a driver that is not chosen': Fault(
        plant='sed -i s/arm_ext.Arm/libvirt./ nova.conf',
        words={'driver': (
            'compute_driver is libvirt.LibvirtDriver',
            'set it to arm_ext.ArmLibvirtDriver')}),
    'a misspelt option': Fault(
        plant='set_option arm "on_hook_falure = skip"',
        words={'option names': (
            'there is no option on_hook_falure in [arm]',
            'did you mean on_hook_failure?')}),
    'a misspelt group': Fault(
        plant='set_option arm_pcie_root_port "free = 8"',
        words={'option names': (
            'there is no group [arm_pcie_root_port]',
            'did you mean [arm_pcie_root_ports]?')}),
    'a value that is none': Fault(
        plant='set_option arm_pcie_root_ports "free = many"',
        words={'options': (
            "free is 'many'", 'nova-compute refuses to start with it')}),
    'a hook that is not installed': Fault(
        plant='set_option arm "hooks = \\$default_hooks,balloon"',
        words={'options': (
            "'balloon'", 'nova-compute refuses to start with it')}),
    'hooks in a wrong order': Fault(
        plant='set_option arm "hooks = uefi,libvirt_compat"',
        words={'options': (
            'uefi must be listed after libvirt_compat',
            'nova-compute refuses to start with it')}),
    'a rule for no PCI device': Fault(
        plant='set_option arm_pci "skip = network card"',
        words={'options': (
            'network card', 'nova-compute refuses to start with it')}),

    # the installation
    'a hook that cannot be imported': Fault(
        plant='install nova_arm_ext.hooks "own = no_such:Hook"',
        words={'hooks': (
            "No module named 'no_such'",
            'repair or uninstall the package that has it')}, fresh=True),
    'a Nova without a method': Fault(
        plant='''
host=$(dirname "$(place_of nova)")/virt/libvirt/host.py
sed 's/def list_guests(/def list_servers(/' "$host" > host.py
mount --bind host.py "$host"''',
        words={'Nova': (
            'has no Host.list_guests',
            'nova-compute refuses to start with it')},
        fresh=True),
    'a Nova that nobody has tried': Fault(
        plant='''
metadata=$(python -c 'import importlib.metadata as m
print(m.distribution("nova")._path)')/METADATA
sed 's/^Version: .*/Version: 99.0.0/' "$metadata" > METADATA
mount --bind METADATA "$metadata"''',
        words={'Nova': (
            'Nova 99.0.0 is not among the releases', 'look for a newer')},
        fresh=True),
    'a path file that is not read': Fault(
        plant='''
mount --bind /dev/null "$(python -c 'import sys, pathlib
print(next(file for place in sys.path
           for file in pathlib.Path(place).glob("nova_arm_ext.pth")))')"''',
        words={'Nova': (
            'nova.virt.arm_ext cannot be found', 'without --target')},
        fresh=True),
    'a library of Nova that does not fit': Fault(
        plant='echo "import no_such" > broken.py; '
              'mount --bind broken.py "$(place_of os_vif)"',
        words={'Nova': (
            "the driver cannot be imported: ModuleNotFoundError: No module "
            "named 'no_such'", '"pip check"')}, fresh=True),
}

_CLONE_NEWNS = 0x00020000


def doctor(folder: pathlib.Path, fault: Fault | None) -> dict[str, typing.Any]:
    """What the doctor prints in a folder of its own, with a fault planted."""
    here = folder / f'doctor-{len(list(folder.glob("doctor-*")))}'
    for place in (here / 'instances', here / 'copies'):
        place.mkdir(parents=True)
    (here / 'nova.conf').write_text(CONF.format(here=here))
    plant = f'{COMMANDS}\n{fault.plant if fault else ""}'
    asked = ('doctor', '--json', '--config-file', str(here / 'nova.conf'))
    if fault and fault.fresh:
        return _in_new_process(here, plant, asked)
    return _in_fork(here, plant, asked)


def _in_new_process(here: pathlib.Path, plant: str, asked: tuple[str, ...],
                    ) -> dict[str, typing.Any]:
    done = subprocess.run(
        ['unshare', '--mount', 'bash', '-c',
         f'{plant}\nexec python -m nova_arm_ext.cmd.main "$@"', 'bash',
         *asked], cwd=here, text=True, capture_output=True, check=False,
        env=os.environ | {
            'PATH': f'{pathlib.Path(sys.executable).parent}:'
                    f'{os.environ["PATH"]}',
            'PYTHONPATH': os.getcwd(), 'PYTHONDONTWRITEBYTECODE': '1'})
    if not done.stdout:
        raise RuntimeError(f'{plant}\n{done.stderr}')
    return json.loads(done.stdout) | {'exit': done.returncode}


def _in_fork(here: pathlib.Path, plant: str, asked: tuple[str, ...],
             ) -> dict[str, typing.Any]:
    """The same in less time, as Nova is imported already."""
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_plant_and_ask,
                            args=(theirs, here, plant, asked))
    child.start()
    theirs.close()
    try:
        return dict(ours.recv())
    finally:
        child.join()


def _plant_and_ask(pipe: typing.Any, here: pathlib.Path, plant: str,
                   asked: tuple[str, ...]) -> None:
    from nova_arm_ext.cmd import main
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), 'unshare')
    subprocess.run(['bash', '-c', plant], cwd=here, check=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main.main(asked)
    pipe.send(json.loads(out.getvalue()) | {'exit': status})


def plant_each(folder: pathlib.Path) -> dict[str, typing.Any]:
    """What the doctor says with no fault, and with each; in the sandbox."""
    from nova_arm_ext.compute import driver
    from tests.hosts.one import host
    assert driver
    host.start(folder)
    return {'': doctor(folder, None)} | {
        name: doctor(folder, fault) for name, fault in FAULTS.items()}


class PlantedFaultsTest(base.TestCase):

    def test_the_right_check_finds_each_fault_and_says_what_to_do(self):
        reason = sandbox.why_not()
        if reason:
            self.skipTest(reason)

        said = sandbox.call(f'{__name__}:plant_each', 900)

        sound = said.pop('')['checks']
        self.assertEqual([], [one for one in sound
                              if one['status'] == 'failure'])
        self.assertEqual({}, {
            name: objection for name, found in said.items()
            if (objection := self.objection(FAULTS[name], found, sound))})

    def objection(self, fault: Fault, found: dict[str, typing.Any],
                  sound: list[dict[str, str]]) -> str:
        """What is wrong with an answer of the doctor's."""
        new = [one for one in found['checks'] if one not in sound
               and one['status'] in ('warning', 'failure')]
        if {one['check'] for one in new} != fault.words.keys():
            return f'told of by other checks: {new}'
        for check, words in fault.words.items():
            if not any(one['check'] == check and all(
                    word in f'{one["text"]}; {one["advice"]}'
                    for word in words) for one in new):
                return f'{words} not in one of {new}'
        worst = {'warning': 1, 'failure': 2}[found['status']]
        if found['exit'] != worst or all(
                one['status'] != found['status'] for one in new):
            return f'exit status {found["exit"]} for {new}'
        return ''
