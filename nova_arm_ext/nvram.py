# SPDX-License-Identifier: Apache-2.0
"""What becomes of a guest's UEFI variable store, whatever happens to it.

This is only the plan, as one table; the documentation's table is made of it.
What is done to files is in compute/nvram/.
"""

import dataclasses
import enum
import os
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

GROUP = 'arm_nvram'

#: The image property that says what becomes of the store on rebuild.
ON_REBUILD_PROPERTY = 'arm_nvram_on_rebuild'

#: The image property in which a snapshot carries the store.
STORE_PROPERTY = 'arm_nvram_store'

#: The namespace of entry points of store drivers.
STORES = 'nova_arm_ext.nvram_stores'

OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        'on_damage',
        default='fail',
        choices=[
            ('fail', 'The guest does not start, and the store stays where it '
                     'is; the error says what is wrong with it.'),
            ('fresh', 'The store is put aside beside its place, and the guest '
                      'starts with a new one, with a WARNING.')],
        help="""
What happens when a guest is to start and its UEFI variable store is damaged,
is no plain file, or is made for another firmware. Firmware itself would erase
such a store without a word. ``nova-arm-ext nvram restore`` and ``reset`` put
one in order.
"""),
    cfg.StrOpt(
        'on_rebuild',
        default='reset',
        choices=[
            ('reset', 'The rebuilt guest starts with a new store.'),
            ('keep', 'It keeps the one that it had.')],
        help=f"""
What becomes of a guest's UEFI variables when it is rebuilt. A new image brings
boot entries of its own, so they are reset by default, as Nova does. The
property ``{ON_REBUILD_PROPERTY}`` of the image, with the same values, goes
before.
"""),
    cfg.StrOpt(
        'store',
        default='',
        help="""
The driver of a store for copies of UEFI variables, keyed by the guest's uuid;
none if it is empty. A copy is made whenever a guest is switched off, is used
when a guest is unshelved, or evacuated without its files, or when its store
was removed by hand, and goes when the guest is deleted. Without one a guest
loses its variables in these cases, as with Nova alone. ``directory`` is the
driver for a folder on shared storage; others are found by entry points in the
namespace ``nova_arm_ext.nvram_stores``.
"""),
    cfg.StrOpt(
        'directory',
        default='/var/lib/nova/nvram',
        help="""
The folder of the store driver ``directory``. It has to be the same, shared
storage on all compute hosts, writable for nova-compute, and closed to others.
A copy has about 10 KB.
"""),
    cfg.IntOpt(
        'copy_interval',
        default=0, min=0,
        help="""
Copy the variables of running guests into ``store`` every so many seconds as
well, at the next update of the host's resources; 0 copies at power-off alone.
What was changed since is lost where a host dies.
"""),
    cfg.StrOpt(
        'image_key_file',
        default='',
        help=f"""
A file with a secret of at least 32 bytes, the same on all compute hosts and
readable for nova-compute alone. With it the snapshot of a guest carries its
UEFI variables, as the property ``{STORE_PROPERTY}`` of the image, and guests
that are made of that image, rebuilt with it or unshelved start with them; the
secret keeps others from writing that property. Whoever can read the image can
read the variables. Without it, which is the default, no image carries any.
"""),
)


class Event(enum.Enum):
    """What happens to a guest, from where a host sees it."""

    SPAWN = 'create'
    HARD_REBOOT = ('hard reboot; soft reboot; stop and start; start with the '
                   'host')
    UNDISTURBED = ('pause; suspend and resume; snapshot; backup; shelve '
                   'without offload')
    RESCUE = 'rescue'
    UNRESCUE = 'unrescue'
    REBUILD = 'rebuild'
    MIGRATE = 'cold migrate, resize: where the guest comes from'
    ARRIVE = 'cold migrate, resize: where it goes to'
    CONFIRM = 'confirm: where the guest came from'
    REVERT = 'revert: where the guest goes back to'
    LEAVE = 'revert: where it has been'
    LIVE_MIGRATE = 'live migration: where the guest went to'
    LIVE_MIGRATED = 'live migration: where the guest came from'
    LIVE_FAILED = 'live migration that failed: where it should have gone'
    SHELVE_OFFLOAD = 'shelve offload'
    UNSHELVE = 'unshelve; resize to another cell'
    EVACUATE = 'evacuate'
    RETURN = 'return of a host that was evacuated'
    DELETE = 'delete'


class Fate(enum.Enum):
    """What becomes of the store."""

    KEEP = 'kept as it is'
    FRESH = 'a new one; what lies in its place is put aside'
    LOST = 'a new one, and a WARNING; what lies in its place is put aside'
    BROUGHT = 'the one that came along takes the place of what lies there'
    IMAGE = 'the one that the image carries takes the place of what lies there'
    SAVED = 'the copy in the store driver takes the place of what lies there'
    COPY = 'kept; a copy is used, and goes with the rescue'
    SEND = 'kept until the guest is confirmed; a packed copy goes along'
    REMOVE = 'removed'
    LEAVE = "left alone: it is the other host's by now"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is found when it happens.

    :param present: a file lies in the store's place
    :param had: the guest has run, with a store that was to stay there
    :param inside: that place is in the instance directory, where the stores
        of guests are that were not made by Nova alone
    :param brought: this operation has brought a store of this firmware
    :param saved: the store driver has a copy of this firmware
    :param carried: the image carries a store of this firmware
    :param other_firmware: Secure Boot is asked for and was not, or the other
        way round: the store that there is has no keys for it, or has them
    :param of_other: the file is one of the other host, which shares the
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
    """What becomes of the store at an event, under a condition.

    :param when: what must be so, by the names of State
    :param unless: what must not be so
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
    'present': ('it is there', 'it is not there'),
    'had': ('the guest had one, which somebody has removed',
            'the guest has not run with one'),
    'inside': ('in the instance directory', "in libvirt's folder"),
    'brought': ('it came along', 'it did not come along'),
    'saved': ('the store driver has a copy', 'no copy'),
    'carried': ('the image carries one', 'the image carries none'),
    'other_firmware': ('Secure Boot is switched on or off',
                       'the firmware stays'),
    'of_other': ('shared instance directory', 'own instance directory'),
}

#: The first rule of an event that fits decides; the last fits always.
#: Firmware for Secure Boot would not insist on it with a store without keys,
#: so no rule gives a guest a store of another firmware.
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
    # a resize on one host: libvirt's folder is not part of what Nova moves
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
    """What becomes of the store."""
    return next(rule.fate for rule in RULES
                if rule.event is event and rule.fits(state))


def file_of(folder: str, uuid: str, like: str | None = None, *,
            suffix: str = '') -> str:
    """The path of a guest's store in its instance directory.

    :param folder: the instance directory
    :param like: a path whose suffix it is to have
    :param suffix: or this one; without any it gets that of its template
        (`with_suffix`)
    """
    suffix = os.path.splitext(like)[1] if like else suffix
    return os.path.join(folder, f'{uuid}_VARS{suffix}')


def with_suffix(path: str, template: str | None) -> str:
    """A path of a store with a suffix, as libvirt names them.

    :param template: its template: libvirt 9.2 and newer takes its suffix,
        older ones know ``.fd`` alone
    """
    if not path.endswith('_VARS'):
        return path
    suffix = os.path.splitext(template)[1] if template else ''
    return path + (suffix or '.fd')


def undefine_keeps(*, inside: bool, in_libvirt: bool, removed: bool,
                   leaving: bool) -> bool:
    """Whether libvirt is to keep the file when it undefines the domain.

    libvirt removes only files in its own folder. A store in the instance
    directory is removed when Nova removes that directory, and stays when it
    does not: on shared storage the same file is the other host's, and in use
    there.

    :param removed: Nova removes the guest's disks on this host
    :param leaving: the guest is to be on another host, or is there
    """
    return inside or not in_libvirt or not (removed or leaving)


def on_rebuild(default: str, properties: Any) -> str:
    """What becomes of the store on rebuild: ``reset`` or ``keep``.

    :param default: ``[arm_nvram] on_rebuild``
    :param properties: the new image's, by name; another value than these two
        is no answer
    """
    asked = properties.get(ON_REBUILD_PROPERTY)
    return str(asked) if asked in ('reset', 'keep') else default


def table(rules: Sequence[Rule] = RULES) -> str:
    """The plan as a table of reStructuredText."""
    rows = [('What happens', 'If', 'The variable store')]
    last = None
    for rule in rules:
        rows.append((rule.event.value if rule.event is not last else '',
                     rule.condition, rule.fate.value))
        last = rule.event
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: 4 3 5', '']
    for row in rows:
        for number, cell in enumerate(row):
            bullet = '  -' if number else '* -'
            lines.append(f'   {bullet} {cell}'.rstrip())
    return '\n'.join(lines) + '\n'
