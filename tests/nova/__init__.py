# SPDX-License-Identifier: Apache-2.0
"""What needs the installed Nova: its documents, and the driver in it."""
