# SPDX-License-Identifier: Apache-2.0
"""The devices of a guest, by libvirt's names."""

import types
from collections.abc import Mapping
from typing import ClassVar

from nova_arm_ext.domain import address
from nova_arm_ext.domain import fields
from nova_arm_ext.domain import tree
from nova_arm_ext.domain import view


class Device(view.View):
    """Any element below ``<devices>``."""

    #: fields that identify a device among those of its kind for the whole
    #: life of the guest; if there are none, its position does
    identity: ClassVar[tuple[str, ...]] = ()

    @property
    def address(self) -> address.Address | None:
        """The address of the device, if the document has one."""
        found = tree.child(self.element, address.Address.tag)
        return None if found is None else address.Address(found)


class Controller(Device):
    tag = 'controller'
    identity = ('type', 'index')
    type = fields.text('@type')
    index = fields.number('@index')
    model = fields.text('@model')

    @property
    def is_root_port(self) -> bool:
        return self.type == 'pci' and self.model == 'pcie-root-port'


class Disk(Device):
    tag = 'disk'
    identity = ('dev', 'bus')
    device = fields.text('@device')
    dev = fields.text('target/@dev')
    bus = fields.text('target/@bus')

    @property
    def source(self) -> str | None:
        """The file, block device or network volume that it is."""
        source = tree.child(self.element, 'source')
        if source is None:
            return None
        return source.get('file') or source.get('dev') or source.get('name')


class Filesystem(Device):
    tag = 'filesystem'
    identity = ('target',)
    target = fields.text('target/@dir')


class Interface(Device):
    tag = 'interface'
    identity = ('mac', 'model')
    type = fields.text('@type')
    mac = fields.text('mac/@address')
    model = fields.text('model/@type')


class Hostdev(Device):
    tag = 'hostdev'
    identity = ('type', 'uuid', 'domain', 'bus', 'slot', 'function')
    type = fields.text('@type')
    uuid = fields.text('source/address/@uuid')
    domain = fields.number('source/address/@domain')
    bus = fields.number('source/address/@bus')
    slot = fields.number('source/address/@slot')
    function = fields.number('source/address/@function')


class Serial(Device):
    tag = 'serial'
    type = fields.text('@type')
    target_type = fields.text('target/@type')
    port = fields.number('target/@port')


class Channel(Device):
    tag = 'channel'
    identity = ('name',)
    name = fields.text('target/@name')
    target_type = fields.text('target/@type')


class Graphics(Device):
    tag = 'graphics'
    type = fields.text('@type')


class Video(Device):
    tag = 'video'
    identity = ('model',)
    model = fields.text('model/@type')


class Input(Device):
    tag = 'input'
    identity = ('type', 'bus')
    type = fields.text('@type')
    bus = fields.text('@bus')


class Watchdog(Device):
    tag = 'watchdog'
    identity = ('model',)
    model = fields.text('@model')


class Tpm(Device):
    tag = 'tpm'
    identity = ('model',)
    model = fields.text('@model')
    version = fields.text('backend/@version')


class Iommu(Device):
    tag = 'iommu'
    identity = ('model',)
    model = fields.text('@model')


class Memballoon(Device):
    tag = 'memballoon'
    identity = ('model',)
    model = fields.text('@model')


class Rng(Device):
    tag = 'rng'
    identity = ('model',)
    model = fields.text('@model')


class Sound(Device):
    tag = 'sound'
    identity = ('model',)
    model = fields.text('@model')


class Crypto(Device):
    tag = 'crypto'
    identity = ('model',)
    model = fields.text('@model')


class Vsock(Device):
    tag = 'vsock'
    identity = ('model',)
    model = fields.text('@model')


class Redirdev(Device):
    tag = 'redirdev'
    identity = ('bus',)
    bus = fields.text('@bus')


class Shmem(Device):
    tag = 'shmem'
    identity = ('name',)
    name = fields.text('@name')


class Memory(Device):
    tag = 'memory'
    identity = ('model',)
    model = fields.text('@model')


#: every kind of device that may have an address
ADDRESSED: tuple[type[Device], ...] = (
    Controller, Disk, Filesystem, Interface, Hostdev, Serial, Channel, Video,
    Input, Watchdog, Tpm, Iommu, Memballoon, Rng, Sound, Crypto, Vsock,
    Redirdev, Shmem, Memory)

_BY_TAG: Mapping[str, type[Device]] = types.MappingProxyType(
    {kind.tag: kind for kind in ADDRESSED})


def addressed(domain: view.Domain) -> list[Device]:
    """The devices that may have an address, in the document's order."""
    return [_BY_TAG[element.tag](element)
            for element in domain.devices
            if element.tag in _BY_TAG]
