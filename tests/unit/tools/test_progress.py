# SPDX-License-Identifier: Apache-2.0
"""What is shown while suites run."""

import io
import os
import pathlib

import fixtures

from tests.support import base
from tools import progress


class Terminal(io.StringIO):

    def isatty(self) -> bool:
        return True


class ProgressTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable('TERM', 'xterm'))
        self.useFixture(fixtures.EnvironmentVariable('COLUMNS', '80'))
        self.place = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.time = 0.0

    def screen(self, stream: io.StringIO) -> progress.Screen:
        return progress.Screen(stream, clock=lambda: self.time)

    def add(self, step: progress.Step, *lines: str) -> None:
        with open(step.log, 'a') as log:
            log.writelines(f'{line}\n' for line in lines)

    def test_what_a_step_printed_is_shown_whole_when_it_ends(self) -> None:
        stream = io.StringIO()
        screen = self.screen(stream)

        with screen.step('unit', self.place / 'log') as step:
            self.add(step, 'one', 'two')
            screen.tick()
            self.time = 62

        self.assertEqual(
            '\n== unit: begins\none\ntwo\n== unit: took 1 min 2 s\n',
            stream.getvalue())

    def test_of_a_quiet_step_only_the_last_line_is_shown_meanwhile(
            self) -> None:
        stream = Terminal()
        screen = self.screen(stream)

        with screen.step('disk', self.place / 'log', quiet=True) as step:
            self.add(step, 'first', 'second')
            self.time = 2
            screen.tick()

        self.assertIn('disk: second, 2 s', stream.getvalue())
        self.assertNotIn('first', stream.getvalue())
        self.assertTrue(stream.getvalue().endswith('== disk: took 2 s\n'))

    def test_a_live_step_is_shown_as_it_goes_on(self) -> None:
        stream = io.StringIO()
        screen = self.screen(stream)

        with screen.step('unit', self.place / 'log', live=True) as step:
            self.add(step, 'one')
            screen.tick()
            shown = stream.getvalue()
            step.log.write_text('one\ntwo')

        self.assertEqual('\n== unit: begins\none\n', shown)
        self.assertEqual(f'{shown}two\n== unit: took 0 s\n',
                         stream.getvalue())

    def test_a_log_gets_a_line_each_minute(self) -> None:
        stream = io.StringIO()
        screen = self.screen(stream)

        with screen.step('unit', self.place / 'log') as step:
            self.add(step, '{0} tests.A.test_it [0.1s] ... ok',
                     '{1} tests.A.test_that ... SKIPPED: no time',
                     '{1} tests.A.test_this [0.1s] ... FAILED')
            for self.time in range(130):
                screen.tick()
            shown = stream.getvalue()

        self.assertEqual('\n== unit: begins\n'
                         '== unit: 3 tests, 1 min 0 s\n'
                         '== unit: 3 tests, 2 min 0 s\n', shown)

    def test_a_terminal_has_one_line_that_is_written_again(self) -> None:
        stream = Terminal()
        screen = self.screen(stream)

        with (screen.step('unit', self.place / 'one') as one,
              screen.step('nova29', self.place / 'two') as two):
            self.add(one, '{0} tests.A.test_it [0.1s] ... ok')
            self.add(two, 'nova29: making it')
            stream.truncate(0)
            stream.seek(0)
            self.time = 3
            screen.tick()
            shown = stream.getvalue()

        self.assertEqual(
            '\r\x1b[Kunit: 1 tests, 3 s | nova29: nova29: making it, 3 s',
            shown)
        self.assertTrue(stream.getvalue().endswith(
            '\r\x1b[K{0} tests.A.test_it [0.1s] ... ok\n'
            '== unit: took 3 s\n'))

    def test_the_line_fits_the_terminal(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable('COLUMNS', '20'))
        stream = Terminal()
        screen = self.screen(stream)

        with screen.step('a-suite-with-a-long-name', self.place / 'log'):
            self.time = 3
            screen.tick()
            shown = stream.getvalue()

        self.assertEqual(19, len(shown.rpartition('\x1b[K')[2]))

    def test_a_test_is_counted_when_its_line_is_complete(self) -> None:
        step = progress.Step('unit', self.place / 'log', False,
                             lambda: self.time)
        step.log.write_text('{0} tests.A.test_it [0.1s] ... ')

        first = step.follow(), step.tests
        self.add(step, 'ok')
        then = step.follow(), step.tests

        self.assertEqual(('', 0), first)
        self.assertEqual(('{0} tests.A.test_it [0.1s] ... ok\n', 1), then)

    def test_the_screen_follows_by_itself(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)

        with (open(writer, 'w') as stream, progress.Screen(stream) as screen,
              screen.step('unit', self.place / 'log', live=True) as step):
            os.read(reader, 100)
            self.add(step, 'one')
            shown = os.read(reader, 100)

        self.assertEqual(b'one\n', shown)
