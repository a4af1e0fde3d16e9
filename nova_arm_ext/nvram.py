# SPDX-License-Identifier: Apache-2.0
"""What happens to a guest's UEFI variable store (NVRAM file), as one table.

The documentation's table is made from it. compute/nvram/ acts on it.
"""

import dataclasses
import enum
import os
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import options

GROUP = 'arm_nvram'

#: The image property that says what happens to the store on rebuild.
ON_REBUILD_PROPERTY = 'arm_nvram_on_rebuild'

#: The image property that holds the store of a snapshot.
STORE_PROPERTY = 'arm_nvram_store'

#: The namespace of entry points of store drivers.
STORES = 'nova_arm_ext.nvram_stores'

OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        'on_damage',
        default='fail',
        choices=[
            ('fail', 'The instance does not start. The store is not changed; '
                     'the error says what is wrong with it.'),
            ('fresh', 'nova-compute renames the store, logs a WARNING, and '
                      'the instance starts with a new one.')],
        help="""
What to do when an instance starts and its UEFI variable store (NVRAM file) is
damaged, is not a regular file, or belongs to another firmware. The firmware
would erase such a store silently. Use ``nova-arm-ext nvram restore`` or
``reset`` to repair it.
"""),
    cfg.StrOpt(
        'on_rebuild',
        default='reset',
        choices=[
            ('reset', 'The rebuilt instance starts with a new store.'),
            ('keep', 'The rebuilt instance keeps its store.')],
        help=f"""
What happens to the UEFI variables of an instance that is rebuilt. They are
reset by default, as in Nova, because a new image has its own boot entries.
The image property ``{ON_REBUILD_PROPERTY}`` has the same values and
takes precedence.
"""),
    cfg.StrOpt(
        'store',
        default='',
        help="""
The driver that keeps copies of UEFI variables; empty for no copies. A copy is
made when an instance is powered off, and removed when the instance is deleted.
It is used when an instance is unshelved, when it is evacuated without its
files, and when its store was removed by hand. Without copies an instance loses
its variables in these cases, as with Nova's own driver. ``directory`` keeps
copies in a folder on shared storage. Other packages can add drivers with entry
points in the namespace ``nova_arm_ext.nvram_stores``.
"""),
    cfg.StrOpt(
        'directory',
        default='/var/lib/nova/nvram',
        help="""
The folder of the driver ``directory``. It must be on storage that all compute
hosts share. nova-compute must be able to write to it; no other user may have
access. A copy takes about 10 KB.
"""),
    cfg.IntOpt(
        'copy_interval',
        default=0, min=0,
        help="""
Seconds between copies of the variables of running instances. Only instances
that have written since the last copy are copied. With 0, copies are made only
at power-off. If a host fails, changes since the last copy are lost.
"""),
    cfg.StrOpt(
        'image_key_file',
        default='',
        help=f"""
A file with secrets of at least 32 bytes, one per line. It must be the same
on all compute hosts, and only nova-compute may be able to read it. With this
file, a snapshot keeps the instance's UEFI variables in the image property
``{STORE_PROPERTY}``, made with the first secret. Instances that are created
from that image, rebuilt with it or unshelved start with these variables.
Values of the property that were made with none of the secrets are refused.
Everyone who can read the image can read the variables. Without this file,
images hold no variables.
"""),
)


class Event(enum.Enum):
    """What happens to a guest, as one host sees it."""

    SPAWN = 'create'
    HARD_REBOOT = ('hard reboot; soft reboot; stop and start; start with the '
                   'host')
    UNDISTURBED = ('pause; suspend and resume; snapshot; backup; shelve '
                   'without offload')
    RESCUE = 'rescue'
    UNRESCUE = 'unrescue'
    REBUILD = 'rebuild'
    MIGRATE = 'cold migration, resize: on the source'
    ARRIVE = 'cold migration, resize: on the destination'
    CONFIRM = 'confirm: on the source'
    REVERT = 'revert: on the source'
    LEAVE = 'revert: on the destination'
    LIVE_MIGRATE = 'live migration: on the destination'
    LIVE_MIGRATED = 'live migration: on the source'
    LIVE_FAILED = 'live migration that failed: on the destination'
    SHELVE_OFFLOAD = 'shelve offload'
    UNSHELVE = 'unshelve; resize to another cell'
    EVACUATE = 'evacuate'
    RETURN = 'evacuated host is back'
    DELETE = 'delete'


class Fate(enum.Enum):
    """What happens to the store."""

    KEEP = 'kept'
    FRESH = 'new; an existing file is renamed'
    LOST = 'new, with a WARNING; an existing file is renamed'
    BROUGHT = 'replaced by the store that the operation brought'
    IMAGE = 'replaced by the store in the image'
    SAVED = 'replaced by the copy of the store driver'
    COPY = 'kept; the rescue uses a copy, which is removed afterwards'
    SEND = 'kept until confirm; a packed copy is sent'
    REMOVE = 'removed'
    LEAVE = 'not touched: it belongs to the other host now'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is known about the store at an event.

    :param present: the file exists
    :param had: the guest has run with a store at this path
    :param inside: the path is in the instance directory, where the stores of
        guests are that the extension created
    :param brought: this operation has brought a store for this firmware
    :param saved: the store driver has a copy for this firmware
    :param carried: the image holds a store for this firmware
    :param other_firmware: Secure Boot is to be switched on or off, so that the
        keys in the store that there is do not fit
    :param of_other: the file belongs to the other host, which shares the
        instance directory with this one
    """

    present: bool = False
    had: bool = False
    inside: bool = False
    brought: bool = False
    saved: bool = False
    carried: bool = False
    other_firmware: bool = False
    of_other: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What happens to the store at an event, under a condition.

    :param when: names of State that must be true
    :param unless: names of State that must be false
    """

    event: Event
    fate: Fate
    when: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    def fits(self, state: State) -> bool:
        """Whether the condition is met."""
        return (all(getattr(state, name) for name in self.when)
                and not any(getattr(state, name) for name in self.unless))

    @property
    def condition(self) -> str:
        """The condition in words; empty if there is none."""
        return ', '.join([*(_WORDS[name][0] for name in self.when),
                          *(_WORDS[name][1] for name in self.unless)])


_WORDS = {
    'present': ('the store exists', 'there is no store'),
    'had': ('the store was removed by hand',
            'the instance has not run with one'),
    'inside': ('in the instance directory', "in libvirt's folder"),
    'brought': ('the operation brought one',
                'the operation brought none'),
    'saved': ('the store driver has a copy', 'the store driver has no copy'),
    'carried': ('the image holds one', 'the image holds none'),
    'other_firmware': ('Secure Boot is switched on or off',
                       'Secure Boot stays as it is'),
    'of_other': ('the instance directory is shared',
                 'the instance directory is not shared'),
}

#: The first rule of an event that fits decides; the last one always fits.
#: Without keys, firmware for Secure Boot does not enforce it, so no rule gives
#: a guest a store of another firmware.
RULES: tuple[Rule, ...] = (
    Rule(event=Event.SPAWN, fate=Fate.IMAGE, when=('carried',)),
    Rule(event=Event.SPAWN, fate=Fate.LOST, when=('other_firmware',)),
    Rule(event=Event.SPAWN, fate=Fate.FRESH),
    Rule(event=Event.HARD_REBOOT, fate=Fate.LOST, when=('other_firmware',)),
    Rule(event=Event.HARD_REBOOT, fate=Fate.KEEP, when=('present',)),
    Rule(event=Event.HARD_REBOOT, fate=Fate.SAVED, when=('had', 'saved')),
    Rule(event=Event.HARD_REBOOT, fate=Fate.LOST, when=('had',)),
    Rule(event=Event.HARD_REBOOT, fate=Fate.FRESH),
    Rule(event=Event.UNDISTURBED, fate=Fate.KEEP),
    Rule(event=Event.RESCUE, fate=Fate.COPY, when=('present',),
         unless=('other_firmware',)),
    Rule(event=Event.RESCUE, fate=Fate.FRESH),
    Rule(event=Event.UNRESCUE, fate=Fate.LOST, when=('other_firmware',)),
    Rule(event=Event.UNRESCUE, fate=Fate.KEEP, when=('present',)),
    Rule(event=Event.UNRESCUE, fate=Fate.SAVED, when=('had', 'saved')),
    Rule(event=Event.UNRESCUE, fate=Fate.LOST, when=('had',)),
    Rule(event=Event.UNRESCUE, fate=Fate.FRESH),
    Rule(event=Event.REBUILD, fate=Fate.BROUGHT, when=('brought',)),
    Rule(event=Event.REBUILD, fate=Fate.IMAGE, when=('carried',)),
    Rule(event=Event.REBUILD, fate=Fate.LOST, when=('other_firmware',)),
    Rule(event=Event.REBUILD, fate=Fate.FRESH),
    Rule(event=Event.MIGRATE, fate=Fate.SEND),
    Rule(event=Event.ARRIVE, fate=Fate.LOST, when=('other_firmware',)),
    # a resize on one host: Nova does not move libvirt's folder
    Rule(event=Event.ARRIVE, fate=Fate.KEEP, when=('present',),
         unless=('inside',)),
    Rule(event=Event.ARRIVE, fate=Fate.BROUGHT, when=('brought',)),
    Rule(event=Event.ARRIVE, fate=Fate.LOST),
    Rule(event=Event.CONFIRM, fate=Fate.REMOVE),
    Rule(event=Event.REVERT, fate=Fate.LOST, when=('other_firmware',)),
    Rule(event=Event.REVERT, fate=Fate.KEEP, when=('present',)),
    Rule(event=Event.REVERT, fate=Fate.LOST),
    Rule(event=Event.LEAVE, fate=Fate.REMOVE),
    Rule(event=Event.LIVE_MIGRATE, fate=Fate.KEEP),
    Rule(event=Event.LIVE_MIGRATED, fate=Fate.LEAVE, when=('of_other',)),
    Rule(event=Event.LIVE_MIGRATED, fate=Fate.REMOVE),
    Rule(event=Event.LIVE_FAILED, fate=Fate.LEAVE, when=('of_other',)),
    Rule(event=Event.LIVE_FAILED, fate=Fate.REMOVE),
    Rule(event=Event.SHELVE_OFFLOAD, fate=Fate.REMOVE),
    Rule(event=Event.UNSHELVE, fate=Fate.SAVED, when=('saved',)),
    Rule(event=Event.UNSHELVE, fate=Fate.IMAGE, when=('carried',)),
    Rule(event=Event.UNSHELVE, fate=Fate.LOST),
    Rule(event=Event.EVACUATE, fate=Fate.KEEP, when=('present', 'of_other'),
         unless=('other_firmware',)),
    Rule(event=Event.EVACUATE, fate=Fate.SAVED, when=('saved',)),
    Rule(event=Event.EVACUATE, fate=Fate.LOST),
    Rule(event=Event.RETURN, fate=Fate.LEAVE, when=('of_other',)),
    Rule(event=Event.RETURN, fate=Fate.REMOVE),
    Rule(event=Event.DELETE, fate=Fate.REMOVE),
)


def decide(event: Event, state: State) -> Fate:
    """What happens to the store."""
    return next(rule.fate for rule in RULES
                if rule.event is event and rule.fits(state))


def file_of(folder: str, uuid: str, like: str | None = None, *,
            suffix: str = '') -> str:
    """The path of a guest's store in its instance directory.

    :param folder: the instance directory
    :param like: a path with the suffix to use
    :param suffix: the suffix without `like`; empty to add it later
        (`with_suffix`)
    """
    suffix = os.path.splitext(like)[1] if like else suffix
    return os.path.join(folder, f'{uuid}_VARS{suffix}')


def with_suffix(path: str, template: str | None) -> str:
    """A path of a store with the suffix that libvirt gives it.

    :param template: path of its template. libvirt 9.2 and later uses its
        suffix, older versions always ``.fd``.
    """
    if not path.endswith('_VARS'):
        return path
    suffix = os.path.splitext(template)[1] if template else ''
    return path + (suffix or '.fd')


def undefine_keeps(*, inside: bool, in_libvirt: bool, removed: bool,
                   leaving: bool) -> bool:
    """Whether libvirt is to keep the file when it undefines the domain.

    libvirt removes only files in its own folder. A store in the instance
    directory is removed only together with that directory: on shared storage
    the other host uses the same file.

    :param removed: Nova removes the guest's disks on this host
    :param leaving: the guest moves to another host, or is there already
    """
    return inside or not in_libvirt or not (removed or leaving)


def on_rebuild(default: str, properties: Any) -> str:
    """What happens to the store on rebuild: ``reset`` or ``keep``.

    :param default: ``[arm_nvram] on_rebuild``
    :param properties: those of the new image, by name
    :raises Refused: when the image property has another value
    """
    asked = properties.get(ON_REBUILD_PROPERTY)
    if asked is None:
        return default
    if asked not in ('reset', 'keep'):
        raise errors.Refused(
            f'the image property {ON_REBUILD_PROPERTY} is {asked!r}; it can '
            f'be reset or keep')
    return str(asked)


def faults(conf: cfg.ConfigOpts) -> list[str]:
    """What is wrong with the options.

    :param conf: parsed configuration; the options are registered here
    :returns: one sentence per fault
    """
    conf.register_opts(OPTS, group=GROUP)
    found: list[str] = []
    values = options.read_options(conf, GROUP, OPTS, found)
    if (getattr(values, 'copy_interval', 0)
            and not getattr(values, 'store', '')):
        found.append(
            f'[{GROUP}] copy_interval is {values.copy_interval}, and '
            f'[{GROUP}] store names no store for the copies')
    return found


def table(rules: Sequence[Rule] = RULES) -> str:
    """The plan as a table of reStructuredText."""
    rows = [('What happens', 'If', 'The variable store is')]
    last = None
    for rule in rules:
        is_first = rule.event is not last
        rows.append((rule.event.value if is_first else '',
                     rule.condition or ('always' if is_first else 'otherwise'),
                     rule.fate.value))
        last = rule.event
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: 4 3 5', '']
    for row in rows:
        for number, cell in enumerate(row):
            bullet = '  -' if number else '* -'
            lines.append(f'   {bullet} {cell}'.rstrip())
    return '\n'.join(lines) + '\n'
