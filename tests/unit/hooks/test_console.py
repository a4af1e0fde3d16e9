# SPDX-License-Identifier: Apache-2.0
"""Consoles that work, graphical and serial."""

import dataclasses
import types
import unittest

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.hooks import console
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import golden
from tests.support import base
from tests.support import contract
from tests.support import embed

VNC = '<graphics type="vnc"/>'
TABLET = '<input type="tablet" bus="usb"/>'
KEYBOARD = '<input type="keyboard" bus="usb"/>'
XHCI = '<controller type="usb" index="0" model="qemu-xhci"/>'
PTY = '<serial type="pty"/>'
PCI = '<serial type="pty"><target type="pci-serial"/></serial>'
NOVAS = 'root=/dev/vda console=tty0 console=ttyS0 console=hvc0'
UNKNOWN = facts.Facts()


def video(model: str, more: str = '') -> str:
    return f'<video><model type="{model}"{more}/></video>'


def document(inside: str = '', *, arch: str = 'aarch64',
             machine: str = 'virt-7.2', os: str = '',
             outside: str = '<sysinfo type="smbios"/>') -> str:
    return (f'<domain type="kvm"><uuid>u</uuid><os><type arch="{arch}" '
            f'machine="{machine}">hvm</type>{os}</os>{outside}'
            f'<devices><emulator/>{inside}</devices></domain>')


def image(**properties: str) -> facts.Facts:
    return facts.Facts(guest=facts.Guest(image_properties=properties))


def qemu(*version: int) -> facts.Facts:
    return facts.Facts(host=facts.Host(qemu_version=version))


class ConsoleTestCase(base.TestCase):

    @staticmethod
    def options(**more: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(**{
            'unfit_video': 'replace', 'resolution': '', 'input_bus': 'usb',
            **more})

    def adjusted(self, xml: str, known: facts.Facts = UNKNOWN, *,
                 previous: str | None = None,
                 **options: str) -> tuple[str, list[str]]:
        """The domain XML and the reported reasons."""
        hook = console.Console(self.options(**options))
        domain = view.Domain.parse(xml, previous)
        report = hooks.Report()
        if hook.applies_to(domain, known):
            hook.adjust(domain, known, report)
        return base.compact(domain), [reason for _, reason in report.reasons]

    def check(self, before: str, after: str, *args, **more) -> None:
        """Check the result for these devices."""
        self.assertEqual(document(after), self.adjusted(
            document(before), *args, **more)[0])

    def check_left(self, xml: str, *args, **more) -> None:
        self.assertEqual((xml, []), self.adjusted(xml, *args, **more))


class VideoTest(ConsoleTestCase):

    def test_models_that_work_stay(self):
        for model in ('virtio', 'ramfb', 'none'):
            self.check_left(document(video(model)))

    def test_models_that_do_not_are_replaced_with_a_reason(self):
        for model in ('vga', 'cirrus', 'bochs', 'qxl', 'xen', 'gop', 'vmvga',
                      'vbox'):
            made, [reason] = self.adjusted(document(
                video(model, ' ram="65536" vgamem="8192" heads="1"')))

            self.assertIn('type="virtio"', made)
            self.assertIn('heads="1"', made)
            self.assertNotIn('ram=', made)
            self.assertIn(f'the video model {model} ', reason)

    def test_where_libvirt_refuses_the_model_the_change_is_essential(self):
        newer = facts.Facts(host=facts.Host(libvirt_version=(11, 3, 0)))
        older = facts.Facts(host=facts.Host(libvirt_version=(9, 0, 0)))
        for model, known, essential in (
                ('qxl', UNKNOWN, True), ('vga', UNKNOWN, False),
                ('vmvga', UNKNOWN, False), ('vmvga', older, False),
                ('vmvga', newer, True)):
            report = hooks.Report()

            console.Console(self.options()).adjust(
                view.Domain.parse(document(video(model))), known, report)

            self.assertEqual(
                essential,
                'devices/video/model/@type' in dict(report.essential), model)

    def test_or_refused_as_configured(self):
        for model in ('vga', 'qxl'):
            error = self.assertRaises(
                errors.Refused, self.adjusted, document(video(model)),
                unfit_video='refuse')

            self.assertIn('hw_video_model', str(error))
            self.assertIn(repr(model), str(error))

    def test_an_existing_guest_keeps_the_model_that_it_has(self):
        for option in ('replace', 'refuse'):
            self.check_left(document(video('vga')), unfit_video=option,
                            previous=document(video('vga')))

    def test_an_existing_guest_whose_model_was_replaced_keeps_that(self):
        for option in ('replace', 'refuse'):
            self.check(video('vga'), video('virtio'), unfit_video=option,
                       previous=document(video('virtio')))

    def test_an_existing_guest_keeps_it_whatever_is_asked_for_now(self):
        for seen in ('virtio', 'ramfb'):
            for asked in ('ramfb', 'none', 'virtio'):
                self.check(video('virtio'), video(seen),
                           image(arm_video_model=asked),
                           previous=document(video(seen)))

    def test_image_and_flavor_may_ask_for_what_nova_does_not_know(self):
        for known in (image(arm_video_model='ramfb'), facts.Facts(
                guest=facts.Guest(extra_specs={'arm:video_model': 'ramfb'},
                                  image_properties={
                                      'arm_video_model': 'none'}))):
            self.check(video('virtio'), video('ramfb'), known)
        self.check(video('vga'), video('none'),
                   image(arm_video_model='none'), unfit_video='refuse')

    def test_a_new_windows_guest_has_what_windows_can_show(self):
        windows = image(os_type='windows')

        self.check(video('virtio'), video('ramfb'), windows)
        # Nova writes virtio at each redefinition
        self.check(video('virtio'), video('ramfb'), windows,
                   previous=document(video('ramfb')))

    def test_a_windows_guest_keeps_what_it_asks_for_or_has(self):
        self.check_left(document(video('virtio')),
                        image(os_type='windows', hw_video_model='virtio'))
        self.check_left(document(video('virtio')),
                        image(os_type='windows', arm_video_model='virtio'))
        self.check_left(document(video('virtio')), image(os_type='windows'),
                        previous=document(video('virtio')))
        self.check_left(document(video('virtio')), image(os_type='linux'))
        self.check_left(document(video('virtio')), dataclasses.replace(
            image(os_type='windows'), host=facts.Host(lacks=('ramfb',))))

    def test_an_address_does_not_stay_with_another_model(self):
        self.check(
            '<video><model type="virtio"/><address type="pci"/></video>',
            video('ramfb'), image(arm_video_model='ramfb'))

    def test_what_cannot_be_asked_for_is_refused(self):
        for value in ('vga', '', 'VIRTIO', 'x' * 400):
            error = self.assertRaises(
                errors.Refused, self.adjusted, document(),
                image(arm_video_model=value))

            self.assertIn('arm_video_model of the image', str(error))
            self.assertIn(repr(value[:60]), str(error))

    def test_an_existing_guest_keeps_all_when_it_may_not_ask_any_more(self):
        desk = ('<serial/><serial/><graphics type="vnc"/>' + video('ramfb')
                + '<input type="tablet" bus="usb"/>')
        made, _ = self.adjusted(document(desk))
        row = Pipeline([('console', console.Console(self.options()))])

        kept = row.run(document(
            desk.replace('ramfb', 'virtio')), facts.Facts(guest=facts.Guest(
                image_properties={'arm_video_model': 'no-such'},
                previous=made)))

        self.assertEqual('no-such', kept.reports[1].failure.split("'")[1])
        self.assertEqual(made, base.compact(view.Domain.parse(kept.xml)))

    def test_the_resolution_is_virtios(self):
        self.check(
            video('virtio') + video('ramfb'),
            '<video><model type="virtio"><resolution x="1280" y="800"/>'
            '</model></video>' + video('ramfb'), resolution='1280x800')

    def test_a_resolution_has_two_numbers(self):
        conf = cfg.ConfigOpts()
        conf([], project='t', default_config_files=[],
             default_config_dirs=[])
        conf.register_opts(console.Console.opts, group='arm_console')
        for value in ('1280', '1280x', 'x800', '0x0', '1280x800x3', '9x9'):
            self.assertRaises(ValueError, conf.set_override, 'resolution',
                              value, group='arm_console')
        conf.set_override('resolution', '1280x800', group='arm_console')


class InputTest(ConsoleTestCase):

    def test_a_guest_with_graphics_has_keyboard_and_tablet(self):
        self.check(VNC, VNC + TABLET + KEYBOARD + XHCI)
        self.check(VNC + TABLET + XHCI, VNC + TABLET + KEYBOARD + XHCI)
        self.check(VNC + KEYBOARD + XHCI, VNC + KEYBOARD + TABLET + XHCI)

    def test_32_bit_guests_too(self):
        made, _ = self.adjusted(document(VNC, arch='armv7l'))

        self.assertIn(TABLET + KEYBOARD + XHCI, made)

    def test_a_mouse_is_a_pointer(self):
        mouse = '<input type="mouse" bus="usb"/>'

        self.check(VNC + mouse + XHCI, VNC + mouse + KEYBOARD + XHCI)

    def test_none_where_nobody_looks(self):
        self.check_left(document())
        self.check_left(document(VNC + video('none')))

    def test_the_bus_is_the_images_or_the_options(self):
        on_virtio = (VNC + '<input type="tablet" bus="virtio"/>'
                     '<input type="keyboard" bus="virtio"/>')

        self.check(VNC, on_virtio, input_bus='virtio')
        self.check(VNC, on_virtio, image(hw_input_bus='virtio'))
        self.check(VNC + TABLET + KEYBOARD, on_virtio, image(),
                   input_bus='virtio')
        self.check(VNC, VNC + TABLET + KEYBOARD + XHCI,
                   image(hw_input_bus='usb'), input_bus='virtio')

    def test_unknown_who_chose_the_bus_it_stays(self):
        self.check_left(document(VNC + TABLET + KEYBOARD + XHCI),
                        input_bus='virtio')

    def test_each_device_stays_on_its_own_where_nobody_knows_who_asked(self):
        for tablet, keyboard in (('virtio', 'usb'), ('usb', 'virtio')):
            self.check_left(document(
                VNC + f'<input type="tablet" bus="{tablet}"/>'
                f'<input type="keyboard" bus="{keyboard}"/>' + XHCI))

    def test_a_bus_that_is_off_is_switched_on(self):
        off = '<controller type="usb" index="0" model="none"/>'

        self.check(VNC + off, VNC + off.replace('none', 'qemu-xhci') + TABLET
                   + KEYBOARD)

    def test_an_existing_guest_has_what_it_had(self):
        for bus in ('usb', 'virtio'):
            more = (f'<input type="tablet" bus="{bus}"/>'
                    f'<input type="keyboard" bus="{bus}"/>')
            self.check(VNC + TABLET + XHCI, VNC + more + XHCI,
                       previous=document(VNC + more + XHCI))

    def test_an_existing_guest_gets_nothing(self):
        for more in ('', TABLET + XHCI):
            self.check_left(document(VNC + more), image(),
                            previous=document(VNC + more),
                            input_bus='virtio')


class SerialTest(ConsoleTestCase):

    def test_one_port_is_the_uart(self):
        self.check_left(document(PTY), qemu(7, 2, 0))

    def test_further_ports_are_pci_devices_where_qemu_has_one_uart(self):
        log = '<serial type="tcp"><log file="/l"/>{}</serial>'

        for known in (qemu(7, 2, 0), qemu(9, 0, 9), UNKNOWN):
            self.check(PTY + PTY + log.format(''), PTY + PCI + log.format(
                '<target type="pci-serial"/>'), known)

    def test_qemu_9_1_has_two(self):
        self.check_left(document(PTY + PTY), qemu(9, 1, 0))

    def test_ports_that_say_what_they_are_stay(self):
        self.check_left(document(
            PTY + '<serial type="pty"><target type="usb-serial"/></serial>'))

    def test_an_existing_guest_keeps_what_it_has(self):
        uart = '<serial type="pty"><target type="system-serial"/></serial>'

        self.check_left(document(PTY + PTY), qemu(7, 2, 0),
                        previous=document(uart + uart))
        self.check(PTY + PTY, PTY + PCI, qemu(9, 1, 0),
                   previous=document(uart + PCI))


class KernelTest(ConsoleTestCase):

    def line(self, line: str, known: facts.Facts = UNKNOWN) -> str:
        made, _ = self.adjusted(document(
            os=f'<kernel>/k</kernel><cmdline>{line}</cmdline>'), known)
        return made.partition('<cmdline>')[2].partition('</cmdline>')[0]

    def test_novas_line_gets_the_console_of_arm(self):
        self.assertEqual(f'{NOVAS} console=ttyAMA0', self.line(NOVAS))
        self.assertEqual(f'{NOVAS} console=ttyAMA0 quiet',
                         self.line(f'{NOVAS} quiet'))

    def test_a_line_of_the_images_own_stays(self):
        for line in ('console=ttyS0', 'console=ttyAMA0', 'quiet', '',
                     f'{NOVAS} console=ttyAMA0,115200'):
            self.assertEqual(line, self.line(line))
        self.assertEqual(NOVAS, self.line(
            NOVAS, image(os_command_line=NOVAS)))

    def test_without_a_kernel_nothing_is_written(self):
        self.check_left(document(os=f'<cmdline>{NOVAS}</cmdline>'))


class SmbiosTest(ConsoleTestCase):

    METADATA = ('<metadata><n:instance xmlns:n="http://openstack.org/xmlns/'
                'libvirt/nova/1.1"><n:package version="34.0.0"/>'
                '</n:instance></metadata>')

    def entries(self, xml: str) -> dict[str, str]:
        domain = view.Domain.parse(xml).element
        return {entry.get('name'): entry.text for entry in domain.iterfind(
            "sysinfo[@type='smbios']/system/entry")}

    def test_the_tables_name_openstack(self):
        made, _ = self.adjusted(
            document(outside=self.METADATA),
            facts.Facts(guest=facts.Guest(system_serial='s')))

        self.assertEqual(
            {'manufacturer': 'OpenStack Foundation',
             'product': 'OpenStack Compute', 'version': '34.0.0',
             'serial': 's', 'uuid': 'u', 'family': 'Virtual Machine'},
            self.entries(made))
        self.assertIn('<smbios mode="sysinfo"/>', made)

    def test_they_say_what_nova_calls_itself(self):
        made, _ = self.adjusted(document(outside=''), facts.Facts(
            guest=facts.Guest(system_manufacturer='RDO',
                              system_product='OpenStack Nova')))

        found = self.entries(made)
        self.assertEqual(('RDO', 'OpenStack Nova'),
                         (found['manufacturer'], found['product']))

    def test_what_is_unknown_is_left_out(self):
        made, _ = self.adjusted(document(outside=''))

        self.assertEqual({'manufacturer', 'product', 'uuid', 'family'},
                         set(self.entries(made)))

    def test_tables_that_are_there_stay(self):
        self.check_left(document())

    def test_an_existing_guest_sees_what_it_has_seen(self):
        old = document(outside='<sysinfo type="smbios"><system>'
                       '<entry name="serial">old</entry></system></sysinfo>')

        self.check_left(document(outside=''), previous=document(outside=''))
        made, _ = self.adjusted(
            document(outside=''),
            facts.Facts(guest=facts.Guest(system_serial='new')),
            previous=old)
        self.assertEqual({'serial': 'old'}, self.entries(made))


class OtherMachinesTest(ConsoleTestCase):

    def test_other_machines_are_left(self):
        for machine, arch in (('sbsa-ref', 'aarch64'), ('q35', 'x86_64'),
                              ('vexpress-a15', 'armv7l')):
            self.check_left(document(
                VNC + video('vga') + PTY + PTY, machine=machine, arch=arch,
                outside=''))


class LibvirtTest(base.TestCase):
    """libvirt accepts every combination of the options."""

    def test_whatever_is_configured_libvirt_defines_it(self):
        cases = ('new-guest', 'armv7l', 'kernel-without-uefi',
                 'existing-guest')
        serials = '<serial type="pty"/>' * 2
        try:
            with embed.Process() as libvirt:
                for case in cases:
                    for model in ('virtio', 'vga', 'qxl', 'none'):
                        for bus in ('usb', 'virtio'):
                            for resolution in ('', '1280x800'):
                                self.check(libvirt, golden.before(
                                    case).replace(
                                        '<model type="virtio"/>\n    '
                                        '</video>',
                                        f'<model type="{model}"/>'
                                        f'</video>{serials}'),
                                    golden.known(case), input_bus=bus,
                                    resolution=resolution)
        except embed.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e

    def check(self, libvirt: embed.Process, xml: str, known: facts.Facts,
              **options: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], project='t', default_config_files=[],
             default_config_dirs=[])
        Pipeline.load(conf)
        for name, value in options.items():
            conf.set_override(name, value, group='arm_console')
        made = Pipeline.load(conf).run(xml, known).xml

        verdict = libvirt.define(made)

        self.assertEqual((None, None), (verdict.define, verdict.start), made)
        stored = view.Domain.parse(verdict.stored)
        self.assertEqual(
            ['system-serial', 'pci-serial', 'pci-serial'],
            [serial.target_type for serial in stored.all(devices.Serial)])


class ConsoleContractTest(contract.HookContract, base.TestCase):

    def make_hook(self) -> hooks.Hook:
        return console.Console(types.SimpleNamespace(
            unfit_video='replace', resolution='1280x800', input_bus='usb'))
