# SPDX-License-Identifier: Apache-2.0
"""No memory balloon for guests that nothing else shares memory with."""

from oslo_config import cfg

from nova_arm_ext.domain import devices
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base


class NoBalloon(base.Hook):
    """Take the memory balloon out of new guests.

    Before::

        <memballoon model='virtio'>

    After::

        <memballoon model='none'/>
    """

    order = base.LAST
    opts = (cfg.StrOpt('keep_name', default='',
                       help='Guests with this name keep their balloon.'),)

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        # a guest that exists keeps the hardware that it has
        return (domain.previous is None
                and domain.name != self.options.keep_name)

    def adjust(self, domain: Domain, facts: Facts,
               report: base.Report) -> None:
        for balloon in domain.all(devices.Memballoon):
            if balloon.model != 'none':
                # what it holds belongs to the balloon that goes
                balloon.element.clear()
                balloon.model = 'none'
                report.because('devices/memballoon', 'not wanted here')
