# SPDX-License-Identifier: Apache-2.0
"""Two compute hosts, and what Nova needs around them, on one machine."""
