# SPDX-License-Identifier: Apache-2.0
"""The startup files that the build backend adds to each wheel."""

import importlib.util
import pathlib
import pkgutil
import re
import sys
import types
import typing
from unittest import mock

import fixtures
from wheel.wheelfile import WheelFile

from nova_arm_ext import nova_virt
from tests.support import base

BACKEND = pathlib.Path(__file__).parents[2] / 'build_backend/backend.py'

NAME = 'nova_arm_ext-1.0.0-py3-none-any.whl'


def load() -> types.ModuleType:
    """The build backend as a module, with a stand-in for pbr's backend.

    The real one imports setuptools, which changes sys.path.
    """
    pbr_build = mock.Mock(build_wheel=bare_wheel, build_editable=bare_wheel)
    spec = importlib.util.spec_from_file_location('backend', BACKEND)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict('sys.modules', {'pbr.build': pbr_build}):
        spec.loader.exec_module(module)
    return module


def bare_wheel(directory: str, *_: typing.Any) -> str:
    """Write a wheel with one module.

    :param directory: to write it to
    :returns: its file name
    """
    with WheelFile(pathlib.Path(directory) / NAME, 'w') as wheel:
        wheel.writestr('nova_arm_ext/__init__.py', '')
    return NAME


class WheelTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.backend = load()
        self.directory = self.useFixture(fixtures.TempDir()).path

    def names(self) -> set[str]:
        """The wheel's files; reading checks each one against RECORD."""
        with WheelFile(pathlib.Path(self.directory) / NAME) as wheel:
            for name in wheel.namelist():
                wheel.read(name)
            return set(wheel.namelist())

    def assert_adds_startup_files(self, kind: str) -> None:
        name = getattr(self.backend, kind)(self.directory)

        self.assertEqual(NAME, name)
        self.assertEqual(
            {'nova_arm_ext.pth', 'nova_arm_ext.start',
             'nova_arm_ext/__init__.py',
             'nova_arm_ext-1.0.0.dist-info/RECORD'}, self.names())

    def test_a_regular_wheel_has_both_files(self) -> None:
        self.assert_adds_startup_files('build_wheel')

    def test_an_editable_wheel_has_both_files(self) -> None:
        self.assert_adds_startup_files('build_editable')


class StartupFilesTest(base.TestCase):
    """What Python does with the files when it starts."""

    def setUp(self) -> None:
        super().setUp()
        self.path_file, self.start_file = load().STARTUP_FILES
        others = [finder for finder in sys.meta_path
                  if finder is not nova_virt.Finder]
        self.useFixture(fixtures.MonkeyPatch('sys.meta_path', others))

    def run_path_file(self) -> None:
        """As Python before 3.15 does."""
        for line in self.path_file.read_text(encoding='utf-8').splitlines():
            self.assertTrue(line.startswith('import '), line)
            exec(line, {})

    def run_start_file(self) -> None:
        """As Python 3.15 and later do."""
        for line in self.start_file.read_text(encoding='utf-8').splitlines():
            # PEP 829 allows only this form of pkgutil's names
            self.assertTrue(re.fullmatch(r'[\w.]+:[\w.]+', line), line)
            pkgutil.resolve_name(line)()

    def finders(self) -> int:
        return sys.meta_path.count(nova_virt.Finder)

    def test_the_import_line_is_ignored_for_the_start_file(self) -> None:
        # PEP 829: only with the same name and in the same directory
        self.assertEqual(self.path_file.with_suffix('.start'),
                         self.start_file)

    def test_the_start_file_installs_the_finder(self) -> None:
        self.run_start_file()

        self.assertEqual(1, self.finders())

    def test_the_path_file_installs_the_finder(self) -> None:
        self.run_path_file()

        self.assertEqual(1, self.finders())

    def test_both_files_install_it_only_once(self) -> None:
        self.run_path_file()
        self.run_start_file()

        self.assertEqual(1, self.finders())

    def test_the_import_line_says_nothing_of_a_missing_package(self) -> None:
        with mock.patch.dict('sys.modules', {'nova_arm_ext': None}):
            self.run_path_file()

        self.assertEqual(0, self.finders())
