# SPDX-License-Identifier: Apache-2.0
"""Every option of nova-arm-ext, for oslo-config-generator and validators."""

from collections.abc import Sequence

from oslo_config import cfg

from nova_arm_ext import cpu
from nova_arm_ext import nvram
from nova_arm_ext import options
from nova_arm_ext import pci
from nova_arm_ext.pipeline import plugins


def _check(group: str, opts: Sequence[cfg.Opt]) -> options.Check:
    """A check that each option has a valid value."""
    def faults_of(conf: cfg.ConfigOpts) -> list[str]:
        conf.register_opts(opts, group=group)
        faults: list[str] = []
        options.read_options(conf, group, opts, faults)
        return faults
    return faults_of


#: Checks the options that are not the pipeline's, for `Pipeline.load`.
CHECKS: tuple[options.Check, ...] = (
    nvram.faults, pci.faults, _check(cpu.GROUP, cpu.OPTS))

#: The options of the host side and the pipeline, by group.
GROUPS: tuple[tuple[str, tuple[cfg.Opt, ...]], ...] = (
    (plugins.GROUP, plugins.OPTS), (cpu.GROUP, cpu.OPTS),
    (nvram.GROUP, nvram.OPTS), (pci.GROUP, pci.OPTS))


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options of the host side, the pipeline and every installed hook.

    :returns: pairs of an option group and its options
    :raises ConfigurationError: when an installed hook cannot be imported
    """
    return [*((group, list(opts)) for group, opts in GROUPS),
            *((plugins.group_of(name), list(hook.opts))
              for name, hook in sorted(plugins.installed_hooks().items())
              if hook.opts)]
