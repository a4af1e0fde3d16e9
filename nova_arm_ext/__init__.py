# SPDX-License-Identifier: Apache-2.0
"""Arm guests for OpenStack Nova's libvirt driver.

Every Python process of the environment imports this package when it starts
(see `nova_arm_ext.nova_virt`), so nothing is imported here.
"""
