# SPDX-License-Identifier: Apache-2.0
"""What operators do with a guest, and what happens to its variables.

The rows are the same for both drivers. With Nova's own driver they record
which variables are lost or old; with the extension's they check that none are.
"""

import typing

from tests.hosts.two import base
from tests.hosts.two import cloud
from tests.hosts.two import server as servers
from tests.hosts.two import settings

#: Seconds between the copies of running guests.
COPY_INTERVAL = 5


class Rows(base.MovingGuestTestCase):
    """The rows. A subclass says what it expects to see."""

    #: The number of boots that a guest counts after an evacuation, if it was
    #: stopped and started once before.
    evacuated = 3

    def look(self, server: servers.Server, *, right: int,
             settled: bool = True) -> None:
        """Compare the guest's number of boots and its variable stores.

        :param right: the boots of a guest that keeps its variables
        :param settled: whether only one store may exist; the source keeps its
            own while a migration can be reverted
        """
        raise NotImplementedError

    def leave(self, server: servers.Server) -> None:
        """Delete the guest, and check which of its files are left."""
        raise NotImplementedError

    def expect_power_loss(self, server: servers.Server) -> None:
        """Do what has to be done before the guest's host loses its power."""

    def test_cold_migration_there_and_back(self):
        server = self.boot('host1')

        server.migrate('host2')
        self.look(server, right=2, settled=False)
        server.confirm()
        self.look(server, right=2)
        server.migrate('host1')
        self.look(server, right=3, settled=False)
        server.confirm()

        self.look(server, right=3)
        self.leave(server)

    def test_reverted_migration_and_another_one(self):
        server = self.boot('host1')

        server.migrate('host2')
        self.look(server, right=2, settled=False)
        server.revert()
        # What was written on the destination is lost, as on the disk.
        self.look(server, right=2)
        server.migrate('host2')
        self.look(server, right=3, settled=False)
        server.confirm()

        self.look(server, right=3)
        self.leave(server)

    def test_live_migration_then_unshelved_where_it_came_from(self):
        server = self.boot('host1')

        server.live_migrate('host2')
        server.hard_reboot()
        self.look(server, right=2)
        server.shelve()
        server.unshelve('host1')

        self.look(server, right=3)
        self.leave(server)

    def test_unshelved_on_another_host(self):
        server = self.boot('host1')

        server.shelve()
        server.unshelve('host2')

        self.look(server, right=2)
        self.leave(server)

    def test_evacuation_and_the_return_of_the_host(self):
        server = self.boot('host1')
        server.stop()
        server.start()
        self.assertEqual(2, server.boots())

        self.expect_power_loss(server)
        self.lose_power('host1')
        server.evacuate('host2')
        self.look(server, right=self.evacuated, settled=False)
        self.cloud.power_on('host1')
        self.look(server, right=self.evacuated)
        server.migrate('host1')
        self.look(server, right=self.evacuated + 1, settled=False)
        server.confirm()

        self.look(server, right=self.evacuated + 1)
        self.leave(server)


class Stock(Rows):
    """Nova 34's own driver."""

    driver = cloud.STOCK_DRIVER

    #: By test: for each look, the number of boots that the guest counts and
    #: the hosts whose disks have a store; at the end, the hosts that still
    #: have a file of the deleted guest. These are the rows in which it does
    #: not matter whether the instances folder is shared.
    expected: typing.ClassVar[dict[str, list[object]]] = {
        'test_cold_migration_there_and_back': [
            (1, 'host1 host2'), (1, 'host2'),
            (1, 'host1 host2'), (1, 'host1'), ''],
        'test_live_migration_then_unshelved_where_it_came_from': [
            (2, 'host1 host2'), (2, 'host1'), ''],
        'test_unshelved_on_another_host': [(1, 'host2'), ''],
    }

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[object] = []

    def look(self, server, *, right, settled=True):
        self.seen.append((server.boots(), base.disks(server.stores())))

    def leave(self, server):
        server.delete()
        self.seen.append(base.disks(server.files()))
        self.assertEqual(self.expected[self._testMethodName], self.seen)


class Kept(Rows):
    """The extension's driver, with a store for copies.

    Without it a guest would lose its variables when it is shelved, or when its
    host and disk are lost.
    """

    driver = cloud.ARM_DRIVER
    options: typing.ClassVar[settings.Values] = {'arm_nvram': {
        'store': 'directory', 'directory': settings.COPIES}}

    def look(self, server, *, right, settled=True):
        self.assertEqual(right, server.boots())
        if settled:
            self.assertEqual(
                'shared' if self.cloud.shared else server.host,
                base.disks(server.stores()), server.stores())

    def leave(self, server):
        server.delete()
        self.assertEqual([], server.files())


class Copied(Kept):
    """The same, with copies of running guests on a timer all the while."""

    options: typing.ClassVar[settings.Values] = {'arm_nvram': {
        **Kept.options['arm_nvram'], 'copy_interval': COPY_INTERVAL}}

    def look(self, server, *, right, settled=True):
        super().look(server, right=right, settled=settled)
        if settled:
            server.await_copy(right)

    def expect_power_loss(self, server):
        server.await_copy(server.boots())
