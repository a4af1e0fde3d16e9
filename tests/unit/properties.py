# SPDX-License-Identifier: Apache-2.0
"""Settings of hypothesis: always the same examples, no files in the tree."""

import os
import pathlib

import hypothesis
from hypothesis import configuration

_CACHE = pathlib.Path(
    os.environ.get('NOVA_ARM_EXT_CACHE')
    or pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache',
                    'nova-arm-ext').expanduser())
# it keeps tables of its own there, even without a database of examples
configuration.set_hypothesis_home_dir(_CACHE / 'hypothesis')

SETTINGS = hypothesis.settings(
    deadline=None, database=None, derandomize=True,
    suppress_health_check=(hypothesis.HealthCheck.too_slow,))
