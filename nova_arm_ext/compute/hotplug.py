# SPDX-License-Identifier: Apache-2.0
"""Attaching devices to running guests, and detaching them."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from nova import exception
from oslo_concurrency import lockutils

from nova_arm_ext.compute import definition
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import pcie
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import pcie_root_ports


class NoFreeRootPort(exception.NovaException):
    """There is no free PCIe root port for a device."""

    # Nova keeps 255 characters of it in the instance's action
    msg_fmt = ('All %(ports)d PCIe root ports of the instance are in use. '
               'After a hard reboot one is free; a new instance gets more '
               'with the extra spec %(extra_spec)s, the image property '
               '%(property)s or %(option)s')


class Hotplug:
    """What the driver adds to Nova's attaching and detaching.

    :param host: Nova's Host object
    """

    def __init__(self, host: Any,
                 definitions: definition.Definitions) -> None:
        self._host = host
        self._definitions = definitions

    @contextlib.contextmanager
    def changing(self, instance: Any) -> Iterator[None]:
        """Have one change of an Arm guest's devices at a time.

        Nova attaches volumes and interfaces under different locks. A stored
        XML that is written here while libvirt changes it would lose a device.
        """
        is_arm = False
        with extra('Asking for the architecture', instance):
            is_arm = self._definitions.is_arm(instance)
        with (lockutils.lock(f'nova_arm_ext_devices_{instance.uuid}')
              if is_arm else contextlib.nullcontext()):
            yield

    @contextlib.contextmanager
    def plugging(self, instance: Any) -> Iterator[None]:
        """Keep the address at which a device is attached.

        If no PCIe slot is free, raise an error that says what to do: Nova does
        not show users the text of libvirt's "internal error: No more available
        PCI slots".

        :raises NoFreeRootPort: instead of libvirt's error
        """
        with self.changing(instance):
            yield from self._plugging(instance)

    def _plugging(self, instance: Any) -> Iterator[None]:
        try:
            yield
        except Exception as e:
            guest = None
            with extra('Counting the root ports', instance):
                if _no_slot_is_left(e):
                    guest = self._definitions.guest(instance)
            if guest is None:
                raise
            raise NoFreeRootPort(
                ports=len(pcie.root_ports(guest)),
                option=pcie_root_ports.OPTION,
                extra_spec=pcie_root_ports.EXTRA_SPEC,
                property=pcie_root_ports.IMAGE_PROPERTY) from e
        self._keep_plugged(instance)

    def check_disk(self, instance: Any, mountpoint: str) -> None:
        """Refuse to detach a volume that cannot be unplugged.

        :param mountpoint: such as ``/dev/vdb``
        :raises DeviceDetachFailed: as `_check_unplugging` does
        """
        name = mountpoint.rpartition('/')[2]
        self._check_unplugging(
            instance, name, lambda device: isinstance(device, devices.Disk)
            and device.dev == name)

    def check_interface(self, instance: Any, vif: Any) -> None:
        """Refuse to detach an interface that cannot be unplugged.

        :param vif: Nova's VIF
        :raises DeviceDetachFailed: as `_check_unplugging` does
        """
        mac = vif['address'].lower()
        self._check_unplugging(
            instance, mac, lambda device: isinstance(
                device, devices.Interface) and device.mac == mac)

    def _check_unplugging(self, instance: Any, name: str,
                          is_it: Callable[[devices.Device], bool]) -> None:
        """Refuse to detach a device that QEMU cannot unplug.

        Otherwise Nova would first remove it from the stored XML, and an
        interface from the host's network, before QEMU refuses ("Bus
        'virtio-mmio-bus.31' does not support hotplugging").

        :raises DeviceDetachFailed: if the device is on virtio-mmio and the
            guest is running
        """
        guest = None
        with extra(f'Checking {name} before it is detached', instance):
            guest = self._definitions.running(instance)
        if guest is None:
            return
        for device in devices.addressed(guest):
            address = device.address
            if (address is not None and address.is_virtio_mmio
                    and is_it(device)):
                raise exception.DeviceDetachFailed(
                    device=name, reason='it is on virtio-mmio, and cannot be '
                    'detached from a running instance; stop the instance '
                    'first')

    def _keep_plugged(self, instance: Any) -> None:
        """Keep an attached device at the address that the guest sees.

        libvirt 9.0.0 puts it on PCI in the running guest, but on virtio-mmio
        in the stored XML if other devices are there. It would move at the next
        start.
        """
        with extra('Keeping the address of a device for the next start',
                   instance):
            guest = self._definitions.running(instance)
            if guest is None or not guest.has_virtio_mmio:
                return
            stored = view.Domain.parse(
                self._host.get_guest(instance).get_xml_desc(
                    dump_inactive=True, dump_sensitive=True))
            if previous.keep_plugged(stored, guest):
                self._host.write_instance_config(stored.to_xml())


def _no_slot_is_left(error: BaseException) -> bool:
    """Whether the error, or its cause, is that libvirt has no PCI slot."""
    found: BaseException | None = error
    while found is not None:
        # virDomainPCIAddressGetNextAddr (libvirt 8 to 12); its error code is
        # that of all internal errors
        if 'No more available PCI slots' in str(found):
            return True
        found = found.__cause__ or found.__context__
    return False
