# SPDX-License-Identifier: Apache-2.0
"""Real guests on an Arm host, through its libvirt, and what they report."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import typing

from lxml import etree

from tests import guest
from tests.hosts.kvm import documents
from tests.hosts.kvm import errors
from tests.hosts.kvm import host as hosts

#: So many seconds a guest has from its start to its first report; 60 to 200
#: are usual, and more beside other work.
PATIENCE = 900.0

#: Where Nova keeps the disks of images.
_BASE = '/var/lib/nova/instances/_base'

#: How the kernel of a 32-bit guest stops when QEMU before 10 emulates the
#: host. Nothing else excuses a second try.
_FAULT = re.compile('Returning to usermode but unexpected PSR bits set')


class GuestError(Exception):
    """A guest did not report; the text ends with what it has printed."""


class HasFailed(GuestError):
    """The kernel of a guest has failed."""


class Fleet:
    """All guests on one host.

    :param host: on which they are started
    """

    def __init__(self, host: hosts.Shell) -> None:
        self.host = host
        self.facts: dict[str, typing.Any] = json.loads(host.facts())
        self._documents: dict[str, str] = {}
        self._count = 0

    def generate(self, **asked: documents.Asked) -> None:
        """Let Nova make the domain XML of these guests, all at once."""
        known = self.facts['host']
        small = {'vcpus': 1, 'memory_mb': 512, 'interfaces': 0}
        self._documents |= documents.generate(
            {name: small | dict(one) for name, one in asked.items()},
            known['libvirt_version'], known['qemu_version'])
        self._asked = asked

    def start(self, name: str) -> 'Guest':
        """Adjust the domain XML of a guest, define it and start it."""
        asked = self._asked[name]
        self._count += 1
        document = etree.fromstring(self._documents[name])
        document.find('name').text = f'instance-{self._count:08x}'
        adjusted = self.adjust(
            etree.tostring(document, encoding='unicode'),
            asked.get('extra_specs', {}), asked.get('image', {}))
        made = Guest(self.host, adjusted)
        made.define()
        made.power_on()
        return made

    def adjust(self, document: str, extra_specs: typing.Mapping[str, str],
               image_properties: typing.Mapping[str, str]) -> str:
        """What the hooks make of domain XML, with the facts of this host."""
        facts = {**self.facts, 'guest': {
            'extra_specs': dict(extra_specs),
            'image_properties': dict(image_properties), 'previous': None}}
        with tempfile.TemporaryDirectory(prefix='nova-arm-ext-') as name:
            folder = pathlib.Path(name)
            (folder / 'facts.json').write_text(json.dumps(facts))
            (folder / 'domain.xml').write_text(document)
            done = subprocess.run(
                (sys.executable, '-W', 'ignore', '-m', 'nova_arm_ext.cmd.main',
                 'preview', '--facts', 'facts.json', '--format', 'xml',
                 'domain.xml'), cwd=folder, capture_output=True, text=True,
                check=False)
        if done.returncode:
            raise RuntimeError(f'the hooks refuse it: {done.stderr.strip()}')
        return done.stdout


class Guest:
    """One guest.

    :param document: its domain XML, as it is defined
    """

    def __init__(self, host: hosts.Shell, document: str) -> None:
        self.document = document
        self._host = host
        parsed = etree.fromstring(document)
        self.name = parsed.findtext('name')
        self.arch = parsed.find('os/type').get('arch')
        self._disk = parsed.find('devices/disk/source').get('file')
        self._folder = self._disk.rpartition('/')[0]
        self._log = parsed.find('devices/serial/log').get('file')
        self._console: _Console | None = None
        self._started = 0.0

    def define(self) -> None:
        """Give it a disk and define it."""
        disk = guest.ensure(self.arch).disk
        self._host.run('sh', '-ec', _DISK,
                       f'{self._host.guests}/{disk.parent.name}',
                       f'{_BASE}/{self.arch}.qcow2', self._folder, self._disk)
        document = f'{self._folder}/domain.xml'
        self._host.write(document, self.document.encode())
        self._virsh('define', document)

    def power_on(self) -> None:
        self._host.run('rm', '-f', self._log)
        self._started = time.monotonic()
        self._virsh('start', self.name)
        self._console = _Console(self._host, self._log)

    def power_off(self) -> None:
        self._virsh('destroy', self.name)
        self._close()

    def remove(self) -> None:
        """Leave nothing of it on the host."""
        self._close()
        for command in (('destroy',), ('undefine', '--nvram')):
            # It may not run any more, or not be defined yet.
            with contextlib.suppress(errors.CommandFailed):
                self._virsh(*command, self.name)
        self._host.run('rm', '-rf', self._folder)

    def report(self) -> guest.Report:
        """The last report since it was switched on.

        :raises HasFailed: when its kernel has stopped
        :raises GuestError: when there is none in time
        """
        assert self._console is not None
        while not (found := guest.reports(self._console.text)):
            if fault := _FAULT.search(self._console.text):
                raise HasFailed(fault[0])
            if self.seconds > PATIENCE:
                raise GuestError(
                    f'no report of {self.name} within {PATIENCE:.0f} s:\n'
                    f'{self._console.text[-4000:]}')
            time.sleep(0.2)
        return found[-1]

    @property
    def seconds(self) -> float:
        """Since it was switched on."""
        return time.monotonic() - self._started

    def live(self) -> etree._Element:
        """Its domain XML while it runs."""
        return etree.fromstring(self._virsh('dumpxml', self.name))

    def qemu(self) -> str:
        """The command line of its QEMU, an option with its value a line."""
        return self._host.run('cat', f'/var/log/libvirt/qemu/{self.name}.log')

    def _virsh(self, *command: str) -> str:
        return self._host.run('virsh', '-q', *command)

    def _close(self) -> None:
        if self._console is not None:
            self._console.close()
            self._console = None


# The disk is copied once, and each guest writes to a file of its own.
_DISK = """\
mkdir -p "$2" "${1%/*}"
if [ ! -e "$1" ]; then
    cp "$0/disk.qcow2" "$1.part"
    mv "$1.part" "$1"
fi
qemu-img create -q -f qcow2 -F qcow2 -b "$1" "$3"
"""


class _Console:
    """What a guest prints, as it prints it.

    :param path: of its log on the host
    """

    def __init__(self, host: hosts.Shell, path: str) -> None:
        self.text = ''
        self._process = subprocess.Popen(
            host.command('tail', '-q', '-n', '+1', '-F', path),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.text += line.decode(errors='replace')

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
