# SPDX-License-Identifier: Apache-2.0
"""The README says what is so; its commands are tried by test_pages."""

import configparser
import re

from nova_arm_ext import pipeline
from tests import base
from tests import pages

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
        default = next(opt.default for opt in pipeline.OPTS
                       if opt.name == 'default_hooks')

        shown = re.findall(r'^``(\w+)``  ', README, re.M)

        self.assertEqual(default.split(','), shown)
