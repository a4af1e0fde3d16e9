# SPDX-License-Identifier: Apache-2.0
"""The inventory of the host's PCI devices for Nova's resource tracker.

Nova 29 to 34 stop the whole resource update when one device cannot be read,
treat a failed listing as an empty one, and search all devices for each device.
Here a device that cannot be read keeps its last answer for a while, and is
then left out. The XML of each device is read only once.
"""

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

from nova import exception
from nova.objects import fields
from nova.pci import utils as pci_utils

# `host.libvirt` is looked up where it is used: Nova's tests replace it.
from nova.virt.libvirt import host as libvirt_host
from oslo_log import log as logging
from oslo_serialization import jsonutils

from nova_arm_ext import pci

LOG = logging.getLogger(__name__)

PF = fields.PciDeviceType.SRIOV_PF
VF = fields.PciDeviceType.SRIOV_VF

#: What was asked about which device.
_Key = tuple[str, str]
_LISTING: _Key = ('list', '')

#: The kinds of node devices that are listed.
_KINDS = ('pci', 'net', 'vdpa')


class Inventory:
    """The PCI devices of one host.

    It is thread-safe. Events of libvirt only mark it as out of date, because
    they arrive in a native thread, where eventlet allows nothing else.
    """

    #: all inventories in use, for ``forget_all``
    _every: ClassVar['weakref.WeakSet[Inventory]'] = weakref.WeakSet()

    def __init__(self, settings: pci.Settings, host: Any,
                 device_spec: Callable[[], Sequence[str]] = tuple, *,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """
        :param host: Nova's Host object
        :param device_spec: returns the values of ``[pci] device_spec``
        """
        self._settings = settings
        self._host = host
        self._device_spec = device_spec
        self._clock = clock
        self._lock = threading.Lock()
        # the connection with its registered events
        self._connection: Any = None
        self._events: set[int] = set()
        self._skipped: dict[str, list[str]] = {}
        self.forget()
        self._every.add(self)

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Names of devices by the rule that skips them."""
        return self._skipped

    def forget(self) -> None:
        """Forget everything, so that the next inventory is a new one."""
        self._memory = _Memory(self._settings.keep_last_good)
        self._answer: str | None = None
        self._taken = self._due = 0.0
        self._out_of_date = False

    @classmethod
    def forget_all(cls) -> None:
        """Forget the inventories of this process.

        Nova's own tests clear the cache that Nova 34 has in its place.
        """
        for one in list(cls._every):
            one.forget()

    def json(self) -> str:
        """The inventory as a JSON list, in Nova's form."""
        if not self._settings.enabled:
            return '[]'
        named = pci.DeviceSpec(self._device_spec())
        if self._settings.nothing_without_device_spec and not named:
            return '[]'
        with self._lock:
            now = self._clock()
            if self._answer is not None and (
                    now - self._taken < self._settings.min_interval
                    or (now < self._due and not self._out_of_date)):
                return self._answer
            # before the listing, so that no event is lost
            self._out_of_date = False
            self._listen()
            self._memory.begin(now)
            self._take(named)
            self._taken = now
            self._due = now + (
                self._settings.min_interval if self._memory.may_pass
                else self._settings.max_age)
            return self._answer or '[]'

    def _take(self, named: pci.DeviceSpec) -> None:
        """Make a new inventory, or keep the last one."""
        try:
            devices = self._list()
        except Exception as e:
            self._memory.listing_failed(e)
            if self._answer is None and not _is_not_supported(e):
                # an empty list would have Nova remove the devices that it has
                raise
            return
        named_devices: dict[str, Any] = {}
        doubt = '' if devices or not self._memory else (
            'no device is listed any more')
        for device in devices:
            try:
                named_devices[device.name()] = device
            except Exception as e:
                doubt = (f'the name of a device cannot be read: '
                         f'{type(e).__name__}: {e}')
        if doubt and self._memory.keeps_last_good_despite(doubt):
            return
        survey = _Survey(self._settings, named, self._memory)
        answers = survey.take(named_devices)
        self._memory.end()
        self._answer = jsonutils.dumps(answers)
        if survey.skipped != self._skipped:
            LOG.info('PCI inventory: %d devices, %s', len(answers),
                     pci.summary(survey.skipped))
            self._skipped = survey.skipped

    def _list(self) -> Sequence[Any]:
        """All devices of these kinds: network, PCI and vDPA.

        :raises Exception: whatever libvirt raises
        """
        libvirt = libvirt_host.libvirt
        flags = (libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_NET
                 | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
                 | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_VDPA)
        devices = list(self._host.list_all_devices(flags=flags))
        if devices:
            return devices
        # Nova's own turns an error into an empty list (29 to 34)
        return [self._host._wrap_libvirt_proxy(device) for device
                in self._host.get_connection().listAllDevices(flags)]

    def _listen(self) -> None:
        """Register for events about devices that come, go or change."""
        libvirt = libvirt_host.libvirt
        try:
            connection = self._host.get_connection()
            if connection is not self._connection:
                self._connection, self._events = connection, set()
            for event in (libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE,
                          libvirt.VIR_NODE_DEVICE_EVENT_ID_UPDATE):
                if event not in self._events:
                    connection.nodeDeviceEventRegisterAny(
                        None, event, self._on_event, None)
                    self._events.add(event)
        except Exception as e:
            # the listing reports a lost connection; the next inventory
            # registers again
            LOG.debug('libvirt does not report changed devices; the PCI '
                      'inventory is only read again by age: %s', e)

    def _on_event(self, *args: Any) -> None:
        self._out_of_date = True


def _is_not_supported(error: Exception) -> bool:
    """Whether libvirt has no node devices here at all."""
    libvirt = libvirt_host.libvirt
    return (isinstance(error, libvirt.libvirtError)
            and error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT)


class _LeftOut(Exception):
    """Something cannot be read, and there is no last good answer."""


class _Memory:
    """The last good answers, and the current faults."""

    def __init__(self, keep: float) -> None:
        """
        :param keep: how many seconds the last good answer is used
        """
        self._keep = keep
        self._now = 0.0
        self._good: dict[_Key, Any] = {}
        # since when it fails, and whether the last good answer is used
        self._faults: dict[_Key, tuple[float, bool]] = {}
        self._asked: set[_Key] = set()
        #: there was a temporary fault
        self.may_pass = False

    def __bool__(self) -> bool:
        return bool(self._good)

    def begin(self, now: float) -> None:
        """Before an inventory is taken."""
        self._now = now
        self._asked = set()
        self.may_pass = False

    def end(self) -> None:
        """After libvirt has listed its devices: forget those that are gone."""
        for known in (self._good, self._faults):
            for key in known.keys() - self._asked:
                del known[key]

    def read(self, key: _Key, call: Callable[[], Any]) -> Any:
        """What a call returns, or what it returned last if it fails.

        :raises _LeftOut: when it fails and there is no last good answer
        """
        try:
            value = call()
        except Exception as e:
            # any error, because one broken device must not affect the others
            return self.stand_in(key, e)
        self.good(key, value)
        return value

    def good(self, key: _Key, value: Any) -> None:
        """Remember a good answer."""
        self._asked.add(key)
        self._good[key] = value
        if self._faults.pop(key, None):
            LOG.info('The %s of %s can be read again', *key)

    def stand_in(self, key: _Key, error: Exception) -> Any:
        """The last good answer, as long as it may be used.

        A WARNING is logged when a fault begins and when the last good answer
        is dropped, not each time.

        :raises _LeftOut: when there is none
        """
        self._asked.add(key)
        since, _ = known = self._faults.get(key, (self._now, None))
        passing = _may_pass(error)
        self.may_pass |= passing
        stands = (passing and key in self._good
                  and self._now - since < self._keep)
        if known[1] is not stands:
            LOG.warning(
                'The %s of %s cannot be read: %s: %s. %s', *key,
                type(error).__name__, error,
                f'Its last good answer is used for {self._keep:g} s.'
                if stands else 'It is left out of the PCI inventory.')
        self._faults[key] = (since, stands)
        if stands:
            return self._good[key]
        raise _LeftOut() from error

    def listing_failed(self, error: Exception) -> None:
        """Nothing could be listed: keep what is known."""
        self.may_pass = True
        if _LISTING not in self._faults:
            LOG.warning(
                'The PCI devices of this host cannot be listed: %s: %s. %s',
                type(error).__name__, error,
                'The last good list is used.' if self._good
                else 'Nova keeps what it has of them.')
            self._faults[_LISTING] = (self._now, True)

    def keeps_last_good_despite(self, doubt: str) -> bool:
        """Whether the last good list is used instead of a doubtful one.

        A libvirt that is just starting may list nothing for a moment.
        """
        self._asked.add(_LISTING)
        self.may_pass = True
        since, known = self._faults.get(_LISTING, (self._now, None))
        stands = bool(self._good) and self._now - since < self._keep
        if known is not stands:
            LOG.warning(
                'The list of PCI devices is doubtful: %s. %s', doubt,
                f'The last good one is used for {self._keep:g} s.' if stands
                else 'It is used nevertheless.')
        self._faults[_LISTING] = (since, stands)
        return stands


def _may_pass(error: Exception) -> bool:
    """Whether the fault is temporary: libvirt or the kernel failed.

    A malformed document would be read again and again in vain.
    """
    return isinstance(error, libvirt_host.libvirt.libvirtError | OSError
                      | exception.PciDeviceNotFoundById)


class _Survey:
    """One inventory, made from the devices that libvirt has listed."""

    def __init__(self, settings: pci.Settings, named: pci.DeviceSpec,
                 memory: _Memory) -> None:
        self._settings = settings
        self._named = named
        self._memory = memory
        # name and device of a network interface, by the name of its parent
        self._nets: dict[str, tuple[str, Any]] = {}
        self._vdpa_parents: set[str] = set()
        self._serials: dict[str, str | None] = {}
        self._macs: dict[str, str | None] = {}
        #: names of devices by the rule that skips them
        self.skipped: dict[str, list[str]] = {}

    def take(self, devices: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Describe all PCI devices that are neither skipped nor broken.

        All documents are read first, because a virtual function has the
        serial number of its physical function.
        """
        documents: dict[str, tuple[pci.Identity, Any]] = {}
        answers: dict[str, dict[str, Any]] = {}
        for name, device in self._pci_devices(devices).items():
            try:
                found = self._document(name, device)
            except Exception as e:
                # any kind, as in _Memory.read()
                self._stand_in(answers, name, e)
            else:
                if found is not None:
                    documents[name] = found
                    answers[name] = {}     # its place in the list
        for name, (identity, document) in documents.items():
            try:
                answers[name] = self._memory.read(
                    ('description', name),
                    functools.partial(self._describe, name, identity,
                                      document))
            except _LeftOut:
                del answers[name]
        return list(answers.values())

    def _stand_in(self, answers: dict[str, dict[str, Any]], name: str,
                  error: Exception) -> None:
        with contextlib.suppress(_LeftOut):
            answer = self._memory.stand_in(('description', name), error)
            answers[name] = answer
            # for virtual functions of this device
            self._serials[name] = answer.get('capabilities', {}).get(
                'vpd', {}).get('card_serial_number')

    def _pci_devices(self, devices: Mapping[str, Any]) -> dict[str, Any]:
        """Sort devices by kind and parent.

        :returns: PCI devices by name
        """
        pci_devices = {}
        for name, device in devices.items():
            with contextlib.suppress(_LeftOut):
                kind = self._kind(name, device)
                if kind == 'pci':
                    pci_devices[name] = device
                elif kind is not None:
                    parent = self._memory.read(('parent', name),
                                               device.parent)
                    if kind == 'net':
                        self._nets[parent] = (name, device)
                    else:
                        self._vdpa_parents.add(parent)
        return pci_devices

    def _kind(self, name: str, device: Any) -> str | None:
        """The capability for which a device was listed.

        libvirt begins a name with the subsystem of the device
        (udevGenerateDeviceName), which saves a call for each device.
        """
        prefix = name.partition('_')[0]
        if prefix in _KINDS:
            return prefix
        capabilities = self._memory.read(('kind', name), device.listCaps)
        return next((one for one in _KINDS if one in capabilities), None)

    def _document(self, name: str, device: Any
                  ) -> tuple[pci.Identity, Any] | None:
        """Identity and document of a PCI device, None if it is skipped."""
        address = pci.address_in(name)
        rule = address and self._settings.skipped_address(address)
        if not rule:
            document = pci.parse(device.XMLDesc(0))
            self._serials[name] = pci.card_serial(document)
            identity = pci.identify(document)
            rule = self._settings.skipped_by(identity, self._named)
            if not rule:
                return identity, document
        self.skipped.setdefault(rule, []).append(name)
        return None

    def _describe(self, name: str, identity: pci.Identity,
                  document: Any) -> dict[str, Any]:
        """One device, in the form of Nova's Host._get_pcidev_info()."""
        address = pci.format_address(identity.address)
        vendor, product = identity.ids.split(':')
        answer: dict[str, Any] = {
            'dev_id': identity.name, 'address': address,
            'product_id': product, 'vendor_id': vendor,
            'numa_node': pci.numa_node(document),
            'label': f'label_{vendor}_{product}',
            **self._type(name, address, identity)}
        capabilities = self._capabilities(name, answer)
        if capabilities:
            answer['capabilities'] = capabilities
        if answer['dev_type'] == PF:
            mac = self._mac(address)
            if mac is not None:
                answer['mac_address'] = mac
        return answer

    def _type(self, name: str, address: str,
              identity: pci.Identity) -> dict[str, str]:
        if identity.has_virtual_functions:
            return {'dev_type': PF}
        if identity.physical_function is None:
            return {'dev_type': fields.PciDeviceType.STANDARD}
        answer = {
            'dev_type': (fields.PciDeviceType.VDPA
                         if name in self._vdpa_parents else VF),
            'parent_addr': pci.format_address(identity.physical_function)}
        if name in self._nets:
            # on ThunderX the physical function has no interface (bug 1915255)
            with contextlib.suppress(exception.PciDeviceNotFoundById):
                answer['parent_ifname'] = pci_utils.get_ifname_by_pci_address(
                    address, pf_interface=True)
        return answer

    def _capabilities(self, name: str,
                      answer: dict[str, Any]) -> dict[str, Any]:
        capabilities: dict[str, Any] = {}
        serial = self._serials[name]
        if answer['dev_type'] == VF:
            parent = answer['parent_addr']
            features = self._features(name)
            if features:
                capabilities['network'] = features
            mac = self._mac(parent)
            if mac is not None:
                # Nova wants both or none
                capabilities['sriov'] = {
                    'pf_mac_address': mac,
                    'vf_num': pci_utils.get_vf_num_by_pci_address(
                        answer['address'])}
            serial = serial or self._serials.get(
                'pci_' + parent.replace(':', '_').replace('.', '_'))
        if serial:
            capabilities['vpd'] = {'card_serial_number': serial}
        return capabilities

    def _features(self, name: str) -> list[str | None] | None:
        """The features of the network interface of a PCI device."""
        if name not in self._nets:
            return None
        net_name, net = self._nets[name]
        try:
            return self._memory.read(
                ('features', net_name),
                lambda: pci.net_features(pci.parse(net.XMLDesc(0))))
        except _LeftOut:
            return None

    def _mac(self, address: str) -> str | None:
        """The MAC address of a physical function, None if it has none."""
        if address not in self._macs:
            try:
                self._macs[address] = pci_utils.get_mac_by_pci_address(
                    address)
            except exception.PciDeviceNotFoundById:
                self._macs[address] = None
        return self._macs[address]
