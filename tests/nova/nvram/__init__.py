# SPDX-License-Identifier: Apache-2.0
"""Variable stores, with the installed Nova."""
