# SPDX-License-Identifier: Apache-2.0
"""The installed Nova's own driver tests accept the extension's driver.

Nova's tests patch methods of its driver in ways that a subclass does not
always see, so a subclass that changes nothing fails some of them too. The two
are run side by side, and only their difference counts.
"""

import importlib.metadata
import json
import pathlib
import subprocess
import sys

import fixtures

from tests import base

_TREE = pathlib.Path(__file__).parents[2]
_TIMEOUT = 900

#: Tests that may fail, with the reason.
EXCUSED = {
    'test_sanitize_log_to_xml':
        'its _get_guest_config returns a Mock whose document is a Mock',
    'test_hard_reboot_does_not_call_glance_show':
        'its _get_guest_config returns a Mock whose document is a Mock',
}


class NovaOwnTests(base.TestCase):

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

    def start(self, name: str, driver: str) -> subprocess.Popen[bytes]:
        with open(self.directory / f'{name}.log', 'wb') as log:
            process = subprocess.Popen(
                (sys.executable, '-W', 'ignore', '-m',
                 'tests.conformance.run', driver,
                 str(self.directory / f'{name}.json')),
                stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, cwd=_TREE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def result(self, name: str,
               process: subprocess.Popen[bytes]) -> tuple[int, dict[str, str]]:
        status = process.wait(timeout=_TIMEOUT)
        place = self.directory / f'{name}.json'
        log = (self.directory / f'{name}.log').read_text(errors='replace')
        self.assertTrue(
            place.exists(),
            f'{name} ended with status {status}:\n{log[-4000:]}')
        result = json.loads(place.read_text())
        return result['run'], result['failed']

    def test_arm_driver_fails_no_test_that_an_unchanged_one_passes(
            self) -> None:
        unchanged = self.start('unchanged', 'unchanged')
        arm = self.start(
            'arm', 'nova_arm_ext.compute.driver:ArmLibvirtDriver')

        baseline_run, baseline = self.result('unchanged', unchanged)
        arm_run, failed = self.result('arm', arm)

        self.assertEqual(baseline_run, arm_run)
        # Fewer would mean that Nova's tests were not found.
        self.assertGreater(arm_run, 1000)
        new = {test: text for test, text in failed.items()
               if test not in baseline
               and test.rpartition('.')[2] not in EXCUSED}
        self.assertEqual([], sorted(new), '\n\n'.join(
            '\n'.join((test, *text.rstrip().splitlines()[-6:]))
            for test, text in sorted(new.items())))
