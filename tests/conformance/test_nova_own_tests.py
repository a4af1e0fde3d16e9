# SPDX-License-Identifier: Apache-2.0
"""The installed Nova's own tests accept the extension's driver.

Nova's tests patch methods of its driver in ways that a subclass does not
always see, so a subclass that changes nothing fails some of them too. The two
are run side by side, and only their difference counts.
"""

import ast
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import fixtures

from tests import base

_TREE = pathlib.Path(__file__).parents[2]
_TIMEOUT = 900

_UNIT = ('nova.tests.unit.virt.libvirt.test_driver',)
_PCI = 'nova.tests.functional.libvirt.test_pci_sriov_servers'

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

    def start(self, name: str, driver: str,
              tests: Sequence[str]) -> subprocess.Popen[bytes]:
        with open(self.directory / f'{name}.log', 'wb') as log:
            process = subprocess.Popen(
                (sys.executable, '-W', 'ignore', '-m',
                 'tests.conformance.run', driver,
                 str(self.directory / f'{name}.json'), *tests),
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

    def assert_alike(self, tests: Sequence[str], at_least: int) -> None:
        """The driver fails none of the tests that an unchanged one passes."""
        unchanged = self.start('unchanged', 'unchanged', tests)
        arm = self.start(
            'arm', 'nova_arm_ext.compute.driver:ArmLibvirtDriver', tests)

        baseline_run, baseline = self.result('unchanged', unchanged)
        arm_run, failed = self.result('arm', arm)

        self.assertEqual(baseline_run, arm_run)
        # Fewer would mean that Nova's tests were not found, or cannot run.
        self.assertGreater(arm_run - len(baseline), at_least)
        new = {test: text for test, text in failed.items()
               if test not in baseline
               and test.rpartition('.')[2] not in EXCUSED}
        self.assertEqual([], sorted(new), '\n\n'.join(
            '\n'.join((test, *text.rstrip().splitlines()[-6:]))
            for test, text in sorted(new.items())))

    def test_arm_driver_fails_no_test_that_an_unchanged_one_passes(
            self) -> None:
        self.assert_alike(_UNIT, 1000)

    def test_servers_with_pci_devices_work_as_with_an_unchanged_one(
            self) -> None:
        self.assert_alike(servers_with_pci_devices(), 40)


def servers_with_pci_devices() -> list[str]:
    """Nova's functional tests of SR-IOV, vDPA and DPUs.

    All but those of classes that vary where a device comes from, and the
    twenty that vary its migration: two minutes in place of six.
    """
    # read, not imported: Nova's test packages patch threads
    path = f'{_PCI.replace(".", "/")}.py'
    source = next(file for file in importlib.metadata.files('nova') or ()
                  if str(file) == path)
    tree = ast.parse(source.read_text())
    return [
        f'{_PCI}.{case.name}.{method.name}'
        for case in tree.body
        if isinstance(case, ast.ClassDef) and case.name in (
            'SRIOVServersTest', 'SRIOVAttachDetachTest', 'VDPAServersTest',
            'RemoteManagedServersTest')
        for method in case.body
        if isinstance(method, ast.FunctionDef)
        and method.name.startswith('test_')
        and not method.name.startswith('test_live_migrate_VF_')
        and not method.decorator_list]
