# SPDX-License-Identifier: Apache-2.0
"""Extra specs and image properties are the same in code, Glance and API."""

import pathlib
import re

import nova_arm_ext
from nova_arm_ext import metadefs
from tests.support import base

PACKAGE = pathlib.Path(nova_arm_ext.__file__).parent
FILES = PACKAGE.parent / 'etc/metadefs'


class MetadefsTest(base.TestCase):

    def test_the_files_are_current(self) -> None:
        for kind in ('image', 'flavor'):
            self.assertEqual(
                metadefs.to_json(of_image=kind == 'image'),
                (FILES / f'nova-arm-ext-{kind}.json').read_text(),
                f'python -m nova_arm_ext.metadefs {kind} writes it')

    def test_each_extra_spec_of_the_code_is_there(self) -> None:
        named = {name for path in PACKAGE.rglob('*.py')
                 for name in re.findall(r"'arm:([a-z0-9_]+)'",
                                        path.read_text())}

        self.assertEqual(named, {one.name for one in metadefs.PROPERTIES
                                 if one.of_flavor})


class PageTest(base.TestCase):

    def test_each_property_is_on_the_page_with_a_value_that_is_right(
            self) -> None:
        page = (PACKAGE.parent / 'doc/source/admin/images.rst').read_text()
        shown = {name: value for name, value in re.findall(
            r'--property (arm[:_]\w+)=(\S+)', page)}

        known = {prefix + one.name: one for one in metadefs.PROPERTIES
                 for prefix, there in (('arm:', one.of_flavor),
                                       ('arm_', one.of_image)) if there}
        self.assertEqual({}, {name: value for name, value in shown.items()
                              if name not in known
                              or not is_right(known[name], value)})
        self.assertEqual({one.name for one in metadefs.PROPERTIES},
                         {name[len('arm:'):] for name in shown})


def is_right(one: metadefs.Property, value: str) -> bool:
    if one.maximum is not None:
        return value.isdigit() and int(value) <= one.maximum
    return not one.values or value in one.values
