# SPDX-License-Identifier: Apache-2.0
"""A hook of a third party that crashes for guests of one flavor."""

from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base

#: The extra spec that makes the hook crash.
SPEC = 'breaking:crash'


class Breaking(base.Hook):
    """Crashes after it has changed the document, if the flavor says so."""

    order = base.LAST

    def adjust(self, domain: Domain, facts: Facts,
               report: base.Report) -> None:
        if (facts.guest.extra_specs or {}).get(SPEC) == 'yes':
            domain.element.clear()
            raise RuntimeError('the test wants it so')
