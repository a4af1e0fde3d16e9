# SPDX-License-Identifier: Apache-2.0
"""ArmLibvirtDriver: Nova's libvirt driver with the hooks in its XML."""

import contextlib
import copy
import dataclasses
import inspect
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import nova.conf
import os_traits
from nova import exception
from nova.virt.libvirt import driver
from nova.virt.libvirt import utils
from oslo_log import log as logging

from nova_arm_ext import cpu as arm_cpu
from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import opts
from nova_arm_ext import pci as arm_pci
from nova_arm_ext import pipeline
from nova_arm_ext.compute import cpu
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import pci
from nova_arm_ext.compute import schema
from nova_arm_ext.compute import seams
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import pcie_root_ports

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF

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
        # (connection, facts): a new connection may lead to a newer libvirt
        self._arm_host_facts = None
        # instance uuid to the document that the guest had, while Nova
        # redefines it
        self._arm_previous = {}
        super().__init__(virtapi, read_only)
        self._arm_pci = pci.Inventory(
            arm_pci.Settings.load(CONF), self._host,
            lambda: CONF.pci.device_spec)

    def _get_guest_xml(self, context, instance, network_info, disk_info,
                       image_meta, *args, **kwargs):
        xml = super()._get_guest_xml(context, instance, network_info,
                                     disk_info, image_meta, *args, **kwargs)
        existing = instance.uuid in self._arm_previous
        try:
            return self._arm_pipeline.run(
                xml, lambda: self._arm_facts(instance, image_meta),
                existing=existing,
                record=LOG.isEnabledFor(logging.DEBUG)).xml
        except errors.Refused as e:
            if e.this_host:
                # not InvalidInput, so that the scheduler tries another host
                raise GuestNotAdjusted(reason=str(e)) from e
            raise exception.InvalidInput(reason=str(e)) from e
        except errors.ArmExtError as e:
            raise GuestNotAdjusted(reason=str(e)) from e

    def _hard_reboot(self, context, instance, *args, **kwargs):
        with self._arm_keeping(instance):
            return super()._hard_reboot(context, instance, *args, **kwargs)

    @_as_nova_has_it
    def finish_revert_migration(self, context, instance, *args, **kwargs):
        with self._arm_keeping(instance):
            return super().finish_revert_migration(context, instance, *args,
                                                   **kwargs)

    def _configure_guest_by_virt_type(self, guest, instance, image_meta,
                                      flavor, *args, **kwargs):
        nova_driver = self
        image_meta = self._arm_with_machine(instance, image_meta)
        arch = self._check_emulation_arch(image_meta)
        if arch in view.ARM and arch != self._arm_host_arch():
            # Nova asks for firmware of the host's own architecture, which
            # this guest does not use (Host.supports_uefi, 29 to 34)
            firmware = [f for f in self._arm_host().firmware or ()
                        if f.arch == arch]
            if firmware:
                nova_driver = copy.copy(self)
                nova_driver._host = _HostWithUefi(self._host, firmware)
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
        if (arch not in view.ARM
                or utils.get_machine_type(image_meta) != _MACHINE_ALIAS):
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
        if instance.uuid in self._arm_previous:
            document = self._arm_previous[instance.uuid]
        else:
            document = self._arm_document(instance)
        guest = None if document is None else view.Domain.parse(document)
        machine = None if guest is None or guest.arch != arch else (
            guest.machine)
        return machine if (machine or '').startswith(
            f'{_MACHINE_ALIAS}-') else None

    @_as_nova_has_it
    def spawn(self, context, instance, *args, **kwargs):
        recorded = instance.system_metadata.get(_MACHINE)
        try:
            return super().spawn(context, instance, *args, **kwargs)
        except Exception:
            # the next host may have another QEMU
            if recorded is None:
                instance.system_metadata.pop(_MACHINE, None)
            else:
                instance.system_metadata[_MACHINE] = recorded
            raise

    @_as_nova_has_it
    def migrate_disk_and_power_off(self, context, instance, *args, **kwargs):
        # the destination has no document of the guest
        if instance.system_metadata.get(_MACHINE) == _MACHINE_ALIAS:
            machine = self._arm_machine(
                instance, self._check_emulation_arch(instance.image_meta))
            if machine is not None:
                instance.system_metadata[_MACHINE] = machine
        return super().migrate_disk_and_power_off(context, instance, *args,
                                                  **kwargs)

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
    def _arm_keeping(self, instance: Any) -> Iterator[None]:
        """Record a guest's document, and define it again if all goes wrong.

        Nova destroys and undefines a guest before it makes the new document
        (_hard_reboot, 29 to 34), so a failure in between would leave nothing
        of it: no slots, no path of its variable store.
        """
        recorded = self._arm_document(instance)
        self._arm_previous[instance.uuid] = recorded
        try:
            yield
        except Exception:
            if recorded is not None:
                self._arm_define_again(instance, recorded)
            raise
        finally:
            del self._arm_previous[instance.uuid]

    def _arm_document(self, instance: Any) -> str | None:
        """The document of a guest as libvirt has it now."""
        try:
            return self._host.get_guest(instance).get_xml_desc()
        except exception.InstanceNotFound:
            return None

    def _arm_define_again(self, instance: Any, recorded: str) -> None:
        """Put a guest's recorded document back if Nova has left none."""
        try:
            if (self._arm_document(instance) is None
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
        if instance.uuid in self._arm_previous:
            had = self._arm_previous[instance.uuid]
        else:
            # resize on one host, rescue: the domain is still there
            had = self._arm_document(instance)
        return facts.Facts(
            host=self._arm_host(),
            guest=gather.guest(instance, image_meta, had,
                               self._get_guest_config_sysinfo(instance)))

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
