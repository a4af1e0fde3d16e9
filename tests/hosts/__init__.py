# SPDX-License-Identifier: Apache-2.0
"""Whole hosts: one or two with real guests, or the API with a fake libvirt."""
