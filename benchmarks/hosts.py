# SPDX-License-Identifier: Apache-2.0
"""What the driver adds on a host with few guests and with many.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.hosts

Three things are measured with Nova's own driver and with the extension's, over
Nova's fake libvirt: that the driver is made and initialised, as when
nova-compute starts; what the driver is asked once a minute; and that guests
which ran before are started again after the host has booted. Disks and
networks are left out, and the fake libvirt takes no time, so that the share of
the extension in a start of a guest is never as large as here.
"""

# Nova's test packages patch threads as they are imported and must come first.

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from unittest import mock

import nova.conf
from nova import context
from nova import objects
from nova.compute import provider_tree
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt.libvirt import blockinfo
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import utils as libvirt_utils

from benchmarks import seam
from nova_arm_ext.compute.driver import ArmLibvirtDriver

CONF = nova.conf.CONF

#: How many guests a host has.
SIZES = (10, 100, 1000)
#: How much longer the driver may take to start, and once a minute.
MOST = 1.1

START, MINUTE, RESUME = 'start', 'minute', 'resume'
SUBJECTS = (START, MINUTE, RESUME)
DRIVERS = {'stock': libvirt_driver.LibvirtDriver, 'arm': ArmLibvirtDriver}

_NODE = 'compute1'
#: What is replaced of Nova's driver: it looks at disks, mounts and networks.
_WITHOUT: dict[str, Any] = {
    '_get_local_gb_info': {'total': 128, 'used': 44, 'free': 84},
    '_get_instance_disk_info_from_config': [],
    '_build_device_metadata': None,
    '_check_my_ip': None,
    'get_host_uptime': 'up',
    'plug_vifs': None,
    'unplug_vifs': None,
}


class Connection(fakelibvirt.Connection):
    """The fake libvirt, which finds each of many guests as fast as one of
    few and hands back the whole domain XML."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('qemu:///system', version=9000000,
                         hv_version=7002022, **kwargs)
        self._by_uuid: dict[str, Any] = {}

    def defineXML(self, xml: str) -> Any:
        found = super().defineXML(xml)
        # the fake one forgets most of what it was told
        found.XMLDesc = lambda flags: xml
        self._by_uuid[found.UUIDString()] = found
        return found

    def _undefine(self, dom: Any) -> None:
        super()._undefine(dom)
        del self._by_uuid[dom.UUIDString()]

    def lookupByUUIDString(self, uuid: str) -> Any:
        if uuid in self._by_uuid:
            return self._by_uuid[uuid]
        raise fakelibvirt.make_libvirtError(
            fakelibvirt.libvirtError, 'Domain not found',
            error_code=fakelibvirt.VIR_ERR_NO_DOMAIN)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guests:
    """Seconds by driver for a host with so many guests, one a round."""

    number: int
    seconds: dict[str, list[float]]

    @property
    def ratio(self) -> float:
        """The median of the ratios of the rounds."""
        return statistics.median(
            arm / stock for arm, stock in zip(
                self.seconds['arm'], self.seconds['stock'], strict=True))


class Bench(seam.Environment):
    """Hosts over the fake libvirt; no test."""

    def __init__(self, sizes: Sequence[int], rounds: int) -> None:
        super().__init__()
        self._sizes = sizes
        self._rounds = rounds

    def _measured(self) -> Any:
        self._context = context.get_admin_context()
        self._in_folder(seam.MEMORY)
        with contextlib.ExitStack() as stack:
            for name, value in _WITHOUT.items():
                stack.enter_context(mock.patch.object(
                    libvirt_driver.LibvirtDriver, name, return_value=value))
            stack.enter_context(mock.patch.object(
                objects.InstanceList, 'get_by_filters',
                lambda *args, **kwargs: self._instances))
            stack.enter_context(mock.patch.object(
                objects.BlockDeviceMappingList, 'bdms_by_instance_uuid',
                return_value={}))
            return self._of_hosts()

    def _of_hosts(self) -> Any:
        """The measurements of all hosts."""
        found: dict[str, list[Guests]] = {what: [] for what in SUBJECTS}
        # what is loaded but once
        for number in (1, *self._sizes):
            for what, guests in self._guests(number).items():
                found[what].append(guests)
        return {what: guests[1:] for what, guests in found.items()}

    def _guests(self, number: int) -> dict[str, Guests]:
        """The measurements of a host with so many guests."""
        self._instances = [self._instance_of(one) for one in range(number)]
        found = {what: Guests(number=number, seconds={
            name: [] for name in DRIVERS}) for what in SUBJECTS}
        for turn in range(self._rounds):
            for name in sorted(DRIVERS, reverse=bool(turn % 2)):
                self._connect()
                gc.collect()
                for what, seconds in self._one(DRIVERS[name]):
                    found[what].seconds[name].append(seconds)
        return found

    def _connect(self) -> None:
        """A libvirt with the guests, all of them switched off."""
        host_info = self._connection.host_info
        self._connection = Connection(host_info=host_info)
        stored = self._stored(self._instances[0])
        first = self._instances[0]
        for instance in self._instances:
            self._connection.defineXML(stored.replace(
                first.uuid, instance.uuid).replace(first.name, instance.name))

    def _one(self, kind: Any) -> Iterator[tuple[str, float]]:
        """Seconds of each subject with a driver."""
        started = time.process_time()
        driver = kind(fake.FakeVirtAPI(), False)
        driver.init_host(_NODE)
        yield START, time.process_time() - started
        tree = provider_tree.ProviderTree()
        tree.new_root(_NODE, str(uuid.uuid4()))
        for _ in range(2):               # the first time more has to be asked
            started = time.process_time()
            driver.get_available_resource(_NODE)
            driver.update_provider_tree(tree, _NODE)
            seconds = time.process_time() - started
        yield MINUTE, seconds
        started = time.process_time()
        for instance in self._instances:
            driver.resume_state_on_host_boot(
                self._context, instance, self._network(), [], None)
        yield RESUME, time.process_time() - started

    def _instance_of(self, number: int) -> Any:
        """One of many instances."""
        self._kind = dataclasses.replace(self._kind, name=f'guest-{number}')
        instance = self._instance()
        instance.id = number + 1
        instance.system_metadata['image_hw_machine_type'] = seam.MACHINE
        instance.obj_reset_changes()
        os.makedirs(libvirt_utils.get_instance_path(instance), exist_ok=True)
        return instance

    def _stored(self, instance: Any) -> str:
        """The domain XML of a guest as libvirt has it."""
        image = instance.image_meta
        made = ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        return seam.as_libvirt_stores(made._get_guest_xml(
            self._context, instance, self._network(),
            blockinfo.get_disk_info(CONF.libvirt.virt_type, instance, image,
                                    None), image))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--sizes', type=int, nargs='+', default=SIZES)
    parser.add_argument('--json', action='store_true',
                        help='print the measurements as JSON')
    asked = parser.parse_args(arguments)
    found = Bench(asked.sizes, asked.rounds).found()
    if asked.json:
        json.dump({what: [dataclasses.asdict(guests) for guests in many]
                   for what, many in found.items()}, sys.stdout)
        return
    print(f'{"":10}{"guests":>8}{"with ms":>10}{"without":>10}{"ratio":>8}')
    for what, many in found.items():
        for guests in many:
            print(f'{what:10}{guests.number:>8}'
                  f'{statistics.median(guests.seconds["arm"]) * 1000:>10.1f}'
                  f'{statistics.median(guests.seconds["stock"]) * 1000:>10.1f}'
                  f'{guests.ratio:>8.3f}')


if __name__ == '__main__':
    main()
