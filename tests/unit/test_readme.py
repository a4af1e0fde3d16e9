# SPDX-License-Identifier: Apache-2.0
"""The README is right; test_pages tries its commands."""

import configparser
import csv
import re

from nova_arm_ext.pipeline import plugins
from tests.support import base
from tests.support import pages

README = (pages.TREE / 'README.rst').read_text()


class ReadmeTest(base.TestCase):

    def test_the_fragment_chooses_the_driver(self) -> None:
        read = configparser.ConfigParser()
        [fragment] = [block for block in pages.blocks()
                      if (block.page, block.language) == ('README.rst', 'ini')]

        read.read_string(fragment.text)

        self.assertEqual({'compute_driver': 'arm_ext.ArmLibvirtDriver'},
                         dict(read['DEFAULT']))

    def test_the_table_names_the_default_hooks(self) -> None:
        default = next(opt.default for opt in plugins.OPTS
                       if opt.name == 'default_hooks')

        shown = re.findall(r'^``(\w+)``  ', README, re.M)

        self.assertEqual(default.split(','), shown)

    def test_the_numbers_are_those_of_the_newest_release(self) -> None:
        table = (pages.TREE / 'doc/source/admin/releases.csv').read_text()
        column = {row[0]: row[-2] for row in csv.reader(table.splitlines())}

        shown = re.search(
            r'of (\d+) kinds of guest that Nova (\d+) describes for an '
            r'AArch64 host, .* defines (\d+)\. With nova-arm-ext it defines '
            r'(\d+), and (\d+) that', ' '.join(README.split()))

        self.assertEqual(shown.groups(), tuple(column[row] for row in (
            'Kinds of guest that can be asked for', 'Nova',
            'libvirt defines, as Nova writes them',
            'libvirt defines, with nova-arm-ext',
            'nova-arm-ext refuses, with a sentence')))
