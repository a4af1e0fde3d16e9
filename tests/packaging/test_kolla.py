# SPDX-License-Identifier: Apache-2.0
"""contrib/ and devstack/, as Kolla, Kolla-Ansible and others use them."""

import configparser
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tarfile

import yaml

from tests.packaging import environments
from tests.packaging.test_install import needs_nova
from tests.support import base

KOLLA = environments.ROOT / 'contrib/kolla'
OSA = environments.ROOT / 'contrib/openstack-ansible'
DEVSTACK = environments.ROOT / 'devstack'

#: Kolla's own code, up to where it would call a container engine.
PLUGINS = '''
import json, sys
from kolla.common import config
from kolla.image import kolla_worker
from kolla.engine_adapter import engine
from oslo_config import cfg
conf = cfg.ConfigOpts()
config.parse(conf, ['--config-file', {conf!r}, '--base', 'debian',
                    '--base-arch', 'aarch64', '--template-only',
                    '--template-override', {override!r},
                    '--work-dir', {work!r}, '^nova-', 'openstack-base'],
             prog='kolla-build')
engine.getEngineClient = lambda conf: None
worker = kolla_worker.KollaWorker(conf)
worker.setup_working_dir()
worker.find_dockerfiles()
worker.create_dockerfiles()
worker.build_image_list()
answer = [
    {{image.name: image.plugins for image in worker.images if image.plugins}},
    {{image.name: open(image.path + '/Dockerfile').read()
      for image in worker.images if image.name in
      ('nova-base', 'nova-libvirt', 'nova-compute')}}]
'''


class KollaBuildTest(base.TestCase):
    """Kolla itself reads the plugin and renders the Dockerfiles."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = environments.empty()
        cls.environment.pip('install', 'kolla>=20')
        work = environments.fresh('kolla')
        cls.plugins, cls.dockerfiles = cls.environment.report(PLUGINS.format(
            conf=str(KOLLA / 'kolla-build.conf'), work=str(work),
            override=str(KOLLA / 'template-override.j2')))

    def test_the_base_image_gets_the_plugin(self):
        ours = [(image, plugin['type'], plugin['source'])
                for image, plugins in self.plugins.items()
                for plugin in plugins if 'nova-arm-ext' in plugin['name']]

        self.assertEqual(
            [('nova-base', 'local', '/etc/kolla/nova-arm-ext.tar.gz')], ours)

    def test_images_have_firmware_for_both(self):
        for image in ('nova-base', 'nova-libvirt'):
            for package in ('qemu-efi-aarch64', 'qemu-efi-arm'):
                self.assertIn(f' {package} ',
                              self.dockerfiles[image].replace('\\', ' ')
                              .replace(';', ' ; '), image)

    def test_the_image_installs_what_lies_in_its_plugins_folder(self):
        text = self.dockerfiles['nova-base']

        self.assertIn('ADD plugins-archive /', text)
        [command] = re.findall(
            r'if \[ "\$\(ls /plugins\)" \]; then\s*(.*?);', text, re.DOTALL)
        self.assertRegex(
            ' '.join(command.replace('\\', ' ').split()),
            r'^python3 -m pip .*install .*-c \S*upper-constraints\.txt '
            r'/plugins/\*$')


@needs_nova
class ImageTest(base.TestCase):
    """What the image does with the plugin, in Nova's environment."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = environments.with_nova()
        cls.before = cls.environment.freeze()
        plugins = environments.fresh('plugins')
        with tarfile.open(environments.build().sdist) as sdist:
            sdist.extractall(plugins, filter='data')
        [plugin] = plugins.iterdir()
        # the release's upper constraints, as of what it runs with
        constraints = environments.fresh('requirements') / 'upper.txt'
        constraints.write_text(''.join(
            f'{line}\n'.replace('==', '===') for line in sorted(cls.before)
            if '==' in line and ' @ ' not in line))
        cls.environment.pip('install', '--no-cache-dir', '--upgrade', '-c',
                            constraints, plugin)
        cls.share = cls.environment.directory / 'share/nova-arm-ext'
        # the environment is a copy of Nova's packages, without their scripts
        script = cls.environment.interpreter.parent / 'oslo-config-validator'
        script.write_text(
            f'#!{cls.environment.interpreter}\nimport sys\n'
            f'from oslo_config import validator\nsys.exit(validator.main())\n')
        script.chmod(0o755)

    def test_nothing_else_moves(self):
        after = self.environment.freeze()

        self.assertEqual(set(), self.before - after)
        [added] = after - self.before
        self.assertTrue(added.startswith('nova-arm-ext'), added)

    def test_files_for_deployment_tools_are_there(self):
        self.assertEqual(
            ['nova-arm-ext-flavor.json', 'nova-arm-ext-image.json'],
            sorted(path.name for path in (self.share / 'metadefs').iterdir()))
        for path in (self.share / 'metadefs').iterdir():
            self.assertTrue(json.loads(path.read_text())['properties'])

    def test_nova_loads_the_driver_of_the_fragment(self):
        answer = self.environment.report(f'''
import nova.conf
from nova.virt import driver, fake
nova.conf.CONF([], project='nova', default_config_files=[{str(
    KOLLA / 'config/nova/arm-compute-1/nova.conf')!r}])
made = driver.load_compute_driver(fake.FakeVirtAPI())
answer = [type(made).__name__, nova.conf.CONF.arm_pcie_root_ports.free]
''')

        self.assertEqual(['ArmLibvirtDriver', 8], answer)

    def validated(self, generator: str) -> str:
        """The output of the command of kolla-ansible validate-config."""
        paths = {'/nova/etc/nova/nova-config-generator.conf':
                 str(self.novas()),
                 '/var/lib/kolla/venv': str(self.environment.directory)}
        for theirs, here in paths.items():
            generator = generator.replace(theirs, shlex.quote(here))
        config = shlex.quote(str(
            KOLLA / 'config/nova/arm-compute-1/nova.conf'))
        done = subprocess.run(
            ['bash', '-c', f'[[ -f {config} ]] && oslo-config-validator '
                           f'--config-file {generator} --input-file '
                           f'{config}'],
            env=os.environ | {'PATH': f'{self.environment.interpreter.parent}:'
                                      f'{os.environ["PATH"]}'},
            capture_output=True, text=True, check=False, timeout=200)
        return done.stderr

    def novas(self) -> pathlib.Path:
        """The relevant part of Nova's own generator file."""
        path = environments.fresh('nova') / 'nova-config-generator.conf'
        path.write_text('[DEFAULT]\nnamespace = nova.conf\n'
                        'namespace = oslo.log\n')
        return path

    def test_our_options_are_known_to_validate_config(self):
        [asked] = yaml.safe_load((KOLLA / 'globals.yml').read_text())[
            'nova_cell_config_validation']

        without = self.validated('/nova/etc/nova/nova-config-generator.conf')

        self.assertRegex(without, 'ERROR.*arm_pcie_root_ports/free')
        self.assertNotRegex(self.validated(asked['generator']),
                            'ERROR|Traceback')
        self.assertEqual('/etc/nova/nova.conf', asked['config'])


class FragmentsTest(base.TestCase):

    def test_the_inventory_marks_arm_hosts(self):
        hosts = configparser.ConfigParser(allow_no_value=True,
                                          delimiters=('\t',))
        hosts.read(KOLLA / 'inventory')

        arm = [line for line in hosts['compute'] if line.startswith('arm-')]
        self.assertEqual(2, len(arm))
        for line in arm:
            self.assertTrue(line.endswith(' openstack_tag_suffix=-aarch64'))
        self.assertTrue((KOLLA / 'config/nova' / arm[0].split()[0]).is_dir())

    def test_variables_of_openstack_ansible(self):
        self.assertEqual(
            {'nova_user_pip_packages': ['nova-arm-ext']},
            yaml.safe_load((OSA / 'user_variables.yml').read_text()))
        self.assertEqual(
            {'nova_nova_conf_overrides': {'DEFAULT': {
                'compute_driver': 'arm_ext.ArmLibvirtDriver'}}},
            yaml.safe_load((OSA / 'host_vars/arm-compute-1.yml').read_text()))

    def test_each_phase_of_devstack(self):
        self.assertIsNotNone(shutil.which('bash'))
        devstack = shlex.quote(str(DEVSTACK))
        said = {phase: subprocess.run(
            ['bash', '-eu', '-c', f'''
                for name in is_service_enabled install_package setup_develop \
                        iniset define_plugin nova-arm-ext; do
                    eval "$name() {{ echo $name \\$@; }}"
                done
                is_service_enabled() {{ [[ $1 == n-cpu ]]; }}
                DEST=/opt/stack NOVA_CONF=/etc/nova/nova.conf
                source {devstack}/settings
                source {devstack}/plugin.sh {phase}'''],
            capture_output=True, text=True, check=True).stdout.splitlines()[1:]
            for phase in ('stack install', 'stack post-config', 'unstack ""')}

        self.assertEqual({
            'stack install': [
                'install_package qemu-efi-aarch64 qemu-efi-arm',
                'setup_develop /opt/stack/nova-arm-ext'],
            'stack post-config': [
                'iniset /etc/nova/nova.conf DEFAULT compute_driver '
                'arm_ext.ArmLibvirtDriver'],
            'unstack ""': []}, said)
