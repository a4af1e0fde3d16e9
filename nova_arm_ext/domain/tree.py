# SPDX-License-Identifier: Apache-2.0
"""Finding and removing elements."""

from collections.abc import Iterable
from typing import Any


def child(element: Any, tag: str) -> Any:
    """The first child element with a tag; None without one.

    Walking the children takes a quarter of the time of lxml's own find, which
    goes through its path language; a slice of them is made in one go.
    """
    for one in element[:]:
        if one.tag == tag:
            return one
    return None


def find(element: Any, steps: Iterable[str]) -> Any:
    """The element at a path of child elements; None if it is not there."""
    for step in steps:
        element = child(element, step)
        if element is None:
            break
    return element


def children(element: Any) -> list[Any]:
    """The children of an element, which may be None, free to be removed."""
    found: list[Any] = [] if element is None else element[:]
    return found


def detach(element: Any) -> None:
    """Take an element out of the tree."""
    element.getparent().remove(element)
