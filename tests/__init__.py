# SPDX-License-Identifier: Apache-2.0
"""The tests; their path mirrors the code that they are about."""
