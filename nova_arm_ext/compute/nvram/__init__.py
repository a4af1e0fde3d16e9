# SPDX-License-Identifier: Apache-2.0
"""The files of guests' UEFI variable stores on a compute host.

What becomes of them is decided by the table in ``nova_arm_ext/nvram.py``.
"""
