# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: its options and the way to a command."""

import argparse
import importlib.metadata
import logging
from collections.abc import Sequence
from typing import Any
from typing import NoReturn

from cliff import app
from cliff import commandmanager
from cliff import help as cliff_help

from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import NAME

NAMESPACE = 'nova_arm_ext.cmd'


class App(app.App):
    """Show what nova-arm-ext does to Arm instances of OpenStack Nova.

    Four commands change something on this host: nvram restore, nvram reset,
    nvram orphans --yes, and for a moment doctor --define-test.
    """

    NAME = NAME

    def __init__(self, stdout: Any, stderr: Any) -> None:
        super().__init__(
            description='Arm instances of OpenStack Nova: shows what the '
                        'hooks of nova-arm-ext change in the domain XML of '
                        'an instance and why, checks the host, and manages '
                        'UEFI variable stores (NVRAM files). Only these '
                        'commands change something on this host: nvram '
                        'restore, nvram reset, nvram orphans --yes, and for '
                        'a moment doctor --define-test.',
            version=None,
            command_manager=commandmanager.CommandManager(NAMESPACE),
            stdout=stdout, stderr=stderr)

    def build_option_parser(self, description: str, version: str | None,
                            argparse_kwargs: Any = None) -> Any:
        # Not cliff's own parser: it handles --help before it knows the
        # command that follows, and prints --version by itself.
        parser = argparse.ArgumentParser(
            prog=NAME, description=description, add_help=False,
            allow_abbrev=False, usage=f'{NAME} [option ...] command ...',
            epilog=f'"{NAME} help COMMAND" describes one command. Exit '
                   f'status: 0, or 2 with one line on standard error; '
                   f'doctor and preview have more.')
        parser.add_argument(
            '-h', '--help', action='store_true',
            help='show this help, or that of the command, and exit')
        parser.add_argument(
            '--version', action='store_true',
            help='show the version and exit')
        parser.add_argument(
            '-v', '--verbose', action='store_true',
            help='log to standard error, as nova-compute would log')
        parser.add_argument(
            '--log-file', metavar='FILE',
            help='log to a file, as nova-compute would log')
        parser.add_argument(
            '--debug', action='store_true',
            help='log all details to standard error, and show where an error '
                 'occurred')
        parser.error = _wrong_usage    # type: ignore[method-assign]
        return parser

    def run(self, argv: Sequence[str]) -> int:
        """Run one command; the caller handles errors.

        Without a command it prints the help, instead of starting cliff's
        interactive mode.
        """
        self.options, command = self.parser.parse_known_args(argv)
        self.configure_logging()
        if self.options.version:
            self.stdout.write(
                f'{NAME} {importlib.metadata.version(NAME)}\n')
            return 0
        if command and command[0].startswith('-'):
            if self.options.help:
                command = []
            else:
                _wrong_usage(f'unknown option {command[0]}')
        if self.options.help or not command:
            command = ['help', *command]
        return self.run_subcommand(command)

    def configure_logging(self) -> None:
        """Log where the options say; by default nowhere."""
        handlers: list[logging.Handler] = []
        if self.options.log_file:
            try:
                handlers.append(logging.FileHandler(self.options.log_file))
            except OSError as e:
                raise failure.Failure(
                    f'cannot write log file {self.options.log_file!r}: '
                    f'{e.strerror}') from e
        if self.options.verbose or self.options.debug:
            handlers.append(logging.StreamHandler(self.stderr))
        if handlers:
            root = logging.getLogger()
            root.setLevel(logging.DEBUG if self.options.debug
                          else logging.INFO)
            for handler in handlers:
                handler.setFormatter(logging.Formatter(
                    '%(levelname)s %(name)s %(message)s'))
                root.addHandler(handler)

    def run_subcommand(self, argv: Sequence[str]) -> int:
        """Find the command, parse its options, run it."""
        factory, name, rest = self._find(argv)
        if factory is cliff_help.HelpCommand and rest:
            self._find(rest)
        command = factory(self, self.options, cmd_name=name)
        parser = command.get_parser(f'{NAME} {name}')
        parser.error = _wrong_usage
        arguments = parser.parse_args(rest)
        try:
            return int(command.run(arguments))
        except cliff_help.HelpExit:
            return 0
        except SystemExit as e:
            # a hook may do that, even when it is imported
            raise failure.Failure(
                f'a hook or a library called sys.exit({e.code!r})') from e

    def _find(self, argv: Sequence[str]) -> tuple[Any, str, Sequence[str]]:
        try:
            factory, name, rest = self.command_manager.find_command(argv)
        except ValueError:
            close = self.get_fuzzy_matches(argv[0])
            raise failure.Failure(
                f'{argv[0]!r} is not a command; did you mean '
                f'{" or ".join(close)}?') from None
        return factory, name, rest


def _wrong_usage(message: str) -> NoReturn:
    """Instead of argparse's own error, which also prints the usage."""
    raise failure.Failure(message)
