# SPDX-License-Identifier: Apache-2.0
"""Hosts on which libvirt's Python binding is not installed."""

import fixtures

from nova_arm_ext.compute import binding
from tests.unit.cmd import base

#: A process in which these modules are not installed.
WITHOUT = '''
import sys
for name in {names}:
    sys.modules[name] = None
from nova_arm_ext.cmd import main
sys.exit(main.main({arguments}))
'''


class MissingTest(base.CommandTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.binding.libvirt', None))

    def test_nova_compute_has_a_fault_with_advice(self) -> None:
        [fault] = binding.faults()

        self.assertIn('libvirt is not installed: install', fault)
        self.assertIn('nova-arm-ext[libvirt]', fault)

    def test_commands_that_ask_libvirt_say_what_is_missing(self) -> None:
        for command in ('facts', 'pci', 'audit', 'nvram list'):
            self.assert_fails(self.run_command(*command.split()),
                              binding.MISSING)

    def test_doctor_fails_with_the_same_sentence(self) -> None:
        ran = self.run_command('doctor', '--json')

        [found] = [one for one in ran.json['checks']
                   if one['check'] == 'libvirt']
        self.assertEqual('failure', found['status'])
        self.assertEqual(binding.MISSING,
                         f'{found["text"]}: {found["advice"]}')

    def test_preview_says_why_the_host_is_unknown(self) -> None:
        ran = self.run_command('preview', self.document)

        self.assertEqual(0, ran.status)
        self.assertIn('# host facts: unknown, because the Python module '
                      'libvirt is not installed', ran.stdout)


class PresentTest(base.CommandTestCase):

    def test_it_is_no_fault(self) -> None:
        if binding.libvirt is None:
            self.skipTest('libvirt-python is not installed')

        self.assertEqual([], binding.faults())


class ProcessTest(base.CommandTestCase):
    """Whole processes, which import everything again."""

    def without(self, names: tuple[str, ...], *arguments: str) -> base.Ran:
        return self.run_python(WITHOUT.format(
            names=names, arguments=list(arguments)))

    def test_preview_needs_neither_nova_nor_libvirt(self) -> None:
        ran = self.without(('nova', 'libvirt'), 'preview', '--facts',
                           self.facts, self.document)

        self.assertEqual((0, ''), (ran.status, ran.stderr))

    def test_facts_need_no_nova(self) -> None:
        if binding.libvirt is None:
            self.skipTest('libvirt-python is not installed')

        ran = self.without(('nova',), 'facts', '--connect', 'test:///default')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
