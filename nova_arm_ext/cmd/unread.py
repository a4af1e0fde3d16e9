# SPDX-License-Identifier: Apache-2.0
"""What is asked for, but nobody reads: misspelt names, hooks that are off."""

import dataclasses
import json
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from nova_arm_ext import facts
from nova_arm_ext import metadefs
from nova_arm_ext.cmd.naming import did_you_mean
from nova_arm_ext.hooks import console
from nova_arm_ext.hooks import cpu_features
from nova_arm_ext.hooks import pcie_root_ports
from nova_arm_ext.hooks import virtio_mmio
from nova_arm_ext.pipeline import plugins

#: The hook that reads an extra spec, by the name without the prefix.
READERS: Mapping[str, str] = {
    spec.removeprefix(metadefs.FLAVOR): hook for hook, specs in (
        ('console', (console.EXTRA_SPEC,)),
        ('cpu_features', tuple(cpu_features.VALUES)),
        ('pcie_root_ports', (pcie_root_ports.EXTRA_SPEC,)),
        ('virtio_mmio', (virtio_mmio.EXTRA_SPEC,)),
    ) for spec in specs}

#: The names in each object of a facts file; "nova-arm-ext facts" also prints
#: "pci".
_FACTS: Mapping[str, frozenset[str]] = {
    'facts': frozenset(('format', 'host', 'guest', 'pci')),
    'facts/host': frozenset(
        field.name for field in dataclasses.fields(facts.Host)),
    'facts/guest': frozenset(
        field.name for field in dataclasses.fields(facts.Guest))}


def of_guest(guest: facts.Guest, hooks: Collection[str]) -> list[str]:
    """What nobody reads of the extra specs and image properties.

    :param hooks: the names of the enabled hooks
    :returns: one sentence for each
    """
    specs = guest.extra_specs or {}
    found = [
        *_named(specs, metadefs.FLAVOR, 'extra spec', hooks, {
            one.name for one in metadefs.PROPERTIES if one.of_flavor}),
        *_named(guest.image_properties or {}, metadefs.IMAGE,
                'image property', hooks, {
                    one.name for one in metadefs.PROPERTIES if one.of_image})]
    skipped = specs.get(plugins.SKIP_HOOKS, '')
    for name in filter(None, map(str.strip, skipped.split(','))):
        if name not in hooks:
            found.append(
                f'extra spec {plugins.SKIP_HOOKS}: the hook {name!r} is not '
                f'enabled' + did_you_mean(name, hooks))
    return found


def _named(asked: Iterable[str], prefix: str, kind: str,
           hooks: Collection[str], known: Collection[str]) -> Iterator[str]:
    for name in sorted(asked):
        if not name.startswith(prefix):
            continue
        short = name.removeprefix(prefix)
        reader = READERS.get(short)
        if short not in known:
            yield f'{kind} {name}: nova-arm-ext does not know it' + (
                did_you_mean(name, [prefix + one for one in known]))
        elif reader and reader not in hooks:
            yield (f'{kind} {name}: only the hook {reader} reads it, which '
                   f'is not enabled in [arm] hooks')


def of_facts(text: bytes) -> list[str]:
    """The names in a facts file that are not read.

    :param text: valid facts
    :returns: one sentence for each
    """
    whole = json.loads(text)
    found = []
    for place, known in _FACTS.items():
        given = whole if place == 'facts' else whole.get(
            place.partition('/')[2]) or {}
        found += [f'{place}/{name}: it is not read'
                  + did_you_mean(name, known)
                  for name in sorted(given) if name not in known]
    return found
