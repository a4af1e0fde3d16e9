# SPDX-License-Identifier: Apache-2.0
"""The installed Nova's own unit tests accept the extension's driver."""

from tests.conformance import compare

MODULES = tuple(f'nova.tests.unit.virt.libvirt.test_{name}' for name in (
    'driver', 'host', 'guest', 'config', 'migration'))

#: Tests that may fail, with the reason.
EXCUSED = {
    'test_sanitize_log_to_xml':
        'its _get_guest_config returns a Mock whose document is a Mock',
    'test_hard_reboot_does_not_call_glance_show':
        'its _get_guest_config returns a Mock whose document is a Mock',
    'test_compare_cpu_host_aarch64':
        'it expects the comparison that libvirt refuses on Arm',
}


class UnitTest(compare.TestCase):

    def test_arm_driver_fails_no_test_that_an_unchanged_one_passes(
            self) -> None:
        self.assert_alike(MODULES, at_least=1500, excused=EXCUSED)
