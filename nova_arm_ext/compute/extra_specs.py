# SPDX-License-Identifier: Apache-2.0
"""Tells Nova's API which values the extra specs ``arm:*`` may have.

The package must also be installed in the environment of Nova's API, which
finds it by the entry point ``nova.api.extra_spec_validators``. From
microversion 2.86 on the API then refuses to set a wrong value or an unknown
name ``arm:...`` in a flavor.
"""

from nova.api.validation.extra_specs import base

from nova_arm_ext import metadefs


def register() -> list[base.ExtraSpecValidator]:
    """The validators of all extra specs of nova-arm-ext."""
    return [base.ExtraSpecValidator(
        name=metadefs.FLAVOR + one.name, description=one.description,
        value={'description': one.title, **_values(one)})
        for one in metadefs.PROPERTIES if one.of_flavor]


def _values(one: metadefs.Property) -> dict[str, object]:
    if one.maximum is not None:
        return {'type': int, 'min': 0, 'max': one.maximum}
    if one.values:
        return {'type': str, 'enum': list(one.values)}
    # names of entry points
    return {'type': str, 'pattern': r' *\w+( *, *\w+)* *'}
