# SPDX-License-Identifier: Apache-2.0
"""Where a device sits: ``<address>`` elements."""

from nova_arm_ext.domain import fields
from nova_arm_ext.domain import view


class Address(view.View):
    """The ``<address>`` of a device, of whatever type.

    PCI addresses have domain, bus, slot and function; drive addresses have
    controller, bus, target and unit; others have fields of their own, which
    are left as they stand.
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
        """Whether it is a virtio-mmio transport; which one nobody can say."""
        return self.type == 'virtio-mmio'
