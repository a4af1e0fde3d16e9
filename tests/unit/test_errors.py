# SPDX-License-Identifier: Apache-2.0
"""The tree of errors."""

from nova_arm_ext import errors
from tests.support import base


class ErrorsTest(base.TestCase):

    def test_whoever_catches_the_root_has_caught_all(self):
        found = [value for value in vars(errors).values()
                 if isinstance(value, type) and issubclass(value, Exception)]

        self.assertGreater(len(found), 5)
        for error in found:
            self.assertTrue(issubclass(error, errors.ArmExtError), error)

    def test_the_tree_in_the_docstring_names_every_leaf(self):
        for name, value in vars(errors).items():
            if isinstance(value, type) and issubclass(value, Exception):
                self.assertIn(name, errors.__doc__)

    def test_a_configuration_error_keeps_and_tells_every_fault(self):
        error = errors.ConfigurationError(['one is wrong', 'two is late'])

        self.assertEqual(('one is wrong', 'two is late'), error.faults)
        self.assertEqual('nova-arm-ext cannot start: one is wrong; '
                         'two is late', str(error))

    def test_a_failed_hook_is_named(self):
        error = errors.HookFailed('mine', 'KeyError: 3')

        self.assertEqual('hook mine failed: KeyError: 3', str(error))
        self.assertEqual(('mine', 'KeyError: 3'), (error.hook, error.cause))

    def test_a_refusal_says_whether_another_host_may_do(self):
        self.assertFalse(errors.Refused('no').this_host)
        self.assertTrue(errors.Refused('no', this_host=True).this_host)
