# SPDX-License-Identifier: Apache-2.0
"""Faults of installation and configuration."""

import importlib.metadata
import sys
from unittest import mock

import fixtures

from nova_arm_ext.cmd import guests
from nova_arm_ext.cmd import reading
from nova_arm_ext.cmd.checks import installation
from nova_arm_ext.compute import seams
from nova_arm_ext.pipeline import plugins
from tests.unit.cmd.checks import base

CHOSEN = '[DEFAULT]\ncompute_driver = arm_ext.ArmLibvirtDriver\n'


class InOrderTest(base.ChecksTestCase):

    def test_nothing_is_found_where_nothing_is_wrong(self) -> None:
        for check in (installation.hooks, installation.options,
                      installation.option_names, installation.driver,
                      installation.nova):
            self.assert_ok(check)


class HooksTest(base.ChecksTestCase):

    def test_stevedore_has_an_older_list_of_what_is_installed(self) -> None:
        plugins.find_hooks()
        dist = self.directory / 'late-1.0.dist-info'
        dist.mkdir()
        (dist / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: late\nVersion: 1.0\n')
        (dist / 'entry_points.txt').write_text(
            '[nova_arm_ext.hooks]\nlate = late:Hook\n')
        self.useFixture(fixtures.MonkeyPatch(
            'sys.path', [*sys.path, str(self.directory)]))

        self.assert_finds('failure', installation.hooks,
                          'installed, but not found: late',
                          'python-entrypoints')

    def test_no_metadata(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'importlib.metadata.entry_points',
            lambda **_: importlib.metadata.EntryPoints()))

        self.assert_finds('failure', installation.hooks,
                          'no hook is installed', 'install it again')


class OptionsTest(base.ChecksTestCase):

    def test_a_value_that_is_wrong(self) -> None:
        self.assert_finds(
            'failure', installation.options, "hook_warn_ms is 'soon'",
            place=self.place('[arm]\nhook_warn_ms = soon\n'))

    def test_a_hook_that_is_not_installed(self) -> None:
        self.assert_finds(
            'failure', installation.options, "'balloon'", 'not installed',
            place=self.place('[arm]\nhooks = $default_hooks,balloon\n'))

    def test_a_rule_of_the_inventory(self) -> None:
        self.assert_finds(
            'failure', installation.options, 'nonsense',
            place=self.place('[arm_pci]\nskip = nonsense\n'))

    def test_a_misspelt_option(self) -> None:
        self.assert_finds(
            'warning', installation.option_names, 'nova.conf',
            'no option on_hook_falure in [arm]',
            'did you mean on_hook_failure?',
            place=self.place('[arm]\non_hook_falure = skip\n'))

    def test_a_misspelt_group(self) -> None:
        self.assert_finds(
            'warning', installation.option_names, '[arm_pcie_root_port]',
            'did you mean [arm_pcie_root_ports]?',
            place=self.place('[arm_pcie_root_port]\nfree = 8\n'))

    def test_a_group_of_a_hook_that_is_not_there(self) -> None:
        self.assert_finds(
            'warning', installation.option_names, '[arm_gpu_of_theirs]',
            'is the hook of this name installed?',
            place=self.place('[arm_gpu_of_theirs]\nx = 8\n'))

    def test_names_of_others_are_their_own(self) -> None:
        self.assert_ok(
            installation.option_names,
            self.place('[DEFAULT]\nmy_ip = 192.0.2.1\n[libvirt]\nx = 1\n'
                       '[arm]\nhook_warn_ms = 1\n[neutron]\nx = 1\n'))


    def test_options_of_a_hook_that_is_off(self) -> None:
        conf = '[arm_cpu_features]\nimages_may_ask = true\n'

        self.assert_finds(
            'warning', installation.option_names, '[arm_cpu_features] is set',
            'add cpu_features to [arm] hooks', place=self.place(conf))
        for more in ('[arm]\nhooks = $default_hooks,cpu_features\n' + conf,
                     '[arm_cpu_features]\n'):
            self.assert_ok(installation.option_names, self.place(more))


class ExtraSpecsTest(base.ChecksTestCase):

    def guest(self, spec: str, arch: str = 'aarch64') -> None:
        document = (
            f"<domain><os><type arch='{arch}'>hvm</type></os><metadata>"
            f"<n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/"
            f"1.1'><n:flavor><n:extraSpecs><n:extraSpec name='{spec}'>on"
            f'</n:extraSpec></n:extraSpecs></n:flavor></n:instance>'
            f'</metadata></domain>')
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.guests.every', lambda *_: [guests.Guest(
                name='instance-1', uuid='u', document=document,
                live=document)]))

    def test_one_that_is_misspelt(self) -> None:
        self.guest('arm:free_pcie_root_portz')

        self.assert_finds(
            'warning', installation.extra_specs, 'instance-1',
            'arm:free_pcie_root_portz',
            'did you mean arm:free_pcie_root_ports?', 'correct the flavor')

    def test_one_of_a_hook_that_is_off(self) -> None:
        self.guest('arm:sve')

        self.assert_finds('warning', installation.extra_specs,
                          'only the hook cpu_features reads it')

    def test_those_that_are_read_and_those_of_other_guests(self) -> None:
        for spec, arch in (('arm:video_model', 'aarch64'),
                           ('hw:x', 'armv7l'), ('arm:x', 'x86_64')):
            self.guest(spec, arch)
            self.assert_ok(installation.extra_specs)


class DriverTest(base.ChecksTestCase):

    def test_not_chosen(self) -> None:
        self.assert_finds(
            'failure', installation.driver, 'is libvirt.LibvirtDriver',
            'set it to arm_ext.ArmLibvirtDriver', place=self.place(
                '[DEFAULT]\ncompute_driver = libvirt.LibvirtDriver\n'))

    def test_no_driver_at_all(self) -> None:
        self.assert_finds('failure', installation.driver, 'is not set',
                          place=self.place('[DEFAULT]\n'))

    def test_a_later_file_names_nova_s_own_driver(self) -> None:
        later = self.file('nova-compute.conf', '[DEFAULT]\n'
                          'compute_driver = libvirt.LibvirtDriver\n')
        place = self.place()
        place.conf = reading.configuration([self.conf_file, later])

        self.assert_finds(
            'failure', installation.driver,
            f'compute_driver is libvirt.LibvirtDriver in {later}',
            f'although {self.conf_file} names it',
            f'set it to arm_ext.ArmLibvirtDriver in {later}', place=place)

    def test_the_file_that_chooses_it_may_be_in_a_directory(self) -> None:
        folder = self.directory / 'nova.conf.d'
        folder.mkdir()
        chosen = self.file('nova.conf.d/25-arm.conf', '[DEFAULT]\n'
                           'compute_driver = arm_ext.ArmLibvirtDriver\n')
        place = self.place()
        place.conf = reading.configuration([], [str(folder)])

        self.assertEqual(
            [('ok', f'[DEFAULT] compute_driver is arm_ext.ArmLibvirtDriver '
                    f'in {chosen}')],
            self.found(installation.driver, place))

    def test_no_configuration(self) -> None:
        self.assert_finds('not applicable', installation.driver,
                          '--config-file', place=base.no_libvirt())


class NovaTest(base.ChecksTestCase):

    def test_no_nova(self) -> None:
        with mock.patch('importlib.util.find_spec', return_value=None):
            self.assert_finds('not applicable', installation.nova,
                              'not installed in this Python environment')

    def test_a_seam_that_is_gone(self) -> None:
        from nova.virt.libvirt import host
        with mock.patch.object(host.Host, 'get_connection',
                               new=None):
            self.assert_finds('failure', installation.nova,
                              'has no Host.get_connection')

    def test_a_release_that_nobody_has_tried(self) -> None:
        with mock.patch.object(seams, 'release', return_value='35.0.0'):
            self.assert_finds('warning', installation.nova, 'Nova 35.0.0',
                              '29 to 34')

    def test_a_driver_that_cannot_be_imported(self) -> None:
        from nova_arm_ext.compute import driver
        self.assertTrue(driver)
        with (fixtures.MonkeyPatch('nova_arm_ext.compute.driver'),
              mock.patch.dict('sys.modules',
                              {'nova_arm_ext.compute.driver': None})):
            self.assert_finds('failure', installation.nova,
                              'cannot be imported', 'pip check')

    def test_the_startup_files_were_not_read(self) -> None:
        import importlib.util
        find = importlib.util.find_spec
        with mock.patch('importlib.util.find_spec', lambda name:
                        None if name == installation.ALIAS else find(name)):
            self.assert_finds('failure', installation.nova,
                              'nova_arm_ext.pth', 'nova_arm_ext.start',
                              '--target')
