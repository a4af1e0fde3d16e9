# SPDX-License-Identifier: Apache-2.0
"""What the hooks did to a document, and why."""

import difflib
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from nova_arm_ext.domain.view import Domain
from nova_arm_ext.hooks import base


class HookReport(base.Report):
    """What one hook did to one document.

    :param before: the document before the hook, where it is recorded
    """

    #: the document after the hook, where it is recorded
    after: str | None = None
    seconds = 0.0
    #: why the hook was skipped; None if it was not
    failure: str | None = None

    def __init__(self, hook: str, before: str | None = None) -> None:
        super().__init__()
        self.hook = hook
        self.before = before

    @property
    def changed(self) -> bool:
        """Whether the hook changed the document.

        Where the documents were not recorded, a hook that gave a reason did.
        """
        if self.before is None:
            return bool(self.reasons)
        return self.before != self.after

    def diff(self) -> str:
        """The change as a unified diff; empty without a change or without
        records."""
        if self.before is None or self.after is None or not self.changed:
            return ''
        return unified_diff(self.before, self.after, self.hook)


class Result(NamedTuple):
    """The document for libvirt, and how it was made."""

    xml: str
    reports: tuple[HookReport, ...] = ()
    seconds: float = 0.0


#: Receives the document of an Arm guest after the hooks, and their reports.
Finish = Callable[[Domain, Sequence[HookReport]], None]


def unified_diff(before: str, after: str, name: str) -> str:
    """A unified diff of two documents, empty if they are equal."""
    return '\n'.join(difflib.unified_diff(
        before.split('\n'), after.split('\n'),
        f'before {name}', f'after {name}', lineterm=''))
