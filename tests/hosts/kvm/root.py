# SPDX-License-Identifier: Apache-2.0
"""The root folder of an Arm host: packages of Debian's, unpacked.

Nothing of Arm runs while it is made. Packages are only unpacked, on a machine
of any architecture, and what their scripts would have set up is done here.
"""

import os
import pathlib
import shutil
import subprocess
import typing
import urllib.parse
from collections.abc import Mapping

FILES = pathlib.Path(__file__).parent / 'files'

# Unpacking brings only what is named and what that depends on, not what is
# essential.
_BASE = (
    'base-files', 'base-passwd', 'bash', 'busybox-static', 'coreutils', 'dash',
    'debianutils', 'diffutils', 'e2fsprogs', 'findutils', 'grep', 'gzip',
    'hostname', 'iproute2', 'iputils-ping', 'kmod', 'libc-bin',
    'linux-image-arm64', 'login', 'mawk', 'mount', 'ncurses-base',
    'ncurses-bin', 'netbase', 'openssh-server', 'passwd', 'pciutils',
    'perl-base', 'procps', 'psmisc', 'sed', 'sysvinit-utils', 'tar',
    'util-linux')
_COMPUTE = (
    'dmidecode', 'genisoimage', 'ipxe-qemu', 'libvirt-clients',
    'libvirt-daemon-driver-qemu', 'libvirt-daemon-system', 'python3-cliff',
    'python3-libvirt', 'python3-lxml', 'python3-oslo.config',
    'python3-oslo.log', 'python3-oslo.upgradecheck', 'python3-stevedore',
    'qemu-efi-aarch64', 'qemu-efi-arm', 'qemu-system-arm', 'qemu-utils',
    'swtpm', 'swtpm-tools')
#: The packages of each suite.
SUITES: Mapping[str, tuple[str, ...]] = {
    'bookworm': (*_BASE, *_COMPUTE),
    'trixie': (*_BASE, *_COMPUTE),
}
#: Documents that nobody reads there.
_LEFT_OUT = ('doc', 'man', 'locale', 'info', 'lintian')

# The files of the packages, whose names have the versions.
_LISTED = 'packages'

#: The size of the disk; its file has only what is used.
_SIZE = '8G'

#: The names that packages give to numbers which libvirt's package fixes.
_LIBVIRT_QEMU = 64055
_USERS = {'sshd': (101, 65534, '/run/sshd'),
          'swtpm': (103, 103, '/var/lib/swtpm'),
          'libvirt-qemu': (_LIBVIRT_QEMU, 104, '/var/lib/libvirt')}
_GROUPS = {'libvirt': 102, 'swtpm': 103, 'kvm': 104,
           'libvirt-qemu': _LIBVIRT_QEMU}

# What the scripts of packages link.
_LINKS = {
    'usr/bin/awk': 'mawk',
    # libvirt looks for its helper of migrations with it.
    'usr/bin/which': 'which.debianutils',
    'var/lock': '/run/lock',
    'var/run': '/run',
}

_SSHD_CONFIG = """\
AcceptEnv LC_ALL
HostKey /etc/ssh/ssh_host_ed25519_key
MaxSessions 100
PermitRootLogin prohibit-password
SetEnv PYTHONPYCACHEPREFIX=/var/cache/python
StrictModes no
Subsystem sftp internal-sftp
UseDNS no
UsePAM no
"""
# Hosts that are made of one image reach each other.
_SSH_CONFIG = """\
Host *
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""
# Without security drivers, namespaces and control groups: the host has no
# systemd.
_QEMU_CONF = """\
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
"""
# The first program appends the host's UUID.
_LIBVIRTD_CONF = 'auth_unix_rw = "none"\n'


def unpack(suite: str, mirror: str, root: pathlib.Path,
           log: typing.IO[str]) -> None:
    """Unpack the packages of a suite into a new folder.

    :param suite: one of SUITES
    :param mirror: the address of a mirror of Debian
    :param log: gets what mmdebstrap prints
    :raises subprocess.CalledProcessError: when mmdebstrap fails
    """
    # In a mount namespace, so that an interruption leaves nothing mounted in
    # the folder.
    subprocess.run(
        ('unshare', '--mount', 'mmdebstrap', '--arch=arm64', '--mode=root',
         '--variant=extract', '--format=directory', '--skip=check/qemu',
         '--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr',
         '--aptopt=APT::Install-Recommends "false"',
         *(f'--dpkgopt=path-exclude=/usr/share/{name}/*'
           for name in _LEFT_OUT),
         f'--extract-hook=ls "$1/var/cache/apt/archives" > "$1/{_LISTED}"',
         f'--include={",".join(SUITES[suite])}', suite, str(root),
         f'deb {mirror} {suite} main'),
        check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def make_disk(root: pathlib.Path, disk: pathlib.Path,
              log: typing.IO[str]) -> None:
    """Write a file system with a root folder in it.

    It keeps the times of all files, by which libvirt knows a QEMU again.
    """
    subprocess.run(
        ('mkfs.ext4', '-q', '-F', '-m', '0', '-O', '^has_journal',
         '-d', str(root), str(disk), _SIZE), check=True, stdout=log,
        stderr=log, env=os.environ | {'PATH': search_path()})


def search_path() -> str:
    # mkfs.ext4 and depmod live in sbin.
    return os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin'


def versions(root: pathlib.Path) -> dict[str, str]:
    """The version of each package that was unpacked into a root folder."""
    found = {}
    for line in (root / _LISTED).read_text().splitlines():
        if line.endswith('.deb'):
            name, version, _ = line.split('_')
            found[name] = urllib.parse.unquote(version)
    return found


def kernel(root: pathlib.Path) -> str:
    """The release of the kernel in a root folder."""
    [modules] = root.glob('usr/lib/modules/*')
    return modules.name


def set_up(root: pathlib.Path, log: typing.IO[str]) -> str:
    """Do what the scripts of the packages would have done.

    :returns: the private key with which root logs in
    """
    _accounts(root)
    for place, target in _LINKS.items():
        link = root / place
        if link.is_dir() and not link.is_symlink():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    subprocess.run(('depmod', '-b', str(root), kernel(root)), check=True,
                   stdout=log, stderr=log,
                   env=os.environ | {'PATH': search_path()})
    etc = root / 'etc'
    (etc / 'hosts').write_text('127.0.0.1 localhost\n')
    # A copy of this machine's.
    (etc / 'resolv.conf').unlink(missing_ok=True)
    shutil.copyfile(root / 'usr/share/libc-bin/nsswitch.conf',
                    etc / 'nsswitch.conf')
    libvirt = etc / 'libvirt'
    (libvirt / 'qemu.conf').write_text(_QEMU_CONF)
    (libvirt / 'libvirtd.conf').write_text(_LIBVIRTD_CONF)
    # The network of libvirt's package would ask for dnsmasq.
    for place in (libvirt / 'qemu/networks/autostart').glob('*.xml'):
        place.unlink()
    state = root / 'var/lib/libvirt/qemu'
    state.mkdir(parents=True, exist_ok=True)
    os.chown(state, _LIBVIRT_QEMU, _GROUPS['kvm'])
    first = root / 'usr/sbin/first-program'
    shutil.copyfile(FILES / 'first-program', first)
    first.chmod(0o755)
    return _keys(root)


def _accounts(root: pathlib.Path) -> None:
    passwd, group = (
        (root / f'usr/share/base-passwd/{name}.master').read_text()
        .replace(':*:', ':x:') for name in ('passwd', 'group'))
    passwd += ''.join(
        f'{name}:x:{uid}:{gid}::{home}:/usr/sbin/nologin\n'
        for name, (uid, gid, home) in _USERS.items())
    group += ''.join(f'{name}:x:{gid}:\n' for name, gid in _GROUPS.items())
    etc = root / 'etc'
    (etc / 'passwd').write_text(passwd)
    (etc / 'group').write_text(group)
    (etc / 'shadow').write_text(''.join(
        f'{line.partition(":")[0]}:*:19000:0:99999:7:::\n'
        for line in passwd.splitlines()))
    (etc / 'shadow').chmod(0o600)


def _keys(root: pathlib.Path) -> str:
    """One key for the host itself and another for who logs in as root."""
    own = root / 'root/.ssh'
    own.mkdir(mode=0o700, exist_ok=True)
    for place in (root / 'etc/ssh/ssh_host_ed25519_key', own / 'id_ed25519'):
        subprocess.run(('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C',
                        'arm-host', '-f', str(place)), check=True)
    shutil.copyfile(own / 'id_ed25519.pub', own / 'authorized_keys')
    (own / 'config').write_text(_SSH_CONFIG)
    (root / 'etc/ssh/sshd_config').write_text(_SSHD_CONFIG)
    return (own / 'id_ed25519').read_text()
