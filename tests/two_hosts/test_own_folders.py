# SPDX-License-Identifier: Apache-2.0
"""Each host has an instances folder of its own."""

from tests.two_hosts import base
from tests.two_hosts import rows


def setUpModule() -> None:
    base.bring_up(shared=False)


class StockTest(rows.Stock):

    expected = {
        'test_cold_migration_there_and_back': [
            (1, 'host1 host2'), (1, 'host2'),
            (1, 'host1 host2'), (1, 'host1'), ''],
        'test_reverted_migration_and_another_one': [
            (1, 'host1 host2'), (2, 'host1'),
            (1, 'host1 host2'), (1, 'host2'), ''],
        'test_live_migration_then_unshelved_where_it_came_from': [
            (2, 'host1 host2'), (2, 'host1'), ''],
        'test_unshelved_on_another_host': [(1, 'host2'), ''],
        'test_evacuation_and_the_return_of_the_host': [
            (1, 'host1 host2'), (1, 'host2'),
            (1, 'host1 host2'), (1, 'host1'), ''],
    }


class ArmTest(rows.Kept):

    # A dead host's disk cannot be read: the copy from the power-off is used.
    evacuated = 2
