# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: its options and the way to a command."""

import argparse
import importlib.metadata
import logging
from collections.abc import Sequence
from typing import Any
from typing import NoReturn

from cliff import app
from cliff import help as cliff_help

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import NAME
from nova_arm_ext.cmd import naming
from nova_arm_ext.cmd.naming import did_you_mean

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
            command_manager=naming.Commands(NAMESPACE),
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
        moved, command = _options_first(command)
        if command and command[0].startswith('-'):
            if self.options.help:
                command = []
            else:
                _wrong_usage(f'unknown option {command[0]}' + did_you_mean(
                    command[0], self.parser._option_string_actions))
        if self.options.help or not command:
            command = ['help', *command]
        return self.run_subcommand(command, moved)

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

    def run_subcommand(self, argv: Sequence[str],
                       moved: Sequence[str] = ()) -> int:
        """Find the command, parse its options, run it.

        :param moved: options of the command that were in front of it
        """
        commands = self.command_manager
        group = commands.group_in(argv[argv[0] == 'help':])
        if group is not None:
            self.stdout.write(commands.help_of(group))
            return 0
        factory, name, rest = commands.find_command(argv)
        if factory is cliff_help.HelpCommand and rest:
            commands.find_command(rest)
        command = factory(self, self.options, cmd_name=name)
        parser = command.get_parser(f'{NAME} {name}')
        parser.error = _wrong_usage
        parser.allow_abbrev = False
        parsed, left = parser.parse_known_args([*moved, *rest])
        if left:
            _wrong_usage(_unknown(left[0], name, parser))
        try:
            return int(command.run(parsed))
        except cliff_help.HelpExit:
            return 0
        except SystemExit as e:
            # a hook may do that, even when it is imported
            raise failure.Failure(
                f'a hook or a library called sys.exit({e.code!r})') from e


def _options_first(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options in front of the command, and the rest.

    nova-manage and nova-status take them there.
    """
    moved, rest = list[str](), list(argv)
    while rest and rest[0].partition('=')[0] in arguments.ANYWHERE:
        length = 1 if '=' in rest[0] else 2
        moved += rest[:length]
        rest = rest[length:]
    return moved, rest


def _unknown(argument: str, name: str,
             parser: argparse.ArgumentParser) -> str:
    """Why an argument is wrong, with the nearest option."""
    if not argument.startswith('-'):
        return f'{name} takes no argument {argument!r} there'
    option = argument.partition('=')[0]
    return f'{name} has no option {option}' + did_you_mean(
        option, parser._option_string_actions,
        f'; "{NAME} help {name}" lists them')


def _wrong_usage(message: str) -> NoReturn:
    """Instead of argparse's own error, which also prints the usage."""
    raise failure.Failure(message)
