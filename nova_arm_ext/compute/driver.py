# SPDX-License-Identifier: Apache-2.0
"""ArmLibvirtDriver: Nova's libvirt driver with the hooks in its XML."""

import contextlib
import copy
import dataclasses
import functools
import importlib.metadata
import inspect
import os
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import libvirt
import nova.conf
import os_traits
from nova import exception
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.virt.libvirt import driver
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

from nova_arm_ext import cpu as arm_cpu
from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import opts
from nova_arm_ext import pci as arm_pci
from nova_arm_ext import pipeline
from nova_arm_ext import provenance
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import nvram
from nova_arm_ext.compute import pci
from nova_arm_ext.compute import schema
from nova_arm_ext.compute import seams
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import pcie_root_ports
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate
from nova_arm_ext.nvram import on_rebuild
from nova_arm_ext.nvram import STORE_PROPERTY
from nova_arm_ext.nvram import undefine_keeps

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF

#: Of this package. Asking takes a walk over the installed ones, so not each
#: time that a driver is made.
VERSION = importlib.metadata.version('nova-arm-ext')

#: The trait of a host whose cores run 32-bit guests by KVM.
AARCH32_EL1 = 'CUSTOM_ARM_AARCH32_EL1'

#: Where Nova records a guest's machine, for `nova-manage libvirt` too.
_MACHINE = 'image_hw_machine_type'
#: What Nova asks for on Arm; the newest versioned one of the same name.
_MACHINE_ALIAS = 'virt'


class GuestNotAdjusted(exception.NovaException):
    """The pipeline failed for a guest; the API shows why."""

    msg_fmt = '%(reason)s'


class NoFreeRootPort(exception.NovaException):
    """A device was to be plugged in and there is no slot for it."""

    # Nova keeps 255 characters of it in the instance's action
    msg_fmt = ('All %(ports)d PCIe root ports of the guest are taken. A hard '
               'reboot leaves one free; a new guest gets more with the extra '
               'spec %(extra_spec)s, the image property %(property)s or '
               '%(option)s')


def _as_nova_has_it(method: Any) -> Any:
    """Give a public method the signature of Nova's own.

    Nova's tests compare it with ComputeDriver's, and the arguments are not
    the same in all releases.
    """
    novas = getattr(driver.LibvirtDriver, method.__name__, None)
    if novas is not None:         # else compute/seams.py tells of it
        method.__signature__ = inspect.signature(novas)
    return method


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Doing:
    """What Nova is doing to a guest.

    :param previous: the document that the guest had before
    :param existing: a hook that refuses does not stop it
    :param carried: the variable store that its image carries
    """

    event: Event
    previous: str | None = None
    existing: bool = False
    carried: nvram.Carried | None = None


@dataclasses.dataclass(kw_only=True, slots=True)
class _Undefined:
    """What is known of a guest that Nova undefines.

    :param removed: its disks are removed from this host
    :param guest: its document; None if libvirt has not had it, or if it is
        not an Arm guest
    """

    removed: bool
    guest: view.Domain | None = None


class ArmLibvirtDriver(driver.LibvirtDriver):
    """Nova's libvirt driver for compute hosts with Arm guests.

    Making one loads and checks the hooks and their options and asks libvirt
    nothing. Every document that Nova generates for an Arm guest passes
    through the hooks; guests of other architectures are left alone. The
    inventory of the host's PCI devices is taken in another way than Nova's.

    :raises ConfigurationError: with every fault of the set-up
    """

    def __init__(self, virtapi, read_only=False):
        self._arm_pipeline = pipeline.Pipeline.load(
            CONF, schema=schema.load,
            checks=(*opts.CHECKS, lambda conf: seams.check(ArmLibvirtDriver)))
        self._arm_record = provenance.Record(
            version=VERSION,
            options=provenance.digest(self._arm_pipeline))
        # (connection, facts): a new connection may lead to a newer libvirt
        self._arm_host_facts = None
        # by instance uuid, while it is done
        self._arm_doing = {}
        # uuids of guests that are rebuilt because their host is lost
        self._arm_evacuated = set()
        self._arm_undefined = {}
        self._arm_stores = nvram.Stores.load(CONF)
        self._arm_copied = time.monotonic()
        super().__init__(virtapi, read_only)
        self._arm_pci = pci.Inventory(
            arm_pci.Settings.load(CONF), self._host,
            lambda: CONF.pci.device_spec)

    def _get_guest_xml(self, context, instance, network_info, disk_info,
                       image_meta, *args, **kwargs):
        image_meta = self._arm_with_machine(instance, image_meta)
        xml = super()._get_guest_xml(context, instance, network_info,
                                     disk_info, image_meta, *args, **kwargs)
        doing = self._arm_doing.get(instance.uuid)
        try:
            return self._arm_pipeline.run(
                xml, lambda: self._arm_facts(instance, image_meta),
                existing=doing is not None and doing.existing,
                record=LOG.isEnabledFor(logging.DEBUG),
                finish=lambda domain, reports: provenance.write(
                    domain, self._arm_record.of(reports))).xml
        except errors.Refused as e:
            if e.this_host:
                # not InvalidInput, so that the scheduler tries another host
                raise GuestNotAdjusted(reason=str(e)) from e
            raise exception.InvalidInput(reason=str(e)) from e
        except errors.ArmExtError as e:
            raise GuestNotAdjusted(reason=str(e)) from e

    # -- A guest's life, and that of its variable store -----------------------

    @_as_nova_has_it
    def spawn(self, context, instance, image_meta, *args, **kwargs):
        event = Event.SPAWN
        if instance.task_state == task_states.REBUILD_SPAWNING:
            event = (Event.EVACUATE if instance.uuid in self._arm_evacuated
                     else Event.REBUILD)
        elif (instance.vm_state == vm_states.SHELVED_OFFLOADED
              or instance.task_state == task_states.RESIZE_FINISH):
            event = Event.UNSHELVE
        doing = _Doing(event=event, carried=(
            None if event is Event.EVACUATE
            else self._arm_store_in(context, instance, image_meta, event)))
        with self._arm_marked_as(instance, doing), \
                self._arm_forgetting_machine(instance):
            return super().spawn(context, instance, image_meta, *args,
                                 **kwargs)

    def _arm_store_in(self, context: Any, instance: Any, image_meta: Any,
                      event: Event) -> nvram.Carried | None:
        """The variable store that an image carries.

        Nova's own object of the image has no property that Nova does not
        know, and what it keeps with the instance ends at 255 characters.
        """
        if (not self._arm_stores.go_into_images
                or not image_meta.obj_attr_is_set('id')
                or self._check_emulation_arch(image_meta) not in view.ARM):
            return None
        properties = self._image_api.get(context, image_meta.id)['properties']
        try:
            return self._arm_stores.from_image(image_meta.id, properties)
        except nvram.StoreNotUsable as e:
            if (event is not Event.UNSHELVE
                    or not self._arm_stores.has_copy(instance.uuid)):
                raise
            LOG.warning('%s. The guest gets the copy in the store that '
                        '[arm_nvram] names', e, instance=instance)
            return None

    def _create_snapshot_metadata(self, image_meta, instance, *args,
                                  **kwargs):
        metadata = super()._create_snapshot_metadata(image_meta, instance,
                                                     *args, **kwargs)
        if self._arm_stores.go_into_images:
            guest = _arm_guest(self._arm_document(instance))
            value = None if guest is None else self._arm_stores.for_image(
                instance, guest,
                secure_boot=bool(self._arm_secure_boot_in(guest)))
            # of the image that this guest was made of Nova hands on the
            # beginning
            if value or f'image_{STORE_PROPERTY}' in instance.system_metadata:
                metadata['properties'][STORE_PROPERTY] = value or ''
        return metadata

    @_as_nova_has_it
    def rebuild(self, context, instance, *args, evacuate=False, **kwargs):
        # Nova's driver does not implement it: destroy and spawn follow, and
        # neither is told what it is for
        if evacuate:
            self._arm_evacuated.add(instance.uuid)
        else:
            self._arm_evacuated.discard(instance.uuid)
        return super().rebuild(context, instance, *args, evacuate=evacuate,
                               **kwargs)

    def _hard_reboot(self, context, instance, *args, **kwargs):
        self._arm_take_back(instance)
        with self._arm_keeping(instance, Event.HARD_REBOOT):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    def _arm_take_back(self, instance: Any) -> None:
        """End a revert that was cut off before this host had its files back.

        Nova makes the guest this host's again (_finish_revert_resize, 29 to
        34) before the driver gives its folder, disks and store, the name of
        before the migration.
        """
        folder = libvirt_utils.get_instance_path(instance)
        left = folder + '_resize'
        if (os.path.isdir(left)
                and not (os.path.exists(folder) and os.listdir(folder))
                and self._check_emulation_arch(
                    instance.image_meta) in view.ARM):
            os.rename(left, folder)
            LOG.warning('A revert to this host was cut off. The files of this '
                        'guest, disks and UEFI variables, are back from %s',
                        left, instance=instance)

    @_as_nova_has_it
    def reboot(self, context, instance, network_info, reboot_type, *args,
               **kwargs):
        if (reboot_type == 'SOFT' and self._check_emulation_arch(
                instance.image_meta) in view.ARM):
            document = self._arm_document(instance)
            guest = _arm_guest(document)
            if guest is not None and self._arm_stores.is_missing(guest):
                # libvirt starts the domain that it has, with a new store;
                # until then the guest has the file that was removed
                self._arm_before_start(
                    context, instance, guest,
                    _Doing(event=Event.HARD_REBOOT, previous=document))
        super().reboot(context, instance, network_info, reboot_type, *args,
                       **kwargs)

    @_as_nova_has_it
    def rescue(self, context, instance, *args, **kwargs):
        doing = _Doing(event=Event.RESCUE,
                       previous=self._arm_document(instance))
        with self._arm_marked_as(instance, doing):
            return super().rescue(context, instance, *args, **kwargs)

    @_as_nova_has_it
    def unrescue(self, context, instance):
        with self._arm_marked_as(instance, _Doing(event=Event.UNRESCUE)):
            return super().unrescue(context, instance)

    @_as_nova_has_it
    def migrate_disk_and_power_off(self, context, instance, dest, *args,
                                   **kwargs):
        document = self._arm_document(instance)
        guest = _arm_guest(document)
        if guest is not None:
            # better now than when the guest has been switched off
            self._arm_stores.check(guest)
        self._arm_record_machine(instance)
        disk_info = super().migrate_disk_and_power_off(
            context, instance, dest, *args, **kwargs)
        if document is not None and guest is not None:
            self._arm_send(instance, dest, guest, document)
        return disk_info

    def _arm_send(self, instance: Any, dest: str, guest: view.Domain,
                  document: str) -> None:
        """Let the store and the document follow the disks.

        Nova has renamed the instance directory by now. That there is one all
        the same means that it is shared with the destination, or that this
        host is the destination.

        :raises StoreNotUsable: when they cannot; the disks are back then
        """
        folder = libvirt_utils.get_instance_path(instance)
        left = folder + '_resize'
        is_shared = os.path.exists(folder)
        try:
            path = nvram.store_of(guest)
            if path is not None and nvram.is_inside(path, folder):
                path = os.path.join(left, os.path.basename(path))
            packed = self._arm_stores.pack(guest, path)
            try:
                for name in self._arm_stores.leave(instance.uuid, left,
                                                   packed, document):
                    libvirt_utils.copy_image(
                        os.path.join(left, name), os.path.join(folder, name),
                        host=None if is_shared else dest)
            finally:
                # where one lies, a store has arrived
                self._arm_stores.remove_packed(instance.uuid, left)
        except Exception as e:
            # as Nova does when a disk cannot be copied
            self._cleanup_remote_migration(
                None if is_shared else dest, folder, left, is_shared)
            # Nova shows the text of its own exceptions alone, the beginning:
            # of a command (ProcessExecutionError) what it said has to do
            raise nvram.StoreNotUsable(reason=(
                f'The UEFI variables could not be sent to {dest}, so the '
                f'guest stays on this host, switched off; reset its state and '
                f'reboot it hard, or migrate it again, when the cause is '
                f"gone: {getattr(e, 'stderr', None) or e}")) from e

    @_as_nova_has_it
    def finish_migration(self, context, migration, instance, *args,
                         **kwargs):
        folder = libvirt_utils.get_instance_path(instance)
        doing = _Doing(event=Event.ARRIVE,
                       previous=(self._arm_stores.document(folder)
                                 or self._arm_document(instance)))
        with self._arm_marked_as(instance, doing):
            result = super().finish_migration(context, migration, instance,
                                              *args, **kwargs)
        self._arm_stores.remove_document(folder)
        return result

    @_as_nova_has_it
    def finish_revert_migration(self, context, instance, *args, **kwargs):
        with self._arm_keeping(instance, Event.REVERT):
            result = super().finish_revert_migration(context, instance,
                                                     *args, **kwargs)
        self._arm_stores.remove_document(
            libvirt_utils.get_instance_path(instance))
        return result

    def _create_guest(self, context, xml, instance, *args, **kwargs):
        guest = _arm_guest(xml)
        doing = self._arm_doing.get(instance.uuid)
        if guest is not None and doing is not None:
            self._arm_before_start(context, instance, guest, doing)
        return super()._create_guest(context, xml, instance, *args, **kwargs)

    def _arm_before_start(self, context: Any, instance: Any,
                          guest: view.Domain, doing: _Doing) -> None:
        previous = _arm_guest(doing.previous)
        secure_boot = self._arm_secure_boot_in(guest)
        fate = self._arm_stores.before_start(
            doing.event, instance, libvirt_utils.get_instance_path(instance),
            guest,
            source=(nvram.store_of(previous)
                    if previous is not None and doing.event is Event.RESCUE
                    else None),
            carried=doing.carried,
            other_firmware=(
                doing.carried.secure_boot != bool(secure_boot)
                if doing.carried is not None else previous is not None
                and {self._arm_secure_boot_in(previous),
                     secure_boot} == {True, False}),
            # libvirt makes a store at the first start
            had=(doing.event in (Event.HARD_REBOOT, Event.UNRESCUE)
                 and instance.launched_at is not None
                 and (previous is None
                      or nvram.store_of(previous) is not None)),
            # Nova evacuates to a directory that it takes for a shared one
            of_other=not self.image_backend.backend(
                ).is_shared_block_storage())
        if fate is Fate.LOST:
            # for `openstack server event show`
            with compute_utils.EventReporter(
                    context, 'arm_nvram_lost', CONF.host, instance.uuid,
                    graceful_exit=True):
                pass

    @_as_nova_has_it
    def power_off(self, instance, *args, **kwargs):
        result = super().power_off(instance, *args, **kwargs)
        if self._arm_stores.has_store:
            guest = _arm_guest(self._arm_document(instance))
            if guest is not None:
                self._arm_save_copy(instance.uuid, guest)
        return result

    def _arm_save_copy(self, uuid: str, guest: view.Domain, *,
                       running: bool = False) -> None:
        try:
            self._arm_stores.save(uuid, guest, running=running)
        except Exception:
            # the guest has its own; whatever a third party's driver raises
            LOG.exception('[instance: %s] The UEFI variables could not be '
                          'copied to the store that [arm_nvram] names', uuid)

    def _arm_copy_of_running(self) -> None:
        """Copy the stores of all running guests, if it is time to."""
        interval = CONF.arm_nvram.copy_interval
        now = time.monotonic()
        if (not self._arm_stores.has_store or not interval
                or now - self._arm_copied < interval):
            return
        self._arm_copied = now
        for running in self._host.list_guests():
            guest = _arm_guest(running.get_xml_desc())
            if guest is not None:
                self._arm_save_copy(running.uuid, guest, running=True)

    @_as_nova_has_it
    def destroy(self, context, instance, network_info,
                block_device_info=None, destroy_disks=True, *args, **kwargs):
        if destroy_disks and instance.task_state in (
                task_states.SHELVING_OFFLOADING, task_states.REBUILDING):
            guest = _arm_guest(self._arm_document(instance))
            if guest is not None:
                self._arm_before_removal(instance, guest)
        super().destroy(context, instance, network_info, block_device_info,
                        destroy_disks, *args, **kwargs)

    def _cleanup(self, context, instance, *args, **kwargs):
        doing = self._arm_doing.get(instance.uuid)
        if (doing is not None
                and doing.event in (Event.HARD_REBOOT, Event.ARRIVE)
                and _arm_guest(doing.previous) is not None):
            # [workarounds] ensure_libvirt_rbd_instance_dir_cleanup is for
            # hosts that a guest leaves, and strikes on a hard reboot too
            kwargs['cleanup_instance_dir'] = False
        removed = kwargs.get('cleanup_instance_disks', False)
        undefined = self._arm_undefined[instance.uuid] = _Undefined(
            removed=removed)
        try:
            super()._cleanup(context, instance, *args, **kwargs)
        finally:
            del self._arm_undefined[instance.uuid]
        if doing is None:
            self._arm_after_cleanup(instance, undefined.guest, removed)

    def _arm_before_removal(self, instance: Any, guest: view.Domain) -> None:
        """Save what is needed again of a guest whose files go."""
        if instance.task_state == task_states.SHELVING_OFFLOADING:
            if self._arm_stores.has_store:
                # without a copy it is not offloaded
                self._arm_stores.save(instance.uuid, guest)
            else:
                LOG.warning(
                    'The UEFI variables of this guest are lost with '
                    'offloading it: [arm_nvram] store names no store for '
                    'copies', instance=instance)
        elif instance.task_state == task_states.REBUILDING:
            self._arm_stores.before_rebuild(
                instance.uuid, guest, on_rebuild(
                    CONF.arm_nvram.on_rebuild,
                    gather.image_properties(instance)))

    def _arm_after_cleanup(self, instance: Any, guest: view.Domain | None,
                           removed: bool) -> None:
        """Let nothing of a guest stay behind that is not here any more.

        :param guest: the guest that was undefined
        """
        if guest is not None and self._arm_is_leaving(instance):
            self._arm_stores.forget(
                instance.uuid, libvirt_utils.get_instance_path(instance),
                own_only=instance.task_state != task_states.RESIZE_REVERTING)
            removed = True
        if (guest is not None and removed
                and not self.instance_exists(instance)):
            # that of a rescued guest's own system is not in the document;
            # libvirt older than 9.2 does not name a stopped guest's
            self._arm_stores.remove_from_libvirt(guest.name or '')
        if removed and self._arm_stores.may_have_copies(instance.uuid) and (
                instance.task_state == task_states.DELETING
                or instance.vm_state in (vm_states.SOFT_DELETED,
                                         vm_states.DELETED)):
            self._arm_stores.remove_copies(instance.uuid)

    @staticmethod
    def _arm_is_leaving(instance: Any) -> bool:
        """Whether a guest that is undefined here goes on elsewhere."""
        if instance.task_state == task_states.RESIZE_REVERTING:
            # there is one where it goes back to, which may be this host
            return not os.path.exists(
                libvirt_utils.get_instance_path(instance) + '_resize')
        return instance.host not in (None, CONF.host)

    def _undefine_domain(self, instance, *args, **kwargs):
        # what becomes of the store is decided with the document in hand
        nova_driver = copy.copy(self)
        nova_driver._host = _HostOfStores(
            self._host, functools.partial(self._arm_undefine, instance))
        return super(ArmLibvirtDriver, nova_driver)._undefine_domain(
            instance, *args, **kwargs)

    def _arm_undefine(self, instance: Any, guest: view.Domain) -> bool:
        """Whether a guest that is undefined now keeps its store."""
        undefined = self._arm_undefined.get(instance.uuid)
        if undefined is not None:
            undefined.guest = guest
        path = nvram.store_of(guest)
        return path is not None and undefine_keeps(
            inside=nvram.is_inside(
                path, libvirt_utils.get_instance_path(instance)),
            removed=undefined is None or undefined.removed,
            leaving=(instance.uuid not in self._arm_doing
                     and self._arm_is_leaving(instance)))

    def _live_snapshot(self, *args, **kwargs):
        return super()._live_snapshot(*map(_keeping_store, args), **kwargs)

    def _swap_volume(self, *args, **kwargs):
        return super()._swap_volume(*map(_keeping_store, args), **kwargs)

    @_as_nova_has_it
    def post_live_migration_at_source(self, context, instance, *args,
                                      **kwargs):
        super().post_live_migration_at_source(context, instance, *args,
                                              **kwargs)
        self._arm_after_live_migration(instance)

    @_as_nova_has_it
    def rollback_live_migration_at_destination(self, context, instance,
                                               *args, **kwargs):
        try:
            super().rollback_live_migration_at_destination(
                context, instance, *args, **kwargs)
        finally:
            self._arm_after_live_migration(instance)

    def _arm_after_live_migration(self, instance: Any) -> None:
        """Remove the store from libvirt's folder: libvirt leaves it there.

        One in the instance directory goes with that, or is shared.
        """
        if (self._arm_stores.lies_in_libvirt(instance.name)
                and self._check_emulation_arch(
                    instance.image_meta) in view.ARM
                and not self.instance_exists(instance)):
            self._arm_stores.remove_from_libvirt(instance.name)

    @_as_nova_has_it
    def post_live_migration_at_destination(self, context, instance, *args,
                                           **kwargs):
        super().post_live_migration_at_destination(context, instance, *args,
                                                   **kwargs)
        guest = _arm_guest(self._arm_document(instance))
        path = None if guest is None else nvram.store_of(guest)
        folder = libvirt_utils.get_instance_path(instance)
        if path is not None and nvram.is_inside(path, folder):
            self._arm_stores.mark(instance.uuid, folder)

    def _check_secure_boot_support(self, arch, *args, **kwargs):
        if arch not in view.ARM:
            return super()._check_secure_boot_support(arch, *args, **kwargs)
        # only who has UEFI asks
        return self._arm_has_secure_boot(arch)

    def _update_host_specific_capabilities(self):
        super()._update_host_specific_capabilities()
        arch = self._arm_host_arch()
        if arch in view.ARM:
            # the trait COMPUTE_SECURITY_UEFI_SECURE_BOOT
            self.capabilities['supports_secure_boot'] = (
                self._arm_has_secure_boot(arch))

    def _arm_secure_boot_in(self, guest: view.Domain) -> bool | None:
        """Whether a guest's firmware is for Secure Boot, where that is known.
        """
        has = firmware.Os.of(guest)
        return next((one.secure_boot for one in self._arm_host().firmware or ()
                     if one.loader == has.loader), has.feature('secure-boot'))

    def _arm_has_secure_boot(self, arch: str) -> bool:
        """Whether the host has firmware for Secure Boot, with keys.

        Nova asks libvirt whether loader/@secure may be "yes", which stands
        for SMM, and which no Arm machine has.
        """
        return any(one.arch == arch and one.secure_boot and one.enrolled_keys
                   for one in self._arm_host().firmware or ())

    def _configure_guest_by_virt_type(self, guest, instance, image_meta,
                                      flavor, *args, **kwargs):
        nova_driver = self
        arch = self._check_emulation_arch(image_meta)
        if arch in view.ARM and arch != self._arm_host_arch():
            # Nova asks for firmware of the host's own architecture, which
            # this guest does not use (Host.supports_uefi, 29 to 34)
            loaders = [f for f in self._arm_host().firmware or ()
                       if f.arch == arch]
            if loaders:
                nova_driver = copy.copy(self)
                nova_driver._host = _HostWithUefi(self._host, loaders)
        return super(ArmLibvirtDriver,
                     nova_driver)._configure_guest_by_virt_type(
            guest, instance, image_meta, flavor, *args, **kwargs)

    def _arm_with_machine(self, instance: Any, image_meta: Any) -> Any:
        """The image, asking for the versioned machine that the guest keeps.

        Nova records the machine in the instance's system_metadata when it
        makes a guest, and reads it there ever after: the alias ``virt``, which
        is another machine with every release of QEMU. What is recorded is
        the machine that libvirt gave a guest that exists, and for a new one
        that for which the alias stands now.
        """
        arch = self._check_emulation_arch(image_meta)
        if arch not in view.ARM:
            return image_meta
        if libvirt_utils.get_machine_type(image_meta) != _MACHINE_ALIAS:
            return image_meta
        machine = self._arm_machine(instance, arch) or _MACHINE_ALIAS
        try:
            machine = self._host.get_canonical_machine_type(arch, machine)
        except exception.InternalError:
            # libvirt does not say, or QEMU no longer has it: then nothing
            # keeps the guest on it
            LOG.warning('QEMU on this host does not have the machine %s',
                        machine, instance=instance)
            return image_meta
        image_meta = image_meta.obj_clone()
        image_meta.properties.hw_machine_type = machine
        instance.system_metadata[_MACHINE] = machine
        return image_meta

    def _arm_machine(self, instance: Any, arch: str) -> str | None:
        """The versioned machine of a guest that exists."""
        recorded = instance.system_metadata.get(_MACHINE) or ''
        if recorded.startswith(f'{_MACHINE_ALIAS}-'):
            return recorded
        doing = self._arm_doing.get(instance.uuid)
        guest = _arm_guest(self._arm_document(instance) if doing is None
                           else doing.previous)
        machine = None if guest is None or guest.arch != arch else (
            guest.machine)
        return machine if (machine or '').startswith(
            f'{_MACHINE_ALIAS}-') else None

    @contextlib.contextmanager
    def _arm_forgetting_machine(self, instance: Any) -> Iterator[None]:
        """Leave recorded what was, if no guest was made."""
        recorded = instance.system_metadata.get(_MACHINE)
        try:
            yield
        except Exception:
            # the next host may have another QEMU
            if recorded is None:
                instance.system_metadata.pop(_MACHINE, None)
            else:
                instance.system_metadata[_MACHINE] = recorded
            raise

    def _arm_record_machine(self, instance: Any) -> None:
        """Record the machine of a guest whose document stays behind."""
        if instance.system_metadata.get(_MACHINE) == _MACHINE_ALIAS:
            machine = self._arm_machine(
                instance, self._check_emulation_arch(instance.image_meta))
            if machine is not None:
                instance.system_metadata[_MACHINE] = machine

    @_as_nova_has_it
    def attach_volume(self, context, connection_info, instance, *args,
                      **kwargs):
        with self._arm_telling_of_ports(instance):
            super().attach_volume(context, connection_info, instance, *args,
                                  **kwargs)
        self._arm_keep_plugged(instance)

    @_as_nova_has_it
    def attach_interface(self, context, instance, *args, **kwargs):
        with self._arm_telling_of_ports(instance):
            super().attach_interface(context, instance, *args, **kwargs)
        self._arm_keep_plugged(instance)

    @_as_nova_has_it
    def detach_volume(self, context, connection_info, instance, mountpoint,
                      *args, **kwargs):
        name = mountpoint.rpartition('/')[2]
        self._arm_check_unplugging(
            instance, name, lambda device: isinstance(device, devices.Disk)
            and device.dev == name)
        super().detach_volume(context, connection_info, instance, mountpoint,
                              *args, **kwargs)

    @_as_nova_has_it
    def detach_interface(self, context, instance, vif):
        mac = vif['address'].lower()
        self._arm_check_unplugging(
            instance, mac, lambda device: isinstance(
                device, devices.Interface) and device.mac == mac)
        super().detach_interface(context, instance, vif)

    @contextlib.contextmanager
    def _arm_telling_of_ports(self, instance: Any) -> Iterator[None]:
        """Say what can be done when no PCIe slot is left for a device.

        libvirt's own "internal error: No more available PCI slots" does not
        reach the user: of foreign exceptions Nova shows the class alone.
        """
        try:
            yield
        except Exception as e:
            if not _no_slot_is_left(e):
                raise
            document = self._arm_document(instance)
            guest = None if document is None else view.Domain.parse(document)
            if guest is None or not guest.is_arm:
                raise
            raise NoFreeRootPort(
                ports=len(pcie.root_ports(guest)),
                option=pcie_root_ports.OPTION,
                extra_spec=pcie_root_ports.EXTRA_SPEC,
                property=pcie_root_ports.IMAGE_PROPERTY) from e

    def _arm_check_unplugging(self, instance: Any, name: str,
                              is_it: Callable[[devices.Device], bool]) -> None:
        """Say no before Nova takes a device apart that QEMU cannot unplug.

        Nova removes it from the stored document and, an interface, from the
        host's network first, and then meets QEMU's refusal ("Bus
        'virtio-mmio-bus.31' does not support hotplugging").

        :raises DeviceDetachFailed: for a device on virtio-mmio of a guest
            that runs
        """
        guest = self._arm_running(instance)
        if guest is None:
            return
        for device in devices.addressed(guest):
            address = device.address
            if (address is not None and address.is_virtio_mmio
                    and is_it(device)):
                raise exception.DeviceDetachFailed(
                    device=name, reason='it is on virtio-mmio, which devices '
                    'cannot leave while the guest runs; stop the guest first')

    def _arm_keep_plugged(self, instance: Any) -> None:
        """Keep a device that was plugged in where the guest has seen it.

        libvirt puts it on PCI in the running guest, and in the stored
        document on virtio-mmio where others are, so that it would move at
        the next start (9.0.0).
        """
        try:
            guest = self._arm_running(instance)
            if guest is None or not guest.has_virtio_mmio:
                return
            stored = view.Domain.parse(
                self._host.get_guest(instance).get_xml_desc(
                    dump_inactive=True, dump_sensitive=True))
            if previous.keep_plugged(stored, guest):
                self._host.write_instance_config(stored.to_xml())
        except Exception:
            # the guest has the device, which is what was asked for
            LOG.exception('A device that was plugged in will be elsewhere '
                          'when the guest is started anew', instance=instance)

    def _arm_running(self, instance: Any) -> view.Domain | None:
        """The document of an Arm guest that runs.

        libvirt is not asked about guests of other architectures.
        """
        if self._check_emulation_arch(instance.image_meta) not in view.ARM:
            return None
        document = self._arm_document(instance)
        guest = None if document is None else view.Domain.parse(document)
        # libvirt numbers those that run
        if (guest is None or not guest.is_arm
                or guest.element.get('id') is None):
            return None
        return guest

    def _get_instance_capabilities(self):
        # libvirt offers KVM for armv7l on every AArch64 host, also where the
        # cores cannot (virQEMUCapsInitGuestFromBinary)
        offered = super()._get_instance_capabilities()
        doubtful = [one for one in offered if one[:2] == ('armv7l', 'kvm')]
        if (not doubtful or self._arm_host_arch() != 'aarch64'
                or self._arm_runs_armv7()):
            return offered
        return [one for one in offered if one not in doubtful]

    @_as_nova_has_it
    def update_provider_tree(self, provider_tree, nodename, *args, **kwargs):
        super().update_provider_tree(provider_tree, nodename, *args, **kwargs)
        # called once a minute
        self._arm_copy_of_running()
        if (self._arm_host_arch() == 'aarch64'
                and self._arm_host().aarch32_el1):
            provider_tree.add_traits(nodename, AARCH32_EL1)
        else:
            # also where it is unknown: nobody may count on it
            provider_tree.remove_traits(nodename, AARCH32_EL1)
        wanted = self._arm_cpu_traits()
        provider_tree.remove_traits(nodename, *(
            trait for trait in provider_tree.data(nodename).traits
            if arm_cpu.is_ours(trait) and trait not in wanted))
        provider_tree.add_traits(nodename, *wanted)

    def _arm_cpu_traits(self) -> frozenset[str]:
        """The traits of the CPU that guests with KVM have here."""
        if (self._arm_host_arch() != 'aarch64' or 'kvm' not in (
                self._arm_host().virt_types or {}).get('aarch64', ())):
            return frozenset()
        return arm_cpu.traits(self._arm_host().cpu or arm_cpu.Cpu(),
                              os_traits.get_traits('HW_CPU_AARCH64_'))

    def _get_cpu_info(self):
        cpu_info = super()._get_cpu_info()
        if self._arm_host_arch() == 'aarch64':
            cpu.tell(cpu_info, self._arm_host().cpu or arm_cpu.Cpu())
        return cpu_info

    def _check_cpu_compatibility(self):
        super()._check_cpu_compatibility()
        mode = CONF.libvirt.cpu_mode
        if (mode not in (None, 'none') and self._arm_kvm_on_arm()
                and not CONF.workarounds.skip_cpu_compare_at_startup):
            offered = cpu.offered_modes(self._host.get_connection())
            if offered is not None and mode not in offered:
                raise exception.InvalidCPUInfo(reason=(
                    f'[libvirt] cpu_mode is {mode}, and libvirt supports '
                    f'{", ".join(sorted(offered)) or "none"} for AArch64 '
                    f'guests with KVM on this host'))

    def _compare_cpu(self, guest_cpu, host_cpu_str, instance):
        if not self._arm_kvm_on_arm():
            return super()._compare_cpu(guest_cpu, host_cpu_str, instance)
        # libvirt compares no CPUs on Arm (virConnectCompareHypervisorCPU,
        # VIR_ERR_OPERATION_UNSUPPORTED). Hosts are compared before a live
        # migration, by check_can_live_migrate_destination; what is left is
        # the check of [libvirt] cpu_models when nova-compute starts.
        if instance is None:
            offered = cpu.offered_modes(self._host.get_connection())
            if offered is not None and guest_cpu.model not in offered.get(
                    'custom', ()):
                raise exception.InvalidCPUInfo(reason=(
                    f'libvirt does not offer the CPU model '
                    f'{guest_cpu.model} for AArch64 guests with KVM on this '
                    f'host; guests get its own CPU without [libvirt] '
                    f'cpu_mode'))
        return None

    @_as_nova_has_it
    def check_can_live_migrate_destination(self, context, instance,
                                           src_compute_info, *args,
                                           **kwargs):
        reason = self._arm_why_not_here(instance, src_compute_info)
        if reason:
            raise exception.MigrationPreCheckError(reason=reason)
        return super().check_can_live_migrate_destination(
            context, instance, src_compute_info, *args, **kwargs)

    def _arm_why_not_here(self, instance: Any, source: Any) -> str | None:
        """What would fail if a guest were migrated live to this host.

        :param source: fields of the source's compute node
        """
        arch = self._check_emulation_arch(instance.image_meta)
        if arch not in view.ARM:
            return None
        machine = instance.system_metadata.get(_MACHINE) or ''
        if machine.startswith(f'{_MACHINE_ALIAS}-'):
            try:
                self._host.get_canonical_machine_type(arch, machine)
            except exception.InternalError:
                return (f'the guest has the machine {machine}, which QEMU on '
                        f'this host does not have')
        host = self._arm_host()
        firmware = instance.image_meta.properties.get('hw_firmware_type')
        if ((firmware or ('uefi' if arch == 'aarch64' else None)) == 'uefi'
                and not instance.kernel_id and host.firmware is not None
                and arch not in {one.arch for one in host.firmware}):
            return f'this host has no UEFI firmware for {arch} guests'
        told = cpu.told(source['cpu_info'])
        if not self._arm_kvm_on_arm() or (arch == 'armv7l'
                                          and told.aarch32_el1 is False):
            return None      # emulated
        return cpu.why_not(told, host.cpu or arm_cpu.Cpu(),
                           CONF.arm_cpu.compare, instance)

    def _arm_kvm_on_arm(self) -> bool:
        return (CONF.libvirt.virt_type == 'kvm'
                and self._arm_host_arch() == 'aarch64')

    def _arm_runs_armv7(self) -> bool:
        """Whether new armv7l guests get KVM here."""
        host = self._arm_host()
        return (host.aarch32_el1 is True
                and 'kvm' in (host.virt_types or {}).get('armv7l', ())
                and 'armv7' in self._arm_pipeline.hooks
                and CONF.arm_armv7.accel != 'tcg')

    def _get_pci_passthrough_devices(self):
        return self._arm_pci.json()

    # Nova 34 caches its own, and its tests clear that cache
    _get_pci_passthrough_devices.cache_clear = (  # type: ignore[attr-defined]
        pci.Inventory.forget_all)

    @contextlib.contextmanager
    def _arm_marked_as(self, instance: Any, doing: _Doing) -> Iterator[None]:
        """Have it known what is being done to a guest."""
        self._arm_doing[instance.uuid] = doing
        try:
            yield
        finally:
            del self._arm_doing[instance.uuid]

    @contextlib.contextmanager
    def _arm_keeping(self, instance: Any, event: Event) -> Iterator[None]:
        """Record a guest's document, and define it again if all goes wrong.

        Nova destroys and undefines a guest before it makes the new document
        (_hard_reboot, 29 to 34), so a failure in between would leave nothing
        of it: no slots, no path of its variable store. For the case that
        this process ends in between, the document lies on disk meanwhile.

        A migration to this host that was cut off before the guest started
        ends with a hard reboot.
        """
        recorded = self._arm_document(instance)
        folder = libvirt_utils.get_instance_path(instance)
        on_disk = False
        if (event is Event.HARD_REBOOT
                and self._arm_stores.has_arrived(instance.uuid, folder)):
            event = Event.ARRIVE
            recorded = self._arm_stores.document(folder) or recorded
            on_disk = True
        elif recorded is None:
            # a reboot that was cut off; a resize on this very host, which
            # Nova undefines before it reverts it
            recorded = self._arm_stores.document(
                folder if event is Event.HARD_REBOOT else folder + '_resize')
        elif (event is Event.HARD_REBOOT and os.path.isdir(folder)
                and _arm_guest(recorded) is not None):
            try:
                self._arm_stores.write_document(folder, recorded)
                on_disk = True
            except OSError as e:
                # a reboot needs no free space otherwise
                LOG.warning("The guest's document is not saved while Nova "
                            'defines it anew: %s', e, instance=instance)
        try:
            with self._arm_marked_as(instance, _Doing(
                    event=event, previous=recorded, existing=True)):
                yield
        except Exception:
            if recorded is not None:
                self._arm_define_again(instance, recorded)
            raise
        if on_disk:
            self._arm_stores.remove_document(folder)

    def _arm_document(self, instance: Any) -> str | None:
        """The document of a guest as libvirt has it now."""
        try:
            return self._host.get_guest(instance).get_xml_desc()
        except exception.InstanceNotFound:
            return None

    def _arm_is_defined(self, instance: Any) -> bool:
        """Whether libvirt will know of a guest when its QEMU has ended.

        When nova-compute was killed at the beginning of a migration, Nova
        starts the guest anew although it runs, and undefines it as that fails
        (_create_guest_with_network, 29 to 34).
        """
        try:
            return bool(self._host.get_guest(
                instance).has_persistent_configuration())
        except exception.InstanceNotFound:
            return False

    def _arm_define_again(self, instance: Any, recorded: str) -> None:
        """Put a guest's recorded document back if Nova has left none."""
        try:
            if (not self._arm_is_defined(instance)
                    and view.Domain.parse(recorded).is_arm):
                self._host.write_instance_config(recorded)
                LOG.warning(
                    'The guest could not be defined anew, so its previous '
                    'domain is defined again; start it when the cause is '
                    'gone', instance=instance)
        except Exception:
            # the caller raises what went wrong first; this is told here,
            # with the document, so that nothing is lost
            LOG.exception(
                'The previous domain could not be defined again either. It '
                'was:\n%s', recorded, instance=instance)

    def _arm_facts(self, instance: Any, image_meta: Any) -> facts.Facts:
        doing = self._arm_doing.get(instance.uuid)
        # a resize on one host: the domain is still there
        had = (self._arm_document(instance) if doing is None
               else doing.previous)
        return facts.Facts(
            host=self._arm_host(),
            guest=gather.guest(
                instance, image_meta, had,
                self._get_guest_config_sysinfo(instance),
                None if doing is None
                else self._arm_store_path(instance, doing),
                self._arm_loader_is_gone(instance, _arm_guest(had))))

    def _arm_loader_is_gone(self, instance: Any, had: view.Domain | None
                            ) -> bool | None:
        loader = None if had is None else firmware.Os.of(had).loader
        if not loader:
            return None
        gone = gather.loader_is_gone(loader, self._arm_host().firmware)
        if gone:
            LOG.warning(
                "The guest's firmware %s is not on this host any more. A "
                'firmware with the same features takes its place, if there is '
                'one; the INFO line of this guest names it',
                loader, instance=instance)
        return gone

    def _arm_store_path(self, instance: Any, doing: _Doing) -> str | None:
        had = _arm_guest(doing.previous)
        return nvram.path_for(
            doing.event, instance.uuid,
            libvirt_utils.get_instance_path(instance),
            None if had is None else nvram.store_of(had),
            is_new=had is None,
            is_here=(doing.event is Event.ARRIVE
                     and self.instance_exists(instance)))

    def _arm_host(self) -> facts.Host:
        """Facts about the host, gathered when they are first needed."""
        connection = self._host.get_connection()
        if (self._arm_host_facts is None
                or self._arm_host_facts[0] is not connection):
            host = gather.host(connection)
            if CONF.libvirt.virt_type == 'qemu' and host.virt_types:
                # whoever writes that wants no KVM, whatever libvirt offers
                host = dataclasses.replace(host, virt_types={
                    arch: tuple(kind for kind in kinds if kind != 'kvm')
                    for arch, kinds in host.virt_types.items()})
            self._arm_host_facts = (connection, host)
        return self._arm_host_facts[1]

    def _arm_host_arch(self) -> str:
        return self._host.get_capabilities().host.cpu.arch


class _HostWithUefi:
    """Nova's Host object, but for its answers about UEFI."""

    supports_uefi = True

    def __init__(self, host: Any, firmware: list[facts.Firmware]) -> None:
        self._host = host
        self._firmware = firmware

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def get_loader(self, arch: str, machine: str,
                   has_secure_boot: bool) -> tuple[str, str, bool]:
        """The loader, its template and whether it needs SMM.

        Nova 29 to 32 ask it. Theirs compares libvirt's name of the
        architecture with the descriptors', and armv7l is "arm" there.

        :raises UEFINotSupported: as Nova's own does
        """
        for one in self._firmware:
            if one.secure_boot == has_secure_boot:
                return one.loader, one.template, False
        raise exception.UEFINotSupported()


#: Whether Nova can undefine a guest without its variable store going too.
_NOVA_KEEPS = 'keep_nvram' in inspect.signature(
    libvirt_guest.Guest.delete_configuration).parameters


class _GuestOfStore:
    """Nova's Guest object, but for what becomes of its store when it is
    undefined.

    Nova 29 to 31.2 and 32.1 remove the file whatever it is for, beneath a
    running guest too (_live_snapshot, _swap_volume); later ones keep it when
    the guest is about to leave, and remove it on shared storage.

    :param keeps: tells, of an Arm guest, whether the store is kept
    """

    def __init__(self, guest: Any,
                 keeps: Callable[[view.Domain], bool]) -> None:
        self._guest = guest
        self._keeps = keeps
        self._document: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def get_xml_desc(self, *args, **kwargs):
        self._document = self._guest.get_xml_desc(*args, **kwargs)
        return self._document

    def delete_configuration(self, *args, **kwargs):
        guest = _arm_guest(self._document or self.get_xml_desc())
        if guest is None:
            return self._guest.delete_configuration(*args, **kwargs)
        keeps = self._keeps(guest)
        if _NOVA_KEEPS:
            return self._guest.delete_configuration(
                *args, **{**kwargs, 'keep_nvram': keeps})
        if not keeps:
            return self._guest.delete_configuration()
        return self._guest._domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


class _HostOfStores:
    """Nova's Host object, but for the guests that it gives."""

    def __init__(self, host: Any,
                 keeps: Callable[[view.Domain], bool]) -> None:
        self._host = host
        self._keeps = keeps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def get_guest(self, instance: Any) -> Any:
        return _GuestOfStore(self._host.get_guest(instance), self._keeps)


def _keeping_store(argument: Any) -> Any:
    """The argument; if it is a guest, one that keeps its store."""
    if not _NOVA_KEEPS and isinstance(argument, libvirt_guest.Guest):
        return _GuestOfStore(argument, lambda guest: True)
    return argument


def _arm_guest(document: str | None) -> view.Domain | None:
    """A document, parsed, if it is an Arm guest's."""
    if not isinstance(document, str) or not any(
            arch in document for arch in view.ARM):
        return None
    guest = view.Domain.parse(document)
    return guest if guest.is_arm else None


def _no_slot_is_left(error: BaseException) -> bool:
    """Whether this, or what it came from, is libvirt out of PCI slots."""
    found: BaseException | None = error
    while found is not None:
        # virDomainPCIAddressGetNextAddr (libvirt 8 to 12); its code is that
        # of every internal error
        if 'No more available PCI slots' in str(found):
            return True
        found = found.__cause__ or found.__context__
    return False
