# SPDX-License-Identifier: Apache-2.0
"""virtio devices on virtio-mmio, for guests without PCI."""

from collections.abc import Iterator

from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.domain.virtio_mmio import follows_to_mmio
from nova_arm_ext.domain.virtio_mmio import has_mmio_form
from nova_arm_ext.domain.virtio_mmio import is_on_mmio
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report

TRANSPORTS = ('pci', 'mmio')
_OPTION = 'the option [arm_virtio_mmio] transport'
EXTRA_SPEC = 'arm:virtio_transport'
PROPERTY = 'arm_virtio_transport'

#: How many transports the ``virt`` machine has. The next device fails with
#: "No 'virtio-bus' bus found" (QEMU 7.2).
MAX_DEVICES = 32

#: What QEMU's PCI form of a virtio device has and its mmio form does not have
#: (QEMU 7.2, -device virtio-net-device,help).
_PCI_ALONE = ('ats', 'page_per_vq', 'ioeventfd')

#: libvirt's namespace for arguments of QEMU that it does not know.
_QEMU = 'http://libvirt.org/schemas/domain/qemu/1.0'
#: By default QEMU's transports speak virtio 0.9.
_MODERN = ('-global', 'virtio-mmio.force-legacy=off')


class VirtioMmio(base.Hook):
    """Put virtio devices on virtio-mmio if flavor, image or option say so.

    For guests whose kernel or boot loader has no PCI. Devices that QEMU does
    not have for mmio (vsock, file systems, host devices, USB) stay on PCI. An
    existing guest keeps the transport that it has.

    Before::

        <disk type='file' device='disk'>
          <target dev='vda' bus='virtio'/>
        </disk>

    After, with ``arm_virtio_transport=mmio``::

        <disk type='file' device='disk'>
          <target dev='vda' bus='virtio'/>
          <address type='virtio-mmio'/>
        </disk>
    """

    after = ('libvirt_compat', 'uefi', 'console')
    opts = (
        cfg.StrOpt(
            'transport',
            default='pci',
            choices=[
                ('pci', 'virtio devices are on PCI Express, as without this '
                        'hook.'),
                ('mmio', 'virtio devices are on virtio-mmio. They cannot be '
                         'unplugged while the instance runs, and an instance '
                         'can have at most 32 of them.')],
            help=f"""
The transport of the virtio devices of new instances. The extra spec
``{EXTRA_SPEC}`` of the flavor and then the property
``{PROPERTY}`` of the image take precedence. Existing instances
keep theirs. The default is ``pci`` because current images have drivers for it.
For an image without them set the property instead of this option.
"""),
        cfg.BoolOpt(
            'allow_image',
            default=True,
            help=f"""
Whether images may choose the transport with the property ``{PROPERTY}``. If
not, an instance whose image asks for another transport than ``transport`` is
refused, unless its flavor chooses one.
"""),
    )

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        had = domain.previous_of_same_arch
        if had is not None:
            if had.has_virtio_mmio:
                self._place(domain, 'as the guest had them before', report,
                            had)
            return
        transport, by = self._chosen(domain, facts)
        if transport != 'mmio':
            return
        if not domain.is_virt:
            self._check_machine(domain, by)
            return
        self._check(domain)
        self._place(domain, f'as {by} says', report, None)

    def keep(self, domain: Domain, facts: Facts, report: Report) -> None:
        if domain.previous_of_same_arch is not None:
            self.adjust(domain, facts, report)

    # Before: which transport, and whether it can be had.

    def _chosen(self, domain: Domain, facts: Facts) -> tuple[str, str]:
        """The transport, and who has chosen it.

        :raises Refused: for an unknown one, or one that images may not choose
        """
        own = self.options.transport
        wish = base.asked(
            domain, facts, EXTRA_SPEC, TRANSPORTS,
            images_may=None if self.options.allow_image else (own,),
            option='[arm_virtio_mmio] allow_image')
        return (own, _OPTION) if wish is None else (wish.value, wish.place)

    @staticmethod
    def _check_machine(domain: Domain, by: str) -> None:
        # libvirt accepts the address on every board (9.0.0, 11.3.0), and puts
        # all virtio devices of vexpress there itself
        if by != _OPTION and not (domain.machine or '').startswith('vexpress'):
            raise errors.Refused(
                f"{by} is 'mmio', but the machine {domain.machine} has no "
                f'virtio-mmio transports; use the machine virt')

    @staticmethod
    def _check(domain: Domain) -> None:
        for interface in domain.all(devices.Interface):
            # Nova has made the tap with as many queues
            if (has_mmio_form(interface) and interface.type == 'ethernet'
                    and _queues(interface)):
                raise errors.Refused(
                    'a NIC with several queues needs virtio on PCI: remove '
                    'hw_vif_multiqueue_enabled from the image and '
                    'hw:vif_multiqueue_enabled from the flavor, or remove '
                    f'{PROPERTY} and {EXTRA_SPEC}')
        count = sum(has_mmio_form(device) and (
                        device.address is None or is_on_mmio(device))
                    for device in devices.addressed(domain))
        count += _implied(domain)
        if count > MAX_DEVICES:
            raise errors.Refused(
                f'the instance has {count} virtio devices, but virtio-mmio '
                f'has room for {MAX_DEVICES}; use fewer devices, or put them '
                f'on PCI ({EXTRA_SPEC} of the flavor, {PROPERTY} of the '
                f'image)')

    # Then: put the devices there.

    def _place(self, domain: Domain, why: str, report: Report,
               had: Domain | None) -> None:
        self._add_serial_controller(domain)
        # the virtio version of an existing guest's transports stays
        modern = had is None or _is_modern(had)
        room = MAX_DEVICES - _implied(domain) - sum(
            is_on_mmio(device) for device in devices.addressed(domain))
        placed = stayed = needs_modern = 0
        for device in devices.addressed(domain):
            if has_mmio_form(device):
                if device.address is None:
                    # an existing guest may have no room or driver for it
                    fits = room > 0 and (modern or not _is_modern_only(device))
                    _put(device, 'virtio-mmio' if fits else 'pci')
                    room -= fits
                    placed += fits
                    stayed += not fits
                if is_on_mmio(device):
                    self._tidy(device, report)
                    needs_modern += _is_modern_only(device)
            elif device.address is None and follows_to_mmio(device):
                _put(device, 'pci')
                stayed += 1
        if placed:
            report.because('devices/*/address',
                           f'{placed} virtio devices on virtio-mmio, {why}')
        if stayed:
            report.because('devices/*/address',
                           f'{stayed} virtio devices on PCI, which QEMU does '
                           f'not have or has no room for on virtio-mmio')
        if (modern and (needs_modern or had is not None)
                and not _is_modern(domain)):
            _make_modern(domain)
            report.because(
                'qemu:commandline', 'GPU and input devices need virtio 1.0, '
                'QEMU\'s transports are older by default, and libvirt has no '
                'option for it')

    @staticmethod
    def _add_serial_controller(domain: Domain) -> None:
        """Name the controller that libvirt would add for a channel."""
        if _lacks_serial_controller(domain):
            domain.add(devices.Controller, type='virtio-serial', index=0)

    @staticmethod
    def _tidy(device: devices.Device, report: Report) -> None:
        """Remove what QEMU has only for PCI."""
        tag = device.element.tag
        for place, element, name in _versioned(device):
            if element.get(name, '').endswith('transitional'):
                _plain(device, element, name)
                report.because(place, 'virtio-mmio has no transitional and '
                                      'non-transitional devices')
        if device.element.attrib.pop('vectors', None):
            report.because(f'devices/{tag}/@vectors', 'only PCI has them')
        driver = device.element.find('driver')
        if driver is not None:
            for name in _PCI_ALONE:
                if driver.attrib.pop(name, None):
                    report.because(f'devices/{tag}/driver/@{name}',
                                   'QEMU has it only for virtio on PCI')
        if isinstance(device, devices.Interface):
            if _queues(device):
                del driver.attrib['queues']
                report.because(
                    'devices/interface/driver/@queues', 'libvirt then asks '
                    'QEMU for vectors, which only PCI has; the NIC has one '
                    'queue')
            rom = device.element.find('rom')
            if rom is not None:
                tree.detach(rom)
                report.because('devices/interface/rom',
                               'only PCI has option ROMs')


def _is_modern_only(device: devices.Device) -> bool:
    """Whether it exists only in virtio 1.0: Linux has no driver for an older
    form.

    Seen with Linux 6.1 on QEMU 7.2 for GPU and input; the others are newer
    than virtio 1.0.
    """
    return isinstance(device, devices.Video | devices.Input | devices.Sound
                      | devices.Crypto)


def _lacks_serial_controller(domain: Domain) -> bool:
    return (any(element.get('type') == 'virtio' for path in (
                'devices/channel/target', 'devices/console/target')
                for element in domain.element.iterfind(path))
            and not any(controller.type == 'virtio-serial'
                        for controller in domain.all(devices.Controller)))


def _implied(domain: Domain) -> int:
    """How many controllers libvirt will add to those that are named.

    Of SCSI ones it adds one for each seven disks without an address
    (virDomainDiskDefAssignAddress).
    """
    needed = set()
    for position, disk in enumerate(
            disk for disk in domain.all(devices.Disk) if disk.bus == 'scsi'):
        address = disk.address
        needed.add(position // 7 if address is None
                   else address.controller or 0)
    present = sum(controller.type == 'scsi'
                  for controller in domain.all(devices.Controller))
    return (max(0, len(needed) - present)
            + _lacks_serial_controller(domain))


def _queues(interface: devices.Interface) -> bool:
    driver = interface.element.find('driver')
    return driver is not None and driver.get('queues', '1') != '1'


def _put(device: devices.Device, kind: str) -> None:
    # libvirt completes a PCI address without a place
    etree.SubElement(device.element, 'address', type=kind)


def _versioned(device: devices.Device) -> Iterator[tuple[str, etree._Element,
                                                         str]]:
    """Where a device says that it is transitional."""
    tag = device.element.tag
    yield f'devices/{tag}/@model', device.element, 'model'
    model = device.element.find('model')
    if model is not None:
        yield f'devices/{tag}/model/@type', model, 'type'


def _plain(device: devices.Device, element: etree._Element,
           name: str) -> None:
    """Make a transitional model a plain virtio one."""
    match device:
        case devices.Disk() | devices.Input():
            del element.attrib[name]
        case devices.Controller():
            if device.type == 'scsi':
                device.model = 'virtio-scsi'
            else:
                del element.attrib[name]
        case _:
            element.set(name, 'virtio')


def _is_modern(domain: Domain) -> bool:
    """Whether QEMU is told to use virtio 1.0 for its transports."""
    values = [argument.get('value') for argument in domain.element.iterfind(
        f'{{{_QEMU}}}commandline/{{{_QEMU}}}arg')]
    return _MODERN[1] in values


def _make_modern(domain: Domain) -> None:
    line = domain.element.find(f'{{{_QEMU}}}commandline')
    if line is None:
        line = etree.Element(f'{{{_QEMU}}}commandline', nsmap={'qemu': _QEMU})
        domain.element.append(line)
    for value in _MODERN:
        etree.SubElement(line, f'{{{_QEMU}}}arg', value=value)
