# SPDX-License-Identifier: Apache-2.0
"""What happens to a guest's UEFI variables when it moves between two hosts.

At each boot the guest adds one to a number in a variable, and reports the
number. The number shows whether the variable is old.
"""

import typing
import unittest

from testtools import content

from tests.hosts.two import bed
from tests.hosts.two import cloud as clouds
from tests.hosts.two import server as servers
from tests.hosts.two import settings
from tests.support import base

_cloud: clouds.Cloud | None = None


def bring_up(*, shared: bool) -> None:
    """Start the two hosts for a module's setUpModule.

    :param shared: whether they share the instances folder
    """
    global _cloud
    if reason := bed.why_not():
        raise unittest.SkipTest(reason)
    _cloud = unittest.enterModuleContext(bed.Bed(shared=shared))


def disks(found: list[str]) -> str:
    """The hosts on whose disks these files are, separated by spaces."""
    return ' '.join(file.partition(':')[0] for file in found)


class MovingGuestTestCase(base.TestCase):
    """A test with guests on two hosts with the same driver."""

    driver: typing.ClassVar[str]

    #: The driver's options in nova.conf.
    options: typing.ClassVar[settings.Values] = {}

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        assert _cloud is not None
        cls.cloud = _cloud
        cls.cloud.use_driver(cls.driver, cls.options)

    def setUp(self) -> None:
        super().setUp()
        self.addOnException(lambda _: self._add_logs())

    def _add_logs(self) -> None:
        for name, said in self.cloud.logs():
            self.addDetail(name, content.text_content(said[-12000:]))

    def boot(self, host: str = 'host1') -> servers.Server:
        """A guest that has reported its first boot."""
        server = servers.Server(self.cloud, host)
        self.addCleanup(server.delete)
        self.assertEqual(1, server.boots())
        return server

    def lose_power(self, host: str) -> None:
        self.addCleanup(self._give_power, host)
        self.cloud.power_off(host)

    def _give_power(self, host: str) -> None:
        """Start the host again for the next test, if this one failed."""
        if not self.cloud.takes_guests(host):
            self.cloud.power_on(host)
