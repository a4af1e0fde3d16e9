# SPDX-License-Identifier: Apache-2.0
"""The plan of a soak on two hosts is possible, and its seed repeats it."""

from tests.hosts.two import soak
from tests.support import base


def plans(operations: int = 200, guests: int = 3):
    return [list(soak.plan(str(seed), operations, guests))
            for seed in range(20)]


class PlanTest(base.TestCase):

    def test_a_seed_repeats_it(self) -> None:
        self.assertEqual(plans(), plans())

    def test_seeds_make_different_ones(self) -> None:
        first, second, *_ = plans()

        self.assertNotEqual(first, second)

    def test_a_shorter_one_is_the_beginning_of_a_longer_one(self) -> None:
        for short, long in zip(plans(50), plans(200), strict=True):
            self.assertEqual(short[:50], long[:50])

    def test_all_operations_are_in_some(self) -> None:
        self.assertEqual(
            {*soak.OPERATIONS, soak.POWER_CUT},
            {step.name for plan in plans() for step in plan})

    def test_each_operation_is_possible_and_counts_its_boot(self) -> None:
        for plan in plans():
            states = {number: soak.State(host=soak.HOSTS[number % 2])
                      for number in range(3)}
            for step in plan:
                for number, state in step.states.items():
                    before = states[number]
                    if step.name == soak.POWER_CUT:
                        self.assertEqual('ACTIVE', before.status)
                        self.assertEqual(step.host, before.host)
                    else:
                        self.assertIn(
                            before.status,
                            soak.OPERATIONS[step.name].statuses)
                    if step.name not in ('replace', 'revert'):
                        self.assertIn(state.boots - before.boots, (0, 1))
                    states[number] = state

    def test_a_power_cut_takes_all_guests_of_the_host(self) -> None:
        for plan in plans():
            states = {number: soak.State(host=soak.HOSTS[number % 2])
                      for number in range(3)}
            for step in plan:
                if step.name == soak.POWER_CUT:
                    self.assertEqual(
                        {number for number, state in states.items()
                         if step.host in state.hosts}, set(step.states))
                states |= step.states

    def test_a_revert_counts_on_from_before_the_migration(self) -> None:
        state = soak.State(host='host1', boots=5)

        there = soak.OPERATIONS['migrate'].result(state, '')
        back = soak.OPERATIONS['revert'].result(there, '')

        self.assertEqual(('host2', 6), (there.host, there.boots))
        self.assertEqual({'host1', 'host2'}, there.hosts)
        self.assertEqual(('host1', 6, 'ACTIVE'),
                         (back.host, back.boots, back.status))

    def test_a_guest_that_was_off_stays_off_on_the_way(self) -> None:
        state = soak.State(host='host1', status='SHUTOFF', reports=None)

        there = soak.OPERATIONS['resize'].result(state, '')
        confirmed = soak.OPERATIONS['confirm'].result(there, '')

        self.assertFalse(there.runs)
        self.assertEqual((1, None, 'SHUTOFF', 1),
                         (confirmed.boots, confirmed.reports,
                          confirmed.status, confirmed.flavor))

    def test_all_guests_run_at_the_end(self) -> None:
        for plan in plans():
            states: dict[int, soak.State] = {}
            for step in plan:
                states |= step.states

            self.assertEqual({'ACTIVE'},
                             {state.status for state in states.values()})
            self.assertEqual([], [state for state in states.values()
                                  if state.reports != state.boots])
