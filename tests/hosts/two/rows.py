# SPDX-License-Identifier: Apache-2.0
"""What operators do with a guest, and what becomes of its variables.

The same rows for Nova's own driver and for the extension's: of the first they
tell what is lost or comes back, of the second that nothing is.
"""

import typing

from tests.hosts.two import base
from tests.hosts.two import cloud
from tests.hosts.two import server as servers
from tests.hosts.two import settings


class Rows(base.MovingGuestTestCase):
    """The rows. A subclass says what it expects to see."""

    #: The boots that a guest can know of that was switched off once, started
    #: again, and then lost its host.
    evacuated = 3

    def look(self, server: servers.Server, *, right: int,
             settled: bool = True) -> None:
        """Ask the guest for its boots, and look for its variable stores.

        :param right: the boots of a guest that keeps its variables
        :param settled: whether one store is enough by now; while a migration
            can be reverted the old host keeps its own
        """
        raise NotImplementedError

    def leave(self, server: servers.Server) -> None:
        """Delete the guest, and look for what remains of it."""
        raise NotImplementedError

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
        # What was written on the other host is undone, as on the disk.
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

    #: By test: the boots that the guest counts and whose disks have a store,
    #: look by look; at last who keeps a file of the guest that is gone.
    expected: typing.ClassVar[dict[str, list[object]]]

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

    Without one a guest that is shelved, or whose host is dead and its disk
    with it, would have to begin anew.
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
