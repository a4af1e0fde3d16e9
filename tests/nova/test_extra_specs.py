# SPDX-License-Identifier: Apache-2.0
"""Nova's API refuses wrong values of the extra specs ``arm:*``."""

from nova import exception
from nova.api.validation.extra_specs import validators

from nova_arm_ext import metadefs
from tests.support import base


class ExtraSpecsTest(base.TestCase):

    def refused(self, name: str, value: str) -> str:
        """The answer of the API to a value."""
        return str(self.assertRaises(exception.ValidationError,
                                     validators.validate, name, value))

    def test_nova_has_loaded_them_by_their_entry_point(self) -> None:
        self.assertEqual(
            {f'arm:{one.name}' for one in metadefs.PROPERTIES
             if one.of_flavor},
            {name for name in validators.VALIDATORS
             if name.startswith('arm:')})

    def test_right_values(self) -> None:
        for one in metadefs.PROPERTIES:
            if one.of_flavor:
                for value in one.values:
                    validators.validate(f'arm:{one.name}', value)
        validators.validate('arm:free_pcie_root_ports', '0')
        validators.validate('arm:skip_hooks', 'console, uefi')

    def test_wrong_values(self) -> None:
        self.assertIn("'serial' is not one of: pci, mmio",
                      self.refused('arm:virtio_transport', 'serial'))
        self.assertIn('max value of',
                      self.refused('arm:free_pcie_root_ports', '1000'))
        self.assertIn('not a valid integer',
                      self.refused('arm:free_pcie_root_ports', 'many'))
        self.assertIn('not of the format',
                      self.refused('arm:skip_hooks', '../console'))

    def test_a_misspelt_name(self) -> None:
        self.assertIn('does not appear to be a valid extra spec',
                      self.refused('arm:free_pcie_root_port', '4'))
