# SPDX-License-Identifier: Apache-2.0
"""How the package is built, installed, found and removed."""
