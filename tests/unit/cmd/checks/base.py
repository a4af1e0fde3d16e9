# SPDX-License-Identifier: Apache-2.0
"""A simulated host: files in a temporary folder."""

import json
import pathlib
import uuid

import fixtures
from lxml import etree

from nova_arm_ext import facts
from nova_arm_ext.cmd import reading
from nova_arm_ext.cmd.checks import base as checks
from nova_arm_ext.cmd.checks.base import Status
from tests.support import base

MIB = 1024 * 1024

#: Nobody listens there.
NO_LIBVIRT = 'qemu+unix:///system?socket=/nonexistent/libvirt-sock'


class Place(checks.Surroundings):
    """Surroundings with answers of libvirt from the test."""

    survey = None


class ChecksTestCase(base.TestCase):
    """A host in order; each test breaks one thing."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        for name in ('descriptors', 'nvram', 'instances'):
            (self.directory / name).mkdir()
        # a folder of fixtures is closed to all others, QEMU's user included
        self.directory.chmod(0o755)
        self.conf_file = self.file(
            'nova.conf',
            '[DEFAULT]\ncompute_driver = arm_ext.ArmLibvirtDriver\n')
        self.host = facts.Host(
            arch='aarch64', libvirt_version=(11, 3, 0),
            qemu_version=(10, 0, 0), aarch32_el1=True,
            virt_types={'aarch64': ('qemu', 'kvm'),
                        'armv7l': ('qemu', 'kvm')})
        self.kvm = self.file('kvm', '')
        self.loaders = {'aarch64': [], 'armv7l': []}
        self.gic = ('2', '3')
        self.devices = ''
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.gather.FIRMWARE_32', ()))
        self.os_release = self.file('os-release', 'ID=debian\nVERSION_ID=12')
        self.pci = []
        self.driver = 'QEMU'
        self.qemu_user = 0
        for arch, name in (('aarch64', 'AAVMF'), ('arm', 'AAVMF32')):
            self.firmware(arch, name)

    def file(self, name: str, content: str | bytes) -> str:
        path = self.directory / name
        path.write_bytes(content if isinstance(content, bytes)
                         else content.encode())
        return str(path)

    def firmware(self, arch: str, name: str, features=(),
                 form: str = 'raw') -> None:
        """A descriptor with its files, which libvirt lists too."""
        paths = {}
        for part in ('CODE', 'VARS'):
            path = self.directory / f'{name}_{part}.fd'
            with path.open('wb') as file:
                file.truncate(64 * MIB)
            paths[part] = {'filename': str(path), 'format': form}
        self.file(f'descriptors/{name}.json', json.dumps({
            'interface-types': ['uefi'], 'features': list(features),
            'targets': [{'architecture': arch, 'machines': ['virt-*']}],
            'mapping': {'device': 'flash', 'executable': paths['CODE'],
                        'nvram-template': paths['VARS']}}))
        self.loaders[{'arm': 'armv7l'}.get(arch, arch)].append(
            paths['CODE']['filename'])

    def place(self, conf: str | None = None, uri: str = 'qemu:///system',
              ) -> checks.Surroundings:
        """The surroundings for the checks."""
        if conf is not None:
            self.file('nova.conf', conf)
        place = Place(
            reading.configuration([self.conf_file]), uri,
            descriptors=[str(self.directory / 'descriptors')],
            dev_kvm=self.kvm, nvram=str(self.directory / 'nvram'),
            instances=str(self.directory / 'instances'),
            qemu_conf=str(self.directory / 'qemu.conf'),
            os_release=self.os_release)
        place.survey = checks.Survey(
            uri=uri, driver=self.driver, host=self.host,
            capabilities=etree.fromstring(
                f'<capabilities><host><secmodel><model>dac</model><baselabel '
                f'type="kvm">+{self.qemu_user}:+{self.qemu_user}</baselabel>'
                f'</secmodel></host></capabilities>'),
            domain_capabilities={
                arch: etree.fromstring(
                    '<domainCapabilities><os><loader>' + ''.join(
                        f'<value>{path}</value>' for path in loaders)
                    + '</loader></os><features><gic><enum name="version">'
                    + ''.join(f'<value>{one}</value>' for one in self.gic)
                    + f'</enum></gic></features><devices>{self.devices}'
                    '</devices></domainCapabilities>')
                for arch, loaders in self.loaders.items()},
            pci=self.pci)
        return place

    def found(self, check, place=None) -> list[tuple[str, str]]:
        """Status and text of each finding."""
        return [(finding.status.value, finding.sentence) for finding in
                checks.Check('one', check).findings(place or self.place())]

    def assert_ok(self, check, place=None) -> None:
        self.assertEqual({'ok'}, {status for status, _ in
                                  self.found(check, place)},
                         self.found(check, place))

    def assert_finds(self, status: str, check, *parts: str,
                     place=None) -> None:
        """Check for one finding with this status, these words and advice."""
        found = [finding for finding in
                 checks.Check('one', check).findings(place or self.place())
                 if finding.status is Status(status)]
        matching = [finding for finding in found if all(
            part in finding.sentence for part in parts)]
        self.assertEqual(1, len(matching), found)
        if status in ('warning', 'failure'):
            self.assertTrue(matching[0].advice)

    def store(self, name: str | None = None) -> pathlib.Path:
        path = self.directory / 'nvram' / f'{name or uuid.uuid4()}_VARS.fd'
        with path.open('wb') as file:
            file.truncate(64 * MIB)
        return path


def no_libvirt() -> checks.Surroundings:
    """Surroundings whose libvirt does not answer."""
    return checks.Surroundings(reading.configuration([]), NO_LIBVIRT)
