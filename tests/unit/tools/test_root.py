# SPDX-License-Identifier: Apache-2.0
"""tools/root, with programs that stand for apt and mmdebstrap."""

import contextlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import fixtures

from tests.support import base
from tests.support import tools

root = tools.load('root')

_SOURCES = '''\
|Other|http://other.example/debian/
Debian|Debian-Security|http://mirror.example/debian-security/
Debian|Debian|http://mirror.example/debian/
Debian|Debian|http://second.example/debian/
'''
_PACKAGES = ''.join(f'{name} 1.0\n' for name in root.TOLD)
# The last but one argument is the folder.
_MMDEBSTRAP = '''\
echo "$@" >> {place}/asked
while [ $# -gt 2 ]; do shift; done
mkdir "$1"
'''


class RootTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.place = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.EnvironmentVariable(
            'NOVA_ARM_EXT_CACHE', str(self.place / 'cache')))
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', f'{self.place}/bin:{os.environ["PATH"]}'))
        self.useFixture(fixtures.MockPatchObject(os, 'geteuid',
                                                 return_value=0))
        (self.place / 'bin').mkdir()
        (self.place / 'sources').write_text(_SOURCES)
        (self.place / 'packages').write_text(_PACKAGES)
        self.program('apt-get', f'cat {self.place}/sources')
        self.program('dpkg-query', f'cat {self.place}/packages')
        self.program('mmdebstrap', _MMDEBSTRAP.format(place=self.place))
        self.said = io.StringIO()
        self.useFixture(fixtures.MonkeyPatch('sys.stderr', self.said))

    def program(self, name: str, script: str) -> None:
        path = self.place / 'bin' / name
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(0o755)

    def asked(self) -> list[str]:
        """What mmdebstrap was asked for, a line for each time."""
        return (self.place / 'asked').read_text().splitlines()

    def kept(self) -> list[str]:
        """What is in the cache, without logs and locks."""
        return sorted(path.name for path in root.cache().iterdir()
                      if path.is_dir())

    def failure(self, suite: str = 'trixie') -> str:
        error = self.assertRaises(SystemExit, root.make, suite)
        return str(error)

    def test_it_is_made_from_the_machine_s_own_mirror(self) -> None:
        place = root.make('trixie')

        self.assertEqual(_PACKAGES, (place / 'packages.txt').read_text())
        [asked] = self.asked()
        self.assertTrue(asked.endswith(' http://mirror.example/debian/'))
        self.assertIn(' trixie ', asked)
        self.assertIn('qemu-efi-arm,', asked)

    def test_it_is_made_once(self) -> None:
        place = root.make('trixie')

        self.assertEqual(place, root.make('trixie'))
        self.assertEqual(1, len(self.asked()))
        self.assertEqual([place.name], self.kept())

    def test_each_suite_has_a_place_of_its_own(self) -> None:
        places = {root.directory(suite) for suite in root.SUITES}

        self.assertEqual(len(root.SUITES), len(places))

    def test_other_packages_are_another_root_folder(self) -> None:
        before = root.directory('trixie')

        with mock.patch.dict(root.SUITES, trixie=('libvirt-clients',)):
            self.assertNotEqual(before, root.directory('trixie'))

    def test_testing_has_no_32_bit_firmware(self) -> None:
        self.assertEqual(
            {'bookworm', 'trixie'},
            {suite for suite, packages in root.SUITES.items()
             if 'qemu-efi-arm' in packages})

    def test_what_an_interruption_left_is_made_again(self) -> None:
        place = root.directory('trixie')
        unfinished = place.with_name(f'.{place.name}.unfinished')
        (unfinished / 'root').mkdir(parents=True)

        root.make('trixie')

        self.assertEqual([place.name], self.kept())

    def test_a_failure_is_one_sentence(self) -> None:
        self.program('mmdebstrap', 'echo "I: begins"; echo "E: no key"; '
                                   'exit 2')

        said = self.failure()

        self.assertEqual(
            'mmdebstrap could not make trixie from '
            'http://mirror.example/debian/: E: no key; all of it is in '
            f'{root.cache()}/trixie.log', said)
        self.assertFalse(root.directory('trixie').exists())

    def test_a_failure_can_be_tried_again(self) -> None:
        self.program('mmdebstrap', 'exit 2')
        self.failure()
        self.program('mmdebstrap', _MMDEBSTRAP.format(place=self.place))

        self.assertTrue(root.make('trixie').exists())

    def test_without_a_mirror(self) -> None:
        (self.place / 'sources').write_text('||http://other.example/\n')

        self.assertIn('apt names no mirror of Debian', self.failure())
        self.assertEqual([], self.kept())

    def test_without_apt(self) -> None:
        self.program('apt-get', 'exit 1')

        self.assertIn('apt does not tell its mirror', self.failure())

    def test_without_mmdebstrap(self) -> None:
        self.useFixture(fixtures.MockPatchObject(shutil, 'which',
                                                 return_value=None))

        self.assertIn('tools/packages roots', self.failure())

    def test_only_root_can_make_one(self) -> None:
        with mock.patch.object(os, 'geteuid', return_value=1000):
            self.assertIn('needs root', self.failure())

    def test_the_list_says_what_is_made(self) -> None:
        place = root.make('trixie')
        printed = io.StringIO()

        with contextlib.redirect_stdout(printed):
            root.main(['list'])

        self.assertEqual(
            f'bookworm  not made\ntrixie  {place}\n'
            f'    {", ".join(f"{name} 1.0" for name in root.TOLD)}\n'
            'forky  not made\n', printed.getvalue())

    def test_an_unknown_suite(self) -> None:
        done = subprocess.run(
            (sys.executable, tools.TOOLS / 'root', 'make', 'sid'),
            capture_output=True, text=True, check=False)

        self.assertEqual(2, done.returncode)
        self.assertIn("'sid'", done.stderr)
