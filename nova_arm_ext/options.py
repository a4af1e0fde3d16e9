# SPDX-License-Identifier: Apache-2.0
"""Read options, and report each fault together with the value."""

import types
from collections.abc import Callable
from collections.abc import Sequence

from oslo_config import cfg

#: Registers options of its own and returns what is wrong with their values.
Check = Callable[[cfg.ConfigOpts], Sequence[str]]


def read_options(conf: cfg.ConfigOpts, group: str, opts: Sequence[cfg.Opt],
                 faults: list[str]) -> types.SimpleNamespace:
    """The values of options that are registered already.

    :param faults: gets a sentence for each option whose value is not valid
    :returns: the values as attributes; an option that is not valid has none
    """
    values = types.SimpleNamespace()
    for opt in opts:
        try:
            setattr(values, opt.dest, conf[group][opt.dest])
        except (cfg.Error, ValueError) as e:
            # oslo.config's own message does not contain the value
            raw = _raw_value(conf, group, opt)
            faults.append(f'[{group}] {opt.name}'
                          + ('' if raw is None else f' is {raw!r}')
                          + f': {str(e).rpartition(" is not valid: ")[2]}')
    return values


def _raw_value(conf: cfg.ConfigOpts, group: str,
               opt: cfg.Opt) -> str | None:
    """What the configuration files say, valid or not.

    A $reference in the value is not resolved.
    """
    raw = cfg.ConfigOpts()
    raw([], default_config_files=conf.config_file or [],
        default_config_dirs=conf.config_dir or [])
    raw.register_opt(cfg.StrOpt(opt.dest, deprecated_opts=[
        cfg.DeprecatedOpt(opt.name, group=group)]), group=group)
    try:
        value: str | None = raw[group][opt.dest]
    except cfg.Error:
        return None
    return value
