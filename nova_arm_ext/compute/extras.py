# SPDX-License-Identifier: Apache-2.0
"""What is done beside Nova's work on a guest, and must not fail it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from oslo_log import log as logging

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def extra(what: str, instance: Any = None) -> Iterator[None]:
    """Log an error of the block, and go on after it.

    What ends a thread or a greenlet passes (``GreenletExit``, eventlet's
    ``Timeout``, ``SystemExit``).

    :param what: what the block does, as the beginning of a sentence:
        "Copying the variable store"
    :param instance: the instance that it is done for, if any
    """
    try:
        yield
    except Exception:
        LOG.exception('%s has failed; Nova goes on without it', what,
                      instance=instance)
