# SPDX-License-Identifier: Apache-2.0
"""What domain XML asks libvirt for, as things that can be counted.

If the counts are equal, two XML texts ask for the same, apart from order,
addresses and white space.
"""

import collections
import copy
import typing

from lxml import etree

Thing = tuple[str, ...]

# On an Arm host these have no counterpart, so nothing of a guest's is lost
# with them.
_X86_FEATURES = frozenset(('ioapic', 'hyperv', 'kvm', 'smm'))
_ARM_VIDEO = frozenset(('virtio', 'ramfb', 'none'))
_WHOLE = ('metadata', 'cputune', 'numatune', 'memoryBacking', 'sysinfo')


def _written(element: typing.Any) -> str:
    """The element in a normal form, without its address."""
    own = copy.deepcopy(element)
    own.tail = None
    for part in own.iter():
        part.text = (part.text or '').strip() or None
        part.tail = None
    for address in own.findall('address'):
        # A hostdev's address inside <source> says which device it is and
        # stays; this one says where the guest sees it.
        own.remove(address)
    return etree.tostring(own, method='c14n').decode()


def _disk(disk: typing.Any) -> Thing:
    target = disk.find('target')
    device, bus = disk.get('device', 'disk'), target.get('bus')
    if bus in ('ide', 'sata') or (bus == 'virtio' and device == 'cdrom'):
        bus = 'scsi'
    rest = [_written(part) for part in disk
            if part.tag not in ('target', 'address', 'alias')]
    return ('disk', disk.get('type'), device, target.get('dev'), bus,
            *sorted(rest))


def _device(device: typing.Any) -> Thing:
    match device.tag:
        case 'disk':
            return _disk(device)
        case 'controller':
            return ('controller', device.get('type'),
                    device.get('model') or 'any')
        case 'video':
            model = device.find('model').get('type')
            return ('video', model if model in _ARM_VIDEO else 'virtio')
        case 'serial':
            # which kind of port it is, is this library's business
            return ('serial', device.get('type'), *sorted(
                _written(part) for part in device
                if part.tag not in ('target', 'address')))
        case 'tpm':
            return ('tpm', *(_written(part) for part in device))
        case 'iommu':
            # which one "auto" is, is this library's business
            return ('iommu', 'auto' if device.get('model') in (
                'smmuv3', 'virtio') else device.get('model'))
        case _:
            return (device.tag, _written(device))


def things(document: str) -> collections.Counter[Thing]:
    """Everything that the domain XML asks for."""
    domain = etree.fromstring(document.encode())
    found: collections.Counter[Thing] = collections.Counter()
    for name in ('name', 'uuid', 'memory', 'currentMemory', 'vcpu',
                 'iothreads', 'os/kernel', 'os/initrd', 'os/cmdline'):
        for element in domain.findall(name):
            # what the hook console adds to Nova's own line is not lost
            text = (element.text or '').replace(' console=ttyAMA0', '')
            found[name, text.strip()] += 1
    os_type = domain.find('os/type')
    found['os', os_type.get('arch'), os_type.get('machine')] += 1
    for name in ('os/boot', 'os/bootmenu', 'os/bios'):
        for element in domain.findall(name):
            found[name, _written(element)] += 1
    for name in _WHOLE:
        for element in domain.findall(name):
            found[name, _written(element)] += 1
    # ACPI tables come from UEFI; a kernel started without it has a device
    # tree, whatever the document says. A 32-bit guest may have neither.
    no_tables = ((domain.find('os/kernel') is not None
                  or os_type.get('arch') == 'armv7l')
                 and domain.find('os/loader') is None
                 and domain.find('os').get('firmware') is None)
    for feature in domain.findall('features/*'):
        if feature.tag == 'acpi' and no_tables:
            continue
        if feature.tag not in _X86_FEATURES:
            found['feature', feature.tag, feature.get('state', 'on')] += 1
    cpu = domain.find('cpu')
    for part in () if cpu is None else cpu:
        # Nova names a model without a mode for all that it emulates
        if part.tag != 'maxphysaddr' and not (
                part.tag == 'model' and cpu.get('mode') is None):
            found['cpu', _written(part)] += 1
    for device in domain.findall('devices/*'):
        if device.tag != 'emulator':
            found[_device(device)] += 1
    return found


def missing(document: str, result: str) -> list[Thing]:
    """What only the first of two domain XML texts asks for."""
    there = things(result)
    lost = things(document) - there
    for thing in list(lost):
        # Any controller of that type will do.
        if (thing[0] == 'controller' and thing[2] == 'any'
                and any(other[:2] == thing[:2] for other in there)):
            del lost[thing]
    return sorted(lost.elements())
