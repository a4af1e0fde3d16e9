# SPDX-License-Identifier: Apache-2.0
"""Consoles that work: graphical, serial, and the kernel's own."""

import copy
from collections.abc import Mapping

from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.firmware import Os
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report

EXTRA_SPEC = 'arm:video_model'
IMAGE_PROPERTY = 'arm_video_model'

#: what can be asked for; all of them work on ``virt``
MODELS = ('virtio', 'ramfb', 'none')
_REFUSED = 'is refused by libvirt on Arm'
#: models that do not work on Arm, and why
_UNFIT: Mapping[str, str] = {
    **dict.fromkeys(('vga', 'cirrus', 'bochs'),
                    'stays dark or breaks on Arm, because a frame buffer in '
                    'device memory does not work as it does on x86'),
    **dict.fromkeys(('qxl', 'xen', 'gop', 'vbox'), _REFUSED),
    'vmvga': 'is refused by newer libvirt on Arm',
}
#: libvirt that refuses vmvga; 9.0.0 takes it, what lies between is not tried
_VMVGA_REFUSED = (11, 3, 0)
#: with it QEMU's virt has a second UART (QEMU 9.1, hw/arm/virt.c)
_SECOND_UART = (9, 1, 0)
#: Nova's CONSOLE (virt/libvirt/driver.py, 29 to 34)
_NOVAS_CONSOLES = 'console=tty0 console=ttyS0 console=hvc0'
_ARM_CONSOLE = 'console=ttyAMA0'


class Console(base.Hook):
    """Give the guest consoles that work.

    With graphics (VNC, SPICE): a video model that works on ``virt`` (ramfb for
    an image with ``os_type=windows`` that names no model), a keyboard and a
    tablet. Serial ports after the first one become PCI devices if QEMU would
    not connect them. A kernel that Nova boots directly writes to the serial
    console of Arm. The SMBIOS tables name OpenStack, as they do for x86
    guests.

    An existing guest keeps its devices: it gets no input device, and its video
    model, its serial ports and its SMBIOS tables stay as the guest saw them.

    Before (Nova 34, a 32-bit guest)::

        <serial type='pty'/>
        <serial type='pty'/>
        <graphics type='vnc'/>
        <video>
          <model type='vga'/>
        </video>
        <input type='tablet' bus='usb'/>

    After::

        <serial type='pty'/>
        <serial type='pty'>
          <target type='pci-serial'/>
        </serial>
        <graphics type='vnc'/>
        <video>
          <model type='virtio'/>
        </video>
        <input type='tablet' bus='usb'/>
        <input type='keyboard' bus='usb'/>
        <controller type='usb' model='qemu-xhci'/>
    """

    after = ('libvirt_compat', 'uefi')
    changes = frozenset(('serial',))      # what kind of port it is
    opts = (
        cfg.StrOpt(
            'unfit_video',
            default='replace',
            choices=[
                ('replace', 'The instance gets a virtio-gpu instead.'),
                ('refuse', "The instance's request fails with a message that "
                           'names the property.')],
            help=f"""
What happens to a new instance whose image asks (``hw_video_model``) for a
video model that does not work on Arm: {', '.join(_UNFIT)}.
The models that work are virtio and, for operating systems without a driver for
it, ramfb. Nova does not know ramfb: an image asks for it with
``{IMAGE_PROPERTY}``, a flavor with ``{EXTRA_SPEC}``.
"""),
        cfg.StrOpt(
            'resolution',
            regex=r'^([1-9][0-9]{2,3}x[1-9][0-9]{2,3})?$',
            default='',
            help="""
The resolution, such as 1280x800, that the virtio-gpu proposes to the guest
operating system when it starts. If empty, QEMU chooses. The desktop in the
instance may choose another one.
"""),
        cfg.StrOpt(
            'input_bus',
            default='usb',
            choices=[('usb', 'Every operating system has a driver for it.'),
                     ('virtio', 'Needs a driver for virtio-input.')],
            help="""
The bus of keyboard and tablet of a new instance with graphics, unless its
image has ``hw_input_bus``. Instances without graphics get neither.
"""),
    )

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        return domain.has_pcie

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        wish = base.asked(domain, facts, EXTRA_SPEC, MODELS)
        self._apply(domain, facts, report, wish,
                    self.options.unfit_video == 'refuse')

    def keep(self, domain: Domain, facts: Facts, report: Report) -> None:
        self._apply(domain, facts, report, wish=None, refuse=False)

    def _apply(self, domain: Domain, facts: Facts, report: Report,
               wish: base.Wish | None, refuse: bool) -> None:
        had = previous.of_same_board(domain)
        self._video(domain, facts, had, wish, refuse, report)
        if domain.has_graphics and not any(
                video.model == 'none' for video in domain.all(devices.Video)):
            self._inputs(domain, had, facts, report)
        self._serials(domain, had, facts, report)
        self._kernel(domain, facts, report)
        self._smbios(domain, had, facts, report)

    # Graphics.

    def _video(self, domain: Domain, facts: Facts, had: Domain | None,
               wish: base.Wish | None, refuse: bool, report: Report) -> None:
        seen = [] if had is None else had.all(devices.Video)
        for i, video in enumerate(domain.all(devices.Video)):
            model = video.model or ''
            refused = self._is_refused(model, facts)
            if i < len(seen):
                # whatever is asked for now, because it is a PCI device
                before = seen[i].model
                if before is not None:
                    self._change(video, before, 'as the guest saw it before',
                                 report, refused)
            elif wish is not None:
                self._change(video, wish.value, f'as {wish.place} asks',
                             report, refused)
            elif model in _UNFIT:
                if refuse:
                    raise errors.Refused(
                        f'the video model {model!r} {_UNFIT[model]}; set '
                        f"hw_video_model of the image to 'virtio'")
                self._change(video, 'virtio', f'the video model {model} '
                                              f'{_UNFIT[model]}', report,
                             refused)
            elif model == 'virtio' and had is None and _is_windows(facts):
                self._change(video, 'ramfb', 'Windows has no driver for '
                             'virtio-gpu when it is installed', report,
                             refused)
            self._resolution(video, report)

    @staticmethod
    def _is_refused(model: str, facts: Facts) -> bool:
        """Whether libvirt here refuses a video model."""
        libvirt = facts.host.libvirt_version
        return (_UNFIT.get(model) == _REFUSED or (model == 'vmvga' and (
            libvirt is not None and libvirt >= _VMVGA_REFUSED)))

    @staticmethod
    def _change(video: devices.Video, model: str, reason: str,
                report: Report, refused: bool) -> None:
        """
        :param refused: whether libvirt refuses the model that it has
        """
        if video.model == model:
            return
        element = tree.child(video.element, 'model')
        if element is not None:
            # the other attributes belong to the other model
            for name in set(element.attrib) - {'heads', 'primary'}:
                del element.attrib[name]
        if video.address is not None:
            video.address.remove()
        video.model = model
        report.because('devices/video/model/@type', reason, essential=refused)

    def _resolution(self, video: devices.Video, report: Report) -> None:
        if not self.options.resolution or video.model != 'virtio':
            return
        model = tree.child(video.element, 'model')
        if model.find('resolution') is not None:
            return
        x, y = self.options.resolution.split('x')
        etree.SubElement(model, 'resolution', x=x, y=y)
        report.because('devices/video/model/resolution',
                       'as [arm_console] resolution asks')

    def _inputs(self, domain: Domain, had: Domain | None, facts: Facts,
                report: Report) -> None:
        present = domain.all(devices.Input)
        wanted: dict[str | None, str | None]
        bus: str | None
        if had is None:
            bus = self._input_bus(present, facts)
            wanted = {'tablet': bus, 'mouse': bus, 'keyboard': bus}
            reason = ('for the graphical console, because Arm machines have '
                      'none of their own')
        else:
            wanted = {device.type: device.bus
                      for device in had.all(devices.Input)}
            reason = 'as the guest saw it before'
        # of a new guest the image may have asked for the bus that it is on
        may_move = (had is not None
                    or facts.guest.image_properties is not None)
        types: set[str | None] = set()
        buses: set[str | None] = set()
        for device in present:
            own_type, bus = device.type, device.bus
            own = wanted.get(own_type, bus) if may_move else bus
            if bus in ('usb', 'virtio') and bus != own:
                device.bus = bus = own
                if device.address is not None:
                    device.address.remove()
                report.because('devices/input/@bus',
                               f'the {own_type} is on {own}, as the guest saw '
                               f'it before or [arm_console] input_bus asks')
            types.add(own_type)
            buses.add(bus)
        for kind, instead in (('tablet', {'tablet', 'mouse'}),
                              ('keyboard', {'keyboard'})):
            if kind in wanted and not types & instead:
                domain.add(devices.Input, type=kind, bus=wanted[kind])
                buses.add(wanted[kind])
                report.because('devices/input', f'a {kind} {reason}')
        if 'usb' in buses:
            self._usb(domain, report)

    def _input_bus(self, present: list[devices.Input],
                   facts: Facts) -> str:
        """The bus that the guest's image or else the option asks for."""
        properties = facts.guest.image_properties
        said = (properties or {}).get('hw_input_bus')
        if said in ('usb', 'virtio'):
            return said
        if properties is None and present:
            # the image may have asked for the bus that it is on
            return present[0].bus or 'usb'
        bus: str = self.options.input_bus
        return bus

    @staticmethod
    def _usb(domain: Domain, report: Report) -> None:
        controllers = [c for c in domain.all(devices.Controller)
                       if c.type == 'usb']
        if any(c.model != 'none' for c in controllers):
            return
        if controllers:
            controllers[0].model = 'qemu-xhci'
        else:
            domain.add(devices.Controller, type='usb', index=0,
                       model='qemu-xhci')
        report.because("devices/controller[@type='usb']",
                       'keyboard and tablet need a bus')

    # Serial ports.

    @staticmethod
    def _serials(domain: Domain, had: Domain | None, facts: Facts,
                 report: Report) -> None:
        version = facts.host.qemu_version
        works = version is not None and version >= _SECOND_UART
        before = [] if had is None else had.all(devices.Serial)
        for i, serial in enumerate(domain.all(devices.Serial)):
            # the first one is the PL011
            if i == 0 or serial.target_type is not None:
                continue
            if i < len(before):
                if before[i].target_type != 'pci-serial':
                    continue
                reason = 'as the guest saw it before'
            elif works:
                continue
            else:
                reason = ('QEMU before 9.1 has only one UART, and further '
                          'ports stay silent')
            serial.target_type = 'pci-serial'
            report.because('devices/serial/target/@type', reason)

    # The kernel and the firmware's tables.

    @staticmethod
    def _kernel(domain: Domain, facts: Facts, report: Report) -> None:
        os = Os.of(domain)
        if not os.kernel:
            return
        line = os.cmdline or ''
        own = (facts.guest.image_properties or {}).get('os_command_line')
        if (_NOVAS_CONSOLES not in line or own == line
                or 'console=ttyAMA' in line):
            return
        # init writes to the last one
        os.cmdline = line.replace(
            _NOVAS_CONSOLES, f'{_NOVAS_CONSOLES} {_ARM_CONSOLE}', 1)
        report.because('os/cmdline',
                       'Nova names only the serial console of x86, ttyS0')

    @staticmethod
    def _smbios(domain: Domain, had: Domain | None, facts: Facts,
                report: Report) -> None:
        if domain.part('sysinfo') is not None:
            return
        if had is not None:
            seen = had.element.find('sysinfo')
            if seen is None or seen.get('type') != 'smbios':
                return
            sysinfo = copy.copy(seen)
            reason = 'as the guest saw it before'
        else:
            sysinfo = _sysinfo(domain, facts)
            reason = 'cloud-init recognises its cloud by it'
        os = domain.child('os')
        os.addnext(sysinfo)
        if tree.child(os, 'smbios') is None:
            etree.SubElement(os, 'smbios', mode='sysinfo')
        report.because('sysinfo', reason)


def _is_windows(facts: Facts) -> bool:
    """Whether the image is Windows, asks for no video model, and QEMU here
    has ramfb.
    """
    image = facts.guest.image_properties or {}
    return (image.get('os_type') == 'windows'
            and 'hw_video_model' not in image
            and 'ramfb' not in (facts.host.lacks or ()))


def _sysinfo(domain: Domain, facts: Facts) -> etree._Element:
    """System information as Nova gives it to x86 guests.

    cloud-init (DataSourceOpenStack) recognises its cloud by the product,
    which is "OpenStack Nova" or, on some distributions, "OpenStack Compute".
    What the facts do not say is as Nova has it without a release file, except
    for the product.
    """
    guest = facts.guest
    sysinfo = etree.Element('sysinfo', type='smbios')
    system = etree.SubElement(sysinfo, 'system')
    for name, value, default in (
            ('manufacturer', guest.system_manufacturer,
             'OpenStack Foundation'),
            ('product', guest.system_product, 'OpenStack Compute'),
            ('version', domain.nova_version, None),
            ('serial', guest.system_serial, None),
            ('uuid', domain.uuid, None),
            ('family', None, 'Virtual Machine')):
        if not value or not value.isascii() or not value.isprintable():
            value = default
        if value is not None:
            etree.SubElement(system, 'entry', name=name).text = value
    return sysinfo
