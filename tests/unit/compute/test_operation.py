# SPDX-License-Identifier: Apache-2.0
"""The current operation on a guest is visible only while it runs."""

import threading
import types

from nova_arm_ext.compute import operation
from nova_arm_ext.nvram import Event
from tests.support import base

ONE = types.SimpleNamespace(uuid='one')
OTHER = types.SimpleNamespace(uuid='other')


class OperationTest(base.TestCase):

    def test_it_is_known_of_this_instance_until_it_ends(self) -> None:
        with operation.of(ONE, Event.RESCUE) as doing:
            self.assertIs(doing, operation.on(ONE))
            self.assertIsNone(operation.on(OTHER))

        self.assertIsNone(operation.on(ONE))

    def test_nothing_is_left_of_one_that_fails(self) -> None:
        for error in (ValueError, SystemExit):
            def fail(error: type[BaseException] = error) -> None:
                with operation.of(ONE, Event.RESCUE):
                    raise error

            self.assertRaises(error, fail)
            self.assertIsNone(operation.current.get())

    def test_only_a_guest_that_is_made_can_be_refused(self) -> None:
        for event in Event:
            with operation.of(ONE, event) as doing:
                self.assertEqual(
                    event not in (Event.SPAWN, Event.REBUILD, Event.UNSHELVE),
                    doing.existing, event)

    def test_the_guest_is_that_of_its_xml_if_it_is_an_arm_guest(self) -> None:
        xml = '<domain><os><type arch="aarch64">hvm</type></os></domain>'
        for previous, arch in ((xml, 'aarch64'), (None, None),
                               (xml.replace('aarch64', 'x86_64'), None)):
            with operation.of(ONE, Event.RESCUE, previous=previous) as doing:
                self.assertEqual(arch, doing.guest and doing.guest.arch)
                # read once
                self.assertIs(doing.guest, doing.guest)

    def test_one_within_another_gives_way_to_it_again(self) -> None:
        with operation.of(ONE, Event.ARRIVE) as outer:
            with operation.of(ONE, Event.RESCUE) as inner:
                self.assertIs(inner, operation.on(ONE))
            self.assertIs(outer, operation.on(ONE))

    def test_two_threads_on_one_instance_see_each_its_own(self) -> None:
        seen: list[object] = []
        both = threading.Barrier(2, timeout=30)

        def work(event: Event) -> None:
            before = operation.on(ONE)
            with operation.of(ONE, event):
                both.wait()
                doing = operation.on(ONE)
                both.wait()
            seen.append((before, doing and doing.event, event,
                         operation.on(ONE)))

        threads = [threading.Thread(target=work, args=(event,))
                   for event in (Event.HARD_REBOOT, Event.DELETE)]
        with operation.of(ONE, Event.RESCUE):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        self.assertEqual(2, len(seen))
        for before, doing, event, after in seen:
            self.assertEqual((None, event, None), (before, doing, after))
