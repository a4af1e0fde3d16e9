# SPDX-License-Identifier: Apache-2.0
"""The hooks: one adjustment of a guest's domain document per file."""
