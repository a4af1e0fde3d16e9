# SPDX-License-Identifier: Apache-2.0
"""The PCI devices of this host, and which of them the inventory skips."""

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import pci
from nova_arm_ext.cmd.failure import one_line
from nova_arm_ext.cmd.forms import Known

#: Seconds, enough to read the XML of a few thousand devices.
PATIENCE = 60.0

#: The verdict for a device in the inventory, and the beginning of that for a
#: device that cannot be read.
INCLUDED = 'yes'
BROKEN = 'BROKEN: '


def settings_of(conf: Any) -> tuple[pci.Settings, pci.DeviceSpec]:
    """What a configuration says about the inventory.

    :param conf: oslo.config's; options are registered here
    :raises ConfigurationError: with every fault of the options
    """
    settings = pci.Settings.load(conf)
    # the same option as Nova's, whose module cannot be imported here
    conf.register_opt(
        cfg.MultiStrOpt('device_spec', default=[], deprecated_opts=[
            cfg.DeprecatedOpt('passthrough_whitelist', group='pci'),
            cfg.DeprecatedOpt('pci_passthrough_whitelist',
                              group='DEFAULT')]), group='pci')
    return settings, pci.DeviceSpec(conf.pci.device_spec)


def left_out(listed: Sequence[Sequence[Any]]) -> dict[str, list[str]]:
    """The addresses of devices that are not in the inventory, by reason.

    :param listed: what ``rows`` returns
    """
    found: dict[str, list[str]] = {}
    for address, *_, verdict in listed:
        if verdict != INCLUDED:
            found.setdefault(verdict, []).append(address)
    return found


def read_documents(connection: Any) -> list[tuple[str, str | None, str]]:
    """Name, XML and error of each PCI device; runs in the child."""
    import libvirt
    found: list[tuple[str, str | None, str]] = []
    for device in connection.listAllDevices(
            libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV):
        try:
            found.append((device.name(), device.XMLDesc(0), ''))
        except libvirt.libvirtError as e:
            found.append((device.name(), None, str(e)))
    return found


def rows(documents: Sequence[tuple[str, str | None, str]],
         settings: pci.Settings,
         named: pci.DeviceSpec) -> list[tuple[Any, ...]]:
    """A row for each device, sorted by address.

    :param documents: name, XML, and the error if there is no XML
    :param named: the devices that ``[pci] device_spec`` names
    """
    result: list[tuple[Any, tuple[Any, ...]]] = []
    for name, document, error in documents:
        address = pci.address_in(name)
        try:
            if document is None:
                raise errors.InvalidDocument(error)
            device = pci.identify(pci.parse(document))
        except errors.InvalidDocument as e:
            place = pci.format_address(address) if address else one_line(name)
            result.append((address or (), (
                place, *map(Known, [None] * 4),
                f'{BROKEN}{one_line(str(e))}')))
            continue
        if not settings.enabled:
            verdict = 'no: [arm_pci] enabled = false'
        elif settings.nothing_without_device_spec and not named:
            verdict = 'no: [pci] device_spec is empty'
        else:
            rule = settings.skipped_by(device, named)
            verdict = f'skipped by {rule}' if rule else INCLUDED
        result.append((device.address, (
            pci.format_address(device.address), device.ids,
            Known(None if device.class_code is None
                  else f'{device.class_code:06x}'),
            Known(device.driver and one_line(device.driver)),
            _type(device), verdict)))
    return [row for _, row in sorted(result, key=lambda one: (
        one[0], one[1][0]))]


def _type(device: pci.Identity) -> str:
    if device.has_virtual_functions:
        return 'PF'
    if device.physical_function is not None:
        return f'VF of {pci.format_address(device.physical_function)}'
    return 'PCI'
