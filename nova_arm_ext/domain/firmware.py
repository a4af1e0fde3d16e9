# SPDX-License-Identifier: Apache-2.0
"""The firmware of a guest: ``<os>`` with loader, nvram, features."""

import copy
from typing import Any

from nova_arm_ext.domain import fields
from nova_arm_ext.domain import tree
from nova_arm_ext.domain import view


class Os(view.View):
    """The ``<os>`` element of a domain."""

    tag = 'os'

    #: "efi": libvirt selects the firmware
    selection = fields.text('@firmware')
    loader = fields.text('loader')
    loader_type = fields.text('loader/@type')
    loader_readonly = fields.yes_no('loader/@readonly')
    loader_secure = fields.yes_no('loader/@secure')
    loader_stateless = fields.yes_no('loader/@stateless')
    loader_format = fields.text('loader/@format')
    nvram = fields.text('nvram')
    nvram_template = fields.text('nvram/@template')
    nvram_template_format = fields.text('nvram/@templateFormat')
    nvram_format = fields.text('nvram/@format')
    kernel = fields.text('kernel')
    cmdline = fields.text('cmdline')

    @classmethod
    def of(cls, domain: view.Domain) -> 'Os':
        """The ``<os>`` of a domain."""
        return cls(domain.child('os'))

    @property
    def selects_uefi(self) -> bool:
        """Whether libvirt is asked to select a UEFI firmware."""
        return self.selection == 'efi'

    @property
    def names_uefi(self) -> bool:
        """Whether a UEFI firmware is named by its path."""
        return bool(self.loader) and self.loader_type == 'pflash'

    @property
    def has_loader(self) -> bool:
        """Whether there is a loader element, with or without a path."""
        return tree.child(self.element, 'loader') is not None

    @property
    def has_uefi(self) -> bool:
        """Whether the guest has UEFI firmware, selected or named."""
        return self.selects_uefi or self.names_uefi

    @property
    def has_varstore(self) -> bool:
        """Whether QEMU keeps the variables, out of the guest's reach.

        libvirt 12.1 and newer: the loader is of the type rom, and the store
        is a JSON file.
        """
        return tree.child(self.element, 'varstore') is not None

    @property
    def is_stateless(self) -> bool:
        """Whether the firmware keeps no variables."""
        return self.loader_stateless is True

    @property
    def nvram_is_file(self) -> bool:
        """Whether the variable store is a file, or libvirt will make one.

        With libvirt 8.5 and newer, stores can also be on the network or on
        block devices; those have a ``<source>``.
        """
        nvram = self.element.find('nvram')
        return nvram is None or (nvram.get('type') is None
                                 and nvram.find('source') is None)

    def feature(self, name: str) -> bool | None:
        """Whether a firmware feature is asked for; None if not mentioned."""
        firmware = tree.child(self.element, 'firmware')
        for feature in () if firmware is None else firmware:
            if feature.tag == 'feature' and feature.get('name') == name:
                return bool(feature.get('enabled') == 'yes')
        return None

    def insert(self, *elements: Any) -> None:
        """Insert elements after the type, where libvirt writes them."""
        kind = tree.child(self.element, 'type')
        for element in reversed(elements):
            kind.addnext(element)

    def drop(self, *tags: str) -> None:
        """Remove child elements with these tags, if there are any."""
        for child in list(self.element):
            if child.tag in tags:
                tree.detach(child)

    def copy_from(self, other: 'Os', *tags: str) -> None:
        """Replace child elements with copies of those of another document."""
        for tag in tags:
            self.drop(tag)
            found = other.element.find(tag)
            if found is not None:
                self.insert(copy.copy(found))
