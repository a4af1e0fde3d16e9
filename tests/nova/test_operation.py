# SPDX-License-Identifier: Apache-2.0
"""An operation is seen by Nova's private methods that run within it.

With threads of the system and with eventlet's: each test runs in the process
that runs the suite, and once more in a process for each kind of threads.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import concurrent.futures
import contextlib
import contextvars
import functools
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from unittest import mock

import fixtures
import greenlet
from nova import exception
from nova import objects
from nova.compute import task_states
from nova.tests import fixtures as nova_fixtures
from nova.virt import fake
from oslo_service import loopingcall

from nova_arm_ext.compute import driver
from nova_arm_ext.compute import operation
from nova_arm_ext.compute import seams
from nova_arm_ext.nvram import Event
from tests.support import base

UUID = 'b7e2f3c4-1c2d-4a5b-8e6f-0123456789ab'
NOVAS = 'nova.virt.libvirt.driver.LibvirtDriver.'
#: Nova's methods that need to know why they are called.
PRIVATE = ('_get_guest_xml', '_create_guest', '_undefine_domain')
IMAGE = objects.ImageMeta.from_dict({'properties': {}})
#: How each operation begins: Nova's method, and arguments that it needs.
BEGIN = {
    Event.SPAWN: ('spawn', (IMAGE,)),
    Event.HARD_REBOOT: ('_hard_reboot', ()),
    Event.RESCUE: ('rescue', ()),
    Event.UNRESCUE: ('unrescue', ()),
    Event.ARRIVE: ('finish_migration', ()),
    Event.REVERT: ('finish_revert_migration', ()),
}


Runs = Callable[..., None]
#: Whether eventlet came before everything else, if it is there.
whole = False


def is_patched() -> bool:
    """Whether eventlet has replaced the threads of this process."""
    eventlet = sys.modules.get('eventlet')
    return bool(eventlet and eventlet.patcher.is_monkey_patched('thread'))


def looping(*tasks: Callable[[], object]) -> None:
    """Run tasks in one looping call, one after the other, and wait."""
    left = list(tasks)

    def once() -> None:
        left.pop(0)()
        if not left:
            raise loopingcall.LoopingCallDone

    loopingcall.FixedIntervalLoopingCall(once).start(0.01).wait()


def pooled(*tasks: Callable[[], object]) -> None:
    """Run tasks in one worker, one after the other, and wait."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        for task in tasks:
            executor.submit(task).result(30)


class OperationTest(nova.test.NoDBTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())
        self.flags(instances_path=self.useFixture(fixtures.TempDir()).path)
        self.driver = driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)
        self.instance = objects.Instance(
            id=1, uuid=UUID, host='a', vm_state='active', task_state=None,
            image_ref='', launched_at=None, system_metadata={},
            flavor=objects.Flavor(extra_specs={}))
        self.seen: list[tuple[str, Event | None]] = []
        for name in PRIVATE:
            self.stub_out(NOVAS + name,
                          lambda *args, name=name: self.see(name))
        for method in ('asked_for', 'adjusted', 'before_start'):
            owner = {'asked_for': 'machine.Machines',
                     'adjusted': 'adjustment.Adjustment',
                     'before_start': 'nvram.life.Life'}[method]
            self.stub_out(f'nova_arm_ext.compute.{owner}.{method}',
                          lambda *args, method=method: self.see(method))

    def see(self, name: str) -> None:
        doing = operation.on(self.instance)
        self.seen.append((name, doing and doing.event))

    def private(self) -> None:
        """What Nova's own methods do, one after the other."""
        self.driver._undefine_domain(self.instance)
        self.driver._get_guest_xml(None, self.instance, None, {}, None)
        self.driver._create_guest(None, '<domain/>', self.instance)

    def begin(self, event: Event, does: Callable[[], object]) -> None:
        """Have nova-compute begin an operation, in which Nova does this."""
        name, arguments = BEGIN[event]
        with fixtures.MonkeyPatch(NOVAS + name,
                                  lambda *args, **kwargs: does()):
            # the context, and of a migration what is known of it
            before = (None,) * (2 if name == 'finish_migration' else 1)
            getattr(self.driver, name)(*before, self.instance, *arguments)

    def assert_seen(self, event: Event | None) -> None:
        self.assertEqual([(name, event) for name in (
            '_undefine_domain', 'asked_for', '_get_guest_xml', 'adjusted',
            'before_start', '_create_guest')], self.seen)
        self.seen.clear()

    # -- Where it is seen ----------------------------------------------------

    def test_nova_s_private_methods_see_each_operation(self) -> None:
        for event in BEGIN:
            self.begin(event, self.private)

            self.assert_seen(event)
            self.assertIsNone(operation.current.get())

    def test_without_one_they_see_none(self) -> None:
        self.private()

        self.assert_seen(None)

    def test_a_rebuild_and_an_evacuation_are_seen_by_the_spawn(self) -> None:
        self.instance.task_state = task_states.REBUILD_SPAWNING
        self.stub_out(NOVAS + 'spawn', lambda *args: self.see('spawn'))
        self.stub_out(NOVAS + 'rebuild',
                      mock.Mock(side_effect=NotImplementedError))
        for evacuate in (True, False):
            self.assertRaises(NotImplementedError, self.driver.rebuild, None,
                              self.instance, IMAGE, evacuate=evacuate)
            for _ in 'ab':
                self.driver.spawn(None, self.instance, IMAGE)

        # the marker is for one spawn
        self.assertEqual([('spawn', event) for event in (
            Event.EVACUATE, *3 * (Event.REBUILD,))], self.seen)

    def test_it_may_begin_in_a_looping_call_or_an_executor(self) -> None:
        self.needs_threads()
        for runs in (looping, pooled):
            runs(lambda: self.begin(Event.RESCUE, self.private))

            self.assert_seen(Event.RESCUE)

    def test_the_next_task_of_the_same_worker_sees_nothing(self) -> None:
        self.needs_threads()
        for runs in (looping, pooled):
            runs(lambda: self.begin(Event.RESCUE, lambda: None),
                 self.private)

            self.assert_seen(None)

    def test_nova_may_wait_for_one_meanwhile(self) -> None:
        """As it waits for a guest that is switched off, or comes up."""
        self.needs_threads()
        for runs in (looping, pooled):
            def work(runs: Runs = runs) -> None:
                runs(lambda: None)
                self.private()

            self.begin(Event.HARD_REBOOT, work)

            self.assert_seen(Event.HARD_REBOOT)

    def test_a_worker_sees_it_only_with_the_context(self) -> None:
        self.needs_threads()
        def work() -> None:
            pooled(lambda: self.see('alone'),
                   functools.partial(contextvars.copy_context().run,
                                     self.see, 'given'),
                   lambda: self.see('after'))

        self.begin(Event.RESCUE, work)

        self.assertEqual([('alone', None), ('given', Event.RESCUE),
                          ('after', None)], self.seen)

    def test_a_second_one_on_the_same_instance_sees_its_own(self) -> None:
        """A delete may come while a reboot goes on; neither waits."""
        self.needs_threads()
        begun, over = threading.Event(), threading.Event()
        seen: dict[str, object] = {}

        def reboot() -> None:
            begun.set()
            over.wait(30)
            doing = operation.on(self.instance)
            seen['reboot'] = doing and doing.event

        def first() -> None:
            self.begin(Event.HARD_REBOOT, reboot)
            seen['after'] = operation.on(self.instance)

        thread = threading.Thread(target=first)
        thread.start()
        self.assertTrue(begun.wait(30))
        seen['before'] = operation.on(self.instance)
        self.begin(Event.RESCUE, lambda: self.see('rescue'))
        over.set()
        thread.join(30)

        self.assertEqual({'before': None, 'reboot': Event.HARD_REBOOT,
                          'after': None}, seen)
        self.assertEqual([('rescue', Event.RESCUE)], self.seen)

    # -- What is left --------------------------------------------------------

    def test_nothing_is_left_of_one_that_fails(self) -> None:
        for error in (exception.NovaException, greenlet.GreenletExit,
                      KeyboardInterrupt, TimeoutError):
            for event in BEGIN:
                with contextlib.suppress(error):
                    self.begin(event, mock.Mock(side_effect=error))
                    self.fail(f'{event} goes on after {error}')

                self.assertIsNone(operation.current.get())
                self.private()
                self.assert_seen(None)

    def test_nothing_is_left_of_a_timeout_of_eventlet(self) -> None:
        eventlet = self.patched()

        def wait() -> None:
            with eventlet.Timeout(0.01):
                eventlet.sleep(30)

        self.assertRaises(eventlet.Timeout, self.begin, Event.SPAWN, wait)

        self.assertIsNone(operation.current.get())

    def test_nothing_is_left_of_a_green_thread_that_is_killed(self) -> None:
        eventlet = self.patched()
        begun, after = eventlet.event.Event(), []

        def wait() -> None:
            begun.send()
            eventlet.sleep(30)

        def work() -> None:
            try:
                self.begin(Event.SPAWN, wait)
            finally:
                after.append(operation.current.get())

        thread = eventlet.spawn(work)
        begun.wait()
        thread.kill()

        self.assertEqual([None], after)
        self.assertIsNone(operation.current.get())

    def patched(self) -> types.ModuleType:
        """eventlet, if it has replaced the threads of this process."""
        if not is_patched():
            self.skipTest('the threads of this process are not of eventlet')
        return sys.modules['eventlet']

    def needs_threads(self) -> None:
        """Skip a test that waits for threads where they may be mixed.

        Other tests of this process may have imported threading before
        eventlet replaced it.
        """
        if is_patched() and not whole:
            self.skipTest('ThreadsTest runs it in a process of its own')


#: Runs the tests above after it has chosen the threads.
RUN = """
import sys, unittest
import tests.nova.test_operation as module
assert module.is_patched() is (sys.argv[1] == 'eventlet')
module.whole = True
suite = unittest.defaultTestLoader.loadTestsFromTestCase(module.OperationTest)
result = unittest.TextTestRunner(verbosity=2).run(suite)
sys.exit(not result.wasSuccessful())
"""


class ThreadsTest(base.TestCase):
    """The tests above with each kind of threads."""

    def run_with(self, threads: str) -> str:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', RUN, threads],
            text=True, capture_output=True, check=False, timeout=300,
            stdin=subprocess.DEVNULL,
            cwd=pathlib.Path(__file__).parents[2],
            env={**os.environ, 'OS_NOVA_DISABLE_EVENTLET_PATCHING':
                 'no' if threads == 'eventlet' else 'yes'})
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stderr

    def test_threads_of_the_system(self) -> None:
        if int(seams.release().partition('.')[0]) < 33:
            self.skipTest('a Nova before 33 has only those of eventlet')

        self.assertIn('skipped', self.run_with('native'))

    def test_threads_of_eventlet(self) -> None:
        try:
            importlib.metadata.version('eventlet')
        except importlib.metadata.PackageNotFoundError:
            self.skipTest('eventlet is not installed')

        self.assertNotIn('skipped', self.run_with('eventlet'))
