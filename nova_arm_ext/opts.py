# SPDX-License-Identifier: Apache-2.0
"""Every option of nova-arm-ext, for oslo-config-generator and its friends."""

from oslo_config import cfg

from nova_arm_ext import cpu
from nova_arm_ext import nvram
from nova_arm_ext import pci
from nova_arm_ext import pipeline


def nvram_faults(conf: cfg.ConfigOpts) -> list[str]:
    """Register the options about variable stores; what is wrong with them."""
    conf.register_opts(nvram.OPTS, group=nvram.GROUP)
    faults: list[str] = []
    pipeline.read_options(conf, nvram.GROUP, nvram.OPTS, faults)
    return faults


def _cpu_faults(conf: cfg.ConfigOpts) -> list[str]:
    conf.register_opts(cpu.OPTS, group=cpu.GROUP)
    faults: list[str] = []
    pipeline.read_options(conf, cpu.GROUP, cpu.OPTS, faults)
    return faults


#: Checks the options that are not the pipeline's, for `Pipeline.load`.
CHECKS: tuple[pipeline.Check, ...] = (nvram_faults, pci.faults, _cpu_faults)

#: The options of the host side and the pipeline, by group.
GROUPS: tuple[tuple[str, tuple[cfg.Opt, ...]], ...] = (
    (pipeline.GROUP, pipeline.OPTS), (cpu.GROUP, cpu.OPTS),
    (nvram.GROUP, nvram.OPTS), (pci.GROUP, pci.OPTS))


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options of the host side, the pipeline and every installed hook.

    :returns: pairs of an option group and its options
    :raises ConfigurationError: when an installed hook cannot be imported
    """
    return [*((group, list(options)) for group, options in GROUPS),
            *((pipeline.group_of(name), list(hook.opts))
              for name, hook in sorted(pipeline.installed_hooks().items())
              if hook.opts)]
