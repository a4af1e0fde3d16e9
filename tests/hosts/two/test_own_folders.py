# SPDX-License-Identifier: Apache-2.0
"""Each host has its own instances folder."""

import time
import typing

from tests.hosts.two import base
from tests.hosts.two import cloud
from tests.hosts.two import rows
from tests.hosts.two import server as servers
from tests.hosts.two import settings


def setUpModule() -> None:
    base.bring_up(shared=False)


class StockTest(rows.Stock):

    expected = {
        **rows.Stock.expected,
        'test_reverted_migration_and_another_one': [
            (1, 'host1 host2'), (2, 'host1'),
            (1, 'host1 host2'), (1, 'host2'), ''],
        'test_evacuation_and_the_return_of_the_host': [
            (1, 'host1 host2'), (1, 'host2'),
            (1, 'host1 host2'), (1, 'host1'), ''],
    }


class ArmTest(rows.Kept):

    # A dead host's disk cannot be read: the copy from the power-off is used.
    evacuated = 2


class CopiedTest(rows.Copied):
    pass


class LiveMigrationTest(base.MovingGuestTestCase):

    driver = cloud.ARM_DRIVER
    options: typing.ClassVar[settings.Values] = {
        'arm_cpu': {'compare': 'strict'}}

    def test_a_guest_goes_there_and_back_and_runs_all_the_while(self):
        server = self.boot('host1')
        seen = server.report().hardware
        had = server.hardware()
        for there in ('host2', 'host1'):
            uptime = server.uptime()

            server.live_migrate(there)

            self.assertEqual(there, server.host)
            self.assertGreater(server.uptime(), uptime)
            self.assertEqual(had, server.hardware())
            self.assertEqual(there, base.disks(server.stores()))
        server.hard_reboot()
        # It has not been booted in between.
        self.assertEqual(2, server.boots())
        self.assertEqual(seen, server.report().hardware)
        self.assertEqual(had, server.hardware())
        server.delete()
        self.assertEqual([], server.files())

    def test_a_host_without_firmware_refuses_it_and_it_runs_on(self):
        server = self.boot('host1')
        host = self.cloud.hosts['host2']
        firmware = '/usr/share/qemu/firmware'
        host.run('mount', '-t', 'tmpfs', 'tmpfs', firmware)
        self.addCleanup(self.cloud.restart_compute, 'host2')
        self.addCleanup(host.run, 'umount', firmware)
        self.cloud.restart_compute('host2')

        error = self.assertRaises(servers.ActionFailed, server.live_migrate,
                                  'host2')

        self.assertIn('this host has no UEFI firmware for aarch64 guests',
                      str(error))
        self.assertEqual('host1', server.host)
        uptime = server.uptime()
        while server.uptime() == uptime:
            time.sleep(0.5)
        self.assertEqual([], [file for file in server.files()
                              if file.startswith('host2')])


class CopiedLiveMigrationTest(LiveMigrationTest):

    options: typing.ClassVar[settings.Values] = {
        **LiveMigrationTest.options, **rows.Copied.options}
