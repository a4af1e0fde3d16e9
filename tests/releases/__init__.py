# SPDX-License-Identifier: Apache-2.0
"""The documents that each Nova release builds, judged by a real libvirt."""
