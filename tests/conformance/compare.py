# SPDX-License-Identifier: Apache-2.0
"""Compares the extension's driver with a subclass that changes nothing."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import fixtures

from tests.support import base

_TREE = pathlib.Path(__file__).parents[2]
_TIMEOUT = 1800
_ARM = 'nova_arm_ext.compute.driver:ArmLibvirtDriver'


class TestCase(base.TestCase):
    """Runs tests of Nova, one process per processor."""

    def setUp(self) -> None:
        super().setUp()
        for name in ('nova', 'gabbi', 'libvirt-python'):
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                self.skipTest(f'{name} is not installed here; '
                              f'tools/environment makes environments with it')
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)

    def assert_alike(self, tests: Sequence[str], *, at_least: int,
                     excused: Mapping[str, str]) -> None:
        """Check that the driver passes all tests that an unchanged one passes.

        :param tests: names of modules, classes or methods
        :param at_least: the smallest number of tests that pass; fewer mean
            that they were not found, or cannot run
        :param excused: reasons by the last part of a test's name. It is also a
            failure if such a test passes.
        """
        ran, failed = self._run(_ARM, tests)
        # if nearly all fail, there is nothing to compare
        self.assertGreaterEqual(len(ran) - len(failed), at_least)

        # the unchanged subclass runs only the failed tests, because only they
        # need an excuse
        again, baseline = (self._run('unchanged', tests, failed) if failed
                           else (set(), {}))

        self.assertEqual(set(failed), again)
        new = {test: text for test, text in failed.items()
               if test not in baseline
               and test.rpartition('.')[2] not in excused}
        self.assertEqual([], sorted(new), '\n\n'.join(
            '\n'.join((test, *text.rstrip().splitlines()[-6:]))
            for test, text in sorted(new.items())))
        needless = {test for test in ran - set(failed)
                    if test.rpartition('.')[2] in excused}
        self.assertEqual(set(), needless, 'these pass without an excuse')

    def _run(self, driver: str, tests: Sequence[str],
             only: Collection[str] | None = None
             ) -> tuple[set[str], dict[str, str]]:
        """The tests that ran, and the traceback of each that failed."""
        arguments = []
        if only is not None:
            names = self.directory / 'only.json'
            names.write_text(json.dumps(sorted(only)))
            arguments = ['--only', str(names)]
        workers = len(os.sched_getaffinity(0))
        started = [
            self._start(f'{driver.partition(":")[0]}-{number}', driver,
                        (*arguments, '--share', f'{number}/{workers}',
                         '--', *tests))
            for number in range(workers)]
        ran: set[str] = set()
        failed: dict[str, str] = {}
        for name, process in started:
            result = self._result(name, process)
            ran |= set(result['run']) - set(result['skipped'])
            failed |= result['failed']
        return ran, failed

    def _start(self, name: str, driver: str, arguments: Sequence[str]
               ) -> tuple[str, subprocess.Popen[bytes]]:
        with open(self.directory / f'{name}.log', 'wb') as log:
            process = subprocess.Popen(
                (sys.executable, '-W', 'ignore', '-m',
                 'tests.conformance.run', driver,
                 str(self.directory / f'{name}.json'), *arguments),
                stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, cwd=_TREE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return name, process

    def _result(self, name: str, process: subprocess.Popen[bytes]
                ) -> dict[str, Any]:
        status = process.wait(timeout=_TIMEOUT)
        place = self.directory / f'{name}.json'
        log = (self.directory / f'{name}.log').read_text(errors='replace')
        self.assertTrue(
            place.exists(),
            f'{name} ended with status {status}:\n{log[-4000:]}')
        return json.loads(place.read_text())
