# SPDX-License-Identifier: Apache-2.0
"""Which hooks are installed, which are enabled, and with which options."""

import collections
import importlib.metadata
import types
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from oslo_config import cfg
from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext.hooks import base
from nova_arm_ext.options import Check
from nova_arm_ext.options import read_options

NAMESPACE = 'nova_arm_ext.hooks'
GROUP = 'arm'

#: The extra spec of a flavor that lists hooks, comma-separated, which are
#: skipped for its guests.
SKIP_HOOKS = 'arm:skip_hooks'

#: The name of the pipeline's own step, which restores what the guest had
#: according to its previous document. No hook may have it.
PREVIOUS = 'previous'

OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        'default_hooks',
        default=('libvirt_compat,uefi,console,virtio_mmio,'
                 'armv7,pcie_root_ports'),
        help="""
The hooks that nova-arm-ext enables by default, for use as ``$default_hooks``
in ``hooks``. Not meant to be set.
"""),
    cfg.ListOpt(
        'hooks',
        default='$default_hooks',
        help="""
The hooks that adjust the domain XML of Arm instances, in the order in which
they run; pcie_root_ports always runs at the end. ``nova-arm-ext hooks`` lists
the installed hooks. To add one to the default hooks write
``$default_hooks,mine``. nova-compute refuses to start if a name is unknown or
listed twice, or if a hook does not allow the order.
"""),
    cfg.StrOpt(
        'on_hook_failure',
        default='fail',
        choices=[
            ('fail', 'The request for that instance fails. If the instance '
                     'exists already, its previous domain is defined again.'),
            ('skip', "That hook's change is dropped, the other hooks run, and "
                     'nova-compute logs an ERROR. The failure of a required '
                     'hook still fails the request.')],
        help="""
What happens when a hook crashes, or changes what it may not change. Other
instances are not affected in either case. The default is ``fail`` because
libvirt then never gets domain XML that lacks an adjustment.
"""),
    cfg.IntOpt(
        'hook_warn_ms',
        default=100, min=0,
        help="""
Log a WARNING with the name of a hook that takes longer than this many
milliseconds for one instance; 0 disables it. All default hooks together take
one or two milliseconds. A slow hook is not stopped.
"""),
    cfg.StrOpt(
        'check_schema',
        default='warn',
        choices=[
            ('off', 'Do not validate.'),
            ('warn', 'Log a WARNING and continue: libvirt itself does not '
                     'validate either, unless it is asked to.'),
            ('fail', "The instance's request fails.")],
        help="""
Whether the result of the hooks is validated against libvirt's own RNG schema,
if that is installed in this file system (see ``schema``). Only domain XML that
the hooks made invalid counts, not what was invalid before.
"""),
    cfg.StrOpt(
        'schema',
        default='/usr/share/libvirt/schemas/domain.rng',
        help="""
Path of libvirt's schema of domain XML, for ``check_schema``. Without the file
nothing is validated.
"""),
)


class Enabled(NamedTuple):
    """A hook that is enabled, with the name of its entry point."""

    name: str
    hook: base.Hook


def group_of(hook: str) -> str:
    """The option group of a hook: ``arm_uefi`` for ``uefi``."""
    return f'{GROUP}_{hook}'


def installed_hooks() -> Mapping[str, type[base.Hook]]:
    """The class of every hook that is installed, by name.

    :raises ConfigurationError: naming every entry point that is broken
    """
    hooks, faults = find_hooks()
    if faults:
        raise errors.ConfigurationError(list(faults.values()))
    return hooks


def find_hooks() -> tuple[dict[str, type[base.Hook]], dict[str, str]]:
    """Import every installed hook.

    :returns: the hooks and the faults, both by name; the fault of a plugin
        counts only where the plugin is enabled
    :raises ConfigurationError: for a broken plugin whose name is unknown
    """
    faults: dict[str, str] = {}

    def broken(_: Any, entry_point: Any, error: BaseException) -> None:
        faults[entry_point.name] = (
            f'hook {entry_point.name} ({entry_point.value}) cannot be '
            f'imported: {type(error).__name__}: {error}')

    try:
        found = extension.ExtensionManager(
            NAMESPACE, on_load_failure_callback=broken)
    except (SystemExit, AssertionError) as e:
        # stevedore passes these on, without a name
        raise errors.ConfigurationError([
            f'an installed hook cannot be imported: {type(e).__name__}: {e}; '
            f'installed are: ' + ', '.join(
                entry_point.value for entry_point
                in importlib.metadata.entry_points(group=NAMESPACE))]) from e
    hooks: dict[str, type[base.Hook]] = {}
    for one in found:
        name, hook = one.name, one.plugin
        if name in hooks:
            faults[name] = (f'hook {name} is installed twice: '
                            f'{hooks[name].__module__} and '
                            f'{hook.__module__}')
        elif fault := _fault_of(hook, name):
            faults[name] = f'hook {name} ({one.entry_point.value}) {fault}'
        else:
            hooks[name] = hook
    return hooks, faults


def _fault_of(hook: Any, name: str) -> str | None:
    """What is wrong with a plugin that was imported."""
    if name == PREVIOUS:
        return "has the name of the pipeline's own step"
    if not isinstance(hook, type) or not issubclass(hook, base.Hook):
        return 'is not a subclass of nova_arm_ext.hooks.base.Hook'
    if not isinstance(hook.order, base.Order):
        return (f'has the order {hook.order!r}, not one of FIRST, MIDDLE, '
                f'LAST and END of nova_arm_ext.hooks.base')
    return None


def load(conf: cfg.ConfigOpts, checks: Iterable[Check] = ()
         ) -> tuple[list[Enabled], types.SimpleNamespace]:
    """The enabled hooks in the order in which they run.

    :param conf: parsed configuration; the options are registered here
    :param checks: further checks, whose faults go into the same error
    :returns: the hooks and the values of OPTS
    :raises ConfigurationError: with every fault that was found
    """
    conf.register_opts(OPTS, group=GROUP)
    installed, broken = find_hooks()
    _register_options(conf, installed, broken)
    faults: list[str] = []
    values = read_options(conf, GROUP, OPTS, faults)
    names: list[str] = getattr(values, 'hooks', [])
    faults += _wrong_names(names, installed, broken)
    enabled = {name: installed[name] for name in names if name in installed}
    faults += _wrong_order([(name, installed[name]) for name in names
                            if name in installed])
    hooks = _make(conf, enabled, faults)
    for check in checks:
        faults += check(conf)
    if faults:
        raise errors.ConfigurationError(faults)
    # a list that begins with $default_hooks cannot name a hook of others
    # before the default one that has to be at the end
    hooks.sort(key=lambda one: one.hook.order is base.END)
    return hooks, values


def _register_options(conf: cfg.ConfigOpts,
                      installed: dict[str, type[base.Hook]],
                      broken: dict[str, str]) -> None:
    """Register the options of all hooks, also of those that are not enabled,
    so that a validator of configuration files does not call them unknown.

    A hook whose options cannot be registered moves to the broken ones.
    """
    for name, hook in list(installed.items()):
        try:
            conf.register_opts(hook.opts, group=group_of(name))
        except (cfg.Error, TypeError, AttributeError) as e:
            broken[name] = (f'the options of hook {name} cannot be '
                            f'registered: {type(e).__name__}: {e}')
            del installed[name]


def _wrong_names(names: Sequence[str], installed: Mapping[str, object],
                 broken: Mapping[str, str]) -> list[str]:
    faults = []
    for name, count in collections.Counter(names).items():
        if count > 1:
            faults.append(f'[arm] hooks names {name} {count} times; once '
                          f'is enough')
        if name in broken:
            faults.append(broken[name])
        elif name not in installed:
            faults.append(
                f'[arm] hooks names {name!r}, which is not installed; '
                f'installed are: {", ".join(sorted(installed))}')
    return faults


def _wrong_order(hooks: Sequence[tuple[str, type[base.Hook]]]) -> list[str]:
    """Where the order of the list is not what the hooks ask for."""
    faults = []
    hooks = sorted(hooks, key=lambda named: named[1].order is base.END)
    names = [name for name, _ in hooks]
    for position, (name, hook) in enumerate(hooks):
        for earlier in hook.after:
            if earlier in names[position + 1:]:
                faults.append(f'[arm] hooks: {name} must be listed after '
                              f'{earlier}')
        for later, other in hooks[position + 1:]:
            if other.order < hook.order:
                faults.append(
                    f'[arm] hooks: {name} ({hook.order.name.lower()}) must '
                    f'be listed after {later} ({other.order.name.lower()})')
    return faults


def _make(conf: cfg.ConfigOpts, hooks: Mapping[str, type[base.Hook]],
          faults: list[str]) -> list[Enabled]:
    """Make each hook with its options; what goes wrong is added to faults."""
    made = []
    for name, hook in hooks.items():
        wrong: list[str] = []
        options = read_options(conf, group_of(name), hook.opts, wrong)
        faults += wrong
        if wrong:
            continue
        try:
            made.append(Enabled(name, hook(options)))
        except Exception as e:
            # whatever a third party's constructor raises
            faults.append(f'hook {name} cannot be made: '
                          f'{type(e).__name__}: {e}')
    return made
