# SPDX-License-Identifier: Apache-2.0
"""The text of a variable store, whatever a guest has written into it."""

import json
import time

import hypothesis
from hypothesis import strategies as st

from nova_arm_ext.cmd import variables
from tests.support import base
from tests.support import stores
from tests.unit import properties

#: The beginning of a list of certificates, and of a boot option.
BEGUN = (b'', variables.X509.bytes_le, variables.SHA256.bytes_le,
         b'\1\0\0\0\x20\0d\0e\0b\0\0\0\x04\x04')


class VariablesTest(base.TestCase):

    @properties.SETTINGS
    @hypothesis.given(st.sampled_from(BEGUN), st.binary(max_size=200))
    def test_whatever_a_guest_writes_is_described(self, begun: bytes,
                                                  noise: bytes) -> None:
        data = begun + noise
        found = variables.describe(stores.store(
            *(stores.variable(name, data, guid=guid) for name, guid in (
                *variables.SIGNATURES, ('Boot0001', variables.GLOBAL),
                ('BootOrder', variables.GLOBAL),
                ('Timeout', variables.GLOBAL),
                ('SecureBootEnable', variables.ENABLE))),
            size=stores.VOLUME))

        self.assertEqual(10, len(found['variables']))
        self.assertEqual(found, json.loads(json.dumps(found)))
        text = variables.to_text(found)
        self.assertEqual(text, ''.join(
            c for c in text if c.isprintable() or c == '\n'))

    def test_a_store_full_of_the_smallest_parts_takes_no_time(self) -> None:
        # 4,000 device path nodes, 4,000 lists of one signature
        option = b'\1\0\0\0\xf0\x3f\0\0' + b'\4\x7e\4\0' * 4000
        lists = (variables.SHA256.bytes_le
                 + (45).to_bytes(4, 'little') + bytes(4)
                 + (17).to_bytes(4, 'little') + bytes(17)) * 4000

        began = time.process_time()
        found = variables.describe(stores.store(
            stores.variable('Boot0001', option),
            stores.variable('MokList', lists, guid=variables.SHIM)))

        self.assertLess(time.process_time() - began, 10)
        self.assertEqual(4000, found['secure_boot']['keys']['MokList'][
            'sha256'])
        self.assertIsNone(found['boot']['options'][0]['fault'])

    def test_names_in_the_boot_order_alone_are_no_options(self) -> None:
        found = variables.describe(stores.store(
            stores.variable('BootOrder', b'\1\0\2\0'),
            stores.variable('Boot0003', b''),
            stores.variable('BootNext', b''),
            stores.variable('Bootx', b'')))['boot']

        self.assertEqual(['0001', '0002'], found['order'])
        self.assertIsNone(found['next'])
        self.assertEqual(['0003'], [
            one['number'] for one in found['options']])
