# SPDX-License-Identifier: Apache-2.0
"""The record in a domain's XML: which hooks changed what, and why.

It is in the domain's metadata. libvirt keeps it, also in a live migration::

    <metadata>
      <arm:adjusted xmlns:arm="urn:nova-arm-ext:1" version="1.0"
                    options="0f3a...">
        <arm:hook name="libvirt_compat">
          <arm:reason place="features/ioapic" essential="yes">libvirt ...
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from lxml import etree

from nova_arm_ext.domain import tree
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.pipeline.reports import HookReport
from nova_arm_ext.pipeline.run import Pipeline

NAMESPACE = 'urn:nova-arm-ext:1'

_ROOT = f'{{{NAMESPACE}}}adjusted'
_HOOK = f'{{{NAMESPACE}}}hook'
_REASON = f'{{{NAMESPACE}}}reason'

#: Limits, because hooks of third parties may give many and long reasons, and
#: libvirt sends the XML with many events and calls.
MAX_REASONS = 50
MAX_LENGTH = 500


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One adjustment.

    :param essential: without it libvirt or QEMU refuses the guest
    """

    place: str
    text: str
    essential: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """What one hook did.

    :param failure: why it was skipped; None if it was not
    """

    name: str
    reasons: tuple[Reason, ...] = ()
    failure: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """How a domain was adjusted when it was last defined.

    :param version: of nova-arm-ext
    :param options: a digest of the enabled hooks and their options
    """

    version: str
    options: str
    hooks: tuple[Hook, ...] = ()

    def of(self, reports: Iterable[HookReport]) -> 'Record':
        """A copy with the results in these reports."""
        return dataclasses.replace(self, hooks=tuple(
            Hook(name=report.hook, failure=report.failure, reasons=tuple(
                Reason(place=place, text=text,
                       essential=(place, text) in report.essential)
                for place, text in report.reasons))
            for report in reports))


def digest(hooks: Pipeline) -> str:
    """A short digest of the enabled hooks, their order and their options."""
    text = json.dumps(hooks.options, default=str, sort_keys=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(domain: Domain, record: Record) -> None:
    """Put the record into the domain's metadata, replacing an older one."""
    root = etree.Element(_ROOT, nsmap={'arm': NAMESPACE},
                         version=_plain(record.version),
                         options=record.options)
    for hook in record.hooks:
        element = etree.SubElement(root, _HOOK, name=_plain(hook.name))
        if hook.failure is not None:
            element.set('failure', _plain(hook.failure))
        for reason in hook.reasons[:MAX_REASONS]:
            inner = etree.SubElement(element, _REASON,
                                     place=_plain(reason.place))
            inner.text = _plain(reason.text)
            if reason.essential:
                inner.set('essential', 'yes')
    metadata = domain.child('metadata')
    for old in metadata.findall(_ROOT):
        tree.detach(old)
    metadata.append(root)


def read(domain: Domain) -> Record | None:
    """The record in a domain's metadata.

    :returns: None if there is none; unknown parts are left out
    """
    metadata = domain.part('metadata')
    root = None if metadata is None else metadata.find(_ROOT)
    if root is None:
        return None
    return Record(
        version=root.get('version', ''), options=root.get('options', ''),
        hooks=tuple(
            Hook(name=hook.get('name', ''), failure=hook.get('failure'),
                 reasons=tuple(
                     Reason(place=reason.get('place', ''),
                            text=reason.text or '',
                            essential=reason.get('essential') == 'yes')
                     for reason in hook.findall(_REASON)))
            for hook in root.findall(_HOOK)))


def _plain(text: Any) -> str:
    """Text that XML can hold, cut to MAX_LENGTH."""
    plain = str(text)[:MAX_LENGTH]
    if plain.isprintable():
        return plain
    return ''.join(c if c.isprintable() else ' ' for c in plain)
