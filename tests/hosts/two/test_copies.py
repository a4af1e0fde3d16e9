# SPDX-License-Identifier: Apache-2.0
"""The store for copies goes away while guests are operated on.

Nova's work is done all the same, except where a guest would lose its
variables; and when the store is back, copies are made again.
"""

import collections.abc
import contextlib
import time

from tests.hosts.two import base
from tests.hosts.two import cloud
from tests.hosts.two import container
from tests.hosts.two import rows
from tests.hosts.two import settings

MOUNT_TIMEOUT = 30.0


def setUpModule() -> None:
    base.bring_up(shared=False)


class StoreAwayTest(base.MovingGuestTestCase):

    driver = cloud.ARM_DRIVER
    options = rows.Copied.options

    def setUp(self) -> None:
        super().setUp()
        self.storage = self.cloud.folder / 'copies'
        self.away = contextlib.ExitStack()
        self.addCleanup(self.away.close)

    def take(self, taken: collections.abc.Callable[
            [container.Container],
            contextlib.AbstractContextManager[None]]) -> None:
        """Take the store from both hosts until `away` is closed."""
        for host in self.cloud.hosts.values():
            self.away.enter_context(taken(host))

    # -- How it goes --------------------------------------------------------

    @contextlib.contextmanager
    def unmounted(self, host: container.Container
                  ) -> collections.abc.Iterator[None]:
        """Its folder is then one of the host itself."""
        host.run('umount', '--lazy', settings.COPIES)
        yield
        self.assertEqual('', host.run('ls', '-A', settings.COPIES))
        host.run('mount', '--bind', self.storage, settings.COPIES)

    @contextlib.contextmanager
    def a_file(self, host: container.Container
               ) -> collections.abc.Iterator[None]:
        host.run('umount', '--lazy', settings.COPIES)
        host.run('rmdir', settings.COPIES)
        host.run('touch', settings.COPIES)
        yield
        host.run('rm', settings.COPIES)
        host.run('mkdir', settings.COPIES)
        host.run('mount', '--bind', self.storage, settings.COPIES)

    @contextlib.contextmanager
    def unreadable(self, host: container.Container
                   ) -> collections.abc.Iterator[None]:
        """The server of the file system is dead."""
        server = host.spawn('bindfs', 'bindfs', '-f', '-o', 'nonempty',
                            self.storage, settings.COPIES)
        deadline = time.monotonic() + MOUNT_TIMEOUT
        while 'fuse' not in host.run('stat', '--file-system', '--format=%T',
                                     settings.COPIES):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        server.kill()
        yield
        host.run('umount', '--lazy', settings.COPIES)

    @contextlib.contextmanager
    def read_only(self, host: container.Container
                  ) -> collections.abc.Iterator[None]:
        host.run('mount', '-o', 'remount,bind,ro', settings.COPIES)
        yield
        host.run('mount', '-o', 'remount,bind,rw', settings.COPIES)

    @contextlib.contextmanager
    def full(self, host: container.Container
             ) -> collections.abc.Iterator[None]:
        host.run('mount', '-t', 'tmpfs', '-o', 'size=64k,mode=700', 'tmpfs',
                 settings.COPIES)
        host.run('sh', '-c', f'! cat /dev/zero > {settings.COPIES}/ballast')
        yield
        host.run('umount', '--lazy', settings.COPIES)

    # -- What is done meanwhile -----------------------------------------------

    def work_without(self, taken: collections.abc.Callable[
            [container.Container],
            contextlib.AbstractContextManager[None]]) -> None:
        """Operate on guests without the store, and look when it is back."""
        server, other = self.boot('host1'), self.boot('host2')
        for one in (server, other):
            one.await_copy(1)
        self.take(taken)

        server.stop()
        server.start()
        self.assertEqual(2, server.boots())
        server.hard_reboot()
        self.assertEqual(3, server.boots())
        server.migrate('host2')
        self.assertEqual(4, server.boots())
        server.confirm()
        server.live_migrate('host1')
        other.delete()
        new = self.boot('host2')

        self.assertEqual('host1', base.disks(server.stores()))
        # The store could not be told to forget it.
        self.assertEqual([f'copies:{other.copy_name}'], other.files())
        self.assertEqual((1, None),
                         (server.copied_boots(), new.copied_boots()))
        self.away.close()
        server.await_copy(4)
        new.await_copy(1)
        for one in (server, new):
            one.delete()
            self.assertEqual([], one.files())
        (self.storage / other.copy_name).unlink()

    def test_unmounted(self):
        self.work_without(self.unmounted)

    def test_replaced_by_a_file(self):
        self.work_without(self.a_file)

    def test_unreadable(self):
        self.work_without(self.unreadable)

    def test_read_only(self):
        self.work_without(self.read_only)

    def test_full(self):
        self.work_without(self.full)

    def test_a_guest_is_not_offloaded_without_its_variables(self):
        server = self.boot('host1')
        server.await_copy(1)
        server.hard_reboot()
        self.assertEqual(2, server.boots())
        self.take(self.unmounted)

        server.ask({'shelve': None})

        self.assertEqual('SHELVED', server.await_rest())
        self.assertEqual('host1', base.disks(server.stores()))
        self.away.close()
        server.ask({'shelveOffload': None})
        server.await_status('SHELVED_OFFLOADED')
        server.unshelve('host2')
        self.assertEqual(3, server.boots())
        server.delete()
        self.assertEqual([], server.files())

    def test_a_guest_is_not_unshelved_without_its_variables(self):
        server = self.boot('host1')
        server.shelve()
        self.take(self.unmounted)

        server.ask({'unshelve': {'host': 'host2'}})

        self.assertEqual('SHELVED_OFFLOADED', server.await_rest())
        self.away.close()
        server.unshelve('host2')
        self.assertEqual(2, server.boots())
        server.delete()
        self.assertEqual([], server.files())
