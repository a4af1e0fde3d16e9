# SPDX-License-Identifier: Apache-2.0
"""Guests of KVM on an Arm host report from inside.

The host is emulated, with its hypervisor mode; on an Arm machine with KVM the
tests use that machine. Nova makes the domain XML, and the hooks adjust it with
the facts of that host.
"""

from lxml import etree

from tests.hosts.kvm import base

ARMV7 = {'image': {'hw_architecture': 'armv7l', 'hw_machine_type': 'virt',
                   'hw_firmware_type': 'uefi'}}


def pci_addresses(domain: etree._Element) -> set[str]:
    """The PCI addresses in domain XML, as the guest's kernel writes them."""
    return {
        '{domain:04x}:{bus:02x}:{slot:02x}.{function:x}'.format(
            **{part: int(address.get(part), 16)
               for part in ('domain', 'bus', 'slot', 'function')})
        for address in domain.iterfind('devices//address[@type="pci"]')}


class CortexA72Test(base.HostTestCase):
    """Cores that run 32-bit guests at EL1, and no SVE."""

    core = 'cortex-a72'
    asked = {
        'uefi': {'extra_specs': {'arm:free_pcie_root_ports': '3'}},
        'armv7': ARMV7,
    }

    def test_variables_of_a_uefi_guest_stay_over_a_restart(self):
        one = self.start('uefi')
        first = self.report(one)
        one.power_off()
        one.power_on()
        second = self.report(one)

        for report in (first, second):
            self.assertEqual('aarch64', report.arch)
            self.assertTrue(report.efi)
        self.assertEqual([1, 2], [first.boots, second.boots])
        self.assertEqual(first.hardware, second.hardware)
        self.assertIn('-accel kvm', one.qemu())

    def test_slots_are_those_of_the_domain_xml(self):
        one = self.start('uefi')
        report = self.report(one)
        domain = one.live()

        ports = domain.findall('devices/controller[@model="pcie-root-port"]')
        self.assertEqual(len(ports), report.root_ports)
        self.assertLessEqual(3, report.root_ports)
        self.assertEqual(set(), pci_addresses(domain)
                         - {device.address for device in report.pci})

    def test_a_32_bit_guest_runs_with_kvm(self):
        one = self.start('armv7')
        report = self.report(one)

        self.assertEqual('armv7l', report.arch)
        self.assertTrue(report.efi)
        self.assertIn('AAVMF32', one.live().findtext('os/loader'))
        self.assertIn('-accel kvm', one.qemu())
        self.assertIn('-cpu host,aarch64=off', one.qemu())


class MaxTest(base.HostTestCase):
    """Cores with SVE, pointer authentication, and AArch32 at EL1."""

    core = 'max'
    asked = {
        'all': {'extra_specs': {'arm:sve_vector_length': '256'}},
        'no-sve': {'extra_specs': {'arm:sve': 'off',
                                   'arm:gic_version': '3'}},
        'armv7': ARMV7,
    }

    def test_a_guest_has_the_features_that_it_asks_for(self):
        one = self.start('all')
        report = self.report(one)

        self.assertLessEqual({'sve', 'paca', 'pacg'}, report.features)
        self.assertIn('sve256=on', one.qemu())

    def test_sve_can_be_off(self):
        one = self.start('no-sve')
        report = self.report(one)

        self.assertNotIn('sve', report.features)
        self.assertIn('paca', report.features)
        self.assertEqual('GICv3', report.gic)

    def test_a_32_bit_guest_runs_without_the_sve_of_the_host(self):
        one = self.start('armv7')
        report = self.report(one)

        self.assertEqual('armv7l', report.arch)
        self.assertTrue(report.efi)
        self.assertIn('-cpu host,aarch64=off,sve=off', one.qemu())


class NeoverseN1Test(base.HostTestCase):
    """Cores that run no 32-bit guest."""

    core = 'neoverse-n1'
    asked = {'armv7': ARMV7}

    def test_a_32_bit_guest_is_emulated(self):
        # Its report is not awaited: emulation in an emulated host is slow.
        one = self.start('armv7')

        self.assertIs(False, self.fleet.facts['host']['aarch32_el1'])
        self.assertIn('-accel tcg', one.qemu())
        self.assertIn('-cpu cortex-a15', one.qemu())
