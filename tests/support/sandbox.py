# SPDX-License-Identifier: Apache-2.0
"""Run a function on a separate host that leaves nothing behind.

The host is a process tree in private mount, network, IPC and PID namespaces,
with its own /run and its own libvirt folders. All its processes (libvirtd,
QEMU, Nova) end with the first of them, and the first ends with the caller.
Only libvirt's cache is kept, because reading the capabilities of all installed
emulators takes longer than a guest's boot.
"""

import collections.abc
import faulthandler
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import typing

from tests.guest import build

PROGRAMS = {
    'genisoimage': 'genisoimage',
    'libvirtd': 'libvirt-daemon-system',
    'mount': 'mount',
    'qemu-img': 'qemu-utils',
    'qemu-system-aarch64': 'qemu-system-arm',
    'setpriv': 'util-linux',
    'unshare': 'util-linux',
    'virtlogd': 'libvirt-daemon-system',
}
FIRMWARE = pathlib.Path('/usr/share/AAVMF/AAVMF_CODE.fd')
MODULES = ('libvirt', 'nova', 'placement', 'os_vif')

#: Replaced by empty folders, respectively by the cache.
PRIVATE = ('/etc/libvirt', '/var/lib/libvirt', '/var/log/libvirt')
KVM = '/dev/kvm'
LIBVIRT_CACHE = '/var/cache/libvirt'

_NAMESPACES = ('--mount', '--net', '--ipc', '--pid', '--fork', '--mount-proc',
               '--kill-child')


class SandboxError(Exception):
    """The function did not finish; the error says how far it got."""


def why_not() -> str | None:
    """What this machine lacks; None if it can boot a guest."""
    if os.geteuid() != 0:
        return 'needs root, for namespaces and for libvirtd'
    path = search_path()
    missing = {package for program, package in PROGRAMS.items()
               if shutil.which(program, path=path) is None}
    if not FIRMWARE.exists():
        missing.add('qemu-efi-aarch64')
    if build.cached() is None:
        missing.update(build.missing_tools().values())
    if missing:
        return f'needs Debian packages: {" ".join(sorted(missing))}'
    modules = [name for name in MODULES
               if importlib.util.find_spec(name) is None]
    if modules:
        return f'needs Python modules: {" ".join(modules)}'
    trial = subprocess.run(['unshare', *_NAMESPACES, 'true'],
                           capture_output=True, text=True, check=False)
    if trial.returncode:
        return f'needs namespaces: {trial.stderr.strip()}'
    return None


def call(function: str, timeout: float,
         progress: collections.abc.Callable[[str], None] | None = None,
         **arguments: typing.Any) -> typing.Any:
    """Call `module:name` with JSON arguments; it gives a JSON value back.

    The first argument of the function is a folder for its files. What it
    writes with `say` is passed to `progress` at once.
    """
    # The sandbox has no network to build the guest with.
    build.ensure()
    # QEMU has its own user, which needs access to its disks.
    with tempfile.TemporaryDirectory(prefix='nova-arm-ext-') as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        log = folder / 'worker.log'
        command = [
            'setpriv', '--pdeathsig', 'KILL', 'unshare', *_NAMESPACES,
            sys.executable, '-m', 'tests.support.sandbox',
            name, function, json.dumps(arguments), str(timeout)]
        root = pathlib.Path(__file__).parents[2]
        with log.open('wb') as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, text=True, cwd=root,
                env=os.environ | _environment(name))
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _end(process)

        clock = threading.Timer(timeout, give_up)
        clock.start()
        answer = None
        try:
            assert process.stdout is not None
            for line in process.stdout:
                message = json.loads(line)
                if 'progress' in message:
                    if progress:
                        progress(message['progress'])
                else:
                    answer = message
            process.wait()
        finally:
            clock.cancel()
            if process.poll() is None:
                _end(process)
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if answer and 'value' in answer:
            return answer['value']
        if answer:
            raise SandboxError(answer['error'])
        said = log.read_text(errors='replace')[-8000:]
        why = (f'did not end within {timeout:.0f} s' if late.is_set()
               else f'ended with {process.returncode}')
        raise SandboxError(f'{function} {why}\n{said}')


def _environment(folder: str) -> dict[str, str]:
    return {
        'PATH': search_path(),
        'NOVA_ARM_EXT_SANDBOX': folder,
        'NOVA_ARM_EXT_CACHE': str(build.cache_folder()),
        # stevedore keeps a file per sys.path there.
        'XDG_CACHE_HOME': folder,
        # Nova's tests leave databases there.
        'TMPDIR': folder,
        # As nova-compute 34 runs by default; its test packages would choose
        # eventlet, which is what older ones run with.
        'OS_NOVA_DISABLE_EVENTLET_PATCHING': str(int(_nova() >= 34)),
    }


def _nova() -> int:
    """The release of Nova; 0 without Nova."""
    try:
        return int(importlib.metadata.version('nova').partition('.')[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the first process of the sandbox, which is the child of unshare.

    The kernel ends all other processes before unshare returns, so that none
    writes to the folder while it is removed.
    """
    pid = process.pid
    children = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
    first = children.read_text().split() if children.exists() else []
    for child in first or [str(pid)]:
        os.kill(int(child), signal.SIGKILL)


def search_path() -> str:
    return os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin'


# What follows runs inside.

_protocol: typing.TextIO | None = None


def inside() -> bool:
    return 'NOVA_ARM_EXT_SANDBOX' in os.environ


def say(text: str) -> None:
    """Report progress to the caller."""
    if _protocol is not None:
        _send({'progress': text})


def _send(message: dict[str, typing.Any]) -> None:
    assert _protocol is not None
    _protocol.write(json.dumps(message) + '\n')
    _protocol.flush()


def _furnish(folder: pathlib.Path) -> None:
    """Mount private folders over those of the machine."""
    cache = build.cache_folder() / 'libvirt'
    cache.mkdir(parents=True, exist_ok=True)
    binds = {LIBVIRT_CACHE: cache}
    for place in PRIVATE:
        binds[place] = folder / place.strip('/').replace('/', '-')
        binds[place].mkdir()
    for place, own in binds.items():
        own.chmod(0o755)
        pathlib.Path(place).mkdir(parents=True, exist_ok=True)
        _mount('--bind', own, place)
    if os.path.exists(KVM):
        # Guests are emulated. If only root could use KVM, libvirt would probe
        # QEMU at every start, because QEMU's own user cannot use it (libvirt
        # 9.0, virQEMUCapsIsValid).
        nothing = folder / 'no-kvm'
        nothing.touch(mode=0o000)
        _mount('--bind', nothing, KVM)
    _mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/run')
    # sysfs shows the devices of the network namespace in which it was mounted,
    # so mount it again.
    _mount('-t', 'sysfs', 'sysfs', '/sys')


def _mount(*arguments: str | os.PathLike[str]) -> None:
    subprocess.run(['mount', *arguments], check=True, stdout=sys.stderr)


def _await_child(child: int) -> int:
    """Reap all processes until the child ends: libvirtd waits until QEMU is
    gone, and a zombie is still there.
    """
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _work(folder: str, function: str, arguments: str) -> None:
    try:
        module, _, name = function.partition(':')
        value = getattr(importlib.import_module(module), name)(
            pathlib.Path(folder), **json.loads(arguments))
        _send({'value': value})
    except BaseException:
        _send({'error': traceback.format_exc()})
        raise


def main(folder: str, function: str, arguments: str, timeout: str) -> int:
    global _protocol
    # Standard output goes to the log.
    _protocol = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _furnish(pathlib.Path(folder))
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        return _await_child(child)
    # After the time limit the log shows where it hangs.
    faulthandler.dump_traceback_later(
        max(float(timeout) - 5, float(timeout) / 2), file=sys.stderr)
    status = 1
    try:
        _work(folder, function, arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # Do not wait for Nova's threads: they end with the namespace.
        os._exit(status)


if __name__ == '__main__':
    # The called functions import this module by its name, so it must not
    # exist a second time as __main__.
    from tests.support import sandbox
    sys.exit(sandbox.main(*sys.argv[1:]))
