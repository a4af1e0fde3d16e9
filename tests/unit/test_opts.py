# SPDX-License-Identifier: Apache-2.0
"""The options for the generator of a sample."""

from oslo_config import cfg

from nova_arm_ext import opts
from nova_arm_ext.pipeline import plugins
from nova_arm_ext.pipeline.run import Pipeline
from tests.support import base


class ListOptsTest(base.TestCase):

    def test_the_pipeline_and_each_hook_have_their_groups(self):
        listed = dict(opts.list_opts())

        self.assertEqual({opt.name for opt in plugins.OPTS},
                         {opt.name for opt in listed['arm']})
        self.assertIn('disabled_rules', {
            opt.name for opt in listed['arm_libvirt_compat']})

    def test_what_the_pipeline_registers_is_listed(self):
        conf = cfg.ConfigOpts()
        conf([], project='opts', default_config_files=[],
             default_config_dirs=[])

        Pipeline.load(conf, checks=opts.CHECKS)

        for group, options in opts.list_opts():
            for option in options:
                self.assertIn(option.dest, conf[group], group)

    def test_every_option_has_help_and_a_default_that_it_accepts(self):
        for group, options in opts.list_opts():
            self.assertTrue(group == 'arm' or group.startswith('arm_'))
            for option in options:
                self.assertTrue((option.help or '').strip(), option.name)
                self.assertIsNotNone(option.default, option.name)
