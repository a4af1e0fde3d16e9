# SPDX-License-Identifier: Apache-2.0
"""A hook that crashes costs one request, never a guest."""

from lxml import etree

from tests.hosts.one import base
from tests.hosts.one import breaking_hook


def kept(xml):
    """The variable store and the addresses, which a guest must not lose."""
    tree = etree.fromstring(xml)
    return (tree.findtext('os/loader'), tree.findtext('os/nvram'),
            [(device.tag, sorted(device.find('address').attrib.items()))
             for device in tree.find('devices')
             if device.find('address') is not None])


class CrashingHookTest(base.GuestTestCase):

    bed_options = {'extra_hooks': {
        'breaking': 'tests.hosts.one.breaking_hook:Breaking'}}

    def test_guest_survives_a_hook_that_crashes(self):
        from tests.hosts.one import bed
        server = self.bed.boot(extra_specs={breaking_hook.SPEC: 'yes'})
        neighbour = self.bed.boot()
        first = server.report()
        neighbour.report()
        before = kept(server.inactive_xml())

        self.bed.restart_compute(enable=('breaking',))
        error = self.assertRaises(bed.ActionFailed, server.hard_reboot)
        self.assertIn('breaking', str(error))
        self.assertEqual(before, kept(server.inactive_xml()))

        # The hook does not crash for the other one.
        neighbour.hard_reboot()
        self.assertEqual('ACTIVE', neighbour.status)
        self.assertEqual(2, neighbour.report().boots)
        neighbour.delete()

        # The cause is gone.
        self.bed.restart_compute()
        server.reset_state()
        server.hard_reboot()
        again = server.report()
        self.assertEqual(first.hardware, again.hardware)
        self.assertEqual(2, again.boots)

        self.bed.restart_compute(enable=('breaking',),
                                 on_hook_failure='skip')
        server.hard_reboot()
        skipped = server.report()
        self.assertEqual(first.hardware, skipped.hardware)
        self.assertEqual(3, skipped.boots)
        self.assertRegex(self.bed.log(), r'ERROR nova_arm_ext.*breaking')
