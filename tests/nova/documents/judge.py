# SPDX-License-Identifier: Apache-2.0
"""libvirt's own verdict on domain XML, from its QEMU driver in this process.

``qemu:///embed`` is the whole QEMU driver without a daemon, with a root folder
of its own; nothing on the host is changed. There is no KVM for Arm here, so
XML for KVM is judged as if it were emulated: ``kvm`` becomes ``qemu`` and then
``host-passthrough`` becomes ``maximum``, for which libvirt's checks are the
same. XML for ``qemu`` keeps its CPU, because libvirt refuses to start it with
``host-passthrough``. ``<log>`` is removed, because it needs virtlogd, and
paths lead nowhere.

A process can open the driver only once, so tests talk to a separate process:
``python -m tests.nova.documents.judge`` reads one JSON string per line and
writes one verdict per line.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types
import typing

from lxml import etree

from tests.guest import build

# What real-guest set-ups as root need so that no service and no cgroup of the
# host is asked for.
_QEMU_CONF = '''\
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
namespaces = []
cgroup_controllers = []
remember_owner = 0
'''


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What libvirt said; None for what it accepts.

    ``define`` is the error of defining the document, ``start`` the one of
    building QEMU's command line for it, which a start does first. ``stored``
    is the document that libvirt keeps of a guest that it has defined.
    """

    define: str | None = None
    start: str | None = None
    stored: str | None = None


def emulated(document: str, directory: str) -> str:
    """The domain XML as this machine can define it."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    domain = etree.fromstring(document.encode(), parser)
    if domain.get('type') == 'kvm':
        domain.set('type', 'qemu')
        for cpu in domain.findall('cpu[@mode="host-passthrough"]'):
            cpu.set('mode', 'maximum')
    for log in domain.findall('devices/*/log'):
        log.getparent().remove(log)
    for source in domain.findall('devices/*/source'):
        for name in ('file', 'path'):
            if source.get(name, '').startswith('/var/lib/'):
                source.set(name, directory + source.get(name))
    return etree.tostring(domain, encoding='unicode')


class Judge:
    """The QEMU driver, open for this process."""

    def __init__(self, root: pathlib.Path) -> None:
        # A process that cannot have libvirt can still import this module.
        import libvirt
        self._libvirt = libvirt
        self._root = root
        (root / 'etc').mkdir(parents=True)
        (root / 'etc/qemu.conf').write_text(_QEMU_CONF)
        # What libvirt has found out about the emulators. It takes 12 s, and
        # libvirt itself sees whether it is still true.
        known = build.cache_folder() / 'libvirt-embedded'
        known.mkdir(parents=True, exist_ok=True)
        (root / 'cache').symlink_to(known)
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        self._connection = libvirt.open(f'qemu:///embed?root={root}')

    def host(self) -> dict[str, typing.Any]:
        """This host as the extension's facts have it, firmware included."""
        from nova_arm_ext import facts
        from nova_arm_ext.compute import gather
        known = facts.Facts(host=gather.host(self._connection))
        return json.loads(known.to_json())['host']

    def verdict(self, document: str) -> Verdict:
        """Define the domain, have its command line built, undefine it."""
        text = emulated(document, str(self._root))
        try:
            domain = self._connection.defineXML(text)
        except self._libvirt.libvirtError as e:
            return Verdict(define=_sentence(e))
        stored = domain.XMLDesc(self._libvirt.VIR_DOMAIN_XML_INACTIVE)
        try:
            # libvirt 9.0.0 may crash when it builds the command line of a
            # hostdev interface whose device the host does not have.
            if '<interface type="hostdev"' not in text:
                self._connection.domainXMLToNative('qemu-argv', text, 0)
        except self._libvirt.libvirtError as e:
            return Verdict(start=_sentence(e), stored=stored)
        finally:
            domain.undefineFlags(self._libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        return Verdict(stored=stored)

    def close(self) -> None:
        self._connection.close()


def _sentence(error: typing.Any) -> str:
    return f'[{error.get_error_code()}] {error.get_error_message()}'


class JudgeProcess:
    """A judge in a separate process, a context manager."""

    def __enter__(self) -> 'JudgeProcess':
        # The paths of sockets in the root have at most 108 characters.
        self._directory = tempfile.mkdtemp(prefix='judge-')
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.nova.documents.judge',
             self._directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=pathlib.Path(__file__).parents[3],
            env=os.environ | {
                'LIBVIRT_LOG_OUTPUTS': f'3:file:{self._directory}/log'})
        self.host: dict[str, typing.Any] = self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)
        shutil.rmtree(self._directory)

    def verdict(self, document: str) -> Verdict:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(document) + '\n')
        self._process.stdin.flush()
        return Verdict(**self._answer())

    def _answer(self) -> dict[str, typing.Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f'the judge ended with status {self._process.wait(30)}')
        return json.loads(line)


def main() -> None:
    judge = Judge(pathlib.Path(sys.argv[1]) / 'root')
    print(json.dumps(judge.host()), flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(judge.verdict(json.loads(line)))),
              flush=True)
    judge.close()
    # libvirt's threads may outlive the connection.
    os._exit(0)


if __name__ == '__main__':
    main()
