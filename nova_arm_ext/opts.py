# SPDX-License-Identifier: Apache-2.0
"""Every option of nova-arm-ext, for oslo-config-generator and its friends."""

from oslo_config import cfg

from nova_arm_ext import pipeline


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options of the pipeline and of every hook that is installed.

    :returns: pairs of an option group and its options
    :raises ConfigurationError: when an installed hook cannot be imported
    """
    return [(pipeline.GROUP, list(pipeline.OPTS)),
            *((pipeline.group_of(name), list(hook.opts))
              for name, hook in sorted(pipeline.installed_hooks().items())
              if hook.opts)]
