# SPDX-License-Identifier: Apache-2.0
"""Many guests at once through one driver, compared with one by one.

``python -m tests.nova.documents.many_guests`` starts guests of many kinds over
Nova's fake libvirt and hard reboots them: first one by one, then all at once,
each in its own thread. It prints as JSON the number of guests, the kind of
threads, and which guests got different domain XML. Threads are those of Nova's
tests: green ones of eventlet, or native ones with
OS_NOVA_DISABLE_EVENTLET_PATCHING=1, which applies to a whole process.
"""

# Nova's test packages patch threads as they are imported and must come first.
from tests.nova.documents import generate  # isort: skip

import collections
import concurrent.futures
import contextlib
import dataclasses
import inspect
import json
import re
import sys
import threading
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures
from nova import context
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import guest as libvirt_guest

from nova_arm_ext.compute import driver
from nova_arm_ext.compute import operation
from tests.nova.documents import kinds

GUESTS = 64
#: A guest waits so long for the others only if one has failed.
TIMEOUT = 60


def every_kind() -> list[kinds.Kind]:
    """So many guests, with different numbers of devices."""
    return [kinds.Kind(
        name=f'guest-{number}', volumes=number % 7,
        interfaces=1 + number % 4, config_drive=bool(number % 2),
        image={'arm_virtio_transport': 'mmio'} if number % 5 == 0 else {},
        extra_specs={'arm:free_pcie_root_ports': str(number % 8)})
        for number in range(GUESTS)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """What Nova's driver gets of one guest."""

    instance: Any
    image: Any
    network: Any
    block_devices: Any


class Crowd(generate.Build):
    """Starts the guests inside Nova's own test environment."""

    def __init__(self) -> None:
        super().__init__(kinds.AARCH64_KVM, every_kind(), 9000000, 7002022,
                         None)

    def setUp(self) -> None:
        super().setUp()
        self.flags(instances_path=self.useFixture(fixtures.TempDir()).path)
        self.flags(vif_plugging_timeout=0)
        for name, answer in (
                ('_create_image', (False, False)), ('plug_vifs', None),
                ('_cleanup', None), ('_create_configdrive', None),
                ('_build_device_metadata', None),
                ('_ensure_console_log_for_instance', None),
                ('_register_undefined_instance_details', None)):
            self.useFixture(fixtures.MockPatchObject(
                libvirt_driver.LibvirtDriver, name, return_value=answer))
        for name in ('Instance', 'BlockDeviceMapping'):
            self.stub_out(f'nova.objects.{name}.save',
                          lambda saved, *args, **kwargs: None)
        original = libvirt_guest.Guest.create.__func__

        def create(cls: Any, xml: str, host: Any) -> Any:
            made = original(cls, xml, host)
            self._documents[made.uuid].append(xml)
            return made

        self.stub_out('nova.virt.libvirt.guest.Guest.create',
                      classmethod(create))
        described = fakelibvirt.Domain.XMLDesc

        def describe(domain: Any, flags: int) -> str:
            # Nova's fixture keeps only a part of the XML
            kept = self._documents.get(domain.UUIDString())
            return kept[-1] if kept else described(domain, flags)

        self.stub_out('nova.tests.fixtures.libvirt.Domain.XMLDesc', describe)

    def build(self) -> None:
        alone = self.documents(at_once=False)
        together = self.documents(at_once=True)
        # with an underscore: Nova deletes a finished test's public attributes
        self._found = {
            'threads': kind_of_threads(),
            'guests': len(together),
            'starts': sum(map(len, together.values())),
            'others': sorted(uuid for uuid in together
                             if together[uuid] != alone[uuid])}

    def found(self) -> dict[str, Any]:
        """The result; errors of the test are raised."""
        result = unittest.TestResult()
        self.run(result)
        for _, text in result.errors + result.failures:
            raise RuntimeError(text)
        return self._found

    def documents(self, *, at_once: bool) -> dict[str, list[str]]:
        """The domain XML with which each guest was started, by UUID."""
        self._documents: dict[str, list[str]] = collections.defaultdict(list)
        connection = fakelibvirt.Connection(
            'qemu:///system', version=self._version,
            hv_version=self._hv_version)
        self.stub_out('nova.virt.libvirt.host.Host.get_connection',
                      lambda host: connection)
        made = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        # nova-compute asks when it starts; Nova fills this without a lock
        made._host.get_capabilities()
        guests = [self.guest(number, kind)
                  for number, kind in enumerate(self._asked, 1)]
        for step in (self.spawn, self.reboot):
            if not at_once:
                for guest in guests:
                    step(made, guest)
                continue
            with gathering(made) as barrier, (
                    concurrent.futures.ThreadPoolExecutor(GUESTS)) as threads:
                started = [threads.submit(step, made, guest)
                           for guest in guests]
                done, _ = concurrent.futures.wait(
                    started, TIMEOUT, concurrent.futures.FIRST_EXCEPTION)
                barrier.abort()      # the others must not wait for this one
                for one in done:
                    one.result()
        if operation.current.get() is not None:
            raise RuntimeError(f'still being done: {operation.current.get()}')
        # when it was made is another each time
        return {uuid: [re.sub('<nova:creationTime>.*?</', '</', xml)
                       for xml in documents]
                for uuid, documents in self._documents.items()}

    def guest(self, number: int, kind: kinds.Kind) -> Guest:
        self._kind = kind
        instance = self._instance()
        instance.id = number      # of which its domain's name is made
        return Guest(instance=instance, image=self._image_meta(),
                     network=self._network(),
                     block_devices=self._block_devices(
                         context.get_admin_context(), instance))

    @staticmethod
    def spawn(made: Any, guest: Guest) -> None:
        made.spawn(context.get_admin_context(), guest.instance, guest.image,
                   [], None, {}, network_info=guest.network,
                   block_device_info=guest.block_devices)

    @staticmethod
    def reboot(made: Any, guest: Guest) -> None:
        known = inspect.signature(
            libvirt_driver.LibvirtDriver._hard_reboot).parameters
        more = {'share_info': []} if 'share_info' in known else {}
        made._hard_reboot(context.get_admin_context(), guest.instance,
                          guest.network,
                          block_device_info=guest.block_devices, **more)


@contextlib.contextmanager
def gathering(made: Any) -> Iterator[threading.Barrier]:
    """Let no guest pass the hooks before all have reached them."""
    barrier = threading.Barrier(GUESTS)
    run = made._adjustment.pipeline.run

    def wait(*args: Any, **kwargs: Any) -> Any:
        barrier.wait(TIMEOUT)
        return run(*args, **kwargs)

    with mock.patch.object(made._adjustment.pipeline, 'run', wait):
        yield barrier


def kind_of_threads() -> str:
    eventlet = sys.modules.get('eventlet')
    return ('eventlet' if eventlet is not None
            and eventlet.patcher.is_monkey_patched('thread') else 'native')


def main() -> None:
    print(json.dumps(Crowd().found()))


if __name__ == '__main__':
    main()
