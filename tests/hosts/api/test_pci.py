# SPDX-License-Identifier: Apache-2.0
"""Servers with PCI devices work as with an unchanged driver."""

from tests.conformance import compare

SRIOV = 'nova.tests.functional.libvirt.test_pci_sriov_servers'
PLACEMENT = 'nova.tests.functional.libvirt.test_pci_in_placement'


class PciServersTest(compare.TestCase):

    def test_sriov_vdpa_and_dpus(self) -> None:
        self.assert_alike([SRIOV], at_least=104, excused={})

    def test_devices_in_placement(self) -> None:
        self.assert_alike([PLACEMENT], at_least=34, excused={})
