# SPDX-License-Identifier: Apache-2.0
"""Every option of nova-arm-ext, for oslo-config-generator and its friends."""

from oslo_config import cfg

from nova_arm_ext import pci
from nova_arm_ext import pipeline

#: Checks the options that are not the pipeline's, for `Pipeline.load`.
CHECKS: tuple[pipeline.Check, ...] = (pci.faults,)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options of the host side, the pipeline and every installed hook.

    :returns: pairs of an option group and its options
    :raises ConfigurationError: when an installed hook cannot be imported
    """
    return [(pipeline.GROUP, list(pipeline.OPTS)),
            (pci.GROUP, list(pci.OPTS)),
            *((pipeline.group_of(name), list(hook.opts))
              for name, hook in sorted(pipeline.installed_hooks().items())
              if hook.opts)]
