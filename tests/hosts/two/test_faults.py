# SPDX-License-Identifier: Apache-2.0
"""Faults while a guest moves; it keeps its variables.

Each host has its own instances folder, and there is no store for copies, so
that only the guest's own store can have kept the number of boots.
"""

import collections.abc
import concurrent.futures

from tests.hosts.two import base
from tests.hosts.two import cloud
from tests.hosts.two import server as servers
from tests.hosts.two import settings


def setUpModule() -> None:
    base.bring_up(shared=False)


DRIVER = 'nova_arm_ext.compute.driver:ArmLibvirtDriver'
NVRAM = 'nova_arm_ext.compute.nvram'
START = f'{NVRAM}.start:Start.prepare'
LUGGAGE = f'{NVRAM}.luggage:Luggage'
FILES = f'{NVRAM}.files'
RPC = 'nova.compute.rpcapi:ComputeAPI'


class FaultTestCase(base.MovingGuestTestCase):

    driver = cloud.ARM_DRIVER

    def assert_boots(self, boots: int, host: str, when: str) -> None:
        """Check that the guest is on a host and has its variables."""
        self.assertEqual((host, boots),
                         (self.server.host, self.server.boots()), when)

    def recover(self) -> None:
        """Do what an operator does after an operation was interrupted."""
        self.server.reset_state()
        self.server.hard_reboot()


class KilledTest(FaultTestCase):
    """nova-compute is killed on one of the hosts, and started again."""

    def kill(self, host: str, step: str, action: dict[str, object]) -> None:
        self.cloud.signal_at(host, 'KILL', step)
        self.server.ask(action)
        self.cloud.await_end(host)
        self.cloud.restart_compute(host)

    def test_where_a_guest_leaves(self):
        self.server = self.boot('host1')
        boots = 1
        for step, runs in (
                (f'before {NVRAM}.store:Stores.check', True),
                # The disks are there.
                (f'before {NVRAM}.store:Stores.pack', False),
                # The store is written, and has no name yet.
                (f'after {FILES}:_write', False),
                (f'after {LUGGAGE}.pack_luggage', False),
                ('after nova.virt.libvirt.utils:copy_image 3', False),
                (f'after {DRIVER}.migrate_disk_and_power_off', False)):

            self.kill('host1', step, {'migrate': {'host': 'host2'}})

            self.assertEqual(runs, self.server.runs('host1'), step)
            if runs:
                self.assert_boots(boots, 'host1', step)
            # Nova moves the disks back when it starts, and then fails ("Failed
            # to revert crashed migration"), because the old flavor is not
            # recorded yet (_finish_revert_migration_vtpm, 29 to 34).
            self.recover()
            boots += 1
            self.assert_boots(boots, 'host1', step)
        self.server.migrate('host2')
        self.assert_boots(boots + 1, 'host2', 'at last')
        self.server.confirm()
        self.assertEqual('host2', base.disks(self.server.stores()))
        self.server.delete()
        self.assertEqual([], self.server.files())

    def test_where_it_arrives(self):
        self.server = self.boot('host1')
        boots, here, there = 1, 'host1', 'host2'
        for step, runs in (
                (f'before {DRIVER}.finish_migration', False),
                # The store is written, and has no name yet.
                (f'after {FILES}:_write', False),
                # The packed one is there.
                (f'after {NVRAM}.store:write', False),
                (f'after {START}', False),
                (f'before {LUGGAGE}.remove_document', True),
                (f'after {DRIVER}.finish_migration', True)):

            self.kill(there, step, {'migrate': {'host': there}})

            self.assertEqual(runs, self.server.runs(there), step)
            if runs:
                boots += 1
                self.assert_boots(boots, there, step)
            self.recover()
            boots += 1
            self.assert_boots(boots, there, step)
            here, there = there, here

    def test_before_it_was_told_to_arrive(self):
        self.server = self.boot('host1')

        self.kill('host1', f'before {RPC}.finish_resize',
                  {'migrate': {'host': 'host2'}})
        self.recover()

        self.assert_boots(2, 'host2', 'before it was told')

    def test_as_it_is_confirmed(self):
        self.server = self.boot('host1')
        boots, here, there = 1, 'host1', 'host2'
        for step in (f'before {DRIVER}.confirm_migration',
                     f'before {DRIVER}._undefine_domain',
                     f'after {DRIVER}.confirm_migration'):
            self.server.migrate(there)
            boots += 1
            self.assert_boots(boots, there, step)

            self.kill(here, step, {'confirmResize': None})

            self.assert_boots(boots, there, step)
            self.cloud.set_state(self.server.uuid, migration='finished')
            self.server.confirm()
            self.assert_boots(boots, there, step)
            self.assertEqual(there, base.disks(self.server.stores()), step)
            here, there = there, here
        self.server.delete()
        self.assertEqual([], self.server.files())

    def test_as_it_is_reverted_where_it_has_been(self):
        self.server = self.boot('host1')
        boots = 1
        for step in (f'before {DRIVER}.destroy',
                     f'before {RPC}.finish_revert_resize'):
            self.server.migrate('host2')
            self.assert_boots(boots + 1, 'host2', step)

            self.kill('host2', step, {'revertResize': None})

            self.cloud.set_state(
                self.server.uuid, vm_state='resized', task_state=None,
                migration='finished')
            self.server.revert()
            # What was written on the destination is lost.
            boots += 1
            self.assert_boots(boots, 'host1', step)
            self.assertEqual('host1', base.disks(self.server.stores()), step)

    def test_as_it_is_reverted_where_it_goes_back_to(self):
        self.server = self.boot('host1')
        boots = 1
        for step, runs in (
                # Its files have the suffix of a guest that was migrated.
                (f'before {DRIVER}.finish_revert_migration', False),
                (f'before {START}', False),
                (f'before {LUGGAGE}.remove_document', True),
                (f'after {DRIVER}.finish_revert_migration', True)):
            self.server.migrate('host2')
            self.assert_boots(boots + 1, 'host2', step)

            self.kill('host1', step, {'revertResize': None})

            self.assertEqual(runs, self.server.runs('host1'), step)
            if runs:
                boots += 1
                self.assert_boots(boots, 'host1', step)
            self.recover()
            boots += 1
            self.assert_boots(boots, 'host1', step)
            self.assertEqual('host1', base.disks(self.server.stores()), step)


class FullDiskTest(FaultTestCase):
    """The hosts' instances folders are small, and one of them fills up."""

    def setUp(self) -> None:
        super().setUp()
        for host in self.cloud.hosts.values():
            # The flavor has a disk of 1 GB; Nova counts whole gigabytes.
            host.run('mount', '-t', 'tmpfs', '-o', 'size=2g,mode=755',
                     'tmpfs', settings.INSTANCES)
            self.addCleanup(host.run, 'umount', '--lazy', settings.INSTANCES)
        self.server = self.boot('host1')

    def fill(self, full: str, at: str, step: str,
             says: str = 'o space left') -> None:
        """Start a migration, and fill a host's disk at a step of it.

        :param says: words in the guest's fault
        """
        self.cloud.signal_at(at, 'STOP', step)
        self.server.ask({'migrate': {'host': 'host2'}})
        self.cloud.await_stop(at)
        ballast = f'{settings.INSTANCES}/ballast'
        self.cloud.hosts[full].run('sh', '-c', f'! cat /dev/zero > {ballast}')
        self.cloud.go_on(at)
        error = self.assertRaises(servers.ActionFailed,
                                  self.server.await_status, 'VERIFY_RESIZE')
        self.assertIn(says, str(error))
        self.cloud.hosts[full].run('rm', ballast)

    def test_where_a_guest_leaves(self):
        self.fill('host1', 'host1', f'before {LUGGAGE}.pack_luggage')

        self.recover()
        self.assert_boots(2, 'host1', 'afterwards')

    def test_on_the_way(self):
        # SFTP, and therefore scp, cannot report a full disk ("Failure").
        self.fill('host2', 'host1', f'after {LUGGAGE}.pack_luggage',
                  'could not be sent to')

        self.recover()
        self.assert_boots(2, 'host1', 'afterwards')

    def test_where_it_arrives(self):
        self.fill('host2', 'host2', f'before {START}')

        self.recover()
        self.assert_boots(2, 'host2', 'afterwards')


    def test_a_guest_is_stopped_and_started_on_it(self):
        host = self.cloud.hosts['host1']
        ballast = f'{settings.INSTANCES}/ballast'
        host.run('sh', '-c', f'! cat /dev/zero > {ballast}')
        self.server.hard_reboot()
        self.server.await_status('ACTIVE')
        self.server.stop()
        self.server.hard_reboot()
        self.server.stop()
        host.run('rm', ballast)

        self.server.start()

        # It was not given the time to count on the full disk, and has no
        # console there; but it has the number from before.
        self.assertIn(self.server.boots(), (2, 3, 4))
        self.server.delete()
        self.assertNotIn(self.server.uuid, host.run('ls', settings.INSTANCES))


class NoMemoryTest(FaultTestCase):
    """A host has no memory for guests, so that none of them starts."""

    #: Bytes: libvirtd itself has less, and an emulator with a guest has more.
    MEMORY = 2 * 1024 ** 3

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.give_memory)

    def limit(self, memory: str) -> None:
        """Limit what libvirt's processes may have from now on."""
        host = self.cloud.hosts['host1']
        host.run('prlimit', '--pid', host.run('cat', '/run/libvirtd.pid'),
                 # Not every machine lets root raise a hard limit again.
                 f'--as={memory}:')

    def take_memory(self) -> None:
        self.limit(f'{self.MEMORY}')

    def give_memory(self) -> None:
        self.limit('unlimited')

    def fail(self, operation: collections.abc.Callable[[], None]) -> None:
        """Check that an operation ends in ERROR for want of memory."""
        self.take_memory()
        self.assertRaises(servers.ActionFailed, operation)
        self.assertEqual('ERROR', self.server.await_rest())
        log = (self.cloud.disk('host1', '/var/log/libvirt')
               / f'qemu/{self.server.names[1]}.log')
        self.assertIn('annot allocate memory', log.read_text())
        self.give_memory()

    def assert_is_as_before(self, boots: int, hardware: list[object]) -> None:
        self.assert_boots(boots, 'host1', 'afterwards')
        self.assertEqual(hardware, self.server.hardware())
        self.assertEqual(1, len(self.server.stores()), self.server.stores())

    def suspend_and_fail_to_resume(self) -> None:
        had = self.server.hardware()
        self.server.suspend()

        self.fail(self.server.resume)
        self.server.hard_reboot()

        self.assert_is_as_before(2, had)
        self.server.delete()
        self.assertEqual([], self.server.files())

    def test_a_resume(self):
        self.server = self.boot('host1')

        self.suspend_and_fail_to_resume()

    def test_a_resume_of_a_guest_that_nova_made_by_itself(self):
        self.cloud.use_driver(cloud.STOCK_DRIVER)
        self.addCleanup(self.cloud.use_driver, self.driver, self.options)
        self.server = self.boot('host1')
        [store] = self.server.stores()
        self.assertIn('qemu/nvram/', store)
        self.cloud.use_driver(self.driver, self.options)

        self.suspend_and_fail_to_resume()

    def test_a_rescue(self):
        self.server = self.boot('host1')
        had = self.server.hardware()

        self.fail(self.server.rescue)
        self.fail(self.server.rescue)
        self.server.rescue()
        # The rescue system counts in a copy.
        self.assert_boots(2, 'host1', 'rescued')
        self.server.unrescue()

        self.assert_is_as_before(2, had)
        self.fail(self.server.rescue)
        self.server.hard_reboot()
        # The files of the rescue stay until the next one, as Nova's do.
        self.assert_boots(3, 'host1', 'at last')
        self.assertEqual(had, self.server.hardware())
        self.server.delete()
        self.assertEqual([], self.server.files())


class AtOnceTest(FaultTestCase):

    def test_two_requests_at_once(self):
        """One is refused, or both are done one after the other."""
        self.server = self.boot('host1')
        reboot, migrate = {'reboot': {'type': 'HARD'}}, {'migrate': None}
        for requests in ((reboot, migrate), (migrate, reboot),
                         (reboot, reboot)):
            boots = self.server.boots()

            with concurrent.futures.ThreadPoolExecutor() as pool:
                asked = [pool.submit(self.server.ask, request)
                         for request in requests]
            refused = [one.exception() for one in asked if one.exception()]
            self.assertLess(len(refused), 2, refused)
            for error in refused:
                # 500 if Nova's API notices the other request only when it
                # writes into its database.
                self.assertRegex(str(error),
                                 ' 409 |nova.exception.UnexpectedTaskState')
            if self.server.await_rest() == 'VERIFY_RESIZE':
                self.server.confirm()

            self.assertGreater(self.server.boots(), boots, requests)
            self.assertEqual(self.server.host,
                             base.disks(self.server.stores()))
        self.server.delete()
        self.assertEqual([], self.server.files())
