# SPDX-License-Identifier: Apache-2.0
"""The PCI inventory compared with this release's own, and with faults."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from unittest import mock

import hypothesis
import nova.conf
from hypothesis import strategies
from nova import exception
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import host as libvirt_host

from nova_arm_ext import pci
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import pci as compute_pci
from tests.support import base
from tests.support import pci_tree

CONF = nova.conf.CONF
SETTINGS = pci.Settings(
    skip=tuple(pci.Rule.parse(text) for text in (
        '177d:a01e', '177d:a034', '177d:0011')),
    yielding=frozenset(('177d:a01e', '177d:a034', '177d:0011')),
    min_interval=10, max_age=300, keep_last_good=600)

#: All known errors of libvirt in a call for a node device, and some that end a
#: connection.
CODES = {
    'INTERNAL_ERROR': 1, 'NO_SUPPORT': 3, 'OPERATION_FAILED': 9,
    'SYSTEM_ERROR': 38, 'RPC': 39, 'NO_NODE_DEVICE': 53,
    'OPERATION_TIMEOUT': 68, 'OPERATION_ABORTED': 78,
    'ACCESS_DENIED': 88}


def libvirt_error(code: int) -> Exception:
    return fakelibvirt.make_libvirtError(
        libvirt_host.libvirt.libvirtError, f'error {code}', error_code=code)


class PciTest(nova.test.NoDBTestCase):
    """A test with the fake libvirt and a stopped clock."""

    def setUp(self) -> None:
        super().setUp()
        self.libvirt = self.useFixture(nova_fixtures.LibvirtFixture())
        self.now = 1000.0

    def inventory(self, tree: pci_tree.Tree,
                  settings: pci.Settings = SETTINGS,
                  *device_spec: str) -> compute_pci.Inventory:
        return compute_pci.Inventory(
            settings, tree, lambda: device_spec, clock=lambda: self.now)

    def read(self, inventory: compute_pci.Inventory) -> list[dict[str, Any]]:
        return json.loads(inventory.json())

    def by_name(self, inventory: compute_pci.Inventory
                ) -> dict[str, dict[str, Any]]:
        return {one['dev_id']: one for one in self.read(inventory)}

    @property
    def logged(self) -> str:
        return self.stdlog.logger.output

    def warnings(self) -> list[str]:
        return [line for line in self.logged.splitlines()
                if 'WARNING [nova_arm_ext' in line]


class SameAnswerTest(PciTest):
    """Devices that are not skipped or broken are described as by Nova."""

    def setUp(self) -> None:
        super().setUp()
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)

    def both(self, tree: pci_tree.Tree) -> tuple[str, str]:
        """Nova's own answer and this one for the same devices."""
        own = libvirt_driver.LibvirtDriver._get_pci_passthrough_devices
        own = getattr(own, '__wrapped__', own)     # cached for ever in 34
        host = self.driver._host
        with mock.patch.object(host, 'list_all_devices',
                               tree.list_all_devices):
            self.driver._get_pci_passthrough_devices.cache_clear()
            return own(self.driver), self.driver._get_pci_passthrough_devices()

    def test_each_kind_of_device(self) -> None:
        nova_own, ours = self.both(pci_tree.everything())

        self.assertEqual(nova_own, ours)
        kinds = [one['dev_type'] for one in json.loads(ours)]
        self.assertEqual({'type-PCI', 'type-PF', 'type-VF', 'vdpa'},
                         set(kinds))
        capabilities = {name for one in json.loads(ours)
                        for name in one.get('capabilities', ())}
        self.assertEqual({'network', 'sriov', 'vpd'}, capabilities)

    def test_without_mac_and_parent_interface(self) -> None:
        self.libvirt.mock_get_ifname_by_pci_address.side_effect = (
            exception.PciDeviceNotFoundById(id='x'))
        self.stub_out('nova.pci.utils.get_mac_by_pci_address', mock.Mock(
            side_effect=exception.PciDeviceNotFoundById(id='x')))

        nova_own, ours = self.both(pci_tree.everything())

        self.assertEqual(nova_own, ours)
        self.assertNotIn('sriov', ours)
        self.assertNotIn('parent_ifname', ours)

    def test_with_different_macs_and_numbers(self) -> None:
        self.stub_out('nova.pci.utils.get_mac_by_pci_address',
                      lambda address: f'mac of {address}')
        self.stub_out('nova.pci.utils.get_ifname_by_pci_address',
                      lambda address, pf_interface: f'parent of {address}')
        self.stub_out('nova.pci.utils.get_vf_num_by_pci_address',
                      lambda address: int(address[-1]))

        nova_own, ours = self.both(pci_tree.everything())

        self.assertEqual(nova_own, ours)
        self.assertIn('mac of 0000:81:00.0', ours)

    def test_the_trees_of_novas_own_tests(self) -> None:
        for counts in ({'num_pci': 3}, {'num_pfs': 1, 'num_vfs': 8},
                       {'num_pci': 1, 'num_pfs': 2, 'num_vfs': 4},
                       {'num_pfs': 1, 'num_vfs': 0},
                       {'num_mdevcap': 3, 'generic_types': True},
                       {'num_pfs': 1, 'num_vfs': 2, 'numa_node': -1}):
            own = fakelibvirt.HostPCIDevicesInfo(**counts)
            tree = pci_tree.Tree()
            for name, device in own.devices.items():
                tree.add(device.XMLDesc(0), name)

            nova_own, ours = self.both(tree)

            self.assertEqual(nova_own, ours)
            self.assertEqual(len(own.devices), len(json.loads(ours)))

    def test_novas_fake_libvirt_is_asked_through_novas_host(self) -> None:
        connection = fakelibvirt.Connection(
            'qemu:///system', pci_info=fakelibvirt.HostPCIDevicesInfo(
                num_pfs=1, num_vfs=3))
        self.stub_out('nova.virt.libvirt.host.Host.get_connection',
                      lambda host: connection)

        ours = self.driver._get_pci_passthrough_devices()

        self.assertEqual(4, len(json.loads(ours)))

    def test_thunderx_that_device_spec_names(self) -> None:
        tree = pci_tree.Tree()
        pci_tree.thunderx(tree)
        self.flags(group='pci', device_spec=[
            '{"vendor_id": "177D", "product_id": "a034"}',
            '{"vendor_id": "177d", "product_id": "a01e"}'])

        nova_own, ours = self.both(tree)

        self.assertEqual(nova_own, ours)
        self.assertEqual(9, len(json.loads(ours)))


class SkipTest(PciTest):

    def setUp(self) -> None:
        super().setUp()
        self.tree = pci_tree.Tree()
        self.thunderx = pci_tree.thunderx(self.tree)
        self.other = self.tree.pci((0, 0, 1, 0))

    def test_thunderx_is_skipped_and_the_rest_stays(self) -> None:
        found = self.by_name(self.inventory(self.tree))

        self.assertEqual({self.other}, set(found))

    def test_a_skipped_device_is_asked_for_its_identity_alone(self) -> None:
        self.read(self.inventory(self.tree))

        for name in self.thunderx:
            self.assertEqual(
                ['name', 'XMLDesc'],
                [method for one, method in self.tree.calls if one == name])
        documents = {name for name, method in self.tree.calls
                     if method == 'XMLDesc'}
        self.assertEqual({*self.thunderx, self.other}, documents)
        self.libvirt.mock_get_ifname_by_pci_address.assert_not_called()
        self.libvirt.mock_get_vf_num_by_pci_address.assert_not_called()

    def test_a_device_skipped_by_address_is_asked_for_its_name(self) -> None:
        settings = pci.Settings(
            skip=(pci.Rule.parse('0002:01:00.0-0002:01:1f.7'),))

        self.read(self.inventory(self.tree, settings))

        for name in self.thunderx:
            self.assertEqual(
                ['name'],
                [method for one, method in self.tree.calls if one == name])

    def test_what_is_skipped_is_logged_once_and_when_it_changes(self) -> None:
        inventory = self.inventory(self.tree)

        for _ in range(3):
            self.read(inventory)
            self.now += 301

        self.assertEqual(1, self.logged.count('PCI inventory:'))
        self.assertIn('PCI inventory: 1 devices, 9 skipped: 1 by 177d:a01e, '
                      '8 by 177d:a034', self.logged)

        del self.tree.nodes[self.thunderx[-1]]
        self.read(inventory)

        self.assertIn('1 devices, 8 skipped', self.logged)

    def test_a_skipped_parent_lends_its_serial_number(self) -> None:
        tree = pci_tree.Tree()
        pci_tree.sriov(tree, (0, 1, 0, 0), 1, serial='S')
        settings = pci.Settings(skip=(pci.Rule.parse('8086:1521'),))

        [function] = self.read(self.inventory(tree, settings))

        self.assertEqual({'card_serial_number': 'S'},
                         function['capabilities']['vpd'])

    def test_nothing_is_asked_where_it_is_not_enabled(self) -> None:
        found = self.read(self.inventory(self.tree,
                                         pci.Settings(enabled=False)))

        self.assertEqual([], found)
        self.assertEqual([], self.tree.calls)

    def test_nothing_is_asked_without_device_spec_if_so_wanted(self) -> None:
        settings = pci.Settings(nothing_without_device_spec=True)

        found = self.read(self.inventory(self.tree, settings))

        self.assertEqual([], found)
        self.assertEqual([], self.tree.calls)
        self.assertEqual(10, len(self.read(self.inventory(
            self.tree, settings, '{"vendor_id": "8086"}'))))


class AgeTest(PciTest):

    def setUp(self) -> None:
        super().setUp()
        self.tree = pci_tree.Tree()
        self.tree.pci((0, 0, 1, 0))

    def listings(self) -> int:
        return [method for _, method in self.tree.calls].count(
            'listAllDevices')

    def test_a_young_answer_is_given_again(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        self.now += 299

        self.read(inventory)

        self.assertEqual(1, self.listings())

    def test_an_old_answer_is_not(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        self.tree.pci((0, 0, 2, 0))
        self.now += 300

        found = self.read(inventory)

        self.assertEqual(2, len(found))

    def test_an_empty_answer_is_given_again_for_the_minimum(self) -> None:
        self.tree.nodes.clear()
        inventory = self.inventory(self.tree)
        self.read(inventory)
        asked = self.listings()
        self.now += 9

        self.assertEqual([], self.read(inventory))

        self.assertEqual(asked, self.listings())

    def test_clearing_the_cache_makes_a_new_answer(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)

        driver.ArmLibvirtDriver._get_pci_passthrough_devices.cache_clear()
        self.read(inventory)

        self.assertEqual(2, self.listings())

    def test_an_event_makes_the_next_answer_new(self) -> None:
        callbacks = []
        self.tree.nodeDeviceEventRegisterAny = (
            lambda device, event, callback, opaque:
            callbacks.append(callback))
        with mock.patch.multiple(
                libvirt_host.libvirt, create=True,
                VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE=0,
                VIR_NODE_DEVICE_EVENT_ID_UPDATE=1):
            inventory = self.inventory(self.tree)
            self.read(inventory)
            self.assertEqual(2, len(callbacks))
            callbacks[0](self.tree, None, 0, 0, None)
            self.now += 5
            self.read(inventory)
            self.assertEqual(1, self.listings())    # too young all the same
            self.now += 5

            self.read(inventory)

            self.assertEqual(2, self.listings())
            self.assertEqual(2, len(callbacks))     # registered once
            self.now += 20
            self.read(inventory)
            self.assertEqual(2, self.listings())

    def test_events_that_cannot_be_had_are_asked_for_again(self) -> None:
        for code in CODES.values():
            asked = []

            def register(device: Any, event: int, *rest: Any,
                         code: int = code, asked: list[int] = asked) -> None:
                asked.append(event)
                if len(asked) in (1, 3):
                    raise libvirt_error(code)

            self.tree.nodeDeviceEventRegisterAny = register
            with mock.patch.multiple(
                    libvirt_host.libvirt, create=True,
                    VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE=0,
                    VIR_NODE_DEVICE_EVENT_ID_UPDATE=1):
                inventory = self.inventory(self.tree)
                for _ in range(4):
                    self.assertEqual(1, len(self.read(inventory)))
                    self.now += 301

            # each until it is there, and none twice
            self.assertEqual([0, 0, 1, 1], asked)

    def test_a_new_connection_is_listened_to(self) -> None:
        registered = mock.Mock()
        with mock.patch.multiple(
                libvirt_host.libvirt, create=True,
                VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE=0,
                VIR_NODE_DEVICE_EVENT_ID_UPDATE=1):
            inventory = self.inventory(self.tree)
            for _ in range(2):
                connection = pci_tree.Tree()
                connection.nodeDeviceEventRegisterAny = registered
                self.tree.get_connection = lambda c=connection: c
                self.read(inventory)
                self.now += 301

        self.assertEqual(4, registered.call_count)


#: With the real binding, and a device of libvirt's test driver that comes.
EVENT = """
import threading
import libvirt
from nova.virt.libvirt import host as libvirt_host
from nova_arm_ext import pci
from nova_arm_ext.compute import pci as compute_pci

# Nova's Host imports it when one is made (29 to 34)
libvirt_host.libvirt = libvirt

def loop():
    while True:
        libvirt.virEventRunDefaultImpl()

libvirt.virEventRegisterDefaultImpl()
connection = libvirt.open('test:///default')

class Host:
    def get_connection(self):
        return connection
    def list_all_devices(self, flags):
        listed.append(flags)
        return connection.listAllDevices(flags)
    def _wrap_libvirt_proxy(self, device):
        return device

listed = []
came = threading.Event()

class Inventory(compute_pci.Inventory):
    def _on_event(self, *args):
        super()._on_event(*args)
        came.set()

inventory = Inventory(pci.Settings(min_interval=0, max_age=3600), Host())
inventory.json()
inventory.json()
threading.Thread(target=loop, daemon=True).start()
connection.nodeDeviceCreateXML(
    "<device><parent>scsi_host1</parent><capability type='scsi_host'>"
    "<capability type='fc_host'><wwnn>2000000012341234</wwnn>"
    "<wwpn>1000000012341234</wwpn></capability></capability></device>", 0)
assert came.wait(20)
before = len(listed)
inventory.json()
inventory.json()
print(before, len(listed))
"""


class RealEventTest(base.TestCase):

    def test_an_event_of_the_real_libvirt_arrives(self) -> None:
        ended = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', EVENT],
            capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL)

        self.assertEqual(['1', '2'], ended.stdout.split()[-2:], ended.stderr)


class FaultTest(PciTest):
    """One device, one fault."""

    def setUp(self) -> None:
        super().setUp()
        self.tree = pci_tree.everything()
        self.whole = self.by_name(self.inventory(self.tree))
        self.count = len(self.tree.calls)
        self.calls = list(self.tree.calls)

    def owner(self, name: str) -> str:
        """The PCI device to which a netdev or vDPA device belongs."""
        return (name if name.startswith('pci_')
                else self.tree.nodes[name]._parent)

    def broken_at(self, number: int, error: Exception, *,
                  for_ever: bool) -> str:
        """Let one call fail, and return its device."""
        asked = self.calls[number]

        def fault(now: int, name: str, method: str) -> None:
            if (name, method) == asked:
                if not for_ever:
                    self.tree.fault = None
                raise error

        self.tree.calls.clear()
        self.tree.fault = fault
        return asked[0]

    def assert_complete_but_for(self, name: str,
                                found: dict[str, dict[str, Any]]) -> None:
        owner = self.owner(name)
        self.assertEqual(
            {n: a for n, a in self.whole.items() if n != owner},
            {n: a for n, a in found.items() if n != owner} | {
                # without the serial number of the broken device
                n: self.whole[n] for n, a in found.items()
                if a.get('parent_addr', '').replace(':', '_').replace(
                    '.', '_') == name[4:]})

    def faults(self) -> Iterator[tuple[int, Exception, bool]]:
        """Each call with each error, once and permanently."""
        for number in range(self.count):
            for code in CODES.values():
                yield number, libvirt_error(code), False
                yield number, libvirt_error(code), True

    def quietly(self) -> None:
        """Without logging, because thousands of messages take long."""
        self.stub_out('nova_arm_ext.compute.pci.LOG', mock.Mock())

    def test_each_call_fails_from_the_beginning(self) -> None:
        self.quietly()
        for number, error, for_ever in self.faults():
            if not self.calls[number][0]:
                continue            # the listing has tests of its own
            name = self.broken_at(number, error, for_ever=for_ever)

            found = self.by_name(self.inventory(self.tree))

            self.assert_complete_but_for(name, found)

    def test_each_call_fails_after_a_good_answer(self) -> None:
        self.quietly()
        for number, error, for_ever in self.faults():
            self.tree.fault = None
            inventory = self.inventory(self.tree)
            self.read(inventory)
            name = self.broken_at(number, error, for_ever=for_ever)
            self.now += 301

            found = self.by_name(inventory)

            # the last good answer is used, so nothing is missing
            self.assertEqual(self.whole, found, (self.calls[number], error))
            if name and for_ever:
                self.now += 601
                self.assert_complete_but_for(name, self.by_name(inventory))

    def test_all_calls_fail_for_ever(self) -> None:
        for code in CODES.values():
            self.tree.fault = mock.Mock(side_effect=libvirt_error(code))
            inventory = self.inventory(self.tree)

            if code == CODES['NO_SUPPORT']:
                self.assertEqual([], self.read(inventory))
                continue
            # or Nova would remove the devices that it knows
            for _ in range(2):
                self.assertRaises(libvirt_host.libvirt.libvirtError,
                                  self.read, inventory)
            self.tree.fault = None
            self.assertEqual(self.whole, self.by_name(inventory))

    def test_a_warning_comes_once(self) -> None:
        # the description of the first device fails permanently
        self.broken_at(self.calls.index((self.calls[1][0], 'XMLDesc')),
                       libvirt_error(53), for_ever=True)
        inventory = self.inventory(self.tree)

        for _ in range(5):
            self.read(inventory)
            self.now += 60

        [warning] = self.warnings()
        self.assertIn(self.calls[1][0], warning)
        self.assertIn('left out', warning)
        self.tree.fault = None
        self.assertEqual(self.whole, self.by_name(inventory))
        self.assertIn('can be read again', self.logged)

    def test_a_fault_is_looked_at_again_before_the_age(self) -> None:
        inventory = self.inventory(self.tree)
        self.broken_at(self.calls.index((self.calls[1][0], 'XMLDesc')),
                       libvirt_error(53), for_ever=False)
        self.assertEqual(len(self.whole) - 1, len(self.read(inventory)))
        self.now += 10

        self.assertEqual(len(self.whole), len(self.read(inventory)))

    def test_a_device_that_is_listed_no_more_is_gone(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        gone = self.calls[1][0]
        del self.tree.nodes[gone]
        self.now += 301

        self.assertEqual(set(self.whole) - {gone},
                         set(self.by_name(inventory)))

    @staticmethod
    def listing_fails(error: Exception) -> Callable[[int, str, str], None]:
        def fault(now: int, name: str, method: str) -> None:
            if method == 'listAllDevices':
                raise error

        return fault

    def test_a_listing_that_fails_keeps_the_last_list(self) -> None:
        for code in CODES.values():
            self.tree.fault = None
            inventory = self.inventory(self.tree)
            self.read(inventory)

            self.tree.fault = self.listing_fails(libvirt_error(code))
            before = len(self.warnings())
            for _ in range(3):
                self.now += 3600
                self.assertEqual(self.whole, self.by_name(inventory))
            [warning] = self.warnings()[before:]
            self.assertIn('last good list is used', warning)

    def test_a_lost_connection_keeps_the_last_list(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        with mock.patch.object(
                self.tree, 'list_all_devices',
                side_effect=exception.HypervisorUnavailable()):
            self.now += 301

            self.assertEqual(self.whole, self.by_name(inventory))

    def test_a_moment_without_devices_changes_nothing(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        nodes = dict(self.tree.nodes)
        self.tree.nodes.clear()
        self.now += 301
        self.assertEqual(self.whole, self.by_name(inventory))

        self.tree.nodes.update(nodes)
        self.now += 10
        self.assertEqual(self.whole, self.by_name(inventory))

        self.tree.nodes.clear()
        self.now += 301
        self.assertEqual(self.whole, self.by_name(inventory))
        self.now += 600
        self.assertEqual({}, self.by_name(inventory))

    def test_a_doubtful_list_is_told_once(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        self.tree.nodes.clear()
        self.now += 301
        began = self.now
        for self.now, count, said in (
                (began, 1, 'no device is listed any more. The last good one '
                           'is used for 600 s.'),
                (began + 10, 1, 'is used for 600 s.'),
                (began + 599, 1, 'is used for 600 s.'),
                (began + 609, 2, 'It is used nevertheless.'),
                (began + 619, 2, 'It is used nevertheless.')):
            found = self.by_name(inventory)

            self.assertEqual(self.whole if count == 1 else {}, found)
            self.assertEqual(count, len(self.warnings()))
            self.assertIn(said, self.warnings()[-1])

    def test_the_last_good_answer_is_used_for_so_long(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        name = self.calls[1][0]
        self.broken_at(self.calls.index((name, 'XMLDesc')),
                       libvirt_error(53), for_ever=True)
        self.now += 301
        began = self.now
        for after, there in ((0, True), (590, True), (600, False)):
            self.now = began + after
            self.assertIs(there, name in self.by_name(inventory), after)

    def test_the_time_is_over_when_it_is_over(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        self.tree.nodes.clear()
        self.now += 301
        self.read(inventory)
        self.now += 600

        self.assertEqual({}, self.by_name(inventory))

    def test_a_failed_listing_is_tried_again_before_the_age(self) -> None:
        inventory = self.inventory(self.tree)
        self.read(inventory)
        name, node = self.tree.nodes.popitem()
        self.tree.fault = self.listing_fails(libvirt_error(38))
        self.now += 301
        self.read(inventory)
        self.tree.fault = None
        self.tree.nodes[name] = node
        self.tree.calls.clear()
        self.now += 10

        self.assertEqual(self.whole, self.by_name(inventory))
        self.assertNotEqual([], self.tree.calls)

    def test_an_empty_first_answer_does_not_last(self) -> None:
        nodes = dict(self.tree.nodes)
        self.tree.nodes.clear()
        inventory = self.inventory(self.tree)
        self.assertEqual({}, self.by_name(inventory))
        self.tree.nodes.update(nodes)
        self.now += 301

        self.assertEqual(self.whole, self.by_name(inventory))

    def test_features_that_were_never_read_are_left_out(self) -> None:
        inventory = self.inventory(self.tree)
        name, parent = next(
            (name, self.tree.nodes[name]._parent) for name, method
            in self.calls if name.startswith('net_') and method == 'XMLDesc')
        self.broken_at(self.calls.index((name, 'XMLDesc')),
                       libvirt_error(9), for_ever=True)

        found = self.by_name(inventory)

        self.assertIn('network', self.whole[parent]['capabilities'])
        self.assertNotIn('network', found[parent].get('capabilities', {}))
        self.assertEqual(set(self.whole), set(found))

    def test_a_name_that_says_nothing_is_asked_for_its_kind(self) -> None:
        for name in list(self.tree.nodes):
            node = self.tree.nodes[name]
            node.name = lambda name=name: f'my_{name}'
            node.listCaps = lambda name=name: [name.partition('_')[0]]

        found = self.by_name(self.inventory(self.tree))

        self.assertEqual(set(self.whole), set(found))

    def test_sysfs_fails_for_one_function(self) -> None:
        broken = next(one for one in self.whole.values()
                      if 'sriov' in one.get('capabilities', {}))

        for error in (exception.PciDeviceNotFoundById(id='x'),
                      OSError('gone'), TypeError('int(None)')):
            def vf_num(address: str, error=error) -> int:
                if address == broken['address']:
                    raise error
                return 1

            self.libvirt.mock_get_vf_num_by_pci_address.side_effect = vf_num
            found = self.by_name(self.inventory(self.tree))

            self.assertEqual(set(self.whole) - {broken['dev_id']},
                             set(found))
            self.assert_complete_but_for(broken['dev_id'], found)

    def test_sysfs_fails_for_the_parent_of_several_functions(self) -> None:
        [parent] = [one for one in self.whole.values()
                    if one['address'] == '0000:81:00.0']
        functions = {name for name, one in self.whole.items()
                     if one.get('parent_addr') == parent['address']}
        self.assertEqual(3, len(functions))

        def mac(address: str) -> str:
            if address == parent['address']:
                raise OSError('gone')
            return self.whole[parent['dev_id']]['mac_address']

        sound = compute_pci.pci_utils.get_mac_by_pci_address
        inventory = self.inventory(self.tree)
        self.assertEqual(self.whole, self.by_name(inventory))
        self.stub_out('nova.pci.utils.get_mac_by_pci_address', mac)
        self.now += 301
        self.assertEqual(self.whole, self.by_name(inventory))
        self.now += 601

        found = self.by_name(inventory)

        # no device is described incompletely
        self.assertEqual(
            {name: one for name, one in self.whole.items()
             if name not in functions | {parent['dev_id']}}, found)
        self.stub_out('nova.pci.utils.get_mac_by_pci_address', sound)
        self.now += 11
        self.assertEqual(self.whole, self.by_name(inventory))

    def test_missing_and_malformed_fields(self) -> None:
        name = next(iter(self.whole))
        document = self.tree.nodes[name].document
        changes = [
            ('<name>', '<nam>'), ('</name>', '</nam>'),
            ("<vendor id='0x1b36'>", '<vendor>'),
            ("<product id='0x0008'>", '<product>'),
            ("'0x1b36'", "'intel'"), ("'0x1b36'", "'0x11b36'"),
            ("'0x1b36'", "''"), ('<bus>0<', '<bus><'),
            ('<bus>0<', '<bus>zero<'), ('<bus>0</bus>', ''),
            ('<domain>0<', '<domain>0x0<'), ("'0x0008'", "'-1'"),
            ("<numa node='0'/>", '<numa/>'),
            ("<numa node='0'/>", "<numa node='none'/>"),
            ("type='pci'", "type='usb'"), ('<device>', '<domain>'),
            (document, ''), (document, '<device/>'), (document, '\0'),
            (document, document[:200]), (document, '<a/>'),
            (document, document * 2)]
        self.assertEqual([], [old for old, _ in changes
                              if old not in document])

        for old, new in changes:
            broken = document.replace(old, new)
            self.tree.nodes[name].document = broken

            found = self.by_name(self.inventory(self.tree))

            self.assertEqual(set(self.whole) - {name}, set(found), broken)
            self.assert_complete_but_for(name, found)

    def test_a_document_that_is_none_does_not_stand(self) -> None:
        name = next(iter(self.whole))
        inventory = self.inventory(self.tree)
        self.read(inventory)
        self.tree.nodes[name].document = '<device/>'
        self.now += 301

        self.assertNotIn(name, self.by_name(inventory))

    def test_stock_nova_gives_up_where_one_device_vanishes(self) -> None:
        # each release has the problem that the tests above are about
        stock = libvirt_driver.LibvirtDriver(fake.FakeVirtAPI(), False)
        own = libvirt_driver.LibvirtDriver._get_pci_passthrough_devices
        own = getattr(own, '__wrapped__', own)
        self.broken_at(self.calls.index((self.calls[1][0], 'XMLDesc')),
                       libvirt_error(53), for_ever=False)

        with mock.patch.object(stock._host, 'list_all_devices',
                               self.tree.list_all_devices):
            self.assertRaises(libvirt_host.libvirt.libvirtError, own, stock)


class LineTest(PciTest):

    def test_at_most_three_calls_a_device(self) -> None:
        tree = pci_tree.everything()

        self.read(self.inventory(tree))

        self.assertEqual(set(tree.nodes), set(tree.calls_by_device()))
        self.assertLessEqual(max(tree.calls_by_device().values()), 3)
        self.assertEqual(1, [m for _, m in tree.calls].count(
            'listAllDevices'))

    def test_no_document_is_parsed_twice(self) -> None:
        tree = pci_tree.everything()
        parsed = []
        original = pci.parse

        def parse(xml: str) -> Any:
            parsed.append(xml)
            return original(xml)

        with mock.patch.object(pci, 'parse', parse):
            self.read(self.inventory(tree))

        self.assertEqual(len(parsed), len(set(parsed)))

    def test_twice_the_devices_take_twice_the_calls(self) -> None:
        counts = []
        for functions in (64, 128, 256):
            tree = pci_tree.Tree()
            pci_tree.sriov(tree, (0, 1, 0, 0), functions - 2)
            self.read(self.inventory(tree))
            counts.append(len(tree.calls))

        small, middle, large = counts
        self.assertEqual(2 * (middle - small), large - middle)


#: Parts of XML, valid and invalid.
_TEXTS = ('0', '1', '255', '256', '-1', '4294967295', '0x10', 'x', '', ' 7 ',
          '99999999999999999999', '\u0663')
_IDS = (" id='0x8086'", " id='8086'", " id='0x177d'", " id='0xa034'",
        " id='0x10000'", " id=''", " id='id'", '')


def document_of(choices: bytes) -> str:
    """XML of a PCI device in which any part may be missing or odd.

    :param choices: each decides one thing; drawn at once, for speed
    """
    left = iter(choices)

    def one(options: Sequence[str]) -> str:
        return options[next(left) % len(options)]

    def maybe(element: str) -> str:
        return one((element, element, element, ''))

    address = '<address ' + ' '.join(
        f"{part}='{one(_TEXTS)}'" for part in ('domain', 'bus', 'slot')
    ) + maybe(f" function='{one(_TEXTS)}'") + '/>'
    kind = one(('virt_functions', 'phys_function', 'mdev_types', 'vpd', 'x'))
    inner = ''.join(
        maybe(f'<{tag}>{one(_TEXTS)}</{tag}>')
        for tag in ('class', 'domain', 'bus', 'slot', 'function'))
    inner += ''.join(maybe(f'<{tag}{one(_IDS)}>n</{tag}>')
                     for tag in ('vendor', 'product'))
    inner += maybe(f"<numa node='{one(_TEXTS)}'/>")
    inner += f"<capability type='{kind}'>{maybe(address)}</capability>"
    document = '<device>' + (
        maybe('<name>pci_ffff_00_00_0</name>')
        + maybe('<driver><name>d</name></driver>')
        + maybe(f"<capability type='pci'>{inner}</capability>")) + '</device>'
    cut = next(left)
    return document if cut < 230 else document[:cut]


class GeneratedTest(PciTest):

    def test_ten_thousand_documents_do_no_harm(self) -> None:
        self.stub_out('nova_arm_ext.compute.pci.LOG', mock.Mock())
        seen = itertools.count()

        @hypothesis.settings(
            max_examples=500, deadline=None, database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck))
        @hypothesis.given(strategies.lists(
            strategies.binary(min_size=40, max_size=40), min_size=20,
            max_size=20))
        def check(several: list[bytes]) -> None:
            tree = pci_tree.Tree()
            sound = tree.pci((0, 0, 1, 0))
            for number, choices in enumerate(several):
                tree.add(document_of(choices), f'pci_{number:04x}_ff_00_0')
                next(seen)
            last = tree.pci((0, 0, 2, 0))

            found = self.read(self.inventory(tree))

            self.assertEqual(sound, found[0]['dev_id'])
            self.assertEqual(last, found[-1]['dev_id'])
            for one in found:
                self.assertRegex(one['address'],
                                 '^[-0-9a-f]+:[-0-9a-f]+:[-0-9a-f]+'
                                 r'\.[-0-9a-f]+$')
                self.assertRegex(one['label'],
                                 '^label_[0-9a-f]{4}_[0-9a-f]{4}$')
                self.assertTrue(one['dev_id'])

        check()

        self.assertGreaterEqual(next(seen), 10000)
