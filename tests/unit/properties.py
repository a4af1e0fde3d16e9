# SPDX-License-Identifier: Apache-2.0
"""How hypothesis runs here: the same examples each time, nothing kept."""

import hypothesis

SETTINGS = hypothesis.settings(
    deadline=None, database=None, derandomize=True,
    suppress_health_check=(hypothesis.HealthCheck.too_slow,))
