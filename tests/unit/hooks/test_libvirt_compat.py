# SPDX-License-Identifier: Apache-2.0
"""The rules for what libvirt or QEMU refuses."""

import dataclasses
import types

from oslo_config import cfg

from nova_arm_ext import cpu
from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.hooks import libvirt_compat
from tests.data import golden
from tests.support import base
from tests.support import contract

LIBVIRT_9 = facts.Facts(host=facts.Host(libvirt_version=(9, 0, 0)))
LIBVIRT_11 = facts.Facts(host=facts.Host(libvirt_version=(11, 3, 0)))
LIBVIRT_12 = facts.Facts(host=facts.Host(libvirt_version=(12, 0, 0)))


def hook(*disabled: str) -> libvirt_compat.LibvirtCompat:
    return libvirt_compat.LibvirtCompat(
        types.SimpleNamespace(disabled_rules=list(disabled)))


def document(devices: str = '', *, os: str = '', outside: str = '',
             virt_type: str = 'kvm', arch: str = 'aarch64',
             machine: str = 'virt', os_attributes: str = '') -> str:
    if '<cpu' not in outside:
        outside += '<cpu mode="maximum"/>'
    return (f'<domain type="{virt_type}"><os{os_attributes}>'
            f'<type arch="{arch}" machine="{machine}">hvm</type>{os}</os>'
            f'{outside}<devices><emulator/>{devices}</devices></domain>')


def disk(dev: str, bus: str, *, device: str = 'disk',
         address: str = '') -> str:
    return (f'<disk device="{device}"><target dev="{dev}" bus="{bus}"/>'
            f'{address}</disk>')


def drive(target: int, unit: int, controller: int = 0) -> str:
    return (f'<address type="drive" controller="{controller}" bus="0" '
            f'target="{target}" unit="{unit}"/>')


ACPI = '<features><acpi/></features>'
SCSI = '<controller type="scsi" index="{}" model="virtio-scsi"/>'


class RulesTestCase(base.TestCase):

    def adjusted(self, xml: str, known: facts.Facts = LIBVIRT_9,
                 disabled: tuple[str, ...] = (),
                 previous: str | None = None) -> tuple[str, list[str]]:
        """The domain XML and the names of the reported rules."""
        domain = view.Domain.parse(xml, previous)
        report = hooks.Report()
        hook(*disabled).adjust(domain, known, report)
        return base.compact(domain), [
            reason.rpartition('(rule ')[2].rstrip(')')
            for _, reason in report.reasons]

    def check(self, rule: str, before: str, after: str,
              known: facts.Facts = LIBVIRT_9) -> None:
        """Check that a rule turns one into the other, unless disabled."""
        self.assertEqual((after, [rule]), self.adjusted(before, known))
        self.assertEqual((before, []), self.adjusted(before, known, (rule,)))

    def check_left(self, xml: str, known: facts.Facts = LIBVIRT_9) -> None:
        self.assertEqual((xml, []), self.adjusted(xml, known))


class TableTest(base.TestCase):

    def test_every_rule_says_for_whom_and_why_and_has_a_name_of_its_own(self):
        names = [rule.name for rule in libvirt_compat.RULES]

        self.assertEqual(len(names), len(set(names)))
        for rule in libvirt_compat.RULES:
            self.assertTrue(rule.reason.strip(), rule.name)
            self.assertRegex(rule.nova, r'^(29|3\d)(, 3\d| to 3\d)*$')

    def test_a_rule_is_for_versions_from_since_to_before_until(self):
        rule = next(rule for rule in libvirt_compat.RULES
                    if rule.name == 'loader_secure')

        for version, concerned in (((8, 5, 99), False), ((8, 6, 0), True),
                                   ((9, 1, 99), True), ((9, 2, 0), False),
                                   (None, True)):
            self.assertEqual(concerned, rule.concerns(version), version)

    def test_an_unknown_rule_cannot_be_switched_off(self):
        conf = cfg.ConfigOpts()
        conf.register_opts(libvirt_compat.LibvirtCompat.opts)
        conf([], project='x', default_config_files=[],
             default_config_dirs=[])

        self.assertRaises(ValueError, conf.set_override, 'disabled_rules',
                          ['no_such_rule'])


class FirmwareRulesTest(RulesTestCase):

    def test_secure_no_beside_selection_goes(self):
        self.check('loader_secure',
                   document(os='<loader secure="no"/>',
                            os_attributes=' firmware="efi"'),
                   document(os_attributes=' firmware="efi"'))

    def test_what_else_the_loader_says_stays(self):
        made, _ = self.adjusted(document(
            os='<loader secure="no" stateless="yes"/>',
            os_attributes=' firmware="efi"'))

        self.assertIn('<loader stateless="yes"/>', made)

    def test_newer_libvirt_takes_it_as_it_is(self):
        self.check_left(document(os='<loader secure="no"/>',
                                 os_attributes=' firmware="efi"'), LIBVIRT_11)

    def test_secure_is_left_where_it_says_something(self):
        for os, attributes in (
                ('<loader secure="yes"/>', ' firmware="efi"'),
                ('<loader secure="no" type="pflash">/x</loader>', ''),
                ('<loader secure="no"/>', '')):
            self.check_left(document(os=os, os_attributes=attributes))

    def test_acpi_without_uefi_goes_with_a_kernel_of_the_guests_own(self):
        self.check('acpi_without_uefi',
                   document(os='<kernel>/k</kernel>',
                            outside='<features><acpi/><gic/></features>'),
                   document(os='<kernel>/k</kernel>',
                            outside='<features><gic/></features>'))

    def test_acpi_stays_with_uefi_and_on_32_bit(self):
        acpi = '<features><acpi/></features>'
        self.check_left(document(os='<kernel>/k</kernel>', outside=acpi,
                                 os_attributes=' firmware="efi"'))
        self.check_left(document(
            os='<loader type="pflash">/x</loader><kernel>/k</kernel>',
            outside=acpi))
        self.check_left(document(os='<kernel>/k</kernel>', outside=acpi,
                                 arch='armv7l'))
        # whoever has no kernel gets UEFI from the hook of that name
        self.check_left(document(outside=acpi))


class FeatureRulesTest(RulesTestCase):

    def test_features_of_x86_go(self):
        for rule, inside in (
                ('ioapic', '<ioapic driver="qemu"/>'),
                ('hyperv', '<hyperv><relaxed state="on"/></hyperv>'),
                ('smm', '<smm state="on"/>'),
                ('kvm_hidden', '<kvm><hidden state="on"/></kvm>')):
            self.check(
                rule,
                document(outside=f'<features><acpi/>{inside}</features>'),
                document(outside='<features><acpi/></features>'))

    def test_other_features_of_kvm_stay(self):
        made, rules = self.adjusted(document(
            outside='<features><kvm><hidden state="on"/>'
                    '<poll-control state="on"/></kvm></features>'))

        self.assertIn('<kvm><poll-control state="on"/></kvm>', made)
        self.assertEqual(['kvm_hidden'], rules)

    def test_timers_of_x86_go_and_those_of_arm_stay(self):
        self.check(
            'x86_timers',
            document(outside='<clock><timer name="hypervclock" present="yes"/>'
                             '<timer name="tsc"/><timer name="kvmclock"/>'
                             '<timer name="armvtimer"/></clock>'),
            document(outside='<clock><timer name="armvtimer"/></clock>'))

    def test_maxphysaddr_goes(self):
        self.check('maxphysaddr',
                   document(outside='<cpu mode="host-passthrough">'
                                    '<maxphysaddr mode="emulate"/></cpu>'),
                   document(outside='<cpu mode="host-passthrough"/>'))

    def test_host_model_becomes_what_there_is(self):
        for virt_type, mode in (('kvm', 'host-passthrough'),
                                ('qemu', 'maximum')):
            self.check('host_model',
                       document(outside='<cpu mode="host-model"/>',
                                virt_type=virt_type),
                       document(outside=f'<cpu mode="{mode}"/>',
                                virt_type=virt_type))

    def test_the_host_cpu_is_passed_through_only_with_kvm(self):
        before = '<cpu mode="host-passthrough"><topology/></cpu>'
        for arch in ('aarch64', 'armv7l'):
            self.check('host_passthrough',
                       document(outside=before, virt_type='qemu', arch=arch),
                       document(outside=before.replace('host-passthrough',
                                                       'maximum'),
                                virt_type='qemu', arch=arch))
        self.check_left(document(outside=before))

    def test_a_guest_that_could_not_start_gets_the_cpu_too(self):
        before = document(outside='<cpu mode="host-passthrough"/>',
                          virt_type='qemu')

        made, _ = self.adjusted(before, previous=before)

        self.assertIn('<cpu mode="maximum"/>', made)

    def test_a_cpu_without_a_model_gets_one_and_keeps_its_topology(self):
        for virt_type, mode in (('kvm', 'host-passthrough'),
                                ('qemu', 'maximum')):
            self.check('no_cpu_model',
                       document(outside='<cpu><topology cores="2"/></cpu>',
                                virt_type=virt_type),
                       document(outside=f'<cpu mode="{mode}" match="exact">'
                                        '<topology cores="2"/></cpu>',
                                virt_type=virt_type))

    def test_a_guest_without_a_cpu_gets_one(self):
        made, rules = self.adjusted(document().replace(
            '<cpu mode="maximum"/>', ''))

        self.assertEqual(['no_cpu_model'], rules)
        self.assertIn('<cpu mode="host-passthrough" match="exact"/>', made)

    def test_an_existing_guest_that_may_run_keeps_the_cpu_it_had(self):
        for os, virt_type in (('<kernel>/k</kernel>', 'qemu'), ('', 'kvm')):
            xml = document(outside='<cpu><topology/></cpu>', os=os,
                           virt_type=virt_type)

            self.assertEqual((xml, []), self.adjusted(xml, previous=xml))

    def test_an_existing_guest_whose_firmware_never_ran_gets_a_cpu(self):
        xml = document(outside='<cpu><topology/></cpu>', virt_type='qemu')

        _, rules = self.adjusted(xml, previous=xml)

        self.assertEqual(['no_cpu_model'], rules)

    def test_other_machines_have_a_cpu_of_their_own(self):
        self.check_left(document(outside='<cpu><topology/></cpu>',
                                 machine='sbsa-ref'))

    def test_what_an_x86_host_emulates_gets_all_that_qemu_can(self):
        novas = '<cpu match="exact"><model>cortex-a57</model></cpu>'
        on_x86 = facts.Facts(host=facts.Host(
            arch='x86_64', libvirt_version=(9, 0, 0), qemu_version=(10, 0, 0)))
        slow = dataclasses.replace(on_x86, host=dataclasses.replace(
            on_x86.host, qemu_version=(9, 2, 4)))
        before = document(outside=novas, virt_type='qemu')
        after = document(outside='<cpu match="exact" mode="maximum"/>',
                         virt_type='qemu')

        self.check('emulated_cpu', before, after, on_x86)
        # Nova writes the same for it at each redefinition
        self.assertEqual((after, ['emulated_cpu']), self.adjusted(
            before, on_x86, previous=after))
        for left, previous, known in (
                (before, before, on_x86),
                (before, None, LIBVIRT_9),
                (before, None, slow),
                (before.replace('match', 'mode="custom" match'), None,
                 on_x86),
                (before.replace('a57', 'a72'), None, on_x86)):
            self.assertEqual((left, []), self.adjusted(
                left, known, previous=previous))

    def test_gic_3_for_more_than_eight_emulated_cpus(self):
        self.check('gic_version',
                   document(outside='<vcpu>9</vcpu><features/>',
                            virt_type='qemu'),
                   document(outside='<vcpu>9</vcpu><features>'
                                    '<gic version="3"/></features>',
                            virt_type='qemu'))
        made, _ = self.adjusted(document(
            outside='<vcpu>16</vcpu><features><gic version="2"/></features>',
            virt_type='qemu'))
        self.assertIn('<gic version="3"/>', made)

    def test_more_vcpus_than_the_gic_of_the_host_has_are_refused(self):
        def with_gic(*versions: int) -> facts.Facts:
            return facts.Facts(host=facts.Host(
                libvirt_version=(9, 0, 0),
                cpu=cpu.Cpu(gic_versions=versions)))
        xml = document(outside='<vcpu>10</vcpu>')

        refusal = self.assertRaises(errors.Refused, self.adjusted, xml,
                                    with_gic(2))

        self.assertIn('10 vCPUs', str(refusal))
        self.assertTrue(refusal.this_host)
        self.check_left(xml, with_gic(3))
        self.check_left(xml, with_gic(2, 3))
        self.check_left(xml, facts.Facts(host=facts.Host(cpu=cpu.Cpu())))
        self.check_left(document(outside='<vcpu>8</vcpu>'), with_gic(2))

    def test_more_vcpus_than_an_emulated_32_bit_guest_has_are_refused(self):
        xml = document(outside='<vcpu>9</vcpu>', arch='armv7l',
                       virt_type='qemu')

        refusal = self.assertRaises(errors.Refused, self.adjusted, xml)

        self.assertIn('at most 8', str(refusal))
        self.assertFalse(refusal.this_host)
        # a guest that had the newer one keeps it
        had = document(outside='<vcpu>9</vcpu><features><gic version="3"/>'
                               '</features>', arch='armv7l', virt_type='qemu')
        made, _ = self.adjusted(xml, previous=had)
        self.assertIn('<gic version="3"/>', made)

    def test_the_gic_is_left_where_it_is_no_limit(self):
        for outside, virt_type, machine in (
                ('<vcpu>8</vcpu>', 'qemu', 'virt'),
                ('<vcpu>9</vcpu>', 'kvm', 'virt'),
                ('<vcpu>9</vcpu>', 'qemu', 'sbsa-ref'),
                ('<vcpu>9</vcpu><features><gic version="3"/></features>',
                 'qemu', 'virt'),
                ('<vcpu>9</vcpu><features><gic version="host"/></features>',
                 'qemu', 'virt')):
            self.check_left(document(outside=outside, virt_type=virt_type,
                                     machine=machine))


class DeviceRulesTest(RulesTestCase):

    def test_iommu_driver_attributes_go(self):
        for model in ('smmuv3', 'virtio'):
            self.check('iommu_driver',
                       document(f'<iommu model="{model}">'
                                '<driver intremap="on"/></iommu>'),
                       document(f'<iommu model="{model}"/>'))

    def test_what_nova_did_not_write_about_an_iommu_stays(self):
        theirs = ('<iommu model="smmuv3"><driver {}accel="on" pciBus="1"/>'
                  '</iommu><iommu model="virtio"><driver granule="64k"/>'
                  '</iommu><iommu model="smmuv3"><driver/></iommu>')
        for known in (LIBVIRT_9, LIBVIRT_12):
            self.check_left(document(theirs.format('')), known)
            self.check('iommu_driver',
                       document(theirs.format('eim="off" aw_bits="48" ')),
                       document(theirs.format('')), known)

    def test_an_iommu_that_nova_may_choose_is_virtio(self):
        asked = facts.Facts(host=facts.Host(libvirt_version=(9, 0, 0)),
                            guest=facts.Guest(extra_specs={
                                'hw:viommu_model': 'auto'}))
        before = document('<iommu model="smmuv3"/>', outside=ACPI)
        after = document('<iommu model="virtio"/>', outside=ACPI)

        self.check('iommu_auto', before, after, asked)
        # Nova writes smmuv3 at each redefinition
        self.assertEqual((after, ['iommu_auto']), self.adjusted(
            before, asked, previous=after))
        # and so for a flavor that asks for one later
        self.assertEqual((after, ['iommu_auto']), self.adjusted(
            before, asked, previous=document()))

    def test_an_iommu_stays_where_virtio_is_none_or_it_was_seen(self):
        asked = facts.Facts(guest=facts.Guest(image_properties={
            'hw_viommu_model': 'auto'}))
        smmu = '<iommu model="smmuv3"/>'
        seen = document(smmu, outside=ACPI)
        for xml, known, previous in (
                (seen, asked, seen),
                (document(smmu), asked, None),
                (document(smmu, outside=ACPI, arch='armv7l'), asked, None),
                (seen, LIBVIRT_9, None),
                (seen, dataclasses.replace(asked, host=facts.Host(
                    libvirt_version=(8, 2, 0))), None)):
            self.assertEqual((xml, []), self.adjusted(
                xml, known, previous=previous))

    def test_devices_of_the_host_move_an_iommu_that_could_not_start(self):
        asked = facts.Facts(guest=facts.Guest(extra_specs={
            'hw:viommu_model': 'auto'}))
        for device in ('<hostdev type="pci"/>', '<hostdev type="mdev"/>',
                       '<interface type="hostdev"/>'):
            xml = document(f'<iommu model="smmuv3"/>{device}', outside=ACPI)

            made, _ = self.adjusted(xml, asked, previous=xml)

            self.assertIn('<iommu model="virtio"/>', made)

    def test_devices_of_the_host_behind_an_smmuv3_are_refused(self):
        iommu = '<iommu model="smmuv3"/>'
        for device in ('<hostdev type="pci"/>', '<hostdev type="mdev"/>',
                       '<interface type="hostdev"/>'):
            xml = document(iommu + device, outside=ACPI)

            refusal = self.assertRaises(errors.Refused, self.adjusted, xml)

            self.assertIn('hw_viommu_model', str(refusal))
            self.assertFalse(refusal.this_host)
        self.check_left(document(iommu + '<hostdev type="usb"/>'))
        self.check_left(document(
            '<iommu model="smmuv3"><driver accel="on"/></iommu>'
            '<hostdev type="pci"/>'))
        self.check_left(document('<iommu model="virtio"/>'
                                 '<hostdev type="pci"/>'))

    def test_sound_cards_for_isa_are_refused(self):
        for model in ('sb16', 'pcspk'):
            refusal = self.assertRaises(
                errors.Refused, self.adjusted,
                document(f'<sound model="{model}"/>'))

            self.assertIn('hw_sound_model', str(refusal))
        self.check_left(document('<sound model="ich9"/>'))

    def test_a_machine_that_qemu_does_not_have_is_refused(self):
        known = facts.Facts(host=facts.Host(
            machines=('virt-5.2', 'virt-11.1')))

        refusal = self.assertRaises(
            errors.Refused, self.adjusted, document(machine='virt-5.1'),
            known)

        self.assertIn('virt-5.2, virt-11.1', str(refusal))
        self.assertTrue(refusal.this_host)
        # QEMU may have been updated since
        for machine in ('virt', 'virt-5.2', 'virt-12.0', 'sbsa-ref'):
            self.check_left(document(machine=machine), known)
        self.check_left(document(machine='virt-5.1'))

    def test_what_qemu_was_built_without_is_refused(self):
        for xml, name, asked_by in (
                ('<watchdog model="ib700"/>', 'i6300esb',
                 'hw_watchdog_action'),
                ('<tpm model="tpm-crb"/>', 'tpm-tis-device',
                 'hw_tpm_version'),
                ('<iommu model="virtio"/>', 'virtio-iommu-pci',
                 'hw_viommu_model')):
            def known(*lacks: str) -> facts.Facts:
                return facts.Facts(host=facts.Host(lacks=lacks))

            refusal = self.assertRaises(
                errors.Refused, self.adjusted, document(xml), known(name))

            self.assertIn(asked_by, str(refusal))
            self.assertTrue(refusal.this_host)
            self.adjusted(document(xml), known('ramfb'))
            self.adjusted(document(), known(name))

    def test_models_that_do_the_same_take_the_place(self):
        for rule, before, after in (
                ('watchdog', '<watchdog model="ib700" action="reset"/>',
                 '<watchdog model="i6300esb" action="reset"/>'),
                ('tpm_model', '<tpm model="tpm-crb"/>',
                 '<tpm model="tpm-tis"/>'),
                ('usb_model', '<controller type="usb" index="0"/>',
                 '<controller type="usb" index="0" model="qemu-xhci"/>')):
            self.check(rule, document(before), document(after))

    def test_models_that_work_stay(self):
        self.check_left(document(
            '<watchdog model="i6300esb"/><tpm model="tpm-tis"/>'
            '<controller type="usb" index="0" model="nec-xhci"/>'
            '<controller type="usb" index="1" model="none"/>'))

    def test_newer_libvirt_chooses_usb_and_scsi_models_itself(self):
        self.check_left(document('<controller type="usb" index="0"/>'
                                 + disk('sda', 'scsi')), LIBVIRT_12)

    def test_what_cannot_be_had_is_refused_and_names_what_to_set(self):
        for xml, word in (
                ('<iommu model="intel"/>', 'hw_viommu_model'),
                ('<tpm model="tpm-tis"><backend version="1.2"/></tpm>',
                 'hw_tpm_version'),
                ('<sound model="virtio"/>', 'hw_sound_model')):
            error = self.assertRaises(errors.Refused, self.adjusted,
                                      document(xml))
            self.assertIn(word, str(error))

    def test_for_an_existing_guest_the_other_rules_go_on(self):
        domain = view.Domain.parse(document(
            '<sound model="virtio"/><watchdog model="ib700"/>'))
        report = hooks.Report()

        hook().keep(domain, LIBVIRT_9, report)

        self.assertEqual(
            document('<sound model="virtio"/><watchdog model="i6300esb"/>'),
            base.compact(domain))

    def test_only_the_sound_depends_on_the_host(self):
        error = self.assertRaises(errors.Refused, self.adjusted,
                                  document('<sound model="virtio"/>'))

        self.assertTrue(error.this_host)
        self.assertIn('9.0.0', str(error))
        self.check_left(document('<sound model="virtio"/>'), LIBVIRT_11)
        self.check_left(document('<sound model="virtio"/>'), facts.Facts())


class ScsiRulesTest(RulesTestCase):

    def test_a_config_drive_on_ide_moves_to_scsi_and_keeps_its_name(self):
        made, rules = self.adjusted(document(
            disk('vda', 'virtio') + disk('hda', 'ide', device='cdrom')))

        self.assertEqual(document(
            disk('vda', 'virtio')
            + disk('hda', 'scsi', device='cdrom', address=drive(1, 0))
            + SCSI.format(0)), made)
        self.assertEqual(['ide', 'scsi_model'], rules)

    def test_a_cdrom_on_virtio_moves_too_and_a_disk_does_not(self):
        made, rules = self.adjusted(document(
            disk('vda', 'virtio') + disk('vdb', 'virtio', device='cdrom')))

        self.assertIn('<target dev="vda" bus="virtio"/>', made)
        self.assertIn('<target dev="vdb" bus="scsi"/>' + drive(1, 0), made)
        self.assertEqual(['cdrom_virtio', 'scsi_model'], rules)

    def test_disks_of_a_new_guest_move_from_sata_to_scsi(self):
        before = document(disk('sda', 'sata')
                          + disk('sdb', 'sata', device='cdrom'))

        made, rules = self.adjusted(before)

        self.assertEqual(document(
            disk('sda', 'scsi', address=drive(1, 0))
            + disk('sdb', 'scsi', device='cdrom', address=drive(1, 1))
            + SCSI.format(0)), made)
        self.assertEqual(['sata', 'scsi_model'], rules)
        # Nova writes SATA at each redefinition
        self.assertEqual(made, self.adjusted(before, previous=made)[0])

    def test_a_new_disk_does_not_take_the_place_of_one_from_sata(self):
        had = document(disk('sda', 'scsi', address=drive(1, 0))
                       + SCSI.format(0))

        made, _ = self.adjusted(document(
            disk('sda', 'sata') + disk('vdz', 'virtio', device='cdrom')),
            previous=had)

        self.assertIn('<target dev="sda" bus="scsi"/>' + drive(1, 0), made)
        self.assertIn('<target dev="vdz" bus="scsi"/>' + drive(1, 1), made)

    def test_disks_stay_on_sata_where_the_guest_has_seen_it(self):
        had = document(disk('sda', 'sata'))
        more = document(disk('sda', 'sata') + disk('sdb', 'sata'))

        self.assertEqual((more, []), self.adjusted(more, previous=had))

    def test_disks_stay_on_sata_with_a_kernel_that_knows_it(self):
        self.check_left(document(disk('sda', 'sata'), os='<kernel>/k</kernel>'
                                 ))

    def test_it_never_takes_the_place_of_a_disk_that_comes_later(self):
        # a disk sdb, hot-plugged, is at target 0, unit 1 by its name
        made, _ = self.adjusted(document(
            disk('sda', 'scsi') + disk('hda', 'ide') + disk('hdb', 'ide')))

        domain = view.Domain.parse(made)
        self.assertEqual(['1', '1'],
                         domain.element.xpath('devices/disk/address/@target'))
        self.assertEqual(['0', '1'],
                         domain.element.xpath('devices/disk/address/@unit'))

    def test_an_address_of_ide_is_not_one_of_scsi(self):
        made, _ = self.adjusted(document(
            disk('hda', 'ide', address=drive(0, 1))))

        self.assertIn(drive(1, 0), made)
        self.assertEqual(1, made.count('<address'))

    def test_it_goes_where_the_guest_has_had_it(self):
        had = document(disk('hda', 'scsi', address=drive(0, 5)))

        made, _ = self.adjusted(
            document(disk('hda', 'ide') + disk('hdb', 'ide')), previous=had)

        self.assertEqual(
            ['0', '1'],
            view.Domain.parse(made).element.xpath(
                'devices/disk/address/@target'))
        self.assertIn(drive(0, 5), made)

    def test_a_controller_of_one_target_gets_it_at_a_free_unit(self):
        made, _ = self.adjusted(document(
            disk('sda', 'scsi') + disk('sdb', 'scsi', address=drive(0, 1))
            + disk('hda', 'ide')
            + '<controller type="scsi" index="0" model="lsilogic"/>'))

        self.assertIn(drive(0, 2), made)
        self.assertIn('model="lsilogic"', made)

    def test_a_scsi_controller_without_a_model_gets_one(self):
        self.check('scsi_model',
                   document(disk('sda', 'scsi')
                            + '<controller type="scsi" index="0"/>'),
                   document(disk('sda', 'scsi') + SCSI.format(0)))

    def test_a_model_that_is_there_stays(self):
        self.check_left(document(
            disk('sda', 'scsi')
            + '<controller type="scsi" index="0" model="lsilogic"/>'))

    def test_more_disks_than_a_controller_takes_get_more_of_its_kind(self):
        made, _ = self.adjusted(document(''.join(
            disk(f'sd{letter}', 'scsi') for letter in 'abcdefghijklmno')))

        self.assertEqual(SCSI.format(0) + SCSI.format(1) + SCSI.format(2),
                         made[made.index('<controller'):made.index(
                             '</devices>')])

    def test_other_boards_are_left(self):
        self.check_left(document(
            disk('hda', 'ide') + disk('sda', 'scsi')
            + '<controller type="usb" index="0"/>', machine='vexpress-a15'))

    def test_odd_target_names_are_no_trouble(self):
        for name in ('', 'sd', 's', 'sd1', 'xvda', 'sdzzzzz', '\N{SNOWMAN}'):
            made, _ = self.adjusted(document(
                disk(name, 'scsi') + disk('hda', 'ide')))
            self.assertEqual([], view.Domain.parse(made).element.xpath(
                'devices/controller[starts-with(@index, "-")]'))


class LibvirtCompatContractTest(contract.HookContract, base.TestCase):

    def make_hook(self):
        return hook()

    def documents(self):
        yield from super().documents()
        # every libvirt between
        for version in ((8, 0, 0), (9, 2, 0), (11, 6, 0), (12, 0, 0)):
            yield (golden.before('config-drive-emulated'),
                   facts.Facts(host=facts.Host(libvirt_version=version)))
