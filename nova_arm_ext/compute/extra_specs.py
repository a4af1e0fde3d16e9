# SPDX-License-Identifier: Apache-2.0
"""Tells Nova's API which values the extra specs ``arm:*`` may have.

Nova's API finds it by the entry point ``nova.api.extra_spec_validators`` where
the package is installed in its environment as well, and refuses a wrong value
when a flavor gets it (microversion 2.86). With it the API also refuses names
beginning with ``arm:`` that nobody has registered.
"""

from nova.api.validation.extra_specs import base

from nova_arm_ext import metadefs


def register() -> list[base.ExtraSpecValidator]:
    """The validators of all extra specs of the extension."""
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
