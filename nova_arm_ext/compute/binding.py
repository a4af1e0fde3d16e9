# SPDX-License-Identifier: Apache-2.0
"""libvirt's Python binding, which pip does not install by itself.

It has to fit the libvirt of the host, so most hosts have the one of their
distribution. It is not a requirement of Nova either.
"""

import importlib
from typing import Any

try:
    libvirt: Any = importlib.import_module('libvirt')
except ModuleNotFoundError:
    libvirt = None

MISSING = ("the Python module libvirt is not installed: install the "
           "distribution's package (python3-libvirt), or with pip "
           "nova-arm-ext[libvirt]")


def faults() -> list[str]:
    """Why nova-compute cannot work without the binding, if it is missing."""
    return [MISSING] if libvirt is None else []
