# SPDX-License-Identifier: Apache-2.0
"""Both hosts share one instances folder."""

from tests.hosts.two import base
from tests.hosts.two import rows


def setUpModule() -> None:
    base.bring_up(shared=True)


class StockTest(rows.Stock):

    expected = {
        **rows.Stock.expected,
        'test_reverted_migration_and_another_one': [
            (1, 'host1 host2'), (2, 'host1 host2'),
            (2, 'host1 host2'), (2, 'host2'), ''],
        'test_evacuation_and_the_return_of_the_host': [
            (1, 'host1 host2'), (1, 'host1 host2'),
            (3, 'host1 host2'), (3, 'host1'), ''],
    }


class ArmTest(rows.Kept):
    pass


class CopiedTest(rows.Copied):
    pass
