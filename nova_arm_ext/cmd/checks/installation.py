# SPDX-License-Identifier: Apache-2.0
"""Whether the extension is installed, selected and configured."""

import difflib
import importlib.metadata
import importlib.util
from collections.abc import Iterator

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import opts
from nova_arm_ext.cmd import guests
from nova_arm_ext.cmd import reading
from nova_arm_ext.cmd import unread
from nova_arm_ext.cmd.checks import stores
from nova_arm_ext.cmd.checks.base import fault
from nova_arm_ext.cmd.checks.base import Finding
from nova_arm_ext.cmd.checks.base import not_applicable
from nova_arm_ext.cmd.checks.base import ok
from nova_arm_ext.cmd.checks.base import Surroundings
from nova_arm_ext.cmd.checks.base import warning
from nova_arm_ext.domain import view
from nova_arm_ext.pipeline import plugins
from nova_arm_ext.pipeline.run import Pipeline

DRIVER = 'arm_ext.ArmLibvirtDriver'
ALIAS = 'nova.virt.arm_ext'


def hooks(place: Surroundings) -> Iterator[Finding]:
    """Whether each entry point is found and can be imported."""
    found, faults = plugins.find_hooks()
    for message in faults.values():
        yield fault(message, 'repair or uninstall the package that has it')
    named = {point.name for point in
             importlib.metadata.entry_points(group=plugins.NAMESPACE)}
    lost = sorted(named - found.keys() - faults.keys())
    if lost:
        # stevedore caches the list, keyed by the times of directories
        yield fault(
            f'installed, but not found: {", ".join(lost)}',
            'remove the directory python-entrypoints from the cache of the '
            'user who runs nova-compute (~/.cache), then restart '
            'nova-compute')
    if not named:
        yield fault('no hook is installed: the metadata of the package '
                    'nova-arm-ext is missing', 'install it again with pip')
    elif not lost and not faults:
        yield ok(f'{len(found)} installed: {", ".join(sorted(found))}')


def options(place: Surroundings) -> Iterator[Finding]:
    """Whether nova-compute would start with this configuration."""
    try:
        loaded = Pipeline.load(place.conf, checks=opts.CHECKS)
    except errors.ConfigurationError as e:
        for message in e.faults:
            yield fault(message, 'nova-compute refuses to start with it')
        return
    files = ', '.join(file for file, _ in reading.parsed(place.conf))
    source = reading.source_of(place.conf, 'hooks', plugins.GROUP)
    yield ok(f'read from {files or "no file"}; enabled are '
             f'{", ".join(loaded.hooks) or "no hooks"} '
             f'({source or "the default"})')


def option_names(place: Surroundings) -> Iterator[Finding]:
    """Whether oslo.config would silently ignore an option."""
    known = _known(place)
    installed, _ = plugins.find_hooks()
    enabled = _enabled(place)
    for file, sections in reading.parsed(place.conf):
        for section, values in sections.items():
            group = section.lower()
            if group not in known:
                close = difflib.get_close_matches(group, known, 1, 0.75)
                if close or group == 'arm' or group.startswith('arm_'):
                    yield warning(
                        f'{file}: there is no group [{section}]',
                        f'did you mean [{close[0]}]?' if close else
                        'it has no effect: is the hook of this name '
                        'installed?')
                continue
            hook = group.removeprefix('arm_')
            if (values and hook in installed and enabled is not None
                    and hook not in enabled):
                yield warning(
                    f'{file}: [{section}] is set, but the hook {hook} is not '
                    f'enabled', f'add {hook} to [arm] hooks, or remove the '
                    f'group')
            for name in sorted(values.keys() - known[group]):
                close = difflib.get_close_matches(name, known[group], 1)
                yield warning(
                    f'{file}: there is no option {name} in [{section}]',
                    f'did you mean {close[0]}?' if close
                    else 'it has no effect: remove it')


def _enabled(place: Surroundings) -> tuple[str, ...] | None:
    """The enabled hooks; None if the options are wrong."""
    try:
        return Pipeline.load(place.conf).hooks
    except errors.ConfigurationError:
        return None     # the check "options" reports it


def extra_specs(place: Surroundings) -> Iterator[Finding]:
    """Whether flavors ask for something that nobody reads."""
    enabled = _enabled(place)
    if enabled is None:
        yield not_applicable('unknown, because options are not valid')
        return
    count = 0
    uri = place.survey.uri     # if libvirt answers at all
    for guest in guests.every(uri, place.patience):
        try:
            domain = view.Domain.parse(guest.document)
        except errors.InvalidDocument:
            continue     # audit shows it
        if not domain.is_arm:
            continue
        count += 1
        for sentence in unread.of_guest(
                facts.Guest(extra_specs=domain.extra_specs), enabled):
            yield warning(f'{guest.name}: {sentence}',
                          'correct the flavor, then resize the instance')
    yield ok(f'read those of {count} Arm instances')


def _known(place: Surroundings) -> dict[str, set[str]]:
    """The names of all options, by group."""
    installed, _ = plugins.find_hooks()
    groups: dict[str, set[str]] = {}
    for group, options in (*opts.GROUPS, *(
            (plugins.group_of(name), hook.opts)
            for name, hook in installed.items())):
        groups[group] = {name for option in options for name in _names(option)}
    # this makes a driver of another package register its options
    stores.driver_faults(place)
    for group in filter(lambda name: name.startswith('arm'), place.conf):
        values = place.conf[group]
        if isinstance(values, cfg.ConfigOpts.GroupAttr):
            groups.setdefault(group, set()).update(values)
    return groups


def _names(option: cfg.Opt) -> Iterator[str]:
    yield option.name
    yield option.dest
    for old in option.deprecated_opts:
        if old.name:
            yield old.name


def driver(place: Surroundings) -> Iterator[Finding]:
    """Whether nova-compute uses the driver."""
    # the same option as Nova's, whose module cannot be imported here
    place.conf.register_opt(cfg.StrOpt('compute_driver'))
    chosen = place.conf.compute_driver
    source = reading.source_of(place.conf, 'compute_driver')
    files = reading.parsed(place.conf)
    if chosen == DRIVER:
        yield ok(f'[DEFAULT] compute_driver is {DRIVER} in {source}')
    elif not files:
        yield not_applicable(
            'unknown: no nova.conf was found; give it with --config-file')
    elif source is None:
        yield fault(
            '[DEFAULT] compute_driver is not set: nova-compute does not use '
            'the extension', f'set it to {DRIVER} in {files[0][0]}')
    else:
        hidden = ' and '.join(
            file for file, sections in files
            if DRIVER in sections.get('DEFAULT', {}).get('compute_driver', ()))
        yield fault(
            f'[DEFAULT] compute_driver is {chosen} in {source}: nova-compute '
            f'does not use the extension'
            + (f', although {hidden} names it: {source} is read later and '
               f'takes precedence' if hidden else ''),
            f'set it to {DRIVER} in {source}')


def nova(place: Surroundings) -> Iterator[Finding]:
    """Whether this release of Nova has what the driver needs."""
    if importlib.util.find_spec('nova') is None:
        yield not_applicable(
            'Nova is not installed in this Python environment; run this in '
            'that of nova-compute')
        return
    try:
        # these import Nova, which only compute may do
        from nova_arm_ext.compute import driver as compute_driver
        from nova_arm_ext.compute import seams
        faults = seams.check(compute_driver.ArmLibvirtDriver)
        release = seams.release()
        alias = importlib.util.find_spec(ALIAS)
    except Exception as e:
        yield fault(f'the driver cannot be imported: {type(e).__name__}: {e}',
                    'check the environment with "pip check"')
        return
    for message in faults:
        yield fault(message, 'nova-compute refuses to start with it')
    if alias is None:
        yield fault(
            f'{ALIAS} cannot be found: Python has not read '
            f'nova_arm_ext.pth or nova_arm_ext.start',
            'install the package with pip into a site directory, without '
            '--target')
    first, last = seams.TESTED
    if not first <= int(release.partition('.')[0]) <= last:
        yield warning(
            f'Nova {release} is not among the releases that the extension is '
            f'tested with ({first} to {last})',
            'look for a newer release of nova-arm-ext')
    elif not faults:
        yield ok(f'Nova {release} has everything that the driver needs')
