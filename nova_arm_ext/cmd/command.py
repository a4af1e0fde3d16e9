# SPDX-License-Identifier: Apache-2.0
"""What all commands have in common.

A command imports what it needs only when it runs, because cliff imports the
modules of all commands to run one of them.
"""

from typing import Any

from cliff import command
from cliff import lister


class _Epilog:
    """The end of a command's help."""

    _epilog = ''

    def get_epilog(self) -> str:
        # cliff's own method searches all installed packages for the one that
        # has the command
        return self._epilog


class Command(_Epilog, command.Command):
    """A command that writes its output itself."""


class Lister(_Epilog, lister.Lister):
    """A command that returns a table, which cliff writes in any format."""

    def get_parser(self, prog_name: str) -> Any:
        from nova_arm_ext.cmd import forms
        parser = super().get_parser(prog_name)
        forms.add_json(parser)
        return parser

    def produce_output(self, *args: Any) -> Any:
        from nova_arm_ext.cmd import failure
        try:
            return super().produce_output(*args)
        except ValueError as e:
            raise failure.Failure(str(e)) from e     # no such column
