# SPDX-License-Identifier: Apache-2.0
"""Real AArch64 guests, booted through a real Nova, libvirt and QEMU."""
