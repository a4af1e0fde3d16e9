# SPDX-License-Identifier: Apache-2.0
"""What all commands have in common.

A command imports what it needs when it runs: cliff imports the module of
every command to run one.
"""

from typing import Any

from cliff import command
from cliff import lister


class _Epilog:
    """The end of a command's help."""

    _epilog = ''

    def get_epilog(self) -> str:
        # cliff's own looks through all installed packages, to name the one
        # that brought the command
        return self._epilog


class Command(_Epilog, command.Command):
    """A command that writes its output itself."""


class Lister(_Epilog, lister.Lister):
    """A command that gives a table, which cliff writes in any format."""

    def produce_output(self, *args: Any) -> Any:
        from nova_arm_ext.cmd import failure
        try:
            return super().produce_output(*args)
        except ValueError as e:
            raise failure.Failure(str(e)) from e     # no such column
