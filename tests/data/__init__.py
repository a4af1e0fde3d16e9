# SPDX-License-Identifier: Apache-2.0
"""What tests read: golden cases, formats, CPUs, and the pins of releases."""
