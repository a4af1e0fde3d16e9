# SPDX-License-Identifier: Apache-2.0
"""The metadata definitions of the wheel, in a Glance."""

import json
import subprocess
import zipfile

from nova_arm_ext import metadefs
from tests.packaging import environments
from tests.support import base


class GlanceTest(base.TestCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # made once, outside this tree
        environment = subprocess.run(
            [environments.ROOT / 'tools/environment', 'glance'], check=True,
            stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        cls.files = environments.fresh('metadefs')
        with zipfile.ZipFile(environments.build().wheel) as wheel:
            for name in wheel.namelist():
                if '/metadefs/' in name and name.endswith('.json'):
                    (cls.files / name.rpartition('/')[2]).write_bytes(
                        wheel.read(name))
        cls.said = json.loads(environments.run(
            f'{environment}/bin/python',
            environments.ROOT / 'tests/packaging/metadefs_in_glance.py',
            environments.fresh('glance'), cls.files).splitlines()[-1])

    def assert_whole(self, namespaces):
        self.assertEqual({'nova-arm-ext-flavor.json',
                          'nova-arm-ext-image.json'}, namespaces.keys())
        for name, namespace in namespaces.items():
            wanted = json.loads((self.files / name).read_text())
            for key, value in wanted.items():
                if key != 'resource_type_associations':
                    self.assertEqual(value, namespace[key], (name, key))
            self.assertEqual(
                wanted['resource_type_associations'],
                [{key: one[key] for key in ('name', 'prefix')}
                 for one in namespace['resource_type_associations']])

    def test_each_is_what_glance_manage_loads(self):
        self.assert_whole(self.said['loaded'])

    def test_each_is_what_the_api_takes(self):
        self.assert_whole(self.said['posted'])

    def test_each_property_of_an_image_is_offered(self):
        [image] = [namespace for name, namespace
                   in self.said['posted'].items() if 'image' in name]

        self.assertEqual({one.name for one in metadefs.PROPERTIES
                          if one.of_image}, image['properties'].keys())
