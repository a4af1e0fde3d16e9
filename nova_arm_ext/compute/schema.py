# SPDX-License-Identifier: Apache-2.0
"""libvirt's own RNG schema of domain documents as a check."""

import functools
from typing import Any

from lxml import etree
from oslo_log import log as logging

from nova_arm_ext.pipeline import validation

LOG = logging.getLogger(__name__)


@functools.cache
def load(path: str) -> validation.Validator | None:
    """Make a check from a schema; once per process, because it takes 10 ms.

    :param path: of domain.rng, which includes its neighbours
    :returns: a function that returns None for a valid document and what is
        wrong with an invalid one; None if the schema cannot be used
    """
    try:
        schema = etree.RelaxNG(etree.parse(path))
    except OSError:
        LOG.info('No libvirt schema at %s, documents are not validated', path)
        return None
    except etree.LxmlError as e:
        LOG.warning('The libvirt schema %s cannot be used, documents are not '
                    'validated: %s', path, e)
        return None

    def validate(root: Any) -> str | None:
        # metadata may contain anything, and takes a tenth of the time
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
        # the log may be that of another thread, because all use one schema;
        # an empty one must not look like a valid document
        return '; '.join(dict.fromkeys(
            entry.message for entry in schema.error_log)) or 'invalid'

    return validate
