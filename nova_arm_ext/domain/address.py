# SPDX-License-Identifier: Apache-2.0
"""The places of devices: ``<address>`` elements."""

from nova_arm_ext.domain import fields
from nova_arm_ext.domain import view


class Address(view.View):
    """The ``<address>`` of a device, of whatever type.

    PCI addresses have domain, bus, slot and function; drive addresses have
    controller, bus, target and unit. Fields of other types are not touched.
    """

    tag = 'address'

    type = fields.text('@type')
    domain = fields.number('@domain')
    controller = fields.number('@controller')
    bus = fields.number('@bus')
    slot = fields.number('@slot')
    function = fields.number('@function')
    target = fields.number('@target')
    unit = fields.number('@unit')

    @property
    def is_pci(self) -> bool:
        """Whether it is a place on a PCI bus."""
        return self.type == 'pci'

    @property
    def is_virtio_mmio(self) -> bool:
        """Whether it is a virtio-mmio transport; libvirt does not number them.
        """
        return self.type == 'virtio-mmio'
