# SPDX-License-Identifier: Apache-2.0
"""An Arm host in which KVM works, and real guests on it.

The host is a whole machine that QEMU emulates, with its hypervisor mode (EL2).
Only speed differs from a real server: kernel, libvirt, QEMU and firmware in it
are those of a distribution for Arm.
"""
