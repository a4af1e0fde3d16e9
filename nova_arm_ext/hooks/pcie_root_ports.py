# SPDX-License-Identifier: Apache-2.0
"""PCIe root ports, so that devices can be plugged into a running guest."""

import re

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import previous
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report

EXTRA_SPEC = 'arm:free_pcie_root_ports'
IMAGE_PROPERTY = 'arm_free_pcie_root_ports'
OPTION = '[arm_pcie_root_ports] free'


class PcieRootPorts(base.Hook):
    """Leave as many root ports of a new guest free as are asked for.

    Each volume, network interface or device that is plugged into a running
    guest takes one root port. Ports that the document has already (Nova's
    ``[libvirt] num_pcie_ports`` counts all ports, not the free ones) stay
    and count. If the image asks for NICs of a model for legacy PCI
    (``hw_vif_model``), the guest has a bridge for them, behind one port.

    An existing guest keeps the number of ports that it had, whatever is asked
    for now. It changes only if no port would be left free, and then ports are
    added after the last one.

    Before::

        <disk type='file' device='disk'>
          <target dev='vda' bus='virtio'/>
        </disk>

    After, with ``free = 2``: one port for the disk and two for hotplug::

        <disk type='file' device='disk'>
          <target dev='vda' bus='virtio'/>
        </disk>
        <controller type='pci' index='0' model='pcie-root'/>
        <controller type='pci' model='pcie-root-port'/>
        <controller type='pci' model='pcie-root-port'/>
        <controller type='pci' model='pcie-root-port'/>
    """

    order = base.END     # it counts what the other hooks make
    opts = (
        cfg.IntOpt(
            'free',
            default=4, min=0, max=pcie.MAX_ROOT_PORTS,
            help=f"""
How many free PCIe root ports a new Arm instance has, for volumes, network
interfaces and other devices that are plugged in while it runs. Another port
costs a bus number and a little of the firmware's time. The default is 4
because a few volumes can then be plugged in, and a usual instance has about
ten ports in total. 32-bit instances with UEFI can have at most
{pcie.MAX_ROOT_PORTS_ARMV7_UEFI}, others at most {pcie.MAX_ROOT_PORTS}.
With 0 no port is written, and libvirt leaves one free. Existing instances keep
the ports that they have. The extra spec ``{EXTRA_SPEC}`` of a flavor takes
precedence over the property ``{IMAGE_PROPERTY}`` of an image, and
both take precedence over this option.
"""),
        cfg.IntOpt(
            'max_per_image',
            default=16, min=0, max=pcie.MAX_ROOT_PORTS,
            help=f"""
How many free root ports an image may ask for with the property
``{IMAGE_PROPERTY}``. There is a limit because images belong to
tenants. An instance whose image asks for more is refused.
"""),
    )

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        return domain.has_pcie

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        free, asked_by = self._asked(domain, facts)
        if not free or previous.of_same_board(domain) is not None:
            return
        # the NICs that are plugged in will be of this model
        model = (facts.guest.image_properties or {}).get('hw_vif_model')
        legacy = model in pcie.LEGACY_INTERFACES
        slots = pcie.slots(domain, needs_bridge=legacy)
        missing = free - slots.free
        if legacy and slots.lacks_bridge:
            # a bridge is only added with a port
            missing = max(missing, 1)
        if missing < 1:
            return
        free = slots.free + missing
        total, limit = slots.ports + missing, slots.limit
        if total > limit:
            raise errors.Refused(
                f'the instance would need {total} PCIe root ports, {free} of '
                f'them free, as {asked_by} asks, but a machine of its kind '
                f'({domain.arch}, {domain.machine}) has at most {limit}; ask '
                f'for fewer free ports or use fewer devices')
        pcie.add_root_ports(domain, missing, slots)
        report.because('devices/controller',
                       f'{total} root ports, {free} of them free for '
                       f'hotplug, as {asked_by} asks')
        if legacy and slots.lacks_bridge:
            report.because('devices/controller',
                           f'a bridge for NICs of the model {model}, which '
                           f'are for legacy PCI')

    def _asked(self, domain: Domain, facts: Facts) -> tuple[int, str]:
        """How many free ports are asked for, and by whom.

        :raises Refused: for what is no number, or a larger one than allowed
        """
        wish = base.asked(domain, facts, EXTRA_SPEC)
        if wish is None:
            return self.options.free, OPTION
        maximum, why = pcie.MAX_ROOT_PORTS, ''
        if wish.by_image:
            maximum = self.options.max_per_image
            why = ' ([arm_pcie_root_ports] max_per_image)'
        if (not re.fullmatch('[0-9]{1,9}', wish.value)
                or int(wish.value) > maximum):
            raise errors.Refused(
                f'{wish.place} is {wish.value[:60]!r}, not a whole number '
                f'from 0 to {maximum}{why}')
        return int(wish.value), wish.place
