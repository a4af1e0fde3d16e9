# SPDX-License-Identifier: Apache-2.0
"""Runs the command as its users do, in this or another process."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys

import fixtures

from nova_arm_ext.cmd import main
from tests.support import base

DOCUMENT = """\
<domain type="kvm">
  <uuid>8d5e4b6a-93c1-4e07-8f6e-3f2b1c9a7d10</uuid>
  <name>instance-0000002a</name>
  <memory>1048576</memory>
  <vcpu>2</vcpu>
  <sysinfo type="smbios"/>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
      <nova:flavor name="m1.arm">
        <nova:extraSpecs>
          <nova:extraSpec name="arm:free_pcie_root_ports">7</nova:extraSpec>
        </nova:extraSpecs>
      </nova:flavor>
    </nova:instance>
  </metadata>
  <os firmware="efi">
    <type arch="aarch64" machine="virt">hvm</type>
    <boot dev="hd"/>
  </os>
  <features>
    <acpi/>
    <ioapic driver="kvm"/>
  </features>
  <cpu mode="host-passthrough" match="exact"/>
  <devices>
    <disk type="file" device="disk">
      <source file="/var/lib/nova/instances/disk"/>
      <target dev="vda" bus="virtio"/>
    </disk>
  </devices>
</domain>
"""

#: The same guest, as it is after the hooks.
UNCHANGED = DOCUMENT.replace('    <ioapic driver="kvm"/>\n', '').replace(
    '  </devices>\n',
    '    <controller type="pci" index="0" model="pcie-root"/>\n'
    + '    <controller type="pci" model="pcie-root-port"/>\n' * 8
    + '  </devices>\n')

X86 = DOCUMENT.replace('aarch64', 'x86_64').replace(
    '<memory>', "<memory unit='KiB'>")

FACTS = {
    'format': 1,
    'host': {'arch': 'aarch64', 'libvirt_version': '11.3.0',
             'qemu_version': '10.0.0'}}

#: Nobody listens there.
NO_LIBVIRT = 'qemu+unix:///system?socket=/nonexistent/libvirt-sock'


class Stream(io.TextIOWrapper):
    """A stream of the command; a test may say that it is a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """The exit status and output of a command."""

    status: int
    out: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        return self.out.decode()

    @property
    def json(self):
        return json.loads(self.out)


class CommandTestCase(base.TestCase):
    """A test that runs the command and leaves nothing behind.

    This machine's libvirt is not used: the default URI leads nowhere.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', NO_LIBVIRT))
        for name in ('NO_COLOR', 'PYTHONWARNINGS'):
            self.useFixture(fixtures.EnvironmentVariable(name))
        self.document = self.file('domain.xml', DOCUMENT)
        self.facts = self.file('facts.json', FACTS)

    def file(self, name, content) -> str:
        """A file in the test's directory; a dict is written as JSON."""
        path = self.directory / name
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes)
                         else content.encode())
        return str(path)

    def run_command(self, *arguments, stdin=b'') -> Ran:
        """Run the command in this process."""
        out, err = (Stream(io.BytesIO(), 'utf-8') for _ in '12')
        with (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
              fixtures.MonkeyPatch('sys.stdin', Stream(io.BytesIO(stdin)))):
            status = main.main(arguments)
        for stream in (out, err):
            stream.flush()
        return Ran(status=status, out=out.buffer.getvalue(),
                   stderr=err.buffer.getvalue().decode())

    def preview(self, *arguments, stdin=b'') -> Ran:
        """Preview the domain XML with the facts."""
        return self.run_command(
            'preview', '--facts', self.facts, *arguments, self.document,
            stdin=stdin)

    def environment(self, **more) -> dict[str, str]:
        """The environment of a process, with caches in the test's folder."""
        return {**os.environ, 'XDG_CACHE_HOME': str(self.directory / 'cache'),
                'PYTHONDONTWRITEBYTECODE': '1', **more}

    def command(self, *arguments) -> list[str]:
        """The command line of a process."""
        return [sys.executable, '-m', 'nova_arm_ext.cmd.main', *arguments]

    def run_process(self, *arguments, stdin=b'', **environment) -> Ran:
        """Run the command in another process."""
        return self._ran(self.command(*arguments), stdin, environment)

    def run_python(self, source: str, **environment) -> Ran:
        """Run a program in another process."""
        return self._ran([sys.executable, '-c', source], b'', environment)

    def _ran(self, command, stdin, environment) -> Ran:
        done = subprocess.run(
            command, input=stdin, capture_output=True,
            env=self.environment(**environment), timeout=60)
        return Ran(status=done.returncode, out=done.stdout,
                   stderr=done.stderr.decode())

    def plugins(self, source: str, *, namespace: str = 'nova_arm_ext.hooks',
                **entry_points: str) -> dict[str, str]:
        """Install hooks of another package for a process.

        :param source: the module `strange_hooks`
        :param namespace: of the entry points
        :param entry_points: names to values
        :returns: environment variables with which it is found
        """
        where = self.directory / 'plugins'
        metadata = where / 'strange_hooks-1.0.dist-info'
        metadata.mkdir(parents=True)
        (where / 'strange_hooks.py').write_text(source)
        (metadata / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: strange-hooks\nVersion: 1.0\n')
        (metadata / 'entry_points.txt').write_text(
            f'[{namespace}]\n' + ''.join(
                f'{name} = {value}\n'
                for name, value in entry_points.items()))
        return {'PYTHONPATH': os.pathsep.join(filter(None, (
            str(where), os.environ.get('PYTHONPATH'))))}

    def assert_fails(self, ran: Ran, *parts: str) -> None:
        """Check for status 2, one line on standard error, and nothing else."""
        self.assertEqual(2, ran.status, ran)
        self.assertEqual(b'', ran.out)
        self.assert_one_line(ran, *parts)

    def assert_one_line(self, ran: Ran, *parts: str) -> None:
        """Check that standard error is one line with these words."""
        self.assertTrue(ran.stderr.startswith('nova-arm-ext: '), ran.stderr)
        self.assertEqual('\n', ran.stderr[-1])
        self.assertEqual(1, len(ran.stderr.splitlines()), ran.stderr)
        self.assertNotIn('Traceback', ran.stderr)
        for part in parts:
            self.assertIn(part, ran.stderr)
