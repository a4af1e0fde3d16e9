# SPDX-License-Identifier: Apache-2.0
"""The meeting with Nova and libvirt: all imports of nova, all I/O."""
