# SPDX-License-Identifier: Apache-2.0
"""Commands and options have one name each, and no abbreviations."""

from tests.unit.cmd import base

#: What is typed wrongly, and the advice.
MISTYPED = (
    ('nvram rese instance-1', "nvram has no 'rese'; did you mean reset?"),
    ('nvram r instance-1', "nvram has no 'r'; did you mean reset?"),
    ('nvram bakup instance-1 f', 'did you mean backup?'),
    ('nvram delete instance-1',
     "nvram has no 'delete'; it has backup, list, orphans, reset, restore, "
     "show"),
    ('nvram --json', 'nvram needs one of its commands: backup, list'),
    ('help nvram lst', "nvram has no 'lst'; did you mean list?"),
    ('aud', "'aud' is not a command; did you mean audit?"),
    ('docto', 'did you mean doctor?'),
    ('Doctor', 'did you mean doctor?'),
    ('bakup instance-1 f', 'did you mean nvram backup?'),
    ('reset instance-1', 'did you mean nvram reset?'),
    ('frobnicate', "'frobnicate' is not a command; the commands are audit, "),
    ('nvram orphans --y', 'nvram orphans has no option --y; did you mean '
                          '--yes?'),
    ('nvram orphans --older 1d', 'did you mean --older-than?'),
    ('doctor --jsn', 'doctor has no option --jsn; did you mean --json?'),
    ('hooks --zzz',
     '; "nova-arm-ext help hooks" lists them'),
    ('--versoin', 'unknown option --versoin; did you mean --version?'),
    ('hooks uefi', "hooks takes no argument 'uefi'"),
)


class NamesTest(base.CommandTestCase):

    def test_what_is_mistyped_does_nothing_and_is_advised(self) -> None:
        for line, advice in MISTYPED:
            self.assert_fails(self.run_command(*line.split()), advice)

    def test_a_group_alone_shows_its_commands(self) -> None:
        asked = [self.run_command(*words) for words in (
            ['nvram'], ['help', 'nvram'], ['nvram', '--help'])]

        self.assertEqual([asked[0]] * 3, asked)
        self.assertEqual((0, ''), (asked[0].status, asked[0].stderr))
        for name in ('backup', 'list', 'orphans', 'reset', 'restore', 'show'):
            self.assertIn(f'\n  nvram {name} ', asked[0].stdout)
        self.assertNotIn('doctor', asked[0].stdout)

    def test_options_of_the_service_may_be_in_front(self) -> None:
        conf = self.file('nova.conf', '[arm]\nhooks = uefi\n')

        for given in (('--config-file', conf), (f'--config-file={conf}',)):
            ran = self.run_command(*given, 'hooks', '-f', 'value', '-c',
                                   'Name', '-c', 'Enabled')

            self.assertEqual((0, ''), (ran.status, ran.stderr))
            self.assertIn('uefi yes\n', ran.stdout)
            self.assertIn('console no\n', ran.stdout)
