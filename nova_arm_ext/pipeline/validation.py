# SPDX-License-Identifier: Apache-2.0
"""Whether the hooks made a valid document invalid."""

from collections.abc import Callable
from typing import Any

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
    wrong = validate(after.element)
    if wrong is None or validate(Domain.parse(before).element) is not None:
        return None
    return wrong
