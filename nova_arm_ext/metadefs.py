# SPDX-License-Identifier: Apache-2.0
"""The extra specs and image properties, also as metadata for Glance.

``python -m nova_arm_ext.metadefs image`` (or ``flavor``) prints a namespace of
Glance's metadata definitions.
"""

import dataclasses
import json
import sys
from typing import Any

from nova_arm_ext import nvram
from nova_arm_ext.domain import pcie
from nova_arm_ext.hooks import console
from nova_arm_ext.hooks import cpu_features
from nova_arm_ext.hooks import pcie_root_ports
from nova_arm_ext.hooks import virtio_mmio
from nova_arm_ext.pipeline import plugins

#: The prefixes of extra specs and of image properties.
FLAVOR, IMAGE = 'arm:', 'arm_'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Property:
    """One extra spec, image property, or both.

    :param name: without the prefix
    :param values: the values that are allowed; empty for any text
    :param maximum: for a number, the largest one; the smallest is 0
    """

    name: str
    title: str
    description: str
    values: tuple[str, ...] = ()
    maximum: int | None = None
    of_flavor: bool = True
    of_image: bool = True


PROPERTIES: tuple[Property, ...] = (
    Property(
        name=pcie_root_ports.EXTRA_SPEC.removeprefix(FLAVOR),
        title='Free PCIe root ports', maximum=pcie.MAX_ROOT_PORTS,
        description='How many PCIe root ports a new Arm instance has free, '
                    'for volumes, interfaces and other devices that are '
                    'attached while it runs. The host limits what an image '
                    'may ask for.'),
    Property(
        name=virtio_mmio.EXTRA_SPEC.removeprefix(FLAVOR),
        title='Transport of virtio devices', values=virtio_mmio.TRANSPORTS,
        description='Whether the virtio devices of a new Arm instance are on '
                    'PCI Express or on virtio-mmio, for systems without PCI. '
                    'No device can be attached to virtio-mmio while the '
                    'instance runs.'),
    Property(
        name=console.EXTRA_SPEC.removeprefix(FLAVOR),
        title='Video model', values=console.MODELS,
        description='The video model of a new Arm instance with a graphical '
                    'console; ramfb is for systems without a virtio driver.'),
    *(Property(name=name.removeprefix(FLAVOR), title=title,
               values=cpu_features.VALUES[name], description=description)
      for name, title, description in (
          (cpu_features.SVE, 'Scalable Vector Extension',
           'Whether an Arm instance has SVE.'),
          (cpu_features.SVE_VECTOR_LENGTH, 'SVE vector length',
           'The longest SVE vector of an Arm instance, in bits.'),
          (cpu_features.PAUTH, 'Pointer authentication',
           'Whether an Arm instance has pointer authentication.'),
          (cpu_features.GIC_VERSION, 'Version of the GIC',
           'The version of the interrupt controller of an Arm instance. '
           'With version 2 it can have at most eight vCPUs.'))),
    Property(
        name=nvram.ON_REBUILD_PROPERTY.removeprefix(IMAGE),
        title='UEFI variables on rebuild', values=('reset', 'keep'),
        of_flavor=False,
        description='Whether an Arm instance keeps its UEFI variables when it '
                    'is rebuilt.'),
    Property(
        name=plugins.SKIP_HOOKS.removeprefix(FLAVOR),
        title='Hooks to skip', of_image=False,
        description='Names of hooks of nova-arm-ext, separated by commas, '
                    'that do not run for instances of this flavor.'),
)


def namespace(*, of_image: bool) -> dict[str, Any]:
    """A namespace of Glance's metadata definitions.

    :param of_image: for properties of images; else for flavors' extra specs
    """
    return {
        'namespace': f'OS::NovaArmExt::{"Image" if of_image else "Flavor"}',
        'display_name': 'Arm instances (nova-arm-ext)',
        'description': 'Settings of nova-arm-ext for Arm instances of the '
                       'libvirt driver.',
        'visibility': 'public',
        'protected': False,
        'resource_type_associations': [
            {'name': 'OS::Glance::Image', 'prefix': IMAGE} if of_image else
            {'name': 'OS::Nova::Flavor', 'prefix': FLAVOR}],
        'properties': {
            one.name: {
                'title': one.title, 'description': one.description,
                **({'type': 'integer', 'minimum': 0, 'maximum': one.maximum}
                   if one.maximum is not None else {'type': 'string'}),
                **({'enum': list(one.values)} if one.values else {}),
            } for one in PROPERTIES
            if (one.of_image if of_image else one.of_flavor)}}


def to_json(*, of_image: bool) -> str:
    """The file of a namespace."""
    return json.dumps(namespace(of_image=of_image), indent=4) + '\n'


if __name__ == '__main__':
    sys.stdout.write(to_json(of_image=sys.argv[1:] == ['image']))
