# SPDX-License-Identifier: Apache-2.0
"""Collecting facts, from libvirt with and without answers."""

import dataclasses
import json
import os
import pathlib
import types
import unittest

import fixtures

from nova_arm_ext import compat
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from tests.support import base

try:
    import libvirt

    from nova_arm_ext.compute import gather
except ImportError as e:
    raise unittest.SkipTest(f'libvirt-python is not installed: {e}') from e

CAPABILITIES = '''
<capabilities>
  <host><cpu><arch>aarch64</arch></cpu></host>
  <guest><arch name="aarch64">
    <domain type="qemu"/><domain type="kvm"/></arch></guest>
  <guest><arch name="armv7l"><domain type="qemu"/></arch></guest>
  <guest><arch name="x86_64"><domain type="qemu"/></arch></guest>
</capabilities>
'''

DESCRIPTOR = {
    'interface-types': ['uefi'],
    'mapping': {
        'device': 'flash',
        'executable': {'filename': '/code', 'format': 'raw'},
        'nvram-template': {'filename': '/vars', 'format': 'raw'}},
    'targets': [{'architecture': 'aarch64', 'machines': ['virt-*']}],
    'features': []}
FIRMWARE = facts.Firmware(arch='aarch64', machines=('virt-*',),
                          loader='/code', template='/vars')


class Connection:
    """The part of a libvirt connection that is used here.

    An exception is raised instead of returned.
    """

    def __init__(self, *, capabilities=CAPABILITIES, libvirt=9000000,
                 qemu=7002022, loaders=('/code', '/code32', '/code.ms')):
        self._capabilities = capabilities
        self._libvirt = libvirt
        self._qemu = qemu
        self._loaders = loaders
        self.asked = []

    @staticmethod
    def _answer(value):
        if isinstance(value, Exception):
            raise value
        return value

    def getCapabilities(self):
        return self._answer(self._capabilities)

    def getLibVersion(self):
        return self._answer(self._libvirt)

    def getVersion(self):
        return self._answer(self._qemu)

    def getDomainCapabilities(self, emulator, arch, machine, virt_type,
                              flags=0):
        self.asked.append((emulator, arch, machine, virt_type))
        loaders = self._answer(self._loaders)
        return ('<domainCapabilities><os>' + (
            '' if loaders is None else '<loader>' + ''.join(
                f'<value>{path}</value>' for path in loaders)
            + '<enum name="type"><value>pflash</value></enum></loader>')
            + '</os></domainCapabilities>')


def fault():
    return libvirt.libvirtError('it does not answer')


class GatherTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.known_places()

    def known_places(self, *pairs):
        """Have no 32-bit firmware but this in known places."""
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.gather.FIRMWARE_32', pairs))

    def describe(self, name='50.json', folder=None, **changes):
        text = json.dumps({**DESCRIPTOR, **changes})
        ((folder or self.folder) / name).write_text(text)

    def host(self, connection=None, **more):
        more.setdefault('descriptors', [str(self.folder)])
        return gather.host(connection or Connection(), **more)


class HostTest(GatherTestCase):

    def test_what_libvirt_says_of_the_host(self):
        self.describe()

        host = self.host()

        self.assertEqual(
            ('aarch64', (9, 0, 0), (7, 2, 22)),
            (host.arch, host.libvirt_version, host.qemu_version))
        self.assertEqual({'aarch64': ('qemu', 'kvm'), 'armv7l': ('qemu',),
                          'x86_64': ('qemu',)}, host.virt_types)
        self.assertEqual((FIRMWARE,), host.firmware)

    def test_what_it_does_not_answer_is_unknown_with_a_warning(self):
        for what, name in (('capabilities', 'arch'),
                           ('libvirt', 'libvirt_version'),
                           ('qemu', 'qemu_version')):
            host = self.host(Connection(**{what: fault()}))

            self.assertIsNone(getattr(host, name))
        self.assertEqual(3, self.log.output.count('WARNING'))
        self.assertIn('it does not answer', self.log.output)

    def test_a_libvirt_that_answers_nothing_fails_nobody(self):
        host = self.host(Connection(capabilities=fault(), libvirt=fault(),
                                    qemu=fault(), loaders=fault()))

        self.assertEqual((None, None, None, None), (
            host.arch, host.libvirt_version, host.qemu_version,
            host.virt_types))

    def test_of_another_machine_its_files_are_not_asked(self):
        self.describe()

        host = self.host(local=False)

        self.assertIsNone(host.firmware)
        self.assertIsNone(host.aarch32_el1)

    def test_it_can_be_told_as_json_and_read_back(self):
        self.describe()
        known = facts.Facts(host=self.host())

        self.assertEqual(known, facts.Facts.from_json(known.to_json()))

    def test_a_real_connection_is_asked_for_nothing_that_fails(self):
        # libvirt's own mock driver: it has no QEMU and no Arm
        connection = libvirt.open('test:///default')
        self.addCleanup(connection.close)

        host = self.host(connection)

        self.assertEqual(connection.getLibVersion(), (
            host.libvirt_version[0] * 1000000 + host.libvirt_version[1] * 1000
            + host.libvirt_version[2]))
        self.assertIsNotNone(host.virt_types)
        self.assertEqual(known := facts.Facts(host=host),
                         facts.Facts.from_json(known.to_json()))


class LackingDevicesTest(GatherTestCase):

    def test_the_machines_are_those_of_the_capabilities(self):
        self.assertIsNone(self.host().machines)
        self.assertEqual(('virt-7.2', 'virt-6.2'), self.host(Connection(
            capabilities=CAPABILITIES.replace(
                '<arch name="aarch64">',
                '<arch name="aarch64"><machine>virt-7.2</machine>'
                '<machine canonical="virt-7.2">virt</machine>'
                '<machine>virt-6.2</machine><machine>sbsa-ref</machine>'
                '<domain type="kvm"><machine>virt-7.2</machine></domain>'
                ))).machines)

    def host_with(self, script: str) -> facts.Host:
        emulator = self.folder / 'qemu'
        emulator.write_text(f'#!/bin/sh\n{script}\n')
        emulator.chmod(0o755)
        return self.host(Connection(capabilities=CAPABILITIES.replace(
            '<arch name="aarch64">',
            f'<arch name="aarch64"><emulator>{emulator}</emulator>')))

    def test_qemu_is_asked_which_devices_it_has(self):
        all_but_one = ''.join(
            f'name "{name}", bus PCI\\n' for name in compat.ASKED_ABOUT
            if name != 'i6300esb')

        host = self.host_with(f'[ "$*" = "-device help" ] || exit 1\n'
                              f'printf \'{all_but_one}\'')

        self.assertEqual(('i6300esb',), host.lacks)

    def test_without_an_answer_it_is_unknown(self):
        self.assertIsNone(self.host().lacks)
        self.assertNotIn('WARNING', self.log.output)
        self.assertIsNone(self.host_with('exit 1').lacks)
        self.assertIn('unknown which devices', self.log.output)
        self.assertIsNone(self.host(local=False).lacks)


class FirmwareTest(GatherTestCase):

    def test_the_order_is_that_of_the_file_names(self):
        self.describe('60-plain.json')
        self.describe('40-secure.json', features=[
            'enrolled-keys', 'secure-boot'], mapping={
                'device': 'flash', 'mode': 'split',
                'executable': {'filename': '/code.ms'},
                'nvram-template': {'filename': '/vars.ms',
                                   'format': 'qcow2'}})

        firmware = self.host().firmware

        self.assertEqual(['/code.ms', '/code'], [f.loader for f in firmware])
        self.assertEqual((True, True, 'raw', 'qcow2'), (
            firmware[0].secure_boot, firmware[0].enrolled_keys,
            firmware[0].loader_format, firmware[0].template_format))

    def test_a_later_folder_wins_and_an_empty_file_masks(self):
        etc = self.folder / 'etc'
        etc.mkdir()
        self.describe('50.json')
        self.describe('60.json')
        self.describe('50.json', etc, mapping={
            'device': 'flash', 'executable': {'filename': '/code32'},
            'nvram-template': {'filename': '/vars32'}})
        (etc / '60.json').write_text('')

        firmware = self.host(
            descriptors=[str(self.folder), str(etc)]).firmware

        self.assertEqual(['/code32'], [f.loader for f in firmware])
        self.assertNotIn('WARNING', self.log.output)

    def test_32_bit_is_called_arm_there(self):
        self.describe(targets=[
            {'architecture': 'arm', 'machines': ['virt-*']},
            {'architecture': 'x86_64', 'machines': ['pc-q35-*']}])

        self.assertEqual(['armv7l'],
                         [f.arch for f in self.host().firmware])

    def test_what_is_no_split_flash_for_uefi_is_passed_by_in_silence(self):
        for number, changes in enumerate((
                {'interface-types': ['bios']},
                {'mapping': {'device': 'memory', 'filename': '/code'}},
                {'mapping': {'device': 'flash', 'mode': 'stateless',
                             'executable': {'filename': '/code'}}},
                {'mapping': {'device': 'flash', 'mode': 'combined',
                             'executable': {'filename': '/code'}}})):
            self.describe(f'{number}.json', **changes)

        self.assertEqual((), self.host().firmware)
        self.assertNotIn('WARNING', self.log.output)

    def test_a_link_to_nowhere_hides_no_other(self):
        etc = self.folder / 'etc'
        etc.mkdir()
        self.describe('50.json')
        (etc / '40.json').symlink_to('/nonexistent/file')

        self.assertEqual((FIRMWARE,), self.host(
            descriptors=[str(self.folder), str(etc)]).firmware)
        self.assertIn('40.json is ignored', self.log.output)

    def test_equal_features_keep_the_order_of_names_and_folders(self):
        etc = self.folder / 'etc'
        etc.mkdir()
        for name, folder, loader in (
                ('60.json', self.folder, '/code'),
                ('50.json', self.folder, '/code32'),
                ('60.json', etc, '/code.ms')):
            self.describe(name, folder, mapping={
                'device': 'flash', 'executable': {'filename': loader},
                'nvram-template': {'filename': '/vars'}})

        self.assertEqual(['/code32', '/code.ms'], [
            one.loader for one in self.host(
                descriptors=[str(self.folder), str(etc)]).firmware])

    def test_a_broken_descriptor_is_named_and_the_others_are_read(self):
        for number, text in enumerate((
                '{', '[]', 'null', '"x"', '{}', '{"interface-types": 3}',
                json.dumps({**DESCRIPTOR, 'targets': [{}]}),
                json.dumps({**DESCRIPTOR, 'targets': {'architecture': 1}}),
                json.dumps({**DESCRIPTOR, 'mapping': []}),
                json.dumps({**DESCRIPTOR, 'mapping': {'device': 'flash'}}),
                json.dumps({**DESCRIPTOR, 'mapping': {
                    'device': 'flash', 'executable': {'filename': 1},
                    'nvram-template': {'filename': '/vars'}}}),
                '[' * 100000)):
            (self.folder / f'{number}.json').write_text(text)
        (self.folder / '97.json').write_bytes(b'\xff\xfe\xff')
        (self.folder / '98.json').mkdir()
        self.describe('99.json')

        self.assertEqual((FIRMWARE,), self.host().firmware)

        for name in (*range(12), 97, 98):
            self.assertIn(f'{self.folder}/{name}.json is ignored',
                          self.log.output)

    def test_what_libvirt_does_not_see_is_not_there(self):
        self.describe()

        self.assertEqual((), self.host(Connection(loaders=())).firmware)

    def test_where_libvirt_is_silent_the_file_system_speaks(self):
        code = self.folder / 'code'
        mapping = {'device': 'flash', 'executable': {'filename': str(code)},
                   'nvram-template': {'filename': '/vars'}}
        self.describe(mapping=mapping)
        for loaders in (None, fault()):
            code.unlink(missing_ok=True)
            self.assertEqual((), self.host(Connection(
                loaders=loaders)).firmware)
            code.write_text('')
            self.assertEqual(1, len(self.host(Connection(
                loaders=loaders)).firmware))

    def test_other_paths_of_a_firmware_are_known(self):
        code = self.folder / 'code.new'
        code.write_text('')
        elsewhere = self.folder / 'elsewhere'
        elsewhere.mkdir()
        (self.folder / 'code.old').symlink_to('code.new')
        (elsewhere / 'code').symlink_to(code)
        (self.folder / 'vars.old').symlink_to('vars')
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.gather.FIRMWARE_FOLDERS',
            (str(elsewhere), '/no/such/folder')))
        for named in (code, self.folder / 'code.old'):
            self.describe(mapping={
                'device': 'flash', 'executable': {'filename': str(named)},
                'nvram-template': {'filename': '/vars'}})

            host = self.host(Connection(loaders=None))

            for path in (code, self.folder / 'code.old', elsewhere / 'code'):
                self.assertEqual(str(named),
                                 host.firmware_at(str(path)).loader)
            self.assertIsNone(host.firmware_at(f'{self.folder}/vars.old'))
            self.assertIsNone(host.firmware_at(None))

    def test_a_link_to_what_has_two_meanings_has_none(self):
        # as in Debian 12
        code = self.folder / 'code'
        code.write_text('')
        for name in ('code.ms', 'code.snakeoil'):
            (self.folder / name).symlink_to(code)
        for number, (name, features) in enumerate((
                ('code.ms', ['secure-boot']), ('code', []))):
            self.describe(f'{number}.json', features=features, mapping={
                'device': 'flash',
                'executable': {'filename': str(self.folder / name)},
                'nvram-template': {'filename': '/vars'}})

        host = self.host(Connection(loaders=None))

        for name, secure in (('code.ms', True), ('code', False)):
            self.assertEqual(secure, host.firmware_at(
                str(self.folder / name)).secure_boot)
        other = str(self.folder / 'code.snakeoil')
        self.assertIsNone(host.firmware_at(other))
        self.assertIs(host, gather.knowing(host, other))

    def test_a_loader_elsewhere_is_known_by_the_file_that_it_reaches(self):
        code, link = self.folder / 'code', self.folder / 'link'
        code.write_text('')
        link.symlink_to(code)
        host = facts.Host(firmware=(
            FIRMWARE, dataclasses.replace(FIRMWARE, loader=str(code))))

        known = gather.knowing(host, str(link))

        self.assertEqual(str(code), known.firmware_at(str(link)).loader)
        self.assertEqual(host.firmware[0], known.firmware[0])
        self.assertIs(known, gather.knowing(known, str(link)))
        self.assertEqual(host, gather.knowing(host, '/unknown'))
        self.assertEqual(facts.Host(), gather.knowing(facts.Host(), '/x'))

    def test_32_bit_firmware_is_found_without_a_descriptor(self):
        code, template = self.folder / 'code32', self.folder / 'vars32'
        self.known_places((str(code), str(template)), ('/no', '/such'))
        self.describe()
        self.assertEqual((FIRMWARE,), self.host().firmware)
        code.write_text('')
        self.assertEqual((FIRMWARE,), self.host().firmware)
        template.write_text('')

        found = self.host().firmware

        self.assertEqual((FIRMWARE, facts.Firmware(
            arch='armv7l', machines=('virt-*',), loader=str(code),
            template=str(template), described=False)), found)
        # a descriptor takes precedence
        self.describe('32.json', targets=[
            {'architecture': 'arm', 'machines': ['virt-*']}])
        self.assertTrue(all(one.described for one in self.host().firmware))
        # and nothing is looked for where there are no such guests
        (self.folder / '32.json').unlink()
        self.assertEqual((FIRMWARE,), self.host(Connection(
            capabilities=CAPABILITIES.replace('armv7l', 'ppc64'))).firmware)

    def test_firmware_without_its_template_hides_no_other(self):
        names = {}
        for number, name in enumerate(('a', 'b')):
            names[name] = str(self.folder / name)
            pathlib.Path(names[name]).write_text('')
            self.describe(f'{number}.json', mapping={
                'device': 'flash', 'executable': {'filename': names[name]},
                'nvram-template': {'filename': f'{names[name]}.vars'}})
        pathlib.Path(names['b'] + '.vars').write_text('')

        firmware = self.host(Connection(loaders=None)).firmware

        self.assertEqual([names['b'], names['a']],
                         [one.loader for one in firmware])

    def test_no_folder_is_unknown_and_an_empty_one_is_none(self):
        self.assertIsNone(self.host(
            descriptors=[str(self.folder / 'missing')]).firmware)
        self.assertEqual((), self.host().firmware)

    def test_domain_capabilities_are_asked_for_what_the_host_can_do(self):
        self.describe()
        connection = Connection()

        self.host(connection)

        self.assertEqual(
            {(None, 'aarch64', 'virt', 'kvm'),
             (None, 'armv7l', 'virt', 'qemu')}, set(connection.asked))


class Aarch32Test(GatherTestCase):

    def machine(self, name: str) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.gather.os.uname',
            lambda: types.SimpleNamespace(machine=name)))

    def test_other_machines_cannot(self):
        self.machine('x86_64')

        self.assertIs(False, gather.aarch32_el1())

    def test_without_the_device_nobody_knows(self):
        self.machine('aarch64')

        self.assertIsNone(gather.aarch32_el1(str(self.folder / 'kvm')))

    def test_a_device_that_is_not_kvm_says_nothing(self):
        self.machine('aarch64')
        before = os.listdir('/proc/self/fd')

        self.assertIsNone(gather.aarch32_el1('/dev/null'))

        self.assertEqual(len(before), len(os.listdir('/proc/self/fd')))
        self.assertIn('/dev/null', self.log.output)

    def test_kvm_is_asked_for_the_capability(self):
        self.machine('aarch64')
        for answer, meaning in ((1, True), (0, False)):
            asked = []
            with fixtures.MonkeyPatch(
                    'nova_arm_ext.compute.cpu.fcntl.ioctl',
                    lambda fd, *arguments, answer=answer, asked=asked:
                    asked.append(arguments) or answer):
                self.assertIs(meaning, gather.aarch32_el1('/dev/null'))
            self.assertEqual([(0xAE03, 93)], asked)


class GuestTest(base.TestCase):

    def instance(self, **metadata: object) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            system_metadata=metadata,
            flavor=types.SimpleNamespace(extra_specs={'arm:x': '1'}))

    def test_image_properties_are_those_of_the_system_metadata(self):
        known = gather.guest(self.instance(
            image_arm_x='2', image_hw_machine_type='virt',
            image_min_ram=0, instance_type_id='3', owner='x'))

        self.assertEqual({'arm_x': '2', 'hw_machine_type': 'virt',
                          'min_ram': '0'}, known.image_properties)
        self.assertEqual({'arm:x': '1'}, known.extra_specs)
        self.assertIsNone(known.previous)

    def test_system_information_is_as_nova_has_it(self):
        known = gather.guest(self.instance(), sysinfo=types.SimpleNamespace(
            system_manufacturer='m', system_product='p', system_serial=None))

        self.assertEqual(
            ('m', 'p', None),
            (known.system_manufacturer, known.system_product,
             known.system_serial))

    def test_a_flavor_without_extra_specs_has_none(self):
        instance = self.instance()
        instance.flavor.extra_specs = None

        self.assertEqual({}, gather.guest(instance).extra_specs)

    def test_the_image_that_is_booted_counts_in_rescue(self):
        try:
            from nova.objects import image_meta
        except ImportError as e:
            self.skipTest(f'Nova cannot be imported: {e}')
        image = image_meta.ImageMeta.from_dict({
            'properties': {'hw_firmware_type': 'bios', 'hw_disk_bus': 'scsi',
                           'hw_video_ram': 16}})

        known = gather.guest(
            self.instance(image_hw_firmware_type='uefi', image_arm_x='2'),
            image, '<domain/>')

        self.assertEqual('bios', known.image_properties['hw_firmware_type'])
        self.assertEqual('16', known.image_properties['hw_video_ram'])
        self.assertEqual('2', known.image_properties['arm_x'])
        self.assertEqual('<domain/>', known.previous)

    def test_it_is_arm_that_descriptors_are_read_for(self):
        self.assertEqual(set(view.ARM),
                         set(gather._DESCRIPTOR_ARCH.values()))
