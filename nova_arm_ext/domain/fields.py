# SPDX-License-Identifier: Apache-2.0
"""A field of a view: a place in the tree plus a conversion.

A field holds no value. Reading it reads the tree and writing it changes the
tree, so that two views on one element never disagree.
"""

from collections.abc import Callable
from typing import Any
from typing import Generic
from typing import overload
from typing import Protocol
from typing import TypeVar

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain import tree

T = TypeVar('T')


class HasElement(Protocol):
    """What a field needs from the view that it belongs to."""

    element: Any


class Field(Generic[T]):
    """A value at a place below a view's element.

    :param place: a path of child elements, then ``@attribute`` or nothing
        for the text: ``model/@type``, ``@index``, ``loader``
    :param read: makes the value from the string in the tree
    :param write: makes the string from the value
    """

    def __init__(self, place: str, read: Callable[[str], T],
                 write: Callable[[T], str]) -> None:
        path, _, attribute = place.partition('@')
        self._place = place
        self._steps = tuple(filter(None, path.split('/')))
        self._attribute = attribute
        self._read = read
        self._write = write

    @overload
    def __get__(self, view: None, owner: Any) -> 'Field[T]': ...

    @overload
    def __get__(self, view: HasElement, owner: Any) -> T | None: ...

    def __get__(self, view: HasElement | None,
                owner: Any) -> 'Field[T] | T | None':
        if view is None:
            return self
        element = view.element
        for step in self._steps:
            element = tree.child(element, step)
            if element is None:
                return None
        text = (element.get(self._attribute) if self._attribute
                else element.text)
        if text is None:
            return None
        try:
            return self._read(text)
        except ValueError as e:
            raise errors.InvalidDocument(
                f'{self.place_in(view)} is {text[:60]!r}: {e}') from e

    def __set__(self, view: HasElement, value: T | None) -> None:
        if value is None:
            self.__delete__(view)
            return
        element = view.element
        for step in self._steps:
            child = tree.child(element, step)
            if child is None:
                child = etree.SubElement(element, step)
            element = child
        if self._attribute:
            element.set(self._attribute, self._write(value))
        else:
            element.text = self._write(value)

    def __delete__(self, view: HasElement) -> None:
        element = tree.find(view.element, self._steps)
        if element is None:
            return
        if self._attribute:
            element.attrib.pop(self._attribute, None)
        else:
            element.text = None

    def place_in(self, view: HasElement) -> str:
        """Where this field is in the document, for an error message."""
        return f'{view.element.tag}/{self._place}'


def _number(text: str) -> int:
    # libvirt writes PCI addresses in hexadecimal and all else in decimal
    return int(text, 16 if text[:2] in ('0x', '0X') else 10)


def _yes_no(text: str) -> bool:
    if text in ('yes', 'no'):
        return text == 'yes'
    raise ValueError('neither yes nor no')


def text(place: str) -> Field[str]:
    """A string, without any conversion."""
    return Field(place, str, str)


def number(place: str) -> Field[int]:
    """A whole number, decimal or hexadecimal; written in decimal."""
    return Field(place, _number, str)


def yes_no(place: str) -> Field[bool]:
    """A boolean that libvirt spells ``yes`` and ``no``."""
    return Field(place, _yes_no, lambda value: 'yes' if value else 'no')
