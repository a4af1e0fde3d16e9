# SPDX-License-Identifier: Apache-2.0
"""What the sdist and the wheel contain and declare."""

import base64
import configparser
import csv
import email
import hashlib
import io
import tarfile
import zipfile

from tests.packaging import environments
from tests.support import base


class WheelTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.wheel = zipfile.ZipFile(environments.build().wheel)
        self.addCleanup(self.wheel.close)

    def dist_info(self, name):
        (path,) = (path for path in self.wheel.namelist()
                   if path.endswith(f'.dist-info/{name}'))
        return self.wheel.read(path).decode()

    def test_only_the_package_and_the_startup_files_are_in_it(self):
        roots = {name.split('/')[0] for name in self.wheel.namelist()}

        roots = {name for name in roots
                 if not name.endswith(('.dist-info', '.data'))}

        self.assertEqual(
            {'nova_arm_ext', environments.PTH, environments.START}, roots)

    def test_the_data_are_samples_for_deployment_tools(self):
        data = {name.partition('.data/')[2] for name in self.wheel.namelist()}

        data.discard('')

        self.assertEqual({'data/share/nova-arm-ext'}, {
            '/'.join(name.split('/')[:3]) for name in data})
        self.assertIn('data/share/nova-arm-ext/nova-arm-ext.conf.sample',
                      data)

    def test_record_lists_every_file_with_its_hash(self):
        rows = list(csv.reader(io.StringIO(self.dist_info('RECORD'))))

        recorded = {name: (digest, size) for name, digest, size in rows}
        actual = {}
        for name in self.wheel.namelist():
            content = self.wheel.read(name)
            digest = base64.urlsafe_b64encode(
                hashlib.sha256(content).digest()).rstrip(b'=').decode()
            actual[name] = (f'sha256={digest}', str(len(content)))
            if name.endswith('.dist-info/RECORD'):
                actual[name] = ('', '')
        self.assertEqual(len(rows), len(recorded))
        self.assertEqual(actual, recorded)

    def test_path_file_is_one_import_line(self):
        lines = self.wheel.read(environments.PTH).decode().splitlines()

        self.assertEqual(1, len(lines))
        self.assertTrue(lines[0].startswith('import '), lines)

    def test_start_file_is_one_entry_point(self):
        self.assertEqual(b'nova_arm_ext.nova_virt:install\n',
                         self.wheel.read(environments.START))

    def test_requirements_are_the_declared_ones_without_nova(self):
        metadata = email.message_from_string(self.dist_info('METADATA'))

        needed, extra = set(), set()
        for requirement in metadata.get_all('Requires-Dist'):
            (extra if 'extra ==' in requirement else needed).add(
                requirement.split('>=')[0])

        self.assertEqual(
            {'cliff', 'lxml', 'oslo.config', 'oslo.log',
             'oslo.upgradecheck', 'pbr', 'stevedore'}, needed)
        self.assertEqual({'libvirt-python', 'virt-firmware'}, extra)

    def test_metadata_names_licence_and_python(self):
        metadata = email.message_from_string(self.dist_info('METADATA'))

        self.assertEqual('nova-arm-ext', metadata['Name'])
        self.assertEqual('Apache-2.0', metadata['License-Expression']
                         or metadata['License'])
        self.assertEqual('>=3.10', metadata['Requires-Python'])

    def test_untagged_checkout_gives_a_development_version(self):
        metadata = email.message_from_string(self.dist_info('METADATA'))

        self.assertEqual('0.0.1.dev1', metadata['Version'])

    def test_every_entry_point_names_a_module_of_the_package(self):
        entry_points = configparser.ConfigParser(delimiters=('=',))
        entry_points.read_string(self.dist_info('entry_points.txt'))
        files = set(self.wheel.namelist())

        missing = []
        for group in entry_points.sections():
            for name, target in entry_points.items(group):
                path = target.split(':')[0].strip().replace('.', '/')
                if not {f'{path}.py', f'{path}/__init__.py'} & files:
                    missing.append(f'{group}: {name} = {target}')

        self.assertEqual([], missing)
        self.assertEqual(
            {'console_scripts', 'nova.api.extra_spec_validators',
             'nova_arm_ext.cmd', 'nova_arm_ext.hooks',
             'nova_arm_ext.nvram_stores', 'oslo.config.opts'},
            set(entry_points.sections()))


class SdistTest(base.TestCase):

    def test_it_carries_what_building_from_it_needs(self):
        with tarfile.open(environments.build().sdist) as sdist:
            names = {name.partition('/')[2] for name in sdist.getnames()}

        needed = {'LICENSE', 'PKG-INFO', 'pyproject.toml', 'requirements.txt',
                  'setup.cfg', 'setup.py', 'build_backend/backend.py',
                  f'build_backend/{environments.PTH}',
                  f'build_backend/{environments.START}'}
        self.assertEqual(set(), needed - names)
