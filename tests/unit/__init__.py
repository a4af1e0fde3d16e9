# SPDX-License-Identifier: Apache-2.0
"""Tests of the code without a host: no daemon, no guest."""
