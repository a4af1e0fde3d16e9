# SPDX-License-Identifier: Apache-2.0
"""The package as it is built, installed, found and removed."""
