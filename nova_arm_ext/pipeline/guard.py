# SPDX-License-Identifier: Apache-2.0
"""What no hook may change unless it declares to, and which hook did."""

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.pipeline.reports import HookReport

#: Elements of <domain> and of <devices>. A hook that changes some of them
#: declares it in its ``changes``.
CHECKED = frozenset(('uuid', 'name', 'memory', 'vcpu', 'disk', 'interface',
                     'serial', 'graphics'))


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a document says in the elements that are checked.

    :param values: by the tag of the elements, in document order
    """

    values: Mapping[str, list[str | None]]

    @classmethod
    def of(cls, domain: Domain) -> 'Fingerprint':
        values: dict[str, list[str | None]] = {}
        for part in domain.element:
            if part.tag in CHECKED:
                values.setdefault(part.tag, []).extend(
                    (part.text, *part.values()))
            for device in part if part.tag == 'devices' else ():
                if device.tag in CHECKED:
                    values.setdefault(device.tag, []).extend(
                        _identity(device))
        return cls(values)

    def differences(self, after: 'Fingerprint',
                    allowed: frozenset[str]) -> list[str]:
        """What was changed, a sentence for each tag that is not allowed."""
        wrong = []
        for tag in {**self.values, **after.values}:
            was, became = self.values.get(tag, []), after.values.get(tag, [])
            if tag not in allowed and was != became:
                wrong.append(f'{tag} was {_brief(was)} and became '
                             f'{_brief(became)}, which the hook does not '
                             f'declare in "changes"')
        return wrong


def _identity(device: Any) -> list[str | None]:
    """Type, target name, MAC address and source of a device."""
    values = [device.get('type'), device.get('device')]
    for child in device:
        if child.tag == 'source':
            for element in child.iter():
                values += element.values()
        elif child.tag == 'target':
            values.append(child.get('dev'))
        elif child.tag == 'mac':
            values.append(child.get('address'))
    return values


def check_root(domain: Domain) -> None:
    """Check that a hook left a domain that can be written and read.

    :raises TypeError: saying what it left
    """
    root = domain.element
    if not etree.iselement(root) or root.tag != Domain.tag:
        raise TypeError(f'it left {_brief(root)} instead of <domain>')


def is_intact(domain: Domain, before: Fingerprint) -> bool:
    """Whether all that is checked is as it was before the hooks.

    An entity reference is a breach too: the document cannot be read again.
    """
    return (Fingerprint.of(domain) == before
            and next(domain.element.iter(etree.Entity), None) is None)


def blame(before: Fingerprint, reports: Iterable[HookReport],
          after: Domain, declared: Mapping[str, frozenset[str]]
          ) -> tuple[str, str] | None:
    """The first hook that changed what it does not declare, and what.

    :param before: of the document before the first hook
    :param reports: of a second run of the same hooks, with records
    :param after: what the hooks left in their first run
    :param declared: what each hook declares to change
    :returns: None if all changes are declared
    :raises InvalidResult: if no hook did again in the second run what was
        done in the first
    """
    then = before
    for report in reports:
        if not report.changed or report.after is None:
            continue
        try:
            now = Fingerprint.of(Domain.parse(report.after))
        except errors.InvalidDocument as e:
            return report.hook, f'what it left cannot be read: {e}'
        wrong = then.differences(now,
                                 declared.get(report.hook, frozenset()))
        if wrong:
            return report.hook, '; '.join(wrong)
        then = now
    wrong = before.differences(Fingerprint.of(after),
                               frozenset().union(*declared.values()))
    if wrong:
        raise errors.InvalidResult(
            f'one of the hooks {", ".join(declared)} changed what it does '
            f'not declare, but none did so again when they ran a second '
            f'time: {"; ".join(wrong)}')
    return None


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else text[:297] + '...'
