# SPDX-License-Identifier: Apache-2.0
"""The command `nova-arm-ext`."""

NAME = 'nova-arm-ext'
