# SPDX-License-Identifier: Apache-2.0
"""The guest's CPU: mode and model."""

from lxml import etree

from nova_arm_ext.domain import tree
from nova_arm_ext.domain import view


def mode(domain: view.Domain) -> str:
    """The mode of the CPU, which is custom if the document has none."""
    found = domain.part('cpu')
    return 'custom' if found is None else str(found.get('mode', 'custom'))


def model(domain: view.Domain) -> str | None:
    """The model of the CPU; None if the document has none."""
    found: str | None = domain.element.findtext('cpu/model')
    return found


def choose(domain: view.Domain, new_mode: str, new_model: str | None) -> bool:
    """Set mode and model of the CPU; the rest of it stays.

    :param new_model: None for a mode without a model
    :returns: whether that changed anything
    """
    if ((mode(domain), model(domain)) == (new_mode, new_model)
            and domain.part('cpu') is not None):
        return False
    cpu = domain.child('cpu')
    cpu.set('mode', new_mode)
    # Nova writes it with every mode and cannot read a CPU without it
    cpu.set('match', 'exact')
    present = tree.child(cpu, 'model')
    if new_model is None:
        if present is not None:
            tree.detach(present)
        return True
    if present is None:
        present = etree.Element('model')
        cpu.insert(0, present)
    present.text = new_model
    return True
