# SPDX-License-Identifier: Apache-2.0
"""UEFI firmware and a store for its variables."""

import dataclasses
import re

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.hooks import uefi
from nova_arm_ext.pipeline.run import Pipeline
from tests.support import base
from tests.support import contract

SECURE = facts.Firmware(
    arch='aarch64', machines=('virt-*',), loader='/code.ms',
    template='/vars.ms', secure_boot=True, enrolled_keys=True)
PLAIN = facts.Firmware(
    arch='aarch64', machines=('virt-*',), loader='/code', template='/vars')
QCOW = facts.Firmware(
    arch='aarch64', machines=('virt-*',), loader='/code.qcow2',
    template='/vars.qcow2', loader_format='qcow2', template_format='qcow2')
ARM32 = facts.Firmware(
    arch='armv7l', machines=('virt-*',), loader='/code32', template='/vars32')

LIBVIRT_9 = facts.Facts(host=facts.Host(
    libvirt_version=(9, 0, 0), firmware=(SECURE, QCOW, PLAIN, ARM32)))
LIBVIRT_11 = facts.Facts(host=facts.Host(
    libvirt_version=(11, 3, 0), firmware=(SECURE, QCOW, PLAIN, ARM32)))

#: what Nova 33 and 34 write, less what libvirt_compat has taken out
SELECTED = ('<firmware><feature name="secure-boot" enabled="no"/></firmware>'
            '{type}<boot dev="hd"/>')
NAMED = ('{type}<loader readonly="yes" type="pflash" secure="no">'
         '/code</loader>'
         '<nvram template="/vars"/><boot dev="hd"/>')
STORE = ('{type}<loader readonly="yes" type="pflash" secure="no">'
         '/code</loader>'
         '<nvram template="/vars">/store</nvram><boot dev="hd"/>')


def document(os: str, *, arch: str = 'aarch64', machine: str = 'virt',
             attributes: str = '') -> str:
    kind = f'<type arch="{arch}" machine="{machine}">hvm</type>'
    return (f'<domain type="kvm"><os{attributes}>'
            f'{os.replace("{type}", kind)}</os></domain>')


EFI = ' firmware="efi"'


class UefiTestCase(base.TestCase):

    def adjusted(self, xml: str, known: facts.Facts = LIBVIRT_9, *,
                 previous: str | None = None,
                 **image: str) -> tuple[str, list[str]]:
        """The domain XML and the reported places."""
        if image:
            known = dataclasses.replace(known, guest=facts.Guest(
                image_properties=image))
        domain = view.Domain.parse(xml, previous)
        report = hooks.Report()
        hook = uefi.Uefi(None)
        if hook.applies_to(domain, known):
            hook.adjust(domain, known, report)
        return base.compact(domain), [place for place, _ in report.reasons]

    def check_left(self, xml: str, known: facts.Facts = LIBVIRT_9,
                   **more: str) -> None:
        self.assertEqual((xml, []), self.adjusted(xml, known, **more))


class NewGuestTest(UefiTestCase):

    def test_old_libvirt_is_told_the_path(self):
        self.assertEqual(
            (document(NAMED), ['os/loader']),
            self.adjusted(document(SELECTED, attributes=EFI)))

    def test_newer_libvirt_goes_on_selecting(self):
        self.check_left(document(SELECTED, attributes=EFI), LIBVIRT_11)

    def test_secure_boot_takes_the_firmware_with_keys(self):
        made, _ = self.adjusted(document(
            SELECTED.replace('"no"', '"yes"'), attributes=EFI))

        self.assertIn('>/code.ms</loader>', made)
        self.assertIn('template="/vars.ms"', made)
        # libvirt: "Secure boot is supported with q35 machine types only"
        self.assertNotIn('secure="yes"', made)

    def test_secure_boot_is_asked_for_by_features(self):
        features = ('<firmware><feature enabled="yes" name="enrolled-keys"/>'
                    '<feature enabled="yes" name="secure-boot"/></firmware>')
        selected = SELECTED.replace('"no"', '"yes"').replace(
            '<boot', '<loader secure="yes"/><boot')
        # what Nova 33 and 34 write, and what Nova 29 to 32 do
        for os, attributes in (
                (selected, EFI),
                (STORE.replace('secure="no"', 'secure="yes"'), '')):
            made, places = self.adjusted(
                document(os, attributes=attributes), LIBVIRT_11)

            self.assertEqual(
                _sorted(document('{type}<boot dev="hd"/>' + features,
                                 attributes=EFI)), _sorted(made))
            self.assertEqual(['os/firmware'], places)

            made, _ = self.adjusted(document(os, attributes=attributes))
            self.assertIn('<loader readonly="yes" type="pflash">/code.ms<',
                          made)

    def test_the_store_lies_where_the_facts_say(self):
        for known, store in (
                (LIBVIRT_9, '<nvram template="/vars">/u_VARS.fd<'),
                (LIBVIRT_11, '<nvram>/u_VARS.qcow2<')):
            made, places = self.adjusted(
                document(SELECTED, attributes=EFI), dataclasses.replace(
                    known, guest=facts.Guest(nvram='/u_VARS')))

            self.assertIn(store, made)
            self.assertIn('os/nvram', places)

    def test_no_path_is_written_without_a_template_that_nova_can_read(self):
        known = facts.Facts(guest=facts.Guest(nvram='/u_VARS'))
        for os, attributes in ((SELECTED, EFI), (
                '{type}<loader type="pflash">/own</loader>', '')):
            self.check_left(document(os, attributes=attributes), known)

    def test_a_guest_that_asked_for_nothing_gets_uefi_without_secure_boot(
            self):
        made, places = self.adjusted(document('{type}'), LIBVIRT_11)

        self.assertEqual(document(
            '{type}<firmware><feature enabled="no" name="secure-boot"/>'
            '</firmware>', attributes=EFI), made)
        self.assertEqual(['os/@firmware'], places)

    def test_a_kernel_of_the_guests_own_is_enough(self):
        self.check_left(document('{type}<kernel>/k</kernel>'))

    def test_a_kernel_beside_uefi_keeps_it(self):
        made, _ = self.adjusted(document(
            SELECTED + '<kernel>/k</kernel>', attributes=EFI))

        self.assertIn('>/code</loader>', made)
        self.assertIn('<kernel>/k</kernel>', made)

    def test_bios_without_a_kernel_is_refused_by_the_name_of_the_property(
            self):
        error = self.assertRaises(
            errors.Refused, self.adjusted, document('{type}'),
            hw_firmware_type='bios')

        self.assertIn('hw_firmware_type', str(error))
        self.assertFalse(error.this_host)

    def test_bios_with_a_kernel_is_left(self):
        self.check_left(document('{type}<kernel>/k</kernel>'),
                        hw_firmware_type='bios')

    def test_32_bit_guests_get_uefi_where_it_is_asked_for(self):
        made, _ = self.adjusted(document(SELECTED, arch='armv7l',
                                         attributes=EFI))

        self.assertIn('>/code32</loader>', made)
        self.check_left(document('{type}<kernel>/k</kernel>', arch='armv7l'))

    def test_a_32_bit_guest_with_nothing_to_boot_is_refused(self):
        error = self.assertRaises(
            errors.Refused, self.adjusted,
            document('{type}', arch='armv7l'), facts.Facts())

        self.assertIn("hw_firmware_type of the image to 'uefi'", str(error))
        self.assertIn('kernel_id', str(error))

    def test_a_32_bit_guest_with_nothing_to_boot_gets_uefi(self):
        for host, secure in ((LIBVIRT_9, ' secure="no">/code32<'),
                             (LIBVIRT_11, 'firmware="efi"')):
            made, _ = self.adjusted(document('{type}', arch='armv7l'), host)

            self.assertIn(secure, made)
            # Nova writes the same at each redefinition
            self.assertEqual(made, self.adjusted(
                document('{type}', arch='armv7l'), host, previous=made)[0])

    def test_a_32_bit_guest_that_cannot_have_uefi_is_refused(self):
        none = facts.Facts(host=dataclasses.replace(
            LIBVIRT_9.host, firmware=(PLAIN,)))
        refusal = self.assertRaises(
            errors.Refused, self.adjusted,
            document('{type}', arch='armv7l'), none)
        self.assertIn('kernel_id', str(refusal))
        self.assertIn('qemu-efi-arm', str(refusal))
        self.assertTrue(refusal.this_host)

        refusal = self.assertRaises(
            errors.Refused, self.adjusted,
            document('{type}', arch='armv7l'), hw_firmware_type='bios')
        self.assertIn('hw_firmware_type', str(refusal))
        self.assertIn('a 32-bit instance', str(refusal))

    def test_one_that_exists_is_left_and_so_is_a_loader_of_its_own(self):
        nothing = document('{type}', arch='armv7l')

        self.check_left(nothing, previous=nothing)
        self.check_left(document('{type}<loader>/u-boot.bin</loader>',
                                 arch='armv7l'))

    def test_firmware_that_is_named_stays_and_gets_its_template(self):
        named = ('{type}<loader readonly="yes" type="pflash">/code</loader>')

        made, places = self.adjusted(document(named))

        self.assertEqual(document(named + '<nvram template="/vars"/>'), made)
        self.assertEqual(['os/nvram/@template'], places)
        self.check_left(document(NAMED))
        self.check_left(document(named.replace('/code', '/mine')))

    def test_a_store_without_a_template_gets_the_one_of_its_firmware(self):
        made, _ = self.adjusted(document(
            '{type}<loader type="pflash">/code</loader><nvram>/s</nvram>'))

        self.assertIn('<nvram template="/vars">/s</nvram>', made)

    def test_stateless_firmware_is_named_on_every_libvirt(self):
        for known in (LIBVIRT_9, LIBVIRT_11):
            made, _ = self.adjusted(document(
                SELECTED + '<loader stateless="yes"/>', attributes=EFI),
                known)
            self.assertRegex(made, r'<loader [^>]*stateless="yes"[^>]*>/code')
            self.assertNotIn('nvram', made)

    def test_too_little_memory_for_uefi_is_refused(self):
        def with_memory(memory: str, os: str = SELECTED,
                        attributes: str = EFI) -> str:
            return document(os, attributes=attributes).replace(
                '<os', memory + '<os', 1)
        for memory in ('<memory>65536</memory>',
                       '<memory unit="MiB">127</memory>'):
            refusal = self.assertRaises(errors.Refused, self.adjusted,
                                        with_memory(memory))
            self.assertIn('UEFI needs 128 MiB', str(refusal))
            self.assertIn('MiB of memory', str(refusal))
            xml = with_memory(memory, NAMED, '')
            self.check_left(xml, previous=xml)
            self.check_left(with_memory(memory, '{type}<kernel>/k</kernel>',
                                        ''))
        self.check_left(with_memory('<memory>131072</memory>', NAMED, ''))
        self.check_left(with_memory('<memory>many</memory>', NAMED, ''))

    def test_old_libvirt_gets_raw_firmware_for_qcow2(self):
        raw = dataclasses.replace(PLAIN, loader='/code.raw')
        named = NAMED.replace('/code', '/code.qcow2').replace(
            '/vars', '/vars.qcow2')
        host = dataclasses.replace(LIBVIRT_9.host,
                                   firmware=(SECURE, QCOW, raw))

        for previous in (None, document(named)):
            made, places = self.adjusted(
                document(named), facts.Facts(host=host), previous=previous)

            self.assertEqual(_sorted(document(
                NAMED.replace('/code', '/code.raw'))), _sorted(made))
            self.assertEqual('os/loader', places[-1])
        self.check_left(document(named), LIBVIRT_11)
        refusal = self.assertRaises(
            errors.Refused, self.adjusted, document(named),
            facts.Facts(host=dataclasses.replace(host, firmware=(QCOW,))))
        self.assertIn('libvirt 9.0.0 reads only raw firmware', str(refusal))
        self.assertIn('/code.qcow2', str(refusal))

    def test_other_boards_are_left(self):
        self.check_left(document('{type}', machine='sbsa-ref'))
        self.check_left(document('{type}', machine='vexpress-a15'))

    def test_a_loader_of_another_kind_is_left(self):
        self.check_left(document('{type}<loader type="rom">/u-boot</loader>'))


class HostFirmwareTest(UefiTestCase):

    def having(self, *firmware: facts.Firmware,
               libvirt: facts.Version | None = (9, 0, 0)) -> facts.Facts:
        return facts.Facts(host=facts.Host(libvirt_version=libvirt,
                                           firmware=firmware))

    def test_the_refusal_names_the_packages_of_three_families(self):
        nothing = facts.Facts(host=facts.Host(
            libvirt_version=(9, 0, 0), firmware=()))
        for arch, packages in (
                ('aarch64', ('qemu-efi-aarch64', 'edk2-aarch64',
                             'qemu-uefi-aarch64')),
                ('armv7l', ('qemu-efi-arm', 'edk2-arm',
                            'qemu-uefi-aarch32'))):
            refusal = self.assertRaises(
                errors.Refused, self.adjusted,
                document(SELECTED, attributes=EFI, arch=arch), nothing)

            for package in packages:
                self.assertIn(f': {package}', str(refusal))

    def test_firmware_without_a_descriptor_is_named_on_every_libvirt(self):
        found = dataclasses.replace(ARM32, described=False)
        for host in (LIBVIRT_9.host, LIBVIRT_11.host,
                     facts.Host(libvirt_version=None)):
            made, _ = self.adjusted(
                document(SELECTED, attributes=EFI, arch='armv7l'),
                facts.Facts(host=dataclasses.replace(
                    host, firmware=(found,))))

            self.assertIn('>/code32</loader>', made)

    def test_a_host_without_firmware_is_refused_for_another_host(self):
        for known in (self.having(), self.having(ARM32), self.having(SECURE),
                      self.having(QCOW), self.having(dataclasses.replace(
                          PLAIN, machines=('sbsa-ref',)))):
            error = self.assertRaises(
                errors.Refused, self.adjusted,
                document(SELECTED, attributes=EFI), known)
            self.assertTrue(error.this_host)
            self.assertIn('aarch64', str(error))

    def test_secure_boot_without_keys_is_refused(self):
        error = self.assertRaises(
            errors.Refused, self.adjusted,
            document(SELECTED.replace('"no"', '"yes"'), attributes=EFI),
            self.having(PLAIN, dataclasses.replace(
                SECURE, enrolled_keys=False)))

        self.assertIn('with Secure Boot', str(error))

    def test_a_newer_libvirt_reads_qcow2(self):
        self.check_left(document(SELECTED, attributes=EFI),
                        self.having(QCOW, libvirt=(9, 2, 0)))

    def test_machine_globs_are_those_of_the_descriptors(self):
        for machine, globs, fits in (
                ('virt', ('virt-*',), True), ('virt', ('virt',), True),
                ('virt-7.2', ('virt-*',), True),
                ('virt-7.2', ('virt-7.2',), True),
                ('virt-7.2', ('virt',), False),
                ('virt', ('sbsa-*', 'virt-*'), True), ('virt', (), False)):
            known = self.having(dataclasses.replace(PLAIN, machines=globs))
            xml = document(SELECTED, attributes=EFI, machine=machine)
            if fits:
                self.assertIn('>/code<', self.adjusted(xml, known)[0])
            else:
                self.assertRaises(errors.Refused, self.adjusted, xml, known)

    def test_unknown_firmware_or_version_leaves_the_selection(self):
        self.check_left(document(SELECTED, attributes=EFI), facts.Facts())
        self.check_left(document(SELECTED, attributes=EFI), facts.Facts(
            host=facts.Host(libvirt_version=(9, 0, 0))))
        self.check_left(document(SELECTED, attributes=EFI), facts.Facts(
            host=facts.Host(firmware=(PLAIN,))))


class ExistingGuestTest(UefiTestCase):

    def test_loader_template_and_store_are_those_that_it_had(self):
        made, places = self.adjusted(document(SELECTED, attributes=EFI),
                                     previous=document(STORE))

        self.assertEqual(document(STORE), made)
        self.assertEqual(['os/loader'], places)

    def test_also_where_libvirt_selects_and_firmware_is_gone(self):
        for known in (LIBVIRT_11, facts.Facts(), facts.Facts(
                host=facts.Host(firmware=()))):
            made, _ = self.adjusted(document(SELECTED, attributes=EFI),
                                    known, previous=document(STORE))
            self.assertEqual(document(STORE), made)

    def test_also_where_another_is_asked_for_that_the_host_lacks(self):
        known = facts.Facts(host=facts.Host(
            libvirt_version=(9, 0, 0), firmware=(PLAIN,)))
        secure = document('<firmware><feature name="secure-boot" '
                          'enabled="yes"/></firmware>{type}<boot dev="hd"/>',
                          attributes=EFI)

        kept = Pipeline([('uefi', uefi.Uefi(None))]).run(
            secure, dataclasses.replace(known, guest=facts.Guest(
                previous=document(STORE))))

        self.assertIn('with Secure Boot', kept.reports[1].failure)
        self.assertEqual(
            document(STORE).replace(' secure="no"', ''),
            base.compact(view.Domain.parse(kept.xml)).replace(
                ' secure="no"', ''))

    def test_optional_is_no_request_for_an_existing_guest(self):
        """The firmware for Secure Boot was installed, or removed."""
        secure = document('<firmware><feature name="secure-boot" '
                          'enabled="yes"/></firmware>{type}<boot dev="hd"/>',
                          attributes=EFI)
        for asked in ({'extra_specs': {'os:secure_boot': 'optional'}},
                      {'image_properties': {'os_secure_boot': 'optional'}}):
            for new in (secure, document(SELECTED, attributes=EFI)):
                for had in (document(STORE), document(STORE).replace(
                        '/code<', '/code.ms<')):
                    known = dataclasses.replace(
                        LIBVIRT_9, guest=facts.Guest(**asked))
                    made, _ = self.adjusted(new, known, previous=had)
                    self.assertEqual(had.count('/code.ms<'),
                                     made.count('/code.ms<'))

    def kept(self, xml: str, known: facts.Facts,
             previous: str) -> tuple[str, str]:
        """The domain XML after the pipeline, and what was logged."""
        before = len(self.log.output)
        result = Pipeline([('uefi', uefi.Uefi(None))]).run(
            xml, dataclasses.replace(known, guest=dataclasses.replace(
                known.guest, previous=previous)))
        return (base.compact(view.Domain.parse(result.xml)),
                self.log.output[before:])

    def test_a_link_to_firmware_without_secure_boot_has_none(self):
        # Debian 13 renamed the file
        renamed = dataclasses.replace(
            PLAIN, loader='/code.no-secboot', aliases=('/code',))
        secure = document(SELECTED.replace('"no"', '"yes"'), attributes=EFI)
        for host in (LIBVIRT_9.host, LIBVIRT_11.host):
            known = facts.Facts(host=dataclasses.replace(
                host, firmware=(SECURE, renamed)))

            made, said = self.kept(secure, known, document(STORE))

            self.assertNotIn('>/code<', made)
            self.assertIn('/code.ms' if host == LIBVIRT_9.host
                          else 'enabled="yes"', made)
            self.assertIn('WARNING', said)
            self.assertIn('firmware /code is not one with Secure Boot', said)
            self.assertIn('/code.ms', said)

    def test_without_firmware_for_it_the_guest_is_told_of_and_kept(self):
        secure = document(SELECTED.replace('"no"', '"yes"'), attributes=EFI)
        known = facts.Facts(host=facts.Host(
            libvirt_version=(11, 3, 0), firmware=(PLAIN,)))

        made, said = self.kept(secure, known, document(STORE))

        self.assertIn('>/code<', made)
        self.assertIn('WARNING', said)
        self.assertIn('with Secure Boot on machine virt; it has /code', said)

    def test_unknown_firmware_with_secure_boot_is_kept_with_a_warning(self):
        secure = document(SELECTED.replace('"no"', '"yes"'), attributes=EFI)
        had = document(STORE.replace('/code', '/own/code'))

        made, said = self.kept(secure, LIBVIRT_9, had)

        self.assertIn('>/own/code<', made)
        self.assertIn('WARNING', said)
        self.assertIn('/own/code', said)

    def test_unknown_firmware_is_no_matter_where_libvirt_knows_it(self):
        secure = document(SELECTED.replace('"no"', '"yes"'), attributes=EFI)
        had = document(STORE.replace('/code', '/own/code').replace(
            '{type}', '<firmware><feature enabled="yes" name="secure-boot"/>'
                      '</firmware>{type}'), attributes=EFI)
        for previous in (had, document(STORE.replace('/code', '/own/code'))):
            for xml in (secure, document(SELECTED, attributes=EFI)):
                if (xml, previous) == (secure, had) or xml != secure:
                    made, said = self.kept(xml, LIBVIRT_9, previous)
                    self.assertIn('>/own/code<', made)
                    self.assertNotIn('WARNING', said)

    def test_features_that_libvirt_wrote_find_the_successor(self):
        had = document(STORE.replace('/code', '/gone').replace(
            '{type}', '<firmware><feature enabled="yes" name="secure-boot"/>'
                      '</firmware>{type}'), attributes=EFI)
        known = dataclasses.replace(LIBVIRT_11, guest=facts.Guest(
            loader_is_gone=True))

        made, said = self.kept(document(STORE.replace('/code', '/gone')),
                               known, had)

        self.assertIn('>/code.ms<', made)
        self.assertIn('/gone no longer exists, and /code.ms has', said)

    def test_variables_that_qemu_keeps_stay(self):
        had = document(
            '{type}<loader type="rom" format="raw">/qemuvars.fd</loader>'
            '<varstore template="/t.json" path="/v.json"/>'
            '<firmware><feature enabled="yes" name="secure-boot"/>'
            '</firmware><boot dev="hd"/>', attributes=EFI)
        known = facts.Facts(
            host=facts.Host(libvirt_version=(12, 8, 0), firmware=()),
            guest=facts.Guest(nvram='/instance/u_VARS.fd'))
        self.check_left(had, known)
        for os, attributes in ((SELECTED.replace('"no"', '"yes"'), EFI),
                               (SELECTED, EFI), (NAMED, ''),
                               ('{type}<boot dev="hd"/>', '')):
            made, _ = self.adjusted(document(os, attributes=attributes),
                                    known, previous=had)

            self.assertEqual(_sorted(had), _sorted(made))
            self.check_left(made, known, previous=had)

    def test_a_selection_is_kept_as_well(self):
        known = facts.Facts(host=facts.Host(
            libvirt_version=(11, 3, 0), firmware=(PLAIN,)))
        secure = SELECTED.replace('"no"', '"yes"')

        kept = Pipeline([('uefi', uefi.Uefi(None))]).run(
            document(secure, attributes=EFI), dataclasses.replace(
                known, guest=facts.Guest(
                    previous=document(SELECTED, attributes=EFI))))

        self.assertIn('<feature name="secure-boot" enabled="no"/>',
                      base.compact(view.Domain.parse(kept.xml)))

    def test_a_loader_that_is_gone_has_a_successor_for_the_same_store(self):
        def gone(host, firmware):
            return facts.Facts(
                host=dataclasses.replace(host, firmware=firmware),
                guest=facts.Guest(loader_is_gone=True))

        renamed = dataclasses.replace(PLAIN, loader='/code.new',
                                      template='/vars.new')
        for host in (LIBVIRT_9.host, LIBVIRT_11.host):
            made, places = self.adjusted(
                document(SELECTED, attributes=EFI),
                gone(host, (SECURE, QCOW, renamed)), previous=document(STORE))

            self.assertEqual(_sorted(document(
                STORE.replace('/code', '/code.new').replace(
                    '"/vars"', '"/vars.new"'))), _sorted(made))
            self.assertEqual(['os/loader'], places)

            # of another kind: libvirt's own error names what is missing
            made, _ = self.adjusted(
                document(SELECTED, attributes=EFI),
                gone(host, (SECURE, QCOW)), previous=document(STORE))
            self.assertEqual(document(STORE), made)

    def test_what_libvirt_stored_is_no_change(self):
        # libvirt 9.2 and newer write back what the named loader is
        stored = document(
            '{type}<firmware><feature enabled="no" name="secure-boot"/>'
            '</firmware><loader readonly="yes" type="pflash" format="raw">'
            '/code</loader><nvram template="/vars" templateFormat="raw" '
            'format="raw">/store</nvram>', attributes=EFI)
        for known in (LIBVIRT_11, facts.Facts()):
            self.check_left(stored, known, previous=stored)

        # Nova writes the loader without the features
        made, _ = self.adjusted(document(STORE), LIBVIRT_11, previous=stored)

        self.assertNotIn('firmware=', made)
        self.assertIn('format="raw" secure="no">/code</loader>', made)

    def test_what_this_libvirt_does_not_know_is_left_out(self):
        had = document(
            '{type}<loader readonly="yes" type="pflash" secure="no" '
            'format="raw">/code</loader><nvram template="/vars" '
            'templateFormat="raw" format="raw">/store</nvram>')
        for version, formats in (((9, 0, 0), 0), ((9, 2, 0), 2),
                                 ((10, 9, 0), 2), ((10, 10, 0), 3)):
            known = facts.Facts(host=dataclasses.replace(
                LIBVIRT_9.host, libvirt_version=version))
            made, _ = self.adjusted(document(SELECTED, attributes=EFI),
                                    known, previous=had)

            self.assertEqual(formats, made.lower().count('format="raw"'),
                             version)
            self.assertEqual(version >= (10, 10, 0),
                             'templateFormat' in made)

    def test_formats_come_along(self):
        had = document(
            '{type}<loader readonly="yes" type="pflash" secure="no" '
            'format="qcow2">/code.qcow2</loader>'
            '<nvram template="/vars.qcow2" templateFormat="qcow2" '
            'format="qcow2">/store.qcow2</nvram>')

        made, _ = self.adjusted(document(
            SELECTED.replace('<boot dev="hd"/>', ''), attributes=EFI),
            LIBVIRT_11, previous=had)

        self.assertEqual(had, made)

    def test_secure_no_is_written_for_nova_to_compare(self):
        had = document(STORE.replace(' secure="no"', ''))

        made, _ = self.adjusted(document(SELECTED, attributes=EFI),
                                previous=had)

        self.assertIn('secure="no"', made)
        self.assertIn('>/store<', made)

    def test_a_template_is_written_even_if_the_guest_had_none(self):
        had = document(STORE.replace(' template="/vars"', ''))

        made, _ = self.adjusted(document(SELECTED, attributes=EFI),
                                previous=had)

        self.assertIn('<nvram template="/vars">/store</nvram>', made)

    def test_a_guest_stopped_on_old_libvirt_has_no_path_to_keep(self):
        stopped = document(SELECTED, attributes=EFI)
        # Nova 34 has nothing left to copy then
        for os in ('{type}<loader secure="no"/><boot dev="hd"/>', SELECTED):
            made, _ = self.adjusted(
                document(os, attributes=EFI if os == SELECTED else ''),
                previous=stopped)
            self.assertEqual(_sorted(document(NAMED)), _sorted(made))

    def test_a_request_that_has_changed_wins(self):
        made, _ = self.adjusted(
            document(SELECTED.replace('"no"', '"yes"'), attributes=EFI),
            previous=document(STORE))

        self.assertIn('>/code.ms</loader>', made)

    def test_secure_boot_that_it_had_is_kept(self):
        had = document(
            '{type}<loader readonly="yes" type="pflash">/code.ms</loader>'
            '<nvram template="/vars.ms">/store</nvram>')

        made, _ = self.adjusted(
            document(SELECTED.replace('"no"', '"yes"'), attributes=EFI),
            previous=had)

        self.assertIn('>/code.ms</loader>', made)
        self.assertIn('>/store<', made)

    def test_another_architecture_is_no_guide(self):
        made, _ = self.adjusted(
            document(SELECTED, attributes=EFI),
            previous=document(STORE, arch='armv7l'))

        self.assertNotIn('/store', made)

    def test_bios_that_is_asked_for_later_does_not_take_uefi_away(self):
        made, _ = self.adjusted(document('{type}'), previous=document(STORE),
                                hw_firmware_type='bios')

        self.assertIn('>/store<', made)

    def test_a_guest_that_boots_its_kernel_goes_on_without(self):
        self.check_left(document('{type}<kernel>/k</kernel>'),
                        previous=document(STORE))

    def test_an_odd_previous_document_is_no_crash(self):
        for had in ('<domain/>', document(''), document('{type}<loader/>'),
                    document('{type}<nvram/>'),
                    document('{type}<loader type="pflash"/>')):
            made, _ = self.adjusted(document(SELECTED, attributes=EFI),
                                    previous=had)
            self.assertIn('>/code</loader>', made)

    def test_a_value_that_cannot_be_read_is_named(self):
        error = self.assertRaises(
            errors.InvalidDocument, self.adjusted,
            document('{type}<loader stateless="perhaps"/>', attributes=EFI))

        self.assertIn("os/loader/@stateless is 'perhaps'", str(error))


class UefiContractTest(contract.HookContract, base.TestCase):

    def make_hook(self):
        return uefi.Uefi(None)


def _sorted(xml: str) -> list[str]:
    return sorted(re.findall(r'[^<>\s"]+(?:="[^"]*")?', xml))
