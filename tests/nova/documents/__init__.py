# SPDX-License-Identifier: Apache-2.0
"""Domain XML that the installed Nova generates, and how it is judged."""
