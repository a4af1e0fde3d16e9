# SPDX-License-Identifier: Apache-2.0
"""How the command starts and ends, with any subcommand."""

import importlib.metadata
import logging
import os
import signal
import subprocess
import time
import warnings

from tests.unit.cmd import base

#: Seconds; what takes so long hangs. How quick it is no test decides.
ENDLESS = 60

HOOK = """
from nova_arm_ext.hooks import base


class Strange(base.Hook):
    '''Does strange things.

    More of them.
    '''

    def adjust(self, domain, facts, report):
"""


def hook(body: str) -> str:
    """The source of a module with one hook that does this."""
    return HOOK + f'        {body}\n'


class HelpTest(base.CommandTestCase):

    def test_alone_it_prints_help(self):
        ran = self.run_command()

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        for name in ('doctor', 'hooks', 'facts', 'preview', 'nvram list'):
            self.assertIn(f'\n  {name} ', ran.stdout)

    def test_help_is_the_same_however_it_is_asked_for(self):
        alone = self.run_command()

        for arguments in (['--help'], ['-h'], ['help']):
            self.assertEqual(alone, self.run_command(*arguments))

    def test_each_command_has_help(self):
        for name in ('audit', 'doctor', 'explain', 'hooks', 'facts', 'preview',
                     'nvram list', 'nvram show',
                     'nvram backup', 'nvram restore', 'nvram reset',
                     'nvram orphans'):
            ran = self.run_command(*name.split(), '--help')

            self.assertEqual((0, ''), (ran.status, ran.stderr))
            self.assertIn(f'usage: nova-arm-ext {name}', ran.stdout)
            self.assertEqual(ran, self.run_command('help', *name.split()))

    def test_help_of_preview_says_where_image_properties_come_from(self):
        words = ' '.join(
            self.run_command('preview', '--help').stdout.split())

        self.assertIn('Image properties (arm_*) come only from the facts',
                      words)

    def test_version(self):
        ran = self.run_command('--version')

        self.assertEqual(
            (0, f'nova-arm-ext {importlib.metadata.version("nova-arm-ext")}'
                f'\n', ''),
            (ran.status, ran.stdout, ran.stderr))


class WrongUsageTest(base.CommandTestCase):

    def test_unknown_command(self):
        self.assert_fails(self.run_command('previeww'),
                          "'previeww' is not a command", 'preview?')

    def test_help_of_unknown_command(self):
        self.assert_fails(self.run_command('help', 'previeww'),
                          "'previeww' is not a command")

    def test_unknown_option(self):
        self.assert_fails(self.run_command('--nosuch'), '--nosuch')
        self.assert_fails(self.run_command('preview', '--nosuch'),
                          '--nosuch')

    def test_unknown_choice(self):
        self.assert_fails(self.run_command('preview', '--format', 'csv'),
                          '--format', "'csv'", 'diff')

    def test_option_without_its_value(self):
        self.assert_fails(self.run_command('preview', '--facts'), '--facts')

    def test_more_documents_than_one(self):
        self.assert_fails(self.run_command('preview', 'a.xml', 'b.xml'),
                          'b.xml')

    def test_unknown_column(self):
        self.assert_fails(self.run_command('hooks', '-c', 'colour'),
                          "'colour'", 'Purpose')

    def test_log_file_that_cannot_be_written(self):
        self.assert_fails(
            self.run_command('--log-file', str(self.directory), 'hooks'),
            'log file', 'Is a directory')

    def test_control_characters_do_not_break_the_line(self):
        ran = self.run_command('preview', 'a\nb\x1b[31m\u2028\udcff.xml')

        self.assert_fails(ran, 'No such file')
        self.assertTrue(ran.stderr.rstrip('\n').isprintable())


class ProcessTest(base.CommandTestCase):
    """What shows only with a whole process."""

    def strange(self, source, *options, value='strange_hooks:Strange',
                **environment):
        """Preview with a hook of another package."""
        config = self.file(
            'nova.conf', '[arm]\nhooks = $default_hooks,strange\n')
        return self.run_process(
            'preview', '--facts', self.facts, '--config-file', config,
            *options, self.document,
            **self.plugins(source, strange=value), **environment)

    def test_bad_input_is_one_line(self):
        for file, part in (
                (self.file('a.xml', '<domain>'), 'is not XML'),
                (self.file('b.xml', '<network/>'), '<network>'),
                (str(self.directory), 'Is a directory')):
            self.assert_fails(
                self.run_process('preview', '--facts', self.facts, file),
                file, part)

    def test_script_does_what_the_module_does(self):
        script, = importlib.metadata.entry_points(
            group='console_scripts', name='nova-arm-ext')

        self.assertEqual('nova_arm_ext.cmd.main:main', script.value)

    def test_hook_that_raises(self):
        self.assert_fails(
            self.strange(hook("raise LookupError('no\\nway\\x1b')")),
            'hook strange failed: LookupError: no way\\x1b')

    def test_hook_that_raises_and_is_skipped(self):
        config = self.file('nova.conf', '[arm]\nhooks = strange\n'
                                        'on_hook_failure = skip\n')

        ran = self.run_process(
            'preview', '--facts', self.facts, '--config-file', config,
            self.document, **self.plugins(
                hook("raise LookupError('no way')"),
                strange='strange_hooks:Strange'))

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('# strange: not applied: LookupError: no way\n',
                      ran.stdout)
        self.assertIn('# nova-compute would log: ERROR', ran.stdout)

    def test_hook_that_refuses(self):
        self.assert_fails(
            self.strange(hook('from nova_arm_ext import errors; '
                              "raise errors.Refused('not with me')")),
            'nova-arm-ext: not with me\n')

    def test_hook_that_ends_the_process(self):
        self.assert_fails(self.strange(hook('import sys; sys.exit(0)')),
                          'sys.exit(0)')

    def test_hook_that_ends_the_process_when_imported(self):
        self.assert_fails(self.strange('import sys; sys.exit("bye")'), 'bye')

    def test_hook_that_does_not_import(self):
        self.assert_fails(
            self.strange('import no_such_module_here'),
            'hook strange (strange_hooks:Strange)', 'no_such_module_here')

    def test_hook_that_is_no_hook(self):
        self.assert_fails(self.strange('', value='strange_hooks:__name__'),
                          'hook strange', 'not a subclass')

    def test_what_a_hook_prints_warns_and_logs_is_not_shown(self):
        source = hook(
            'import sys, warnings, logging; print("out"); '
            'print("err", file=sys.stderr); warnings.warn("warned"); '
            'logging.error("logged"); logging.getLogger("x").error("y")')

        ran = self.strange(source, '--format', 'xml',
                           PYTHONWARNINGS='always')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertTrue(ran.stdout.startswith('<domain '))

    def test_debug_shows_all_of_it(self):
        ran = self.strange(hook('print("out"); raise LookupError("here")'),
                           '--debug')

        self.assertEqual((2, b''), (ran.status, ran.out))
        for part in ('out\n', 'Traceback', 'here'):
            self.assertIn(part, ran.stderr)

    def test_nobody_reads_the_output(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)

        done = subprocess.run(
            self.command('preview', '--facts', self.facts, self.document),
            stdout=writer, stderr=subprocess.PIPE, env=self.environment())

        self.assertEqual((141, b''), (done.returncode, done.stderr))

    def test_output_that_cannot_be_written(self):
        with open('/dev/full', 'wb') as full:
            done = subprocess.run(
                self.command('preview', '--facts', self.facts,
                             self.document),
                stdout=full, stderr=subprocess.PIPE, env=self.environment())

        self.assert_fails(
            base.Ran(status=done.returncode, out=b'',
                     stderr=done.stderr.decode()), 'No space left')

    def test_interrupt_is_silent(self):
        process = subprocess.Popen(
            self.command('preview', '--facts', self.facts),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=self.environment(),
            # a shell's background jobs, and what they start, ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # more than a pipe holds, so when this returns it is being read
        process.stdin.write(b' ' * 1024 * 1024)

        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

        self.assertEqual((130, b'', b''), (process.returncode, out, err))

    def test_streams_that_are_closed(self):
        for closed, part in (('<&-', 'standard input is closed'),
                             ('>&-', 'standard output is closed')):
            done = subprocess.run(
                ['/bin/sh', '-c', f'exec "$@" {closed}', 'sh',
                 *self.command('preview', '--facts', self.facts)],
                stdin=subprocess.DEVNULL, capture_output=True,
                env=self.environment())

            self.assert_fails(
                base.Ran(status=done.returncode, out=done.stdout,
                         stderr=done.stderr.decode()), part)

    def test_large_document_is_refused_at_once(self):
        file = self.file('large.xml', DOCUMENT_OF_50_MB)
        started = time.monotonic()

        ran = self.run_process('preview', '--facts', self.facts, file)

        self.assert_fails(ran, file, 'larger than the limit of 4194304 bytes')
        self.assertLess(time.monotonic() - started, ENDLESS)


DOCUMENT_OF_50_MB = b'<domain>' + b'<x/>' * (50 * 1024 * 1024 // 4)


class LeavesNothingTest(base.CommandTestCase):
    """main() as a function leaves nothing changed."""

    def test_logging_and_warnings_are_as_before(self):
        root = logging.getLogger()
        before = root.handlers[:], root.level, warnings.filters[:]

        self.preview('--verbose')
        self.run_command('preview', '/nonexistent')

        self.assertEqual(
            before, (root.handlers, root.level, warnings.filters))

    def test_verbose_logs_as_nova_compute_would(self):
        ran = self.preview('--verbose')

        self.assertEqual(0, ran.status)
        self.assertIn('Domain XML adjusted by', ran.stderr)

    def test_log_file_gets_the_log(self):
        log = self.directory / 'log'

        ran = self.preview('--log-file', str(log))

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('Domain XML adjusted by', log.read_text())
