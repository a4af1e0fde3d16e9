# SPDX-License-Identifier: Apache-2.0
"""Measurements; they print and never decide a test."""
