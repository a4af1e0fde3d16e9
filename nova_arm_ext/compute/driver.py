# SPDX-License-Identifier: Apache-2.0
"""ArmLibvirtDriver: Nova's libvirt driver with the hooks in its XML.

Every method here takes the place of one of Nova's and hands on to the module
that knows the subject.
"""

import functools
import inspect
from typing import Any

import nova.conf
from nova import exception
from nova.virt.libvirt import driver

from nova_arm_ext import cpu as arm_cpu
from nova_arm_ext import errors
from nova_arm_ext import opts
from nova_arm_ext import pci as arm_pci
from nova_arm_ext.compute import adjustment
from nova_arm_ext.compute import binding
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import definition
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import hotplug
from nova_arm_ext.compute import live_migration
from nova_arm_ext.compute import machine
from nova_arm_ext.compute import operation
from nova_arm_ext.compute import pci
from nova_arm_ext.compute import schema
from nova_arm_ext.compute import seams
from nova_arm_ext.compute import stand_ins
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import copies
from nova_arm_ext.compute.nvram import images
from nova_arm_ext.compute.nvram import life
from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.copying import Copying
from nova_arm_ext.compute.nvram.migration import Migration
from nova_arm_ext.compute.nvram.removal import Removal
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.pipeline.run import Pipeline

CONF = nova.conf.CONF


def _as_nova_has_it(method: Any) -> Any:
    """Give a public method the signature of Nova's own.

    Nova's tests compare it with ComputeDriver's, and the arguments are not
    the same in all releases.
    """
    novas = getattr(driver.LibvirtDriver, method.__name__, None)
    if novas is not None:         # else compute/seams.py names it
        method.__signature__ = inspect.signature(novas)
    return method


class ArmLibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver for compute hosts with Arm guests.

    Making one loads and checks the hooks and their options and asks libvirt
    nothing. Every domain XML that Nova generates for an Arm guest passes
    through the hooks; guests of other architectures are left alone. The
    inventory of the host's PCI devices is taken in another way than Nova's.

    :raises ConfigurationError: with every fault of the set-up
    """

    def __init__(self, virtapi, read_only=False):
        hooks, copy_store, image_keys = errors.load_all(
            lambda: Pipeline.load(CONF, schema=schema.load, checks=(
                *opts.CHECKS, lambda conf: seams.check(ArmLibvirtDriver),
                lambda conf: binding.faults())),
            lambda: copies.load(CONF),
            lambda: images.load_keys(CONF))
        super().__init__(virtapi, read_only)

        def arch_of(image_meta: Any) -> str:
            return self._check_emulation_arch(image_meta)

        instance_files = luggage.Luggage(CONF)
        self._facts = host_facts.HostFacts(self._host)
        stores = store.Stores(CONF, self._facts.secure_boot_in)
        self._definitions = definition.Definitions(
            self._host, instance_files, arch_of)
        self._machines = machine.Machines(
            self._host, self._definitions, arch_of)
        self._hotplug = hotplug.Hotplug(self._host, self._definitions)
        self._destination = live_migration.Destination(
            self._facts, self._machines, arch_of)
        guest_copies = copies.Copies(stores, copy_store)
        guest_images = images.Images(CONF, stores, image_keys)
        self._life = life.Life(
            self._host, stores, guest_copies, guest_images, instance_files,
            self._definitions, self._facts,
            get_image=lambda *args: self._image_api.get(*args),
            is_shared=lambda: (
                self.image_backend.backend().is_shared_block_storage()))
        self._copying = Copying(
            self._host, stores, guest_copies, self._definitions)
        self._migration = Migration(
            stores, instance_files, self._definitions)
        self._removal = Removal(
            stores, guest_copies, guest_images, instance_files,
            self._definitions)
        self._adjustment = adjustment.Adjustment(
            hooks, self._facts, self._definitions, self._life,
            sysinfo=lambda *args: self._get_guest_config_sysinfo(*args))
        self._pci = pci.Inventory(
            arm_pci.Settings.load(CONF), self._host,
            lambda: CONF.pci.device_spec)

    # -- The host ------------------------------------------------------------

    @_as_nova_has_it
    def init_host(self, host):
        with extra('Logging the version and the hooks'):
            self._adjustment.announce(CONF)
        super().init_host(host)
        with extra('Starting the task that copies variable stores'):
            self._copying.start()

    @_as_nova_has_it
    def cleanup_host(self, host):
        with extra('Ending the task that copies variable stores'):
            self._copying.stop()
        super().cleanup_host(host)

    def _handle_conn_event(self, enabled, reason):
        if not enabled:
            self._facts.forget()
        super()._handle_conn_event(enabled, reason)

    def _update_host_specific_capabilities(self):
        super()._update_host_specific_capabilities()
        with extra('Setting the trait COMPUTE_SECURITY_UEFI_SECURE_BOOT'):
            arch = self._facts.arch
            if arch in view.ARM:
                self.capabilities['supports_secure_boot'] = (
                    self._facts.has_secure_boot(arch))

    def _check_secure_boot_support(self, arch, *args, **kwargs):
        if arch not in view.ARM:
            return super()._check_secure_boot_support(arch, *args, **kwargs)
        # called only for guests with UEFI
        return self._facts.has_secure_boot(arch)

    def _get_instance_capabilities(self):
        # libvirt offers KVM for armv7l on every AArch64 host, also where the
        # cores cannot (virQEMUCapsInitGuestFromBinary)
        offered = super()._get_instance_capabilities()
        doubtful = [one for one in offered if one[:2] == ('armv7l', 'kvm')]
        if not doubtful:
            return offered
        with extra('Asking whether the cores run armv7l guests'):
            if (self._facts.arch != 'aarch64'
                    or self._facts.runs_armv7(
                        self._adjustment.pipeline.hooks)):
                return offered
        return [one for one in offered if one not in doubtful]

    @_as_nova_has_it
    def update_provider_tree(self, provider_tree, nodename, *args, **kwargs):
        super().update_provider_tree(provider_tree, nodename, *args, **kwargs)
        with extra("Publishing the traits of this host's CPU"):
            self._facts.publish_traits(provider_tree, nodename)

    def _get_cpu_info(self):
        cpu_info = super()._get_cpu_info()
        with extra("Adding this host's CPU to cpu_info"):
            if self._facts.arch == 'aarch64':
                cpu.into_cpu_info(cpu_info,
                                  self._facts.now().cpu or arm_cpu.Cpu())
        return cpu_info

    def _check_cpu_compatibility(self):
        super()._check_cpu_compatibility()
        if (self._facts.runs_kvm_on_arm
                and not CONF.workarounds.skip_cpu_compare_at_startup):
            cpu.check_mode(self._host, CONF.libvirt.cpu_mode)

    def _compare_cpu(self, guest_cpu, host_cpu_str, instance):
        if not self._facts.runs_kvm_on_arm:
            return super()._compare_cpu(guest_cpu, host_cpu_str, instance)
        # libvirt compares no CPUs on Arm (virConnectCompareHypervisorCPU,
        # VIR_ERR_OPERATION_UNSUPPORTED). Hosts are compared before a live
        # migration, by check_can_live_migrate_destination; what is left is
        # the check of [libvirt] cpu_models when nova-compute starts.
        if instance is None:
            cpu.check_model(self._host, guest_cpu.model)
        return None

    def _get_pci_passthrough_devices(self):
        return self._pci.json()

    # Nova 34 caches its own, and its tests clear that cache
    _get_pci_passthrough_devices.cache_clear = (  # type: ignore[attr-defined]
        pci.Inventory.forget_all)

    # -- The domain XML ------------------------------------------------------

    def _get_guest_xml(self, context, instance, network_info, disk_info,
                       image_meta, *args, **kwargs):
        image_meta = self._machines.asked_for(instance, image_meta)
        xml = super()._get_guest_xml(context, instance, network_info,
                                     disk_info, image_meta, *args, **kwargs)
        return self._adjustment.adjusted(xml, instance, image_meta)

    def _configure_guest_by_virt_type(self, guest, instance, image_meta,
                                      flavor, *args, **kwargs):
        nova_driver = self
        arch = self._check_emulation_arch(image_meta)
        if arch in view.ARM and arch != self._facts.arch:
            # Nova asks for firmware of the host's own architecture, which
            # this guest does not use (Host.supports_uefi, 29 to 34)
            loaders = [one for one in self._facts.now().firmware or ()
                       if one.arch == arch]
            if loaders:
                nova_driver = stand_ins.with_host(
                    self, stand_ins.HostWithUefi(self._host, loaders))
        return super(ArmLibvirtDriver,
                     nova_driver)._configure_guest_by_virt_type(
            guest, instance, image_meta, flavor, *args, **kwargs)

    def _create_guest(self, context, xml, instance, *args, **kwargs):
        self._life.before_start(context, xml, instance)
        guest = super()._create_guest(context, xml, instance, *args, **kwargs)
        with extra('Removing the saved domain XML', instance):
            self._definitions.forget_saved(instance)
        return guest

    # -- A guest starts ------------------------------------------------------

    @_as_nova_has_it
    def spawn(self, context, instance, image_meta, *args, **kwargs):
        with self._life.spawning(context, instance, image_meta), \
                self._machines.forgetting(instance):
            return super().spawn(context, instance, image_meta, *args,
                                 **kwargs)

    @_as_nova_has_it
    def rebuild(self, context, instance, image_meta, *args, evacuate=False,
                **kwargs):
        if not evacuate:
            self._adjustment.check_image(instance)
        self._life.rebuilding(context, instance, image_meta,
                              evacuate=evacuate)
        return super().rebuild(context, instance, image_meta, *args,
                               evacuate=evacuate, **kwargs)

    @_as_nova_has_it
    def reboot(self, context, instance, network_info, reboot_type, *args,
               **kwargs):
        if reboot_type == 'SOFT':
            with extra('Replacing a missing variable store', instance):
                self._life.before_soft_reboot(context, instance)
        super().reboot(context, instance, network_info, reboot_type, *args,
                       **kwargs)

    def _hard_reboot(self, context, instance, *args, **kwargs):
        with self._definitions.keeping(instance, Event.HARD_REBOOT):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    @_as_nova_has_it
    def rescue(self, context, instance, *args, **kwargs):
        with self._definitions.rescuing(instance):
            return super().rescue(context, instance, *args, **kwargs)

    @_as_nova_has_it
    def unrescue(self, context, instance):
        with operation.of(instance, Event.UNRESCUE):
            return super().unrescue(context, instance)

    # -- A guest runs --------------------------------------------------------

    @_as_nova_has_it
    def power_off(self, instance, *args, **kwargs):
        result = super().power_off(instance, *args, **kwargs)
        with extra('Copying the variable store', instance):
            self._life.after_power_off(instance)
        return result

    @_as_nova_has_it
    def attach_volume(self, context, connection_info, instance, *args,
                      **kwargs):
        with self._hotplug.plugging(instance):
            super().attach_volume(context, connection_info, instance, *args,
                                  **kwargs)

    @_as_nova_has_it
    def attach_interface(self, context, instance, *args, **kwargs):
        with self._hotplug.plugging(instance):
            super().attach_interface(context, instance, *args, **kwargs)

    @_as_nova_has_it
    def detach_volume(self, context, connection_info, instance, mountpoint,
                      *args, **kwargs):
        with self._hotplug.changing(instance):
            self._hotplug.check_disk(instance, mountpoint)
            super().detach_volume(context, connection_info, instance,
                                  mountpoint, *args, **kwargs)

    @_as_nova_has_it
    def detach_interface(self, context, instance, vif):
        with self._hotplug.changing(instance):
            self._hotplug.check_interface(instance, vif)
            super().detach_interface(context, instance, vif)

    @_as_nova_has_it
    def snapshot(self, context, instance, image_id, *args, **kwargs):
        with self._life.snapshotting(image_id):
            super().snapshot(context, instance, image_id, *args, **kwargs)

    def _create_snapshot_metadata(self, image_meta, instance, *args,
                                  **kwargs):
        metadata = super()._create_snapshot_metadata(image_meta, instance,
                                                     *args, **kwargs)
        with extra('Adding the variable store to the image', instance):
            self._life.into_snapshot(metadata, instance)
        return metadata

    def _live_snapshot(self, *args, **kwargs):
        return super()._live_snapshot(
            *map(stand_ins.keeping_store, args), **kwargs)

    def _swap_volume(self, *args, **kwargs):
        return super()._swap_volume(
            *map(stand_ins.keeping_store, args), **kwargs)

    # -- A guest moves -------------------------------------------------------

    @_as_nova_has_it
    def migrate_disk_and_power_off(self, context, instance, dest, flavor,
                                   *args, **kwargs):
        self._adjustment.check_flavor(instance, flavor)
        with self._migration.sending(instance, dest,
                                     self._cleanup_remote_migration):
            with extra('Recording the versioned machine', instance):
                self._machines.record(instance)
            return super().migrate_disk_and_power_off(
                context, instance, dest, flavor, *args, **kwargs)

    @_as_nova_has_it
    def finish_migration(self, context, migration, instance, *args,
                         **kwargs):
        with self._migration.arriving(instance):
            return super().finish_migration(context, migration, instance,
                                            *args, **kwargs)

    @_as_nova_has_it
    def finish_revert_migration(self, context, instance, *args, **kwargs):
        with self._definitions.keeping(instance, Event.REVERT):
            return super().finish_revert_migration(context, instance, *args,
                                                   **kwargs)

    @_as_nova_has_it
    def check_can_live_migrate_destination(self, context, instance,
                                           src_compute_info, *args,
                                           **kwargs):
        reason = None
        with extra('Comparing this host with the source', instance):
            reason = self._destination.refusal(instance, src_compute_info)
        if reason:
            raise exception.MigrationPreCheckError(reason=reason)
        return super().check_can_live_migrate_destination(
            context, instance, src_compute_info, *args, **kwargs)

    @_as_nova_has_it
    def post_live_migration_at_source(self, context, instance, *args,
                                      **kwargs):
        super().post_live_migration_at_source(context, instance, *args,
                                              **kwargs)
        self._migration.after_live_migration(instance)

    @_as_nova_has_it
    def post_live_migration_at_destination(self, context, instance, *args,
                                           **kwargs):
        super().post_live_migration_at_destination(context, instance, *args,
                                                   **kwargs)
        self._migration.after_live_arrival(instance)

    @_as_nova_has_it
    def rollback_live_migration_at_destination(self, context, instance,
                                               *args, **kwargs):
        try:
            super().rollback_live_migration_at_destination(
                context, instance, *args, **kwargs)
        finally:
            self._migration.after_live_migration(instance)

    # -- A guest goes --------------------------------------------------------

    @_as_nova_has_it
    def destroy(self, context, instance, network_info,
                block_device_info=None, destroy_disks=True, *args, **kwargs):
        with extra('Recording the versioned machine', instance):
            self._machines.before_destroy(instance)
        if destroy_disks:
            self._removal.before_destroy(instance)
        super().destroy(context, instance, network_info, block_device_info,
                        destroy_disks, *args, **kwargs)

    def _cleanup(self, context, instance, *args, **kwargs):
        if self._removal.keeps_folder(instance):
            kwargs['cleanup_instance_dir'] = False
        with self._removal.cleaning_up(
                instance, removed=kwargs.get('cleanup_instance_disks',
                                             False)):
            super()._cleanup(context, instance, *args, **kwargs)

    def _undefine_domain(self, instance, *args, **kwargs):
        # what becomes of the store is decided with the domain XML in hand
        nova_driver = stand_ins.with_host(self, stand_ins.HostOfStores(
            self._host,
            functools.partial(self._removal.undefining, instance)))
        return super(ArmLibvirtDriver, nova_driver)._undefine_domain(
            instance, *args, **kwargs)
