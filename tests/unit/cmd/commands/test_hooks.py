# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext hooks`: all installed hooks, also broken ones."""

from nova_arm_ext.cmd.commands import hooks
from nova_arm_ext.hooks import libvirt_compat
from nova_arm_ext.hooks import uefi
from tests.unit.cmd import base

STRANGE = '''
from nova_arm_ext.hooks import base

class Fine(base.Hook):
    """Does what it does.

    At length.
    """

    order = base.LAST

    def adjust(self, domain, facts, report):
        pass

class Silent(Fine):
    pass
'''


class HooksTest(base.CommandTestCase):

    def rows(self, ran):
        """The rows of a JSON list, by name."""
        return {row['Name']: row for row in ran.json}

    def with_plugins(self, config=''):
        """List the hooks, including those of another package."""
        return self.run_process(
            'hooks', '-f', 'json',
            '--config-file', self.file('nova.conf', config),
            **self.plugins(STRANGE, fine='strange_hooks:Fine',
                           silent='strange_hooks:Silent',
                           broken='no_such_module_here:Broken'))

    def test_default_hooks_are_enabled_in_their_order(self):
        ran = self.run_command('hooks', '-f', 'json')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        rows = self.rows(ran)
        self.assertEqual(
            {'Name': 'libvirt_compat', 'Enabled': True, 'Order': 1,
             'Place': 'first',
             'Purpose': libvirt_compat.LibvirtCompat.__doc__.splitlines()[0],
             'Entry point':
                 'nova_arm_ext.hooks.libvirt_compat:LibvirtCompat'},
            rows['libvirt_compat'])
        self.assertIs(True, rows['uefi']['Enabled'])

    def test_table_is_the_default(self):
        ran = self.run_command('hooks')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('| libvirt_compat ', ran.stdout)

    def test_configuration_says_which_run_and_in_which_order(self):
        ran = self.with_plugins('[arm]\nhooks = uefi,fine\n')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        rows = self.rows(ran)
        self.assertEqual(['uefi', 'fine'], list(rows)[:2])
        self.assertEqual((2, 'last'),
                         (rows['fine']['Order'], rows['fine']['Place']))
        self.assertEqual((False, None, 'first'),
                         (rows['libvirt_compat']['Enabled'],
                          rows['libvirt_compat']['Order'],
                          rows['libvirt_compat']['Place']))

    def test_a_hook_for_the_end_runs_behind_those_of_others(self):
        rows = self.rows(self.with_plugins(
            '[arm]\nhooks = $default_hooks,fine\n'))

        self.assertEqual(((6, 'last'), (7, 'end')), tuple(
            (rows[name]['Order'], rows[name]['Place'])
            for name in ('fine', 'pcie_root_ports')))

    def test_purpose_is_the_hooks_own(self):
        rows = self.rows(self.with_plugins())

        self.assertEqual('Does what it does.', rows['fine']['Purpose'])
        self.assertEqual('', rows['silent']['Purpose'])

    def test_broken_hook_is_shown_and_nobodys_trouble(self):
        ran = self.with_plugins()

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        broken = self.rows(ran)['broken']
        self.assertIs(False, broken['Enabled'])
        self.assertIn('BROKEN: ', broken['Purpose'])
        self.assertIn('no_such_module_here', broken['Purpose'])

    def test_broken_hook_that_is_enabled_is_shown_and_an_error(self):
        ran = self.with_plugins('[arm]\nhooks = $default_hooks,broken\n')

        self.assertEqual(2, ran.status)
        self.assert_one_line(ran, 'hook broken', 'no_such_module_here')
        self.assertIs(True, self.rows(ran)['broken']['Enabled'])

    def test_hook_that_is_not_installed_is_shown_and_an_error(self):
        config = self.file('nova.conf', '[arm]\nhooks = uefi,nosuch\n')

        ran = self.run_command('hooks', '-f', 'json', '--config-file', config)

        self.assertEqual(2, ran.status)
        self.assert_one_line(ran, "'nosuch'")
        self.assertEqual('BROKEN: it is not installed',
                         self.rows(ran)['nosuch']['Purpose'])

    def test_configuration_that_cannot_be_read(self):
        self.assert_fails(
            self.run_command('hooks', '--config-file', '/nonexistent'),
            "'/nonexistent'")


class RowsTest(base.CommandTestCase):

    def test_hook_that_is_installed_twice_has_two_rows(self):
        rows = hooks.rows(
            ['uefi'], [('uefi', 'a:A'), ('uefi', 'b:B')],
            {'uefi': uefi.Uefi}, {'uefi': 'hook uefi is installed\ntwice'})

        self.assertEqual(
            [('uefi', 'yes', '1', 'middle',
              'BROKEN: hook uefi is installed twice', value)
             for value in ('a:A', 'b:B')],
            [tuple(cell if isinstance(cell, str) else cell.human_readable()
                   for cell in row) for row in rows])
