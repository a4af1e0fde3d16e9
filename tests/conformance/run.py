# SPDX-License-Identifier: Apache-2.0
"""Runs Nova's own tests with another class as the libvirt driver.

``python -m tests.conformance.run CLASS RESULT TESTS...`` writes how many tests
ran and the traceback of each that failed, as JSON. CLASS is ``unchanged``, a
subclass that changes nothing, or ``module:name``. TESTS are names of modules,
classes or methods.
"""

# Nova's test packages patch threads as they are imported. What is imported
# before them goes unpatched, and its SR-IOV tests then fail whatever the
# driver; so this order is fixed.
import nova.tests.unit

import nova.test  # noqa: F401  isort: skip

import importlib
import json
import pathlib
import sys
import unittest

import yaml
from nova.virt import libvirt as libvirt_package
from nova.virt.libvirt import driver

from tests import paste


class Unchanged(driver.LibvirtDriver):
    """Changes nothing: what fails with it, fails with every subclass."""


def named(name: str) -> type[driver.LibvirtDriver]:
    if name == 'unchanged':
        return Unchanged
    module, _, attribute = name.partition(':')
    return getattr(importlib.import_module(module), attribute)


def main() -> None:
    name, place, *tests = sys.argv[1:]
    replacement = named(name)
    driver.LibvirtDriver = replacement
    libvirt_package.LibvirtDriver = replacement
    # Every test reads Nova's policy files anew, which takes more than half of
    # the time with the parser that is written in Python.
    yaml.SafeLoader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    suite = unittest.defaultTestLoader.loadTestsFromNames(tests)
    result = unittest.TestResult()
    with paste.InstalledPaste():
        suite.run(result)
    pathlib.Path(place).write_text(json.dumps({
        'run': result.testsRun,
        'failed': {test.id(): text for test, text
                   in result.failures + result.errors}}))


if __name__ == '__main__':
    main()
