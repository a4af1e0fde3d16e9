# SPDX-License-Identifier: Apache-2.0
"""The methods of Nova that the driver needs: present, changed, or missing."""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import ast
import functools
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fixtures
from nova.tests import fixtures as nova_fixtures
from nova.virt import fake
from nova.virt.libvirt import driver as libvirt_driver

from nova_arm_ext import errors
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import seams
from tests.support import base

OVERRIDDEN = dict(seams.overridden(driver.ArmLibvirtDriver))


def _lambda(arguments: tuple[str, ...]) -> Any:
    return eval(f'lambda {", ".join(arguments)}: None')


class SeamsTest(nova.test.NoDBTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(nova_fixtures.LibvirtFixture())

    def starts(self) -> None:
        driver.ArmLibvirtDriver(fake.FakeVirtAPI(), False)

    def refusal(self) -> str:
        return str(self.assertRaises(errors.ConfigurationError, self.starts))

    def warnings(self) -> list[str]:
        return [line for line in self.stdlog.logger.output.splitlines()
                if 'WARNING [nova_arm_ext.compute.seams]' in line]

    def test_this_release_has_them_all(self) -> None:
        self.starts()

        self.assertEqual([], self.warnings())

    def test_an_unknown_newer_nova_starts_with_a_warning(self) -> None:
        self.stub_out('nova.version.version_string', lambda: '35.0.0')

        self.starts()

        [warning] = self.warnings()
        self.assertIn('tested with Nova 29 to 34, and this is Nova 35.0.0. '
                      'All methods', warning)

    def test_a_newer_nova_may_have_more_arguments(self) -> None:
        self.stub_out('nova.version.version_string', lambda: '35.0.0')
        for name, arguments in OVERRIDDEN.items():
            newer = _lambda(('self', *arguments, 'more', 'still=0'))
            newer.__signature__ = inspect.signature(newer)
            # it still calls the same methods
            newer.__wrapped__ = getattr(libvirt_driver.LibvirtDriver, name)
            self.useFixture(fixtures.MockPatchObject(
                libvirt_driver.LibvirtDriver, name, newer))

        self.starts()

    def test_each_method_that_is_gone_is_named(self) -> None:
        self.stub_out('nova.version.version_string', lambda: '35.0.0')
        wanted = [*((libvirt_driver.LibvirtDriver, name, 'overrides')
                    for name in OVERRIDDEN),
                  *((owner, name, 'calls')
                    for owner, name, _, _ in seams.CALLED)]
        for owner, name, use in wanted:
            # None, because a public one is inherited from ComputeDriver
            with mock.patch.object(owner, name, None):
                refusal = self.refusal()

            place = owner.__name__.rpartition('.')[2]
            # others that are called only there may be named too
            self.assertIn(
                f' Nova 35.0.0 has no {place}.{name}, which nova-arm-ext '
                f'{use}; install a release of nova-arm-ext that supports '
                f'this Nova', refusal)
            self.assertEqual(1, refusal.count(' has no '))
        self.assertEqual(len(wanted), len(self.warnings()))
        self.starts()

    def test_each_method_with_other_arguments_is_named(self) -> None:
        for name, arguments in OVERRIDDEN.items():
            if not arguments:
                continue
            with mock.patch.object(libvirt_driver.LibvirtDriver, name,
                              _lambda(('self', 'other', *arguments))):
                self.assertIn(f'LibvirtDriver.{name}(other, ', self.refusal())
        for owner, name, count, keywords in seams.CALLED:
            known = [f'a{number}' for number in range(count)]
            with mock.patch.object(owner, name,
                              _lambda((*known, 'more', *keywords))):
                self.assertIn(f'.{name} with other arguments (missing',
                              self.refusal())

    def test_a_method_that_nova_calls_no_more_is_named(self) -> None:
        calling = [name for name, method
                   in vars(libvirt_driver.LibvirtDriver).items()
                   if '_get_guest_xml' in getattr(
                       getattr(inspect.unwrap(method), '__code__', None),
                       'co_names', ())]
        self.assertLess(3, len(calling))
        for name in calling:
            self.useFixture(fixtures.MockPatchObject(
                libvirt_driver.LibvirtDriver, name,
                lambda self, *args, **kwargs: None))

        self.assertIn('does not call LibvirtDriver._get_guest_xml any more',
                      self.refusal())

    def test_a_call_that_nova_moved_is_found(self) -> None:
        class Base:
            def inherited(self):
                self._in_base()

        class Moved(Base):
            def nested(self):
                return [lambda: self._in_lambda() for _ in ()]

            @property
            def asked(self):
                return self._in_property

            half = functools.partialmethod(lambda self: self._in_partial())

            @staticmethod
            def plain(one):
                one._in_static()

        names = set(seams._names_in(Moved))

        self.assertLessEqual(
            {'_in_base', '_in_lambda', '_in_property', '_in_partial',
             '_in_static'}, names)
        self.assertNotIn('_nowhere', names)

    def test_all_are_told_at_once_with_other_faults(self) -> None:
        self.starts()     # registers the options
        self.flags(group='arm', hooks=['nonsense'])

        with mock.patch.multiple(libvirt_driver.LibvirtDriver,
                                 **dict.fromkeys(OVERRIDDEN)):
            refusal = self.refusal()

        self.assertIn("'nonsense'", refusal)
        self.assertEqual(len(OVERRIDDEN), refusal.count('has no Lib'))


COMPUTE = pathlib.Path(driver.__file__).parent


class ListTest(base.TestCase):
    """The list has all that the code calls."""

    def test_each_method_of_novas_that_is_called_is_listed(self) -> None:
        listed = {name for _, name, _, _ in seams.CALLED}

        found = {name for path in COMPUTE.rglob('*.py')
                 for name in self.called(path.read_text())}

        self.assertEqual(listed, found)

    @staticmethod
    def called(source: str) -> Iterator[str]:
        """Methods of Nova's driver, Host, Guest and PCI functions."""
        ours = vars(driver.ArmLibvirtDriver)
        for node in ast.walk(ast.parse(source)):
            # a method of the driver may be passed to others
            if (isinstance(node, ast.Attribute)
                    and ast.unparse(node.value) == 'self'
                    and node.attr not in ours
                    and callable(getattr(libvirt_driver.LibvirtDriver,
                                         node.attr, None))):
                yield node.attr
            if not (isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)):
                continue
            place, name = ast.unparse(node.func.value), node.func.attr
            if (place in ('self._host', 'pci_utils', 'libvirt_utils',
                          'compute_utils')
                    or re.fullmatch(r'self\._host\.get_guest\(.*\)', place)):
                yield name
