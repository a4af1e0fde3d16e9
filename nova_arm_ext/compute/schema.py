# SPDX-License-Identifier: Apache-2.0
"""Checks domain XML with libvirt's own RNG schema."""

import functools
from typing import Any

from lxml import etree
from oslo_log import log as logging

from nova_arm_ext.pipeline import validation

LOG = logging.getLogger(__name__)


@functools.cache
def load(path: str) -> validation.Validator | None:
    """Make a check from a schema; once per process, because it takes 10 ms.

    :param path: of domain.rng, which includes other files of its folder
    :returns: a function that returns None for valid domain XML, else what is
        wrong; None if the schema cannot be used
    """
    try:
        schema = etree.RelaxNG(etree.parse(path))
    except OSError:
        LOG.info('No libvirt schema at %s, domain XML is not validated', path)
        return None
    except etree.LxmlError as e:
        LOG.warning('The libvirt schema %s cannot be used, domain XML is not '
                    'validated: %s', path, e)
        return None

    def validate(root: Any) -> str | None:
        # without metadata, which may contain anything and takes time
        metadata = root.find('metadata')
        if metadata is None:
            valid = schema.validate(root)
        else:
            position = root.index(metadata)
            root.remove(metadata)
            valid = schema.validate(root)
            root.insert(position, metadata)
        if valid:
            return None
        # all threads share the schema, so another one may have changed the
        # log; an empty log must not mean that the XML is valid
        return '; '.join(dict.fromkeys(
            entry.message for entry in schema.error_log)) or 'invalid'

    return validate
