# SPDX-License-Identifier: Apache-2.0
"""Finding and removing elements."""

from collections.abc import Iterable
from typing import Any


def child(element: Any, tag: str) -> Any:
    """The first child element with a tag; None without one."""
    for one in element:
        if one.tag == tag:
            return one
    return None


def find(element: Any, steps: Iterable[str]) -> Any:
    """The element at a path of child elements, each the first with its tag.

    :returns: None if it is not there
    """
    for step in steps:
        element = child(element, step)
        if element is None:
            return None
    return element


def detach(element: Any) -> None:
    """Remove an element from the tree."""
    element.getparent().remove(element)
