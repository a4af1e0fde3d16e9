# SPDX-License-Identifier: Apache-2.0
"""A test with guests of KVM on an Arm host, which its class starts."""

import pathlib
import tempfile
import typing
import unittest
from collections.abc import Mapping

from testtools import content

from tests import guest
from tests.hosts.kvm import command
from tests.hosts.kvm import documents
from tests.hosts.kvm import errors
from tests.hosts.kvm import guests
from tests.hosts.kvm import host as hosts
from tests.hosts.kvm import image as images
from tests.hosts.kvm import start
from tests.support import base


class HostTestCase(base.TestCase):
    """Guests on a host that all tests of the class share."""

    core: typing.ClassVar[str]
    suite: typing.ClassVar[str] = 'bookworm'
    #: The guests that Nova makes domain XML for.
    asked: typing.ClassVar[Mapping[str, documents.Asked]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for arch in guest.INGREDIENTS:
            guest.ensure(arch)
        host = hosts.Here() if hosts.has_own_kvm() else cls._emulated()
        cls.addClassCleanup(host.stop)
        cls.fleet = guests.Fleet(host)
        cls.fleet.generate(**cls.asked)

    @classmethod
    def _emulated(cls) -> hosts.Host:
        folder = pathlib.Path(cls.enterClassContext(
            tempfile.TemporaryDirectory(prefix='nova-arm-ext-')))
        try:
            image = images.ensure(cls.suite, command.silent)
            return start.start(start.Wanted(core=cls.core), image,
                               folder / cls.core, command.silent)
        except errors.Unsuitable as e:
            raise unittest.SkipTest(str(e)) from e

    def setUp(self) -> None:
        super().setUp()
        self.addOnException(lambda _: self.addDetail(
            'host', content.text_content(
                self.fleet.host.console()[-4000:])))

    def start(self, name: str) -> guests.Guest:
        one = self.fleet.start(name)
        self.addCleanup(one.remove)
        self.addDetail('domain', content.text_content(one.document))
        return one

    def report(self, one: guests.Guest) -> guest.Report:
        """The report of a guest that was switched on.

        It may have a second try where the emulation fails, and for nothing
        else.
        """
        try:
            return one.report()
        except guests.HasFailed:
            one.power_off()
            one.power_on()
            return one.report()
