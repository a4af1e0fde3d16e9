# SPDX-License-Identifier: Apache-2.0
"""Checks domain XML with libvirt's own RNG schema."""

import functools
import os
from typing import Any

from lxml import etree
from oslo_log import log as logging

from nova_arm_ext.pipeline import validation

LOG = logging.getLogger(__name__)


def load(path: str) -> validation.Validator | None:
    """Make a check from a schema.

    The schema is read once per process, because that takes 10 ms, and again
    when the file has changed: libvirt can be updated meanwhile.

    :param path: of domain.rng, which includes other files of its folder
    :returns: a function that returns None for valid domain XML, else what is
        wrong; None if the schema cannot be used
    """
    schema = _of(path)
    return schema if schema.is_usable() else None


class _Schema:
    """The schema in a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, ...] = ()
        self._schema: etree.RelaxNG | None = None

    def is_usable(self) -> bool:
        """Whether it has been read, now or earlier."""
        return self._schema is not None or self.now() is not None

    def now(self) -> etree.RelaxNG | None:
        """The schema as it is in the file now.

        While there is no file, as it was before; None if it cannot be used.
        """
        try:
            found = os.stat(self._path)
        except OSError:
            if self._schema is None:
                LOG.info('No libvirt schema at %s, domain XML is not '
                         'validated', self._path)
            return self._schema
        identity = found.st_ino, found.st_mtime_ns, found.st_size
        if identity != self._identity:
            self._schema = _parsed(self._path)
            self._identity = identity
        return self._schema

    def __call__(self, root: Any) -> str | None:
        schema = self.now()
        if schema is None:
            return None
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


_of = functools.cache(_Schema)


def _parsed(path: str) -> etree.RelaxNG | None:
    try:
        return etree.RelaxNG(etree.parse(path))
    except (OSError, etree.LxmlError) as e:
        LOG.warning('The libvirt schema %s cannot be used, domain XML is not '
                    'validated: %s', path, e)
        return None
