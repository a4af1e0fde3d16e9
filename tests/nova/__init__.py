# SPDX-License-Identifier: Apache-2.0
"""Tests with the installed Nova: its domain XML, and the driver in it."""
