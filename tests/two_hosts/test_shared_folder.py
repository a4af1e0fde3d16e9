# SPDX-License-Identifier: Apache-2.0
"""Both hosts have one instances folder."""

from tests.two_hosts import base
from tests.two_hosts import rows
from tests.two_hosts import server as servers


def setUpModule() -> None:
    base.bring_up(shared=True)


class StockTest(rows.Stock):

    expected = {
        'test_cold_migration_there_and_back': [
            (1, 'host1 host2'), (1, 'host2'),
            (1, 'host1 host2'), (1, 'host1'), ''],
        'test_reverted_migration_and_another_one': [
            (1, 'host1 host2'), (2, 'host1 host2'),
            (2, 'host1 host2'), (2, 'host2'), ''],
        'test_unshelved_on_another_host': [(1, 'host2'), ''],
        'test_evacuation_and_the_return_of_the_host': [
            (1, 'host1 host2'), (1, 'host1 host2'),
            (3, 'host1 host2'), (3, 'host1'), ''],
    }


class ArmTest(rows.Kept):

    def test_live_migration_that_fails_takes_nothing_along(self):
        server = self.boot('host1')

        error = self.assertRaises(servers.ActionFailed, server.live_migrate,
                                  'host2')

        # The folder is bound on both hosts: see rows.LiveRows.
        self.assertIn('is in state failed', str(error))
        self.assertTrue(server.runs('host1'))
        # As Nova leaves it.
        server.await_status('ERROR')
        server.reset_state()
        server.hard_reboot()
        self.assertEqual('host1', server.host)
        self.look(server, right=2)
        self.leave(server)
