# SPDX-License-Identifier: Apache-2.0
"""Whether the hooks made a valid document invalid."""

import copy
from collections.abc import Callable
from typing import Any

from nova_arm_ext.domain import tree
from nova_arm_ext.domain.view import Domain

#: Takes the root element of a document. Returns None if the document is valid
#: and what is wrong if it is not.
Validator = Callable[[Any], str | None]


def made_invalid(before: str, after: Domain,
                 validate: Validator) -> str | None:
    """What is wrong with a document that was valid before the hooks.

    :param before: the document as Nova made it
    :param after: the document after the hooks
    :returns: None if it is valid, or if Nova's was not valid either
    """
    wrong = validate(_without_restored(after))
    if wrong is None or validate(Domain.parse(before).element) is not None:
        return None
    return wrong


def _without_restored(domain: Domain) -> Any:
    """The document without the addresses that the guest had before.

    libvirt wrote those itself, and two thirds of the time of a check go into
    them (libvirt 9.0.0).

    :returns: the root element, of a copy where the guest had any
    """
    if domain.previous is None:
        return domain.element
    had = {tuple(address.items())
           for address in domain.previous.element.iter('address')}
    root = copy.deepcopy(domain.element)
    for address in list(root.iter('address')):
        if tuple(address.items()) in had:
            tree.detach(address)
    return root
