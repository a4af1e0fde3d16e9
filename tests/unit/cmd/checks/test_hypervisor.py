# SPDX-License-Identifier: Apache-2.0
"""Faults of libvirt, KVM and hardware."""

import dataclasses

import fixtures

from nova_arm_ext import cpu
from nova_arm_ext.cmd.checks import hypervisor
from tests.support import pci_tree
from tests.unit.cmd.checks import base


class HypervisorTest(base.ChecksTestCase):

    def change(self, **values: object) -> None:
        self.host = dataclasses.replace(self.host, **values)

    def test_nothing_is_found_where_nothing_is_wrong(self) -> None:
        for check in (hypervisor.libvirt, hypervisor.kvm, hypervisor.aarch32,
                      hypervisor.gic, hypervisor.pci_devices):
            self.assert_ok(check)

    def test_libvirt_that_does_not_answer(self) -> None:
        place = base.no_libvirt()

        self.assert_finds('failure', hypervisor.libvirt,
                          'does not answer', 'start libvirtd', place=place)
        for check in (hypervisor.kvm, hypervisor.gic, hypervisor.aarch32,
                      hypervisor.pci_devices):
            self.assertEqual(
                [('not applicable',
                  'unknown, because libvirt does not answer')],
                self.found(check, place))

    def test_another_driver_of_libvirt(self) -> None:
        self.driver = 'TEST'

        self.assert_finds('failure', hypervisor.libvirt, 'driver TEST',
                          '--connect')

    def test_old_versions(self) -> None:
        self.change(libvirt_version=(7, 6, 0), qemu_version=(5, 2, 0))

        self.assert_finds('failure', hypervisor.libvirt, 'libvirt is 7.6.0',
                          '8.0.0')
        self.assert_finds('failure', hypervisor.libvirt, 'QEMU is 5.2.0',
                          '6.2.0')

    def test_unknown_versions(self) -> None:
        self.change(qemu_version=None)

        self.assert_finds('warning', hypervisor.libvirt,
                          'version of QEMU is unknown')

    def test_no_emulator(self) -> None:
        self.change(virt_types={'x86_64': ('kvm',)})

        self.assert_finds('failure', hypervisor.libvirt,
                          'no aarch64 guests', 'qemu-system-arm')

    def test_a_libvirt_that_nobody_has_tried(self) -> None:
        self.change(libvirt_version=(13, 0, 0))

        self.assert_finds('warning', hypervisor.libvirt, 'libvirt 13.0.0',
                          'before you rely on it')

    def test_cores_of_several_kinds(self) -> None:
        self.assertEqual([('not applicable',
                           'unknown which cores this host has')],
                         self.found(hypervisor.cores))
        kinds = (cpu.Core(0x412fd050), cpu.Core(0x414fd0b0))
        self.change(cpu=cpu.Cpu(cores=kinds))
        self.assert_finds('warning', hypervisor.cores, '2 kinds of core',
                          'Arm Cortex-A76', '[compute] cpu_shared_set')
        self.assert_finds(
            'ok', hypervisor.cores, 'cpu_shared_set = 4-7',
            place=self.place('[compute]\ncpu_shared_set = 4-7\n'))
        self.change(cpu=cpu.Cpu(cores=kinds[1:]))
        self.assert_ok(hypervisor.cores)

    def test_no_swtpm_where_nova_advertises_a_tpm(self) -> None:
        enabled = '[libvirt]\nswtpm_enabled = true\n'
        self.assert_finds('not applicable', hypervisor.tpm, 'swtpm_enabled')
        for backends, status in (('passthrough', 'failure'),
                                 ('emulator', 'ok')):
            self.devices = ('<tpm supported="yes"><enum name="backendModel">'
                            f'<value>{backends}</value></enum></tpm>')
            self.assert_finds(status, hypervisor.tpm, 'swtpm',
                              place=self.place(enabled))

    def test_swtpm_is_looked_for_where_libvirt_says_nothing(self) -> None:
        enabled = '[libvirt]\nswtpm_enabled = true\n'
        for path, status in (('/usr/bin/swtpm', 'ok'), (None, 'failure')):
            programs = {'swtpm': path, 'swtpm_setup': path}
            with fixtures.MonkeyPatch('shutil.which', programs.get):
                self.assert_finds(status, hypervisor.tpm, 'swtpm',
                                  place=self.place(enabled))
        self.assert_finds('not applicable', hypervisor.tpm, 'unknown',
                          place=self.place(enabled, 'qemu+ssh://other/system'))

    def test_no_kvm_device(self) -> None:
        self.kvm = '/nonexistent/kvm'
        self.change(virt_types={'aarch64': ('qemu',)})

        self.assert_finds('failure', hypervisor.kvm,
                          'there is no /nonexistent/kvm', 'EL2')

    def test_no_kvm_device_in_this_container(self) -> None:
        self.kvm = '/nonexistent/kvm'

        self.assert_finds('warning', hypervisor.kvm,
                          'in a container, add the device')

    def test_a_kvm_device_that_cannot_be_opened(self) -> None:
        # root may open any file, but none may open a folder for writing
        self.kvm = str(self.directory)

        self.assert_finds('warning', hypervisor.kvm, 'cannot be opened')

    def test_libvirt_offers_no_kvm(self) -> None:
        self.change(virt_types={'aarch64': ('qemu',)})

        self.assert_finds('failure', hypervisor.kvm,
                          'offers no KVM for aarch64', 'restart libvirt')

    def test_all_guests_are_emulated_by_configuration(self) -> None:
        self.assert_finds('warning', hypervisor.kvm, 'virt_type is qemu',
                          place=self.place('[libvirt]\nvirt_type = qemu\n'))

    def test_an_x86_host_has_no_kvm_for_arm(self) -> None:
        self.change(arch='x86_64')

        self.assert_finds('not applicable', hypervisor.kvm, 'x86_64')
        self.assert_finds('not applicable', hypervisor.aarch32, 'x86_64')

    def test_32_bit_guests(self) -> None:
        for able, status, words in (
                (True, 'ok', 'run with KVM'), (False, 'ok', 'are emulated'),
                (None, 'warning', 'unknown')):
            self.change(aarch32_el1=able)

            self.assert_finds(status, hypervisor.aarch32, words)

    def test_an_old_interrupt_controller(self) -> None:
        self.gic = ('2',)

        self.assert_finds('warning', hypervisor.gic,
                          'only have a GIC of version 2', '8 vCPUs')

    def test_a_pci_device_that_cannot_be_read(self) -> None:
        self.pci = [('pci_0002_01_00_1', None, 'it is gone')]

        self.assert_finds('warning', hypervisor.pci_devices,
                          '1 of 1 cannot be read: 0002:01:00.1', 'skip')

    def test_pci_devices_that_are_skipped(self) -> None:
        tree = pci_tree.Tree()
        pci_tree.thunderx(tree, 2)
        self.pci = [(name, node.document, '') for name, node
                    in tree.nodes.items() if name.startswith('pci')]

        self.assert_finds('ok', hypervisor.pci_devices,
                          '2 skipped by 177d:a034')

    def test_what_nova_does_not_start_with_is_too_old_here_too(self) -> None:
        from nova.virt.libvirt import driver

        self.assertGreaterEqual(hypervisor.OLDEST_LIBVIRT,
                                driver.MIN_LIBVIRT_VERSION)
        self.assertGreaterEqual(hypervisor.OLDEST_QEMU,
                                driver.MIN_QEMU_VERSION)
