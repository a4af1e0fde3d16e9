# SPDX-License-Identifier: Apache-2.0
"""What stands in for Nova's objects answers as they do, but for one thing."""

import types
from unittest import mock

import fixtures
import libvirt
from nova import exception
from nova.virt.libvirt import guest as libvirt_guest

from nova_arm_ext import facts
from nova_arm_ext.compute import stand_ins
from nova_arm_ext.domain import view
from tests.support import base

ARM = '<domain><os><type arch="aarch64">hvm</type></os></domain>'
X86 = ARM.replace('aarch64', 'x86_64')


def firmware(name: str, *, secure_boot: bool) -> facts.Firmware:
    return facts.Firmware(arch='armv7l', machines=(), loader=f'/{name}',
                          template=f'/{name}_VARS', secure_boot=secure_boot)


class HostTest(base.TestCase):

    def test_the_driver_itself_keeps_its_host(self) -> None:
        nova_driver = types.SimpleNamespace(_host='own', other='kept')

        made = stand_ins.with_host(nova_driver, 'another')

        self.assertEqual(('own', 'another', 'kept'),
                         (nova_driver._host, made._host, made.other))

    def test_there_is_uefi_for_the_architecture_of_the_guest(self) -> None:
        novas = types.SimpleNamespace(supports_uefi=False, other='kept')
        plain = firmware('plain', secure_boot=False)
        secure = firmware('secure', secure_boot=True)
        host = stand_ins.HostWithUefi(novas, [plain, secure])

        self.assertEqual((True, 'kept'), (host.supports_uefi, host.other))
        for has_secure_boot, one in ((False, plain), (True, secure)):
            self.assertEqual(
                (one.loader, one.template, False),
                host.get_loader('armv7l', 'virt', has_secure_boot))

    def test_a_host_without_such_firmware_says_so(self) -> None:
        host = stand_ins.HostWithUefi(None, [
            firmware('plain', secure_boot=False)])

        self.assertRaises(exception.UEFINotSupported, host.get_loader,
                          'armv7l', 'virt', True)

    def test_guests_of_a_host_are_asked_about_their_stores(self) -> None:
        novas = mock.Mock()
        keeps = mock.Mock()
        host = stand_ins.HostOfStores(novas, keeps)

        guest = host.get_guest(mock.sentinel.instance)

        self.assertIsInstance(guest, stand_ins.GuestOfStore)
        self.assertIs(novas.get_guest.return_value, guest._guest)
        self.assertIs(keeps, guest._keeps)
        novas.get_guest.assert_called_once_with(mock.sentinel.instance)
        self.assertIs(novas.other, host.other)


class GuestTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.xml = ARM
        self.novas = mock.Mock()
        self.novas.get_xml_desc.side_effect = lambda *args, **kwargs: self.xml
        self.asked: list[str] = []
        self.keeps = True
        self.guest = stand_ins.GuestOfStore(self.novas, self.ask)

    def ask(self, guest: view.Domain, document: str) -> bool:
        self.assertTrue(guest.is_arm)
        self.asked.append(document)
        return self.keeps

    def nova_can_keep(self, can: bool) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.compute.stand_ins.NOVA_KEEPS', can))

    def test_it_answers_as_nova_s_own(self) -> None:
        self.assertIs(self.novas.other, self.guest.other)
        self.assertEqual(ARM, self.guest.get_xml_desc(dump_sensitive=True))
        self.novas.get_xml_desc.assert_called_once_with(dump_sensitive=True)

    def test_a_nova_that_can_keep_a_store_is_told_whether_to(self) -> None:
        self.nova_can_keep(True)
        for self.keeps in (True, False):
            self.novas.reset_mock()
            result = self.guest.delete_configuration(keep_nvram='x', a=1)

            self.novas.delete_configuration.assert_called_once_with(
                keep_nvram=self.keeps, a=1)
            self.assertIs(self.novas.delete_configuration.return_value,
                          result)
        self.assertEqual([ARM, ARM], self.asked)

    def test_for_one_that_cannot_libvirt_is(self) -> None:
        self.nova_can_keep(False)

        result = self.guest.delete_configuration(a=1)

        self.novas.delete_configuration.assert_not_called()
        undefine = self.novas._domain.undefineFlags
        undefine.assert_called_once_with(
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        self.assertIs(undefine.return_value, result)

    def test_such_a_one_removes_a_store_as_it_always_does(self) -> None:
        self.nova_can_keep(False)
        self.keeps = False

        result = self.guest.delete_configuration()

        self.novas._domain.undefineFlags.assert_not_called()
        self.novas.delete_configuration.assert_called_once_with()
        self.assertIs(self.novas.delete_configuration.return_value, result)

    def test_guests_of_others_are_nova_s_business(self) -> None:
        self.xml = X86
        for can in (True, False):
            self.nova_can_keep(can)
            self.novas.reset_mock()
            result = self.guest.delete_configuration('x', a=1)

            self.novas.delete_configuration.assert_called_once_with('x', a=1)
            self.assertIs(self.novas.delete_configuration.return_value,
                          result)
        self.assertEqual([], self.asked)

    def test_the_xml_that_nova_read_is_not_read_again(self) -> None:
        self.nova_can_keep(True)
        self.guest.get_xml_desc()
        # libvirt has forgotten the guest meanwhile
        self.novas.get_xml_desc.side_effect = AssertionError

        self.guest.delete_configuration()

        self.assertEqual([ARM], self.asked)


    def test_a_store_is_kept_where_nobody_can_say(self) -> None:
        self.nova_can_keep(True)
        self.novas.get_xml_desc.side_effect = OSError('libvirt')

        self.guest.delete_configuration()

        self.novas.delete_configuration.assert_called_once_with(
            keep_nvram=True)
        self.assertIn('ERROR Deciding whether the variable store is kept',
                      self.log.output)


class ArgumentTest(base.TestCase):

    def test_a_guest_keeps_its_store_where_nova_would_remove_it(self) -> None:
        guest = libvirt_guest.Guest(mock.Mock())
        for can, argument, replaced in ((False, guest, True),
                                        (True, guest, False),
                                        (False, 'vdb', False)):
            with fixtures.MonkeyPatch(
                    'nova_arm_ext.compute.stand_ins.NOVA_KEEPS', can):
                found = stand_ins.keeping_store(argument)

            if replaced:
                self.assertIs(guest, found._guest)
                self.assertIs(True, found._keeps(None, None))
            else:
                self.assertIs(argument, found)
