# SPDX-License-Identifier: Apache-2.0
"""Whole hosts: one or two with real guests, and the API over fake ones."""
