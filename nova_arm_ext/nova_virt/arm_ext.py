# SPDX-License-Identifier: Apache-2.0
"""`nova.virt.arm_ext`: where `compute_driver = arm_ext...` looks."""

from nova_arm_ext.compute.driver import ArmLibvirtDriver

__all__ = ['ArmLibvirtDriver']
