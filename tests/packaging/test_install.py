# SPDX-License-Identifier: Apache-2.0
"""The package in an environment: found by Nova, silent, removed completely."""

import shutil
import sys

import testtools

from tests.packaging import environments
from tests.support import base

IDENTITY = """
import nova.virt.arm_ext as alias
from nova_arm_ext.compute import driver
from nova.virt.libvirt import driver as stock
cls = alias.ArmLibvirtDriver
answer = [alias.__name__, cls is driver.ArmLibvirtDriver,
          issubclass(cls, stock.LibvirtDriver)]
"""

# As nova-compute does it, without a host: Nova's fakes replace the compute
# manager.
LOAD = """
import nova.conf
from nova.virt import driver, fake
nova.conf.CONF([], project='nova', default_config_files=[])
nova.conf.CONF.set_override('compute_driver', {name!r})
cls = type(driver.load_compute_driver(fake.FakeVirtAPI()))
answer = [cls.__module__, cls.__name__]
"""

MODULES = 'import sys; answer = sorted(sys.modules)'

STOCK = """
import sys
from nova.virt.libvirt import driver
answer = [sorted(sys.modules), driver.LibvirtDriver.__module__,
          [cls.__name__ for cls in driver.LibvirtDriver.__subclasses__()]]
"""

# The only modules that the startup files may import.
FINDER = {'nova_arm_ext', 'nova_arm_ext.nova_virt'}

needs_nova = testtools.skipUnless(
    environments.nova_is_here(),
    'the interpreter that runs the tests has no Nova')


class Reachable:
    """Tests for every way of installing beside Nova."""

    environment: environments.Environment

    def test_nova_virt_arm_ext_is_the_driver(self):
        answer = self.environment.report(IDENTITY)

        self.assertEqual(['nova.virt.arm_ext', True, True], answer)

    def test_nova_loads_it_by_its_option(self):
        answer = self.environment.report(
            LOAD.format(name='arm_ext.ArmLibvirtDriver'))

        self.assertEqual(
            ['nova_arm_ext.compute.driver', 'ArmLibvirtDriver'], answer)

    def test_nova_loads_its_own_driver_as_before(self):
        answer = self.environment.report(
            LOAD.format(name='libvirt.LibvirtDriver'))

        self.assertEqual(
            ['nova.virt.libvirt.driver', 'LibvirtDriver'], answer)

    def test_other_missing_drivers_stay_missing(self):
        answer = self.environment.report("""
try:
    import nova.virt.arm_ext_of_another_name
except ModuleNotFoundError as error:
    answer = error.name
""")

        self.assertEqual('nova.virt.arm_ext_of_another_name', answer)


@needs_nova
class WheelInNovasEnvironmentTest(Reachable, base.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = environments.with_nova()
        cls.stock_before = cls.environment.report(STOCK)
        cls.modules_before = cls.environment.report(MODULES)
        cls.freeze_before = cls.environment.freeze()
        cls.environment.pip('install', '--no-index',
                            environments.build().wheel)

    def test_no_version_moves(self):
        freeze = self.environment.freeze()

        self.assertEqual(set(), self.freeze_before - freeze)
        (added,) = freeze - self.freeze_before
        self.assertTrue(added.startswith('nova-arm-ext'), added)

    def test_requirements_are_met(self):
        # pip check would check the whole environment.
        said = self.environment.report("""
import importlib.metadata
from pip._vendor.packaging.requirements import Requirement
answer = []
for line in importlib.metadata.requires('nova-arm-ext'):
    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
        continue
    version = importlib.metadata.version(requirement.name)
    if version not in requirement.specifier:
        answer.append([line, version])
""")

        self.assertEqual([], said)

    def test_interpreter_start_brings_the_finder_alone(self):
        modules = self.environment.report(MODULES)

        self.assertEqual(
            FINDER, set(modules) - set(self.modules_before))

    def test_installed_but_not_chosen_leaves_novas_driver_alone(self):
        before, *driver_before = self.stock_before

        modules, *driver = self.environment.report(STOCK)

        self.assertEqual(driver_before, driver)
        self.assertEqual(FINDER, set(modules) ^ set(before))

    def test_every_entry_point_loads(self):
        answer = self.environment.report("""
import importlib.metadata
answer = [point.name for point in
          importlib.metadata.distribution('nova-arm-ext').entry_points
          if point.load() is None]
""")

        self.assertEqual([], answer)


@needs_nova
class ExtraInNovasEnvironmentTest(base.TestCase):

    def test_it_brings_virt_firmware_and_moves_no_version(self):
        environment = environments.with_nova()
        environment.pip('uninstall', '--yes', 'virt-firmware', 'pefile')
        before = environment.freeze()

        environment.pip('install', f'{environments.build().wheel}[nvram]')

        freeze = environment.freeze()
        self.assertEqual(set(), before - freeze)
        added = {line.partition('==')[0].partition(' @')[0]
                 for line in freeze - before}
        self.assertEqual({'nova-arm-ext', 'pefile', 'virt-firmware'},
                         added - {'crypt_r'})     # from Python 3.13 on
        environment.report("""
import virt.firmware.efi.bootentry
import virt.firmware.efi.siglist
answer = None
""")


@needs_nova
class EditableInNovasEnvironmentTest(Reachable, base.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = environments.with_nova()
        cls.checkout = environments.checkout()
        cls.environment.pip('install', '--no-deps', '--editable',
                            cls.checkout)

    def test_the_driver_comes_from_the_checkout(self):
        answer = self.environment.report(
            'import nova.virt.arm_ext as alias; answer = alias.__file__')

        self.assertEqual(
            str(self.checkout / 'nova_arm_ext/nova_virt/arm_ext.py'), answer)


@needs_nova
class WheelBesideNovaTest(Reachable, base.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = environments.beside_nova()
        cls.environment.pip('install', '--no-index',
                            environments.build().wheel)

    def test_nothing_is_written_to_novas_site_directory(self):
        answer = self.environment.report("""
import nova, nova_arm_ext
answer = [nova.__file__, nova_arm_ext.__file__]
""")

        inside = [name.startswith(str(self.environment.site))
                  for name in answer]
        self.assertEqual([False, True], inside)


class InstallTest(base.TestCase):
    """Tests without Nova."""

    def test_interpreter_start_imports_neither_nova_nor_oslo(self):
        environment = environments.empty()
        before = set(environment.report(MODULES))

        environment.pip('install', '--no-index', '--no-deps',
                        environments.build().wheel)

        self.assertEqual(FINDER, set(environment.report(MODULES)) - before)

    def test_uninstalling_a_wheel_leaves_no_file(self):
        environment = environments.empty()
        before = environment.files()
        environment.pip('install', '--no-index', '--no-deps',
                        environments.build().wheel)
        installed = environment.files()

        environment.pip('uninstall', '--yes', 'nova-arm-ext')

        self.assertEqual(before, environment.files())
        self.assertNotEqual(before, installed)

    def test_uninstalling_an_editable_leaves_no_file(self):
        environment = environments.empty()
        before = environment.files()
        environment.pip('install', '--no-deps', '--editable',
                        environments.checkout())
        installed = environment.files()

        environment.pip('uninstall', '--yes', 'nova-arm-ext')

        self.assertEqual(before, environment.files())
        site = environment.site.relative_to(environment.directory)
        self.assertEqual(set(), {
            str(site / environments.PTH),
            str(site / environments.START)} - installed)

    def test_sdist_installs_without_build_isolation(self):
        environment = environments.empty()
        environment.pip('install', 'pbr>=6.0.0', 'setuptools>=64.0.0',
                        'wheel')

        environment.pip('install', '--no-index', '--no-deps',
                        '--no-build-isolation', environments.build().sdist)

        self.assertTrue((environment.site / environments.PTH).is_file())
        self.assertTrue((environment.site / environments.START).is_file())
        self.assertEqual(
            set(), FINDER - set(environment.report(MODULES)))

    @testtools.skipIf(
        sys.version_info >= (3, 15),
        'an entry point of a .start file cannot catch its import error')
    def test_remains_of_the_package_disturb_no_process(self):
        environment = environments.empty()
        environment.pip('install', '--no-index', '--no-deps',
                        environments.build().wheel)
        package = environment.site / 'nova_arm_ext'
        remains = {}

        # One by one: a namespace package, no finder, no package.
        (package / '__init__.py').unlink()
        remains['no __init__'] = self.started(environment)
        (package / 'nova_virt' / '__init__.py').unlink()
        remains['no finder'] = self.started(environment)
        shutil.rmtree(package)
        remains['no package'] = self.started(environment)

        self.assertEqual(
            {'no __init__': 'quiet', 'no finder': 'quiet',
             'no package': 'quiet'}, remains)

    def started(self, environment):
        """The output and the errors of a process."""
        return environments.run(
            'sh', '-c', '"$0" -c "print(\'quiet\')" 2>&1',
            environment.interpreter).strip()
