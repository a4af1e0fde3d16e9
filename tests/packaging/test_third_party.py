# SPDX-License-Identifier: Apache-2.0
"""A hook from another package: found, ordered, run, reported."""

import json
import pathlib
import shutil
import subprocess

from tests.packaging import environments
from tests.packaging.test_install import needs_nova
from tests.support import base

EXAMPLE = environments.ROOT / 'examples/no-balloon'
DOCUMENT = environments.ROOT / 'tests/data/golden/new-guest/before.xml'


@needs_nova
class ThirdPartyHookTest(base.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = environments.with_nova()
        # setuptools builds beside the source
        source = environments.fresh('example') / 'no-balloon'
        shutil.copytree(EXAMPLE, source)
        cls.environment.pip('install', '--no-index',
                            environments.build().wheel)
        cls.environment.pip('install', '--no-index', '--no-build-isolation',
                            source)

    def command(self, hooks: str, *arguments: str,
                more: str = '') -> subprocess.CompletedProcess[str]:
        conf = pathlib.Path(environments.fresh('conf')) / 'nova.conf'
        conf.write_text(f'[arm]\nhooks = {hooks}\n{more}')
        name, *rest = arguments
        return subprocess.run(
            [str(self.environment.interpreter), '-m', 'nova_arm_ext.cmd.main',
             name, '--config-file', str(conf), *rest],
            capture_output=True, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL, cwd=conf.parent)

    def preview(self, hooks: str, more: str = '') -> dict:
        facts = pathlib.Path(environments.fresh('facts')) / 'facts.json'
        facts.write_text('{}')
        done = self.command(hooks, 'preview', '--facts', str(facts),
                            '--format', 'json', str(DOCUMENT), more=more)
        self.assertEqual('', done.stderr)
        return json.loads(done.stdout)

    def report(self, shown: dict) -> dict:
        [report] = [hook for hook in shown['hooks']
                    if hook['name'] == 'no_balloon']
        return report

    def test_it_is_installed_and_not_enabled_by_itself(self):
        done = self.command('$default_hooks', 'hooks', '-f', 'json')

        [row] = [row for row in json.loads(done.stdout)
                 if row['Name'] == 'no_balloon']
        self.assertIs(False, row['Enabled'])

    def test_it_is_found_and_ordered(self):
        done = self.command('$default_hooks,no_balloon', 'hooks', '-f',
                            'json')

        [row] = [row for row in json.loads(done.stdout)
                 if row['Name'] == 'no_balloon']
        self.assertIs(True, row['Enabled'])
        self.assertEqual('last', row['Place'])

    def test_its_place_is_checked(self):
        done = self.command('no_balloon,$default_hooks', 'hooks')

        self.assertEqual(2, done.returncode)
        self.assertIn('no_balloon (last) must be listed after', done.stderr)

    def test_it_runs_and_is_reported(self):
        shown = self.preview('$default_hooks,no_balloon')

        self.assertIn('<memballoon model="none"/>', shown['xml'])
        hook = self.report(shown)
        self.assertTrue(hook['changed'])
        self.assertEqual([{'place': 'devices/memballoon',
                           'reason': 'not wanted here'}], hook['reasons'])

    def test_what_counts_the_others_runs_behind_it(self):
        shown = self.preview('$default_hooks,no_balloon')

        self.assertEqual(['no_balloon', 'pcie_root_ports'],
                         [hook['name'] for hook in shown['hooks']][-2:])

    def test_its_options_are_in_its_own_group(self):
        shown = self.preview(
            '$default_hooks,no_balloon',
            '[arm_no_balloon]\nkeep_name = instance-00000001\n')

        self.assertFalse(self.report(shown)['changed'])
