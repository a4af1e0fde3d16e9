# SPDX-License-Identifier: Apache-2.0
"""The checks of `nova-arm-ext doctor` and `nova-arm-ext-status`."""

from nova_arm_ext.cmd.checks import firmware
from nova_arm_ext.cmd.checks import hypervisor
from nova_arm_ext.cmd.checks import installation
from nova_arm_ext.cmd.checks import stores
from nova_arm_ext.cmd.checks.base import Check

#: In the order in which they are reported.
CHECKS: tuple[Check, ...] = (
    Check('hooks', installation.hooks),
    Check('options', installation.options),
    Check('option names', installation.option_names),
    Check('driver', installation.driver),
    Check('Nova', installation.nova),
    Check('libvirt', hypervisor.libvirt),
    Check('KVM', hypervisor.kvm),
    Check('32-bit guests', hypervisor.aarch32),
    Check('GIC', hypervisor.gic),
    Check('cores', hypervisor.cores),
    Check('TPM', hypervisor.tpm),
    Check('PCI devices', hypervisor.pci_devices),
    Check('extra specs', installation.extra_specs),
    Check('firmware descriptors', firmware.descriptors),
    Check('firmware files', firmware.files),
    Check('firmware seen by libvirt', firmware.seen_by_libvirt),
    Check('32-bit firmware', firmware.for_32_bit),
    Check('Secure Boot firmware', firmware.for_secure_boot),
    Check('variable stores', stores.folder),
    Check('free space', stores.free_space),
    Check('unowned stores', stores.unowned),
    Check('store for copies', stores.copies),
    Check('key for images', stores.image_key),
)
