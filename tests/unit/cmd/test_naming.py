# SPDX-License-Identifier: Apache-2.0
"""Commands and options have one name each, and no abbreviations."""

import fixtures
from testtools.content import text_content

from tests.unit.cmd import base
from tests.unit.cmd.commands import test_nvram

#: What is typed wrongly, and the advice. {new} is a file that does not exist,
#: {xml} domain XML, {guest} an instance that is stopped.
MISTYPED = (
    # commands
    ('aud', "'aud' is not a command; did you mean audit?"),
    ('audti', 'did you mean audit?'),
    ('docto', 'did you mean doctor?'),
    ('Doctor', 'did you mean doctor?'),
    ('DOCTOR', 'did you mean doctor?'),
    ('explian {guest}', 'did you mean explain?'),
    ('fact', 'did you mean facts?'),
    ('hook', 'did you mean hooks?'),
    ('pic', 'did you mean pci?'),
    ('previeww {xml}', 'did you mean preview?'),
    ('frobnicate', "'frobnicate' is not a command; the commands are audit, "),
    ('bakup {guest} {new}', 'did you mean nvram backup?'),
    ('reset {guest}', 'did you mean nvram reset?'),
    ('nvram-reset {guest}', "'nvram-reset' is not a command; did you mean"),
    ('help docter', "'docter' is not a command; did you mean doctor?"),
    # commands of the group
    ('nvram rese {guest}', "nvram has no 'rese'; did you mean reset?"),
    ('nvram r {guest}', "nvram has no 'r'; did you mean reset?"),
    ('nvram restor {guest} {new}', 'did you mean restore?'),
    ('nvram bakup {guest} {new}', 'did you mean backup?'),
    ('nvram ls', "nvram has no 'ls'; did you mean list?"),
    ('nvram orphan --yes', 'did you mean orphans?'),
    ('nvram Show {guest}', 'did you mean show?'),
    ('nvram delete {guest}',
     "nvram has no 'delete'; it has backup, list, orphans, reset, restore, "
     "show"),
    ('nvram --json', 'nvram needs one of its commands: backup, list'),
    ('nvram {guest} reset', 'it has backup, list'),
    ('help nvram lst', "nvram has no 'lst'; did you mean list?"),
    # options
    ('--versoin', 'unknown option --versoin; did you mean --version?'),
    ('--verbos doctor', 'did you mean --verbose?'),
    ('doctor --jsn', 'doctor has no option --jsn; did you mean --json?'),
    ('doctor --js', 'did you mean --json?'),
    ('doctor --define', 'did you mean --define-test?'),
    ('doctor --conect x', 'did you mean --connect?'),
    ('doctor -f csv', "invalid choice: 'csv' (choose from "),
    ('audit --before', 'did you mean --before-removal?'),
    ('audit --diff --before-removal', 'not allowed with argument --diff'),
    ('hooks --zzz', '; "nova-arm-ext help hooks" lists them'),
    ('hooks --config-fil x', 'did you mean --config-file?'),
    ('hooks --config-file', 'argument --config-file: expected one argument'),
    ('hooks --config-file {new}', "'{new}': No such file or directory"),
    ('hooks -f jsn', "invalid choice: 'jsn' (choose from "),
    ('hooks -c Nmae', "'Nmae'"),
    ('facts --timeout soon', "'soon' is not a number of seconds such as 30"),
    ('nvram orphans --y', 'did you mean --yes?'),
    ('nvram orphans --older 1d', 'did you mean --older-than?'),
    ('nvram orphans --older-than 1w',
     "'1w' is not a time such as 30m, 12h or 7d"),
    ('nvram reset {guest} --ye', 'did you mean --yes?'),
    # arguments
    ('hooks uefi', "hooks takes no argument 'uefi'"),
    ('explain', 'the following arguments are required: INSTANCE'),
    ('explain nobody', "has no instance 'nobody'; give the server's ID"),
    ('nvram backup {guest}', 'the following arguments are required: FILE'),
    ('nvram reset nobody', "the instance 'nobody' has no variable store"),
    ('nvram reset {guest}', 'give --yes if you want that'),
    ('nvram restore {guest} {new}', "'{new}': No such file or directory"),
    ('nvram restore {guest} {xml} --yes',
     'this is not a packed variable store'),
    ('preview {new}', "'{new}': No such file or directory"),
    ('preview {xml} {xml}', 'preview takes no argument'),
    ('preview --facts {xml} {xml}', 'facts are not JSON'),
)


class MistypedTest(test_nvram.NvramTestCase):

    def test_there_are_fifty(self) -> None:
        self.assertLessEqual(50, len({line for line, _ in MISTYPED}))

    def test_each_is_one_line_with_advice_and_changes_nothing(self) -> None:
        guest = self.guest(1)
        self.store(guest)
        uri = 'test://' + self.file(
            'node.xml', f'<node>{"".join(self.guests)}</node>')
        conf = self.file('nova.conf', f'[libvirt]\nconnection_uri = {uri}\n'
                         f'[DEFAULT]\ninstances_path = {self.instances}\n')
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.reading.files_of_nova_compute',
            lambda: ([conf], [])))
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.stores.NVRAM_FOLDER', str(self.nvram)))
        words = {'guest': guest, 'xml': self.document,
                 'new': str(self.directory / 'new')}
        before = self.files()

        for line, advice in MISTYPED:
            self.addDetail('line', text_content(line))
            self.assert_fails(
                self.run_command(*line.format(**words).split()),
                advice.format(**words))

        self.assertEqual(before, self.files())

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes()
                for path in self.directory.rglob('*') if path.is_file()}


class NamesTest(base.CommandTestCase):

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
            self.assertIn('uefi True\n', ran.stdout)
            self.assertIn('console False\n', ran.stdout)
