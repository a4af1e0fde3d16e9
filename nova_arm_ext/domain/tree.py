# SPDX-License-Identifier: Apache-2.0
"""Inserting and removing elements so that the document stays readable.

Nova and libvirt indent by two spaces; a diff of what a hook changed shall
show the change alone.
"""

import copy
from collections.abc import Iterable
from typing import Any

from lxml import etree


def find(element: Any, steps: Iterable[str]) -> Any:
    """The element at a path of child elements; None if it is not there.

    Walking the children takes half the time of lxml's own find, which goes
    through its path language.
    """
    for step in steps:
        for child in element:
            if child.tag == step:
                element = child
                break
        else:
            return None
    return element


def children(element: Any) -> list[Any]:
    """The children of an element, which may be None, free to be removed."""
    return [] if element is None else list(element)


def insert_after(parent: Any, sibling: Any, *elements: Any) -> None:
    """Insert elements with the indentation of their new neighbours.

    :param parent: where to insert
    :param sibling: the child of it to follow; None for the last one
    :param elements: what to insert, in this order; one at least
    """
    if sibling is None and len(parent):
        sibling = parent[-1]
    if sibling is None:
        sibling, elements = elements[0], elements[1:]
        parent.append(sibling)
        tail = parent.tail or ''
        if '\n' in tail:
            # the tail of the parent is the indentation of its siblings, or,
            # behind the last of them, of the element around them
            last = parent.getnext() is None
            parent.text = tail + ('    ' if last else '  ')
            sibling.tail = tail + ('  ' if last else '')
        if len(sibling) and '\n' in (parent.text or ''):
            _indent(sibling, parent.text)
    if not elements:
        return
    # the last child's tail indents the parent's end tag
    end = sibling.tail
    text = parent.text
    step = text if text and '\n' in text else end or ''
    indented = '\n' in step
    sibling.tail = step if indented else end
    position = parent.index(sibling) + 1
    for element in elements:
        element.tail = step if indented else end
        if indented and len(element):
            _indent(element, step)
    elements[-1].tail = end
    parent[position:position] = elements


def _indent(element: Any, newline: str) -> None:
    element.text = newline + '  '
    for child in element:
        child.tail = newline + '  '
        if len(child):
            _indent(child, newline + '  ')
    element[-1].tail = newline


def detach(element: Any) -> None:
    """Take an element out of the tree, with its indentation."""
    parent = element.getparent()
    before = element.getprevious()
    if element.getnext() is None:
        # the last child's tail indents the parent's end tag: hand it on
        if before is not None:
            before.tail = element.tail
        else:
            parent.text = None if not (parent.text or '').strip() \
                else parent.text
    parent.remove(element)


def clone(element: Any) -> Any:
    """A copy of an element, free of its surroundings."""
    copied = copy.copy(element)      # with all that is below it
    copied.tail = None
    return copied


def append(parent: Any, tag: str) -> Any:
    """A new last child of an element."""
    element = etree.Element(tag)
    insert_after(parent, None, element)
    return element
