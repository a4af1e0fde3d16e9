# SPDX-License-Identifier: Apache-2.0
"""The README's commands and fragments do what it says."""

import configparser
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import fixtures

from tests import base

TREE = pathlib.Path(__file__).parents[2]
README = (TREE / 'README.rst').read_text()

#: Commands that other tests run, and where.
ELSEWHERE = {
    'pip install nova-arm-ext': 'tests/packaging/test_install.py',
    'tools/demo': 'tests/functional/test_demo.py',
    'tools/demo --no-guest': 'tests/functional/test_demo.py',
    'tools/test': '.ci/run',
}


def blocks(language: str) -> list[str]:
    """The literal blocks of one language, without their indentation."""
    found = re.findall(
        rf'^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)', README, re.M)
    return [textwrap.dedent(block) for block in found]


def commands() -> list[str]:
    return [line.removeprefix('$ ')
            for block in blocks('console') for line in block.splitlines()
            if line.startswith('$ ')]


class ReadmeTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        case = TREE / 'tests/golden/new-guest/before.xml'
        (self.folder / 'domain.xml').write_bytes(case.read_bytes())
        [fragment] = blocks('ini')
        (self.folder / 'nova.conf').write_text(fragment)

    def run_here(self, command: str) -> subprocess.CompletedProcess[str]:
        words = [word.replace('/etc/nova/', f'{self.folder}/')
                 for word in shlex.split(command)]
        tool = pathlib.Path(sys.executable).with_name(words[0])
        return subprocess.run(
            [str(tool), *words[1:]], cwd=self.folder, text=True,
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
            env=os.environ | {'LIBVIRT_DEFAULT_URI': 'test:///default'})

    def test_each_command_is_run_by_a_test(self) -> None:
        shown = [command for command in commands()
                 if not command.startswith('nova-arm-ext ')]

        self.assertEqual(sorted(ELSEWHERE), sorted(shown))
        for command, place in ELSEWHERE.items():
            self.assertIn(command.split()[0],
                          (TREE / place).read_text(), place)

    def test_the_commands_that_only_look_work(self) -> None:
        shown = [command for command in commands()
                 if command.startswith('nova-arm-ext ')]

        results = {command: self.run_here(command) for command in shown}

        self.assertEqual(3, len(results))
        for command, result in results.items():
            self.assertEqual((0, ''), (result.returncode, result.stderr),
                             command)
            self.assertTrue(result.stdout.strip(), command)

    def test_the_fragment_chooses_the_driver(self) -> None:
        read = configparser.ConfigParser()
        [fragment] = blocks('ini')

        read.read_string(fragment)

        self.assertEqual({'compute_driver': 'arm_ext.ArmLibvirtDriver'},
                         dict(read['DEFAULT']))

    def test_the_table_names_the_default_hooks(self) -> None:
        from nova_arm_ext import pipeline
        default = next(opt.default for opt in pipeline.OPTS
                       if opt.name == 'default_hooks')

        shown = re.findall(r'^``(\w+)``  ', README, re.M)

        self.assertEqual(default.split(','), shown)
