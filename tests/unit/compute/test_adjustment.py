# SPDX-License-Identifier: Apache-2.0
"""What the hooks are told of a guest, and what becomes of a refusal."""

import pathlib
import types
from unittest import mock

import fixtures
from nova import exception

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import provenance
from nova_arm_ext.compute import adjustment
from nova_arm_ext.compute import operation
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.nvram import Event
from nova_arm_ext.pipeline.run import Pipeline
from tests.support import base

INSTANCE = types.SimpleNamespace(uuid='one')
LOADER = '/usr/share/AAVMF/AAVMF_CODE.fd'
XML = ('<domain><uuid>916180a7-0b43-5c08-b3c8-c738826880bb</uuid><os>'
       '<type arch="aarch64" machine="virt">hvm</type></os></domain>')
HAD = XML.replace('</os>', f'<loader>{LOADER}</loader></os>')


class Hook(hooks.Hook):
    """Notes what it is told, and refuses if it is to."""

    error: Exception | None = None

    def adjust(self, domain, facts, report):
        self.told = facts
        if self.error:
            raise self.error


class AdjustmentTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.hook = Hook(types.SimpleNamespace(free=1))
        self.known = facts.Host(firmware=(facts.Firmware(
            arch='aarch64', machines=(), loader='/other', template=''),))
        self.definitions = mock.Mock()
        self.definitions.of.return_value = None
        self.life = mock.Mock()
        self.life.store_path.return_value = '/store'
        self.gone: bool | None = None
        for name, function in (
                ('guest', lambda instance, image, previous, sysinfo, path,
                 gone: facts.Guest(previous=previous, nvram=path,
                                   system_serial=sysinfo,
                                   loader_is_gone=gone)),
                ('loader_is_gone', lambda loader, firmware: self.gone
                 if (loader, firmware) == (LOADER, self.known.firmware)
                 else 'asked about another')):
            self.useFixture(fixtures.MonkeyPatch(
                f'nova_arm_ext.compute.gather.{name}', function))
        self.adjustment = adjustment.Adjustment(
            Pipeline([('mine', self.hook)]),
            types.SimpleNamespace(now=lambda: self.known), self.definitions,
            self.life, sysinfo=lambda instance: f'serial of {instance.uuid}')

    def adjusted(self, xml: str = XML) -> str:
        return self.adjustment.adjusted(xml, INSTANCE, None)

    def test_a_guest_of_another_architecture_stays_the_same(self) -> None:
        xml = XML.replace('aarch64', 'x86_64')

        self.assertIs(xml, self.adjusted(xml))
        self.assertFalse(self.definitions.of.called)

    def test_the_hooks_know_host_and_guest(self) -> None:
        self.adjusted()

        self.assertIs(self.known, self.hook.told.host)
        self.assertEqual(facts.Guest(system_serial='serial of one'),
                         self.hook.told.guest)

    def test_without_an_operation_it_is_as_libvirt_has_it(self) -> None:
        self.definitions.of.return_value = HAD
        self.gone = False

        self.adjusted()

        self.assertEqual((HAD, None, False), (
            self.hook.told.guest.previous, self.hook.told.guest.nvram,
            self.hook.told.guest.loader_is_gone))
        self.assertFalse(self.life.store_path.called)

    def test_an_operation_knows_the_guest_and_its_store(self) -> None:
        with operation.of(INSTANCE, Event.RESCUE, previous=HAD) as doing:
            self.adjusted()

        self.assertEqual((HAD, '/store'), (
            self.hook.told.guest.previous, self.hook.told.guest.nvram))
        self.life.store_path.assert_called_once_with(INSTANCE, doing)
        self.assertFalse(self.definitions.of.called)

    def test_the_hooks_know_which_firmware_a_loader_is(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path
        code, link = f'{folder}/code', f'{folder}/link'
        pathlib.Path(code).write_text('')
        pathlib.Path(link).symlink_to(code)
        self.known = facts.Host(firmware=(facts.Firmware(
            arch='aarch64', machines=(), loader=code, template=''),))
        for loader, known in ((link, True), (code, True), ('/other', False)):
            with operation.of(INSTANCE, Event.HARD_REBOOT,
                              previous=HAD.replace(LOADER, loader)):
                self.adjusted()

            self.assertEqual(
                known, self.hook.told.host.firmware_at(loader) is not None)

    def test_a_loader_that_is_gone_is_told(self) -> None:
        for self.gone in (True, False, None):
            before = self.log.output
            with operation.of(INSTANCE, Event.HARD_REBOOT, previous=HAD):
                self.adjusted()
            said = self.log.output[len(before):]

            self.assertIs(self.gone, self.hook.told.guest.loader_is_gone)
            self.assertEqual(
                self.gone is True,
                f"WARNING The instance's firmware {LOADER} is not on this "
                f'host any more.' in said)

    def test_a_guest_without_a_loader_has_lost_none(self) -> None:
        self.gone = True
        for previous in (None, XML):
            with operation.of(INSTANCE, Event.HARD_REBOOT,
                              previous=previous):
                self.adjusted()

            self.assertIsNone(self.hook.told.guest.loader_is_gone)

    def test_the_xml_says_who_adjusted_it(self) -> None:
        self.hook.adjust = lambda domain, facts, report: report.because(
            'os', 'a reason', essential=domain.child('os').set('x', 'y'))

        record = provenance.read(view.Domain.parse(self.adjusted()))

        self.assertEqual(adjustment.VERSION, record.version)
        self.assertEqual(['mine'], [one.name for one in record.hooks])

    def test_a_new_guest_is_refused(self) -> None:
        for error, raised, text in (
                (errors.Refused('no tea', this_host=True),
                 adjustment.GuestNotAdjusted, 'no tea'),
                (errors.Refused('no tea'), exception.InvalidInput, 'no tea'),
                (ValueError('no cup'), adjustment.GuestNotAdjusted,
                 'ValueError: no cup')):
            self.hook.error = error
            for event in (None, Event.SPAWN, Event.REBUILD):
                with operation.of(INSTANCE if event else mock.Mock(),
                                  event or Event.RESCUE):
                    found = self.assertRaises(exception.NovaException,
                                              self.adjusted)

                self.assertIs(raised, type(found))
                self.assertIn(text, found.format_message())

    def test_one_that_exists_is_not(self) -> None:
        self.hook.error = errors.Refused('no tea', this_host=True)

        with operation.of(INSTANCE, Event.HARD_REBOOT):
            self.adjusted()

        self.assertIn('no tea', self.log.output)
