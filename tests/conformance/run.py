# SPDX-License-Identifier: Apache-2.0
"""Runs Nova's own tests with another class as the libvirt driver.

``python -m tests.conformance.run CLASS RESULT TESTS...`` writes the names of
the tests that ran and the traceback of each that failed, as JSON. CLASS is
``unchanged``, a subclass that changes nothing, or ``module:name``. TESTS are
names of modules, classes or methods. ``--share 0/2`` runs every second of
them, ``--only FILE`` those whose names are in the file, as JSON.
"""

# Nova's test packages patch threads as they are imported. What is imported
# before them goes unpatched, and its SR-IOV tests then fail whatever the
# driver; so this order is fixed.
import nova.tests.unit

import nova.test  # noqa: F401  isort: skip

import argparse
import functools
import importlib
import json
import pathlib
import unittest
from collections.abc import Iterator
from typing import Any

import yaml
from nova.virt import libvirt as libvirt_package
from nova.virt.libvirt import driver

from tests.support import paste

Nova = driver.LibvirtDriver


class Unchanged(Nova):
    """Changes nothing: what fails with it fails with every subclass."""


def named(name: str) -> type[Nova]:
    """The class, with the static methods of Nova's as its own.

    Where a test patches one, mock looks into the class itself for what kind
    of method it is, and takes an inherited one for a method of instances.
    Nova's tests of spawn and hard reboot would fail with every subclass.
    """
    module, _, attribute = name.partition(':')
    made = (Unchanged if name == 'unchanged'
            else getattr(importlib.import_module(module), attribute))
    for one, method in vars(Nova).items():
        if isinstance(method, staticmethod) and one not in vars(made):
            setattr(made, one, method)
    return made


def keep_initializer() -> None:
    """Let Nova's initializer find its own class by its name.

    Before Nova 33 it calls ``super(LibvirtDriver, self).__init__``, which
    with another class behind that name ends in itself, and every test fails
    with every subclass.
    """
    original = Nova.__init__

    @functools.wraps(original)
    def initializer(self: Nova, *args: Any, **kwargs: Any) -> None:
        replaced, driver.LibvirtDriver = driver.LibvirtDriver, Nova
        try:
            original(self, *args, **kwargs)
        finally:
            driver.LibvirtDriver = replaced

    Nova.__init__ = initializer


def each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('driver')
    parser.add_argument('result', type=pathlib.Path)
    parser.add_argument('tests', nargs='+')
    parser.add_argument('--share', default='0/1')
    parser.add_argument('--only', type=pathlib.Path)
    asked = parser.parse_args()
    keep_initializer()
    driver.LibvirtDriver = libvirt_package.LibvirtDriver = named(asked.driver)
    # Every test reads Nova's policy files anew, which takes more than half of
    # the time with the parser that is written in Python.
    yaml.SafeLoader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    tests = list(each(
        unittest.defaultTestLoader.loadTestsFromNames(asked.tests)))
    if asked.only:
        wanted = set(json.loads(asked.only.read_text()))
        tests = [test for test in tests if test.id() in wanted]
    number, of = map(int, asked.share.split('/'))
    tests = tests[number::of]
    names = [test.id() for test in tests]      # the suite drops what has run
    result = unittest.TestResult()
    with paste.InstalledPaste():
        unittest.TestSuite(tests).run(result)
    asked.result.write_text(json.dumps({
        'run': names,
        'skipped': [test.id() for test, _ in result.skipped],
        'failed': {test.id(): text for test, text
                   in result.failures + result.errors}}))


if __name__ == '__main__':
    main()
