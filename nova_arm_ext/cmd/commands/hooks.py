# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext hooks`: which hooks are installed, and which run."""

import argparse
import importlib.metadata
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command

if TYPE_CHECKING:
    from nova_arm_ext import errors
    from nova_arm_ext.hooks import base

COLUMNS = ('Name', 'Enabled', 'Order', 'Place', 'Purpose', 'Entry point')


class Hooks(command.Lister):
    """List the installed hooks, and which of them run.

    Order is the position in which a hook runs. Place is where the hook itself
    asks to be: first, middle, last or end.
    """

    _epilog = ('A hook that is broken or not installed is listed with the '
               'reason. Exit status 2 means that nova-compute would not start '
               'with this configuration; one line on standard error says '
               'why.')

    #: why nova-compute would not start
    _fault: 'errors.ConfigurationError | None' = None

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_config(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        status: int = super().run(parsed_args)
        if self._fault is not None:
            self.app.stdout.flush()
            raise self._fault
        return status

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        from oslo_config import cfg

        from nova_arm_ext import errors
        from nova_arm_ext import opts
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.hooks import base
        from nova_arm_ext.pipeline import plugins
        from nova_arm_ext.pipeline.run import Pipeline

        conf = reading.of_nova_compute(parsed_args)
        try:
            Pipeline.load(conf, checks=opts.CHECKS)
        except errors.ConfigurationError as e:
            self._fault = e
        try:
            enabled = list(dict.fromkeys(conf[plugins.GROUP].hooks))
        except (cfg.Error, ValueError):
            enabled = []     # it is one of the faults
        installed, faults = plugins.find_hooks()
        # the pipeline does the same
        enabled.sort(key=lambda name: (
            name in installed and installed[name].order is base.END))
        entry_points = [
            (one.name, one.value) for one in sorted(
                importlib.metadata.entry_points(group=plugins.NAMESPACE))]
        return COLUMNS, rows(enabled, entry_points, installed, faults)


def rows(enabled: Sequence[str], entry_points: Sequence[tuple[str, str]],
         installed: 'Mapping[str, type[base.Hook]]',
         faults: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """A row for each hook, first those that run, in their order.

    :param enabled: names in the order in which they run
    :param entry_points: name and value of each installed hook
    :param installed: the classes of hooks that could be imported
    :param faults: what is wrong with the others
    """
    from nova_arm_ext.cmd.failure import one_line
    from nova_arm_ext.cmd.forms import Known
    from nova_arm_ext.cmd.forms import YesNo

    known = {name for name, _ in entry_points}
    every = [*entry_points,
             *((name, None) for name in enabled if name not in known)]
    every.sort(key=lambda one: (
        enabled.index(one[0]) if one[0] in enabled else len(enabled), one[0]))
    result: list[tuple[Any, ...]] = []
    for name, value in every:
        position = enabled.index(name) + 1 if name in enabled else None
        hook = installed.get(name)
        if name in faults:
            purpose = f'BROKEN: {one_line(faults[name])}'
        elif hook is None:
            purpose = 'BROKEN: it is not installed'
        else:
            # not inspect.getdoc(), which falls back to the base class
            purpose = one_line((hook.__doc__ or '').strip().partition(
                '\n')[0])
        result.append((
            name, YesNo(name in enabled), Known(position),
            Known(hook and hook.order.name.lower()), purpose, Known(value)))
    return result
