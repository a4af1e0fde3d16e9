# SPDX-License-Identifier: Apache-2.0
"""The table of what happens to variable stores."""

import dataclasses
import itertools

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate
from tests.support import base

NAMES = tuple(field.name for field in dataclasses.fields(nvram.State))
STATES = [nvram.State(**dict(zip(NAMES, values, strict=True)))
          for values in itertools.product((False, True), repeat=len(NAMES))]


class PlanTest(base.TestCase):

    def test_each_event_has_an_answer_in_every_state(self):
        for event, state in itertools.product(Event, STATES):
            self.assertIsInstance(nvram.decide(event, state), Fate)

    def test_each_rule_decides_in_some_state(self):
        for number, rule in enumerate(nvram.RULES):
            earlier = [other for other in nvram.RULES[:number]
                       if other.event is rule.event]
            self.assertTrue(any(
                rule.fits(state)
                and not any(other.fits(state) for other in earlier)
                for state in STATES), rule)

    def test_what_lies_there_is_used_only_by_a_guest_that_put_it_there(self):
        may = {Event.HARD_REBOOT, Event.UNDISTURBED, Event.UNRESCUE,
               Event.REVERT, Event.LIVE_MIGRATE, Event.EVACUATE,
               Event.ARRIVE}

        self.assertEqual(may, {
            event for event, state in itertools.product(Event, STATES)
            if nvram.decide(event, state) is Fate.KEEP})
        for state in STATES:
            if not state.of_other:
                self.assertIsNot(Fate.KEEP,
                                 nvram.decide(Event.EVACUATE, state))
            if state.inside:
                self.assertIsNot(Fate.KEEP, nvram.decide(Event.ARRIVE, state))

    def test_a_store_that_was_removed_is_never_replaced_without_a_word(self):
        for event, saved in itertools.product(
                (Event.HARD_REBOOT, Event.UNRESCUE), (False, True)):
            state = nvram.State(had=True, saved=saved)

            self.assertIs(Fate.SAVED if saved else Fate.LOST,
                          nvram.decide(event, state))
            self.assertIs(Fate.FRESH, nvram.decide(
                event, dataclasses.replace(state, had=False)))
            self.assertIs(Fate.KEEP, nvram.decide(
                event, dataclasses.replace(state, present=True)))

    def test_the_documentations_table_has_every_event_once(self):
        table = nvram.table()

        for event in Event:
            self.assertEqual(1, table.count(f'   * - {event.value}\n'))
        self.assertEqual(len(nvram.RULES) + 1, table.count('   * -'))

    def test_libvirt_removes_the_file_of_who_goes_and_has_it_elsewhere(self):
        self.assertEqual(
            [(True, True), (True, False), (False, True)],
            [(removed, leaving) for removed, leaving
             in itertools.product((True, False), repeat=2)
             if not nvram.undefine_keeps(inside=False, in_libvirt=True,
                                         removed=removed, leaving=leaving)])

    def test_libvirt_never_removes_a_file_outside_its_own_folder(self):
        for inside, removed, leaving in itertools.product(
                (True, False), repeat=3):
            self.assertTrue(nvram.undefine_keeps(
                inside=inside, in_libvirt=False, removed=removed,
                leaving=leaving))

    def test_libvirt_never_removes_a_file_in_the_instance_directory(self):
        for in_libvirt, removed, leaving in itertools.product(
                (True, False), repeat=3):
            self.assertTrue(nvram.undefine_keeps(
                inside=True, in_libvirt=in_libvirt, removed=removed,
                leaving=leaving))

    def test_no_store_of_another_firmware_is_used(self):
        own = {Fate.KEEP, Fate.COPY}
        for event, state in itertools.product(Event, STATES):
            # what happens while the guest runs, or is no start here
            if event in (Event.UNDISTURBED, Event.LIVE_MIGRATE):
                continue
            fate = nvram.decide(event, state)
            if state.other_firmware:
                self.assertNotIn(fate, own, (event, state))
            if fate in (Fate.BROUGHT, Fate.SAVED, Fate.IMAGE):
                # which are counted only if they are of this firmware
                self.assertTrue(state.brought or state.saved
                                or state.carried, (event, state))

    def test_a_store_of_another_firmware_is_called_lost(self):
        state = nvram.State(present=True, had=True, inside=True,
                            other_firmware=True, of_other=True)
        for event in (Event.SPAWN, Event.HARD_REBOOT, Event.UNRESCUE,
                      Event.REBUILD, Event.ARRIVE, Event.REVERT,
                      Event.UNSHELVE, Event.EVACUATE):
            self.assertIs(Fate.LOST, nvram.decide(event, state), event)

    def test_a_store_of_which_there_is_none_any_more_is_called_lost(self):
        for event in (Event.ARRIVE, Event.REVERT, Event.UNSHELVE,
                      Event.EVACUATE):
            self.assertIs(Fate.LOST, nvram.decide(event, nvram.State()),
                          event)
        for event in (Event.SPAWN, Event.REBUILD):
            self.assertIs(Fate.FRESH, nvram.decide(event, nvram.State()),
                          event)

    def test_the_guest_s_own_store_goes_before_that_of_its_image(self):
        both = nvram.State(present=True, brought=True, saved=True,
                           carried=True)
        for event, fate in ((Event.SPAWN, Fate.IMAGE),
                            (Event.REBUILD, Fate.BROUGHT),
                            (Event.ARRIVE, Fate.KEEP),
                            (Event.UNSHELVE, Fate.SAVED)):
            self.assertIs(fate, nvram.decide(event, both), event)
        for event in (Event.SPAWN, Event.REBUILD, Event.UNSHELVE):
            self.assertIs(Fate.IMAGE, nvram.decide(
                event, nvram.State(carried=True)), event)

    def test_a_condition_is_in_words(self):
        self.assertEqual(
            ['the store exists, Secure Boot stays as it is', ''],
            [rule.condition for rule in nvram.RULES
             if rule.event is Event.RESCUE])

    def test_a_rescue_loses_nothing(self):
        self.assertEqual({Fate.COPY, Fate.FRESH}, {
            nvram.decide(Event.RESCUE, state) for state in STATES})

    def test_a_store_is_named_by_uuid_with_the_suffix_of_its_template(self):
        path = nvram.file_of('/instances/u', 'u')

        for template, name in ((None, 'u_VARS.fd'), ('/a/V.fd', 'u_VARS.fd'),
                               ('/a/v.qcow2', 'u_VARS.qcow2'),
                               ('/a/v.raw', 'u_VARS.raw')):
            self.assertEqual(f'/instances/u/{name}',
                             nvram.with_suffix(path, template))
        self.assertEqual('/instances/u/u_VARS.raw', nvram.with_suffix(
            nvram.file_of('/instances/u', 'u', 'name_VARS.raw'), '/a/V.fd'))

    def test_the_image_goes_before_the_option_on_rebuild(self):
        for default in ('keep', 'reset'):
            for asked in ('keep', 'reset'):
                self.assertEqual(asked, nvram.on_rebuild(
                    default, {'arm_nvram_on_rebuild': asked}))
            self.assertEqual(default, nvram.on_rebuild(default, {}))
            said = self.assertRaises(
                errors.Refused, nvram.on_rebuild, default,
                {'arm_nvram_on_rebuild': 'KEEP'})
            self.assertIn("arm_nvram_on_rebuild is 'KEEP'", str(said))
