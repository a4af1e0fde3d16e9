# SPDX-License-Identifier: Apache-2.0
"""Hosts for tests of commands."""

import shutil

from lxml import etree

from nova_arm_ext import provenance
from nova_arm_ext.domain.view import Domain
from tests.data import golden
from tests.nova.documents import judge
from tests.unit.cmd import base

#: libvirt's QEMU driver opens only in a process that has an event loop.
COMMAND = '''
import sys
import libvirt
libvirt.virEventRegisterDefaultImpl()
from nova_arm_ext.{module} import main
sys.exit(main())
'''

CONF = '[DEFAULT]\ncompute_driver = arm_ext.ArmLibvirtDriver\n'

UUID = '8d5e4b6a-93c1-4e07-8f6e-3f2b1c9a7d10'

#: As libvirt's test driver takes it, which knows only one kind of guest; it
#: keeps the metadata as they are.
TEST_HOST = '''\
<node>
  <domain type="test">
    <name>{name}</name>
    <uuid>{uuid}</uuid>
    <metadata>
      {metadata}
    </metadata>
    <memory>1048576</memory>
    <os><type>hvm</type></os>
  </domain>
</node>
'''


def defined(case: str, ours: provenance.Record) -> str:
    """A golden case's domain XML after the hooks, with its record."""
    return golden.default_pipeline().run(
        golden.before(case), golden.known(case),
        finish=lambda domain, reports: provenance.write(
            domain, ours.of(reports))).xml


class RecordedTestCase(base.CommandTestCase):
    """A test with a guest whose XML has the record of the hooks."""

    def setUp(self) -> None:
        super().setUp()
        domain = Domain.parse('<domain/>')
        provenance.write(domain, provenance.Record(
            version='0.9', options='0' * 16, hooks=(
                provenance.Hook(name='uefi'),
                provenance.Hook(name='console', failure='kept away'),
                provenance.Hook(name='libvirt_compat', reasons=(
                    provenance.Reason(place='features/ioapic',
                                      text='libvirt refuses /var/lib/x',
                                      essential=True),)))))
        self.record = etree.tostring(domain.part('metadata')[0],
                                     encoding='unicode')
        self.conf = self.file('nova.conf', '')

    def host(self, arch: str = 'aarch64') -> str:
        return 'test://' + self.file('node.xml', TEST_HOST.format(
            name='instance-0000002a', uuid=UUID, metadata=self.record))


class LibvirtTestCase(base.CommandTestCase):
    """A test with its own libvirt, with the QEMU driver."""

    def setUp(self) -> None:
        super().setUp()
        if not shutil.which('qemu-system-aarch64'):
            self.skipTest('needs qemu-system-aarch64')
        root = self.directory / 'root'
        (root / 'etc').mkdir(parents=True)
        (root / 'etc/qemu.conf').write_text(judge._QEMU_CONF)
        self.directory.chmod(0o755)
        for name in ('nvram', 'instances'):
            (self.directory / name).mkdir()
        self.uri = f'qemu:///embed?root={root}'
        self.conf = self.file('nova.conf', CONF)
