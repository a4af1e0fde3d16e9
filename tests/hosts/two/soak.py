# SPDX-License-Identifier: Apache-2.0
"""A long row of operations on some guests, planned by a seed.

The plan is a model: it has, after each operation, the state in which every
guest must be. It asks nothing of Nova, so a seed always makes the same plan.
"""

import collections.abc
import dataclasses
import random

from tests.hosts.two import settings

HOSTS = tuple(settings.HOSTS)
#: Resizes go from one to the next.
FLAVORS = 2

#: One of so many steps is a power cut, where that is possible.
POWER_CUTS = 25


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a guest must be like.

    :param status: in Nova's API
    :param host: None if it is on none
    :param boots: the number in the variables of its own system
    :param reports: the number of boots that its console shows; None if it
        does not run, or if its console is newer than its boot
    :param flavor: the number of its flavor
    :param before: what a revert of its migration goes back to
    """

    status: str = 'ACTIVE'
    host: str | None
    boots: int = 1
    reports: int | None = 1
    flavor: int = 0
    before: 'State | None' = None

    @property
    def runs(self) -> bool:
        if self.before is not None:
            return self.before.runs
        return self.status in ('ACTIVE', 'RESCUE')

    @property
    def hosts(self) -> set[str]:
        """The hosts that have something of it."""
        return {state.host for state in (self, self.before)
                if state is not None and state.host is not None}

    def changed(self, **values: object) -> 'State':
        return dataclasses.replace(self, **values)

    def booted(self, **values: object) -> 'State':
        boots = self.boots + 1
        return self.changed(boots=boots, reports=boots, **values)

    def booted_if_it_ran(self, **values: object) -> 'State':
        return self.booted(**values) if self.runs else self.changed(**values)

    def moved(self, **values: object) -> 'State':
        """Migrated cold to the other host, not confirmed yet."""
        assert self.host is not None
        return self.booted_if_it_ran(
            status='VERIFY_RESIZE', host=other(self.host), before=self,
            **values)

    def reverted(self) -> 'State':
        # What was written on the destination is lost.
        assert self.before is not None
        return self.before.booted_if_it_ran()

    def confirmed(self) -> 'State':
        assert self.before is not None
        return self.changed(status=self.before.status, before=None)


Result = collections.abc.Callable[[State, str], State]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """What can be done to a guest.

    :param weight: how often, in relation to the others
    :param statuses: in which it is possible
    :param result: the state after it, from the one before and a host that it
        may use
    """

    weight: int
    statuses: tuple[str, ...]
    result: Result


def _on(*statuses: str, result: Result, weight: int = 10) -> Operation:
    return Operation(weight=weight, statuses=statuses, result=result)


STATUSES = ('ACTIVE', 'SHUTOFF', 'SUSPENDED', 'RESCUE', 'VERIFY_RESIZE',
            'SHELVED_OFFLOADED')

OPERATIONS: dict[str, Operation] = {
    'stop': _on('ACTIVE', result=lambda state, host: state.changed(
        status='SHUTOFF', reports=None)),
    'start': _on('SHUTOFF', result=lambda state, host: state.booted(
        status='ACTIVE')),
    'hard_reboot': _on(
        'ACTIVE', 'SHUTOFF', 'SUSPENDED',
        result=lambda state, host: state.booted(status='ACTIVE')),
    'soft_reboot': _on('ACTIVE', result=lambda state, host: state.booted()),
    'suspend': _on('ACTIVE', result=lambda state, host: state.changed(
        status='SUSPENDED', reports=None)),
    'resume': _on('SUSPENDED', result=lambda state, host: state.changed(
        status='ACTIVE')),
    # The rescue system counts in a copy.
    'rescue': _on('ACTIVE', 'SHUTOFF', result=lambda state, host:
                  state.changed(status='RESCUE', reports=state.boots + 1)),
    'unrescue': _on('RESCUE', result=lambda state, host: state.booted(
        status='ACTIVE')),
    'rebuild': _on('ACTIVE', result=lambda state, host: state.booted()),
    'snapshot': _on('ACTIVE', 'SHUTOFF', weight=5,
                    result=lambda state, host: state.changed(reports=None)),
    'migrate': _on('ACTIVE', 'SHUTOFF', weight=15,
                   result=lambda state, host: state.moved()),
    'resize': _on('ACTIVE', 'SHUTOFF', result=lambda state, host: state.moved(
        flavor=(state.flavor + 1) % FLAVORS)),
    'confirm': _on('VERIFY_RESIZE',
                   result=lambda state, host: state.confirmed()),
    'revert': _on('VERIFY_RESIZE',
                  result=lambda state, host: state.reverted()),
    'live_migrate': _on('ACTIVE', result=lambda state, host: state.changed(
        host=other(state.host or ''), reports=None)),
    'shelve': _on('ACTIVE', 'SHUTOFF', result=lambda state, host:
                  state.changed(status='SHELVED_OFFLOADED', host=None,
                                reports=None)),
    'unshelve': _on('SHELVED_OFFLOADED', result=lambda state, host:
                    state.booted(status='ACTIVE', host=host)),
    # It is deleted, and a new one takes its place.
    'replace': _on(*STATUSES, weight=1,
                   result=lambda state, host: State(host=host)),
}

#: How a guest comes to rest and runs, by status.
HOME = {'SHUTOFF': 'start', 'SUSPENDED': 'resume', 'RESCUE': 'unrescue',
        'VERIFY_RESIZE': 'confirm', 'SHELVED_OFFLOADED': 'unshelve'}

#: Not an operation on a guest: its host loses its power, all guests there are
#: evacuated, and the host comes back.
POWER_CUT = 'power cut'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One operation.

    :param name: a key of OPERATIONS, or POWER_CUT
    :param host: that it may use, or that loses its power
    :param states: what the guests that it concerns must be like afterwards,
        by their number
    """

    name: str
    host: str
    states: dict[int, State]

    def __str__(self) -> str:
        return '; '.join([
            f'guest {number}: {self.name}, then {state.status} on '
            f'{state.host or "no host"}, {state.boots} boots'
            for number, state in self.states.items()])


def other(host: str) -> str:
    """The host that is not this one."""
    return HOSTS[1 - HOSTS.index(host)]


def plan(seed: str, operations: int, guests: int
         ) -> collections.abc.Iterator[Step]:
    """That many steps, and then those that bring each guest to run.

    Guests take turns, so that one can boot while others are operated on.
    """
    chance = random.Random(seed)
    states = {number: State(host=HOSTS[number % len(HOSTS)])
              for number in range(guests)}
    turn = 0
    for _ in range(operations):
        step = _power_cut(chance, states)
        if step is None:
            step = _step(chance, turn % guests, states[turn % guests])
            turn += 1
        states |= step.states
        yield step
    for number in states:
        while (status := states[number].status) != 'ACTIVE':
            step = _named(HOME[status], number, states[number], HOSTS[0])
            states |= step.states
            yield step
        step = _named('hard_reboot', number, states[number], HOSTS[0])
        states |= step.states
        yield step


def _named(name: str, number: int, state: State, host: str) -> Step:
    return Step(name=name, host=host, states={
        number: OPERATIONS[name].result(state, host)})


def _step(chance: random.Random, number: int, state: State) -> Step:
    possible = [name for name, operation in OPERATIONS.items()
                if state.status in operation.statuses]
    [name] = chance.choices(possible, [OPERATIONS[name].weight
                                       for name in possible])
    return _named(name, number, state, chance.choice(HOSTS))


def _power_cut(chance: random.Random,
               states: dict[int, State]) -> Step | None:
    """A power cut, if it is its turn and no guest is in its way.

    Nova evacuates no guest that is suspended, rescued or being migrated, and
    stops one that was off while that boots: its count would be uncertain.
    """
    host = chance.choice(HOSTS)
    wanted = chance.randrange(POWER_CUTS) == 0
    there = {number: state for number, state in states.items()
             if host in state.hosts}
    if not wanted or not there or any(
            state.status != 'ACTIVE' for state in there.values()):
        return None
    return Step(name=POWER_CUT, host=host, states={
        number: state.booted(host=other(host))
        for number, state in there.items()})
