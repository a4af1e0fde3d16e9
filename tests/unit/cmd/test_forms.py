# SPDX-License-Identifier: Apache-2.0
"""One way to ask for a form, and values that programs understand."""

import json

import yaml

from nova_arm_ext.cmd import forms
from tests.unit.cmd import base
from tests.unit.cmd.commands import hosts


class FormsTest(hosts.RecordedTestCase):

    def commands(self) -> list[tuple[str, ...]]:
        """Every command that has a form, with what it needs."""
        uri = ('--connect', self.host())
        folder = ('--nvram-dir', str(self.directory), '--instances-dir',
                  str(self.directory))
        return [
            ('hooks',), ('audit', *uri), ('pci', *uri),
            ('nvram', 'list', *uri, *folder),
            ('nvram', 'orphans', *uri, *folder),
            ('facts', *uri), ('doctor', *uri, *folder),
            ('explain', 'instance-0000002a', *uri),
            ('preview', '--facts', self.facts, self.document)]

    def test_every_command_has_json_and_yaml_with_the_same_values(
            self) -> None:
        for command in self.commands():
            found = self.run_command(*command, '-f', 'json')
            same = self.run_command(*command, '--json')

            self.assertEqual('', found.stderr, command)
            self.assertEqual(found.out, same.out, command)
            self.assertEqual(found.json, yaml.safe_load(self.run_command(
                *command, '-f', 'yaml').out), command)

    def test_objects_have_the_version_of_their_form_first(self) -> None:
        for command in self.commands()[5:]:
            found = self.run_command(*command, '-f', 'json').json

            self.assertEqual(('format', forms.VERSION),
                             next(iter(found.items())), command)

    def test_lists_have_true_null_and_numbers(self) -> None:
        rows = {row['Name']: row for row in self.run_command(
            'hooks', '-f', 'json').json}

        self.assertEqual((True, 1, 'first'), tuple(
            rows['libvirt_compat'][key]
            for key in ('Enabled', 'Order', 'Place')))
        self.assertEqual((False, None), tuple(
            rows['cpu_features'][key] for key in ('Enabled', 'Order')))

    def test_people_get_words(self) -> None:
        self.assertEqual(('yes', 'no'), tuple(
            forms.YesNo(value).human_readable() for value in (True, False)))
        self.assertEqual(('-', '0'), tuple(
            forms.Known(value).human_readable() for value in (None, 0)))
        self.assertRegex(self.run_command('hooks').stdout,
                         r'cpu_features +\| no +\| - ')


class DoctorTest(base.CommandTestCase):

    def test_a_terminal_gets_colours(self) -> None:
        from nova_arm_ext.cmd.checks.base import fault
        from nova_arm_ext.cmd.commands import doctor

        self.assertEqual(
            '\x1b[31mfailure        \x1b[0m libvirt: it is silent; start it\n',
            doctor.line('libvirt', fault('it is silent', 'start it'),
                        colours=True))

    def test_the_last_line_counts(self) -> None:
        ran = self.run_command('doctor')
        found = json.loads(self.run_command('doctor', '--json').out)

        *lines, last = ran.stdout.splitlines()
        self.assertEqual(len(found['checks']), len(lines))
        self.assertTrue(last.startswith(f'{len(lines)} results: '), last)
        self.assertIn('1 failure', last)
