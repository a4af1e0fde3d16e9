# SPDX-License-Identifier: Apache-2.0
"""The plan carried out: all events, sources and states in one product.

Properties are stated here that hold whatever happens; single cases are in the
other modules.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import contextlib
import dataclasses
import itertools
import pathlib
import shutil
import sys
import types

import fixtures
import nova.conf

from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import copies
from nova_arm_ext.compute.nvram import images
from nova_arm_ext.compute.nvram import luggage
from nova_arm_ext.compute.nvram import start
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate
from tests.nova.nvram import base
from tests.support import stores

CONF = nova.conf.CONF

#: Events at which a guest starts.
EVENTS = (Event.SPAWN, Event.HARD_REBOOT, Event.RESCUE, Event.UNRESCUE,
          Event.REBUILD, Event.ARRIVE, Event.REVERT, Event.UNSHELVE,
          Event.EVACUATE)

ABSENT, SOUND, DAMAGED, OTHER = 'absent', 'sound', 'damaged', 'other'
STATES = (ABSENT, SOUND, DAMAGED, OTHER)

#: A platform key makes a store one of firmware for Secure Boot.
KEY = stores.variable('PK', b'key')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One combination.

    :param own: the guest's own store; OTHER: it is of another firmware
    :param brought: the packed store that came along
    :param saved: the copy
    :param carried: the store that the image carries
    """

    event: Event
    own: str
    brought: str
    saved: str
    carried: str
    on_damage: str
    secure_boot: bool


CASES = tuple(
    Case(event=event, own=own, brought=brought, saved=saved, carried=carried,
         on_damage=on_damage, secure_boot=secure_boot)
    for event, own, brought, saved, carried, on_damage, secure_boot
    in itertools.product(
        EVENTS, STATES, STATES, STATES, (ABSENT, SOUND, OTHER),
        ('fail', 'fresh'), (False, True)))


class Copied:
    """A store driver with one copy."""

    def __init__(self):
        self.packed = None

    def load(self, uuid):
        return self.packed


class ProductTest(nova.test.NoDBTestCase):

    def setUp(self):
        super().setUp()
        CONF.register_opts(nvram.OPTS, group=nvram.GROUP)
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.flags(instances_path=str(self.root), host='a')
        # the order of writes has a test of its own, and this one many files
        self.stub_out('os.fsync', lambda file: None)
        self.stub_out('nova_arm_ext.compute.nvram.places.LIBVIRT',
                      str(self.root / 'libvirt'))
        self.folder = self.root / base.UUID
        self.place = self.folder / base.STORE
        self.instance = types.SimpleNamespace(uuid=base.UUID, name=base.NAME)
        self.copied = Copied()
        self.stores = store.Stores(CONF, lambda guest: None)
        self.luggage = luggage.Luggage(CONF)
        self.start = start.Start(
            CONF, self.stores, self.luggage,
            copies.Copies(self.stores, self.copied))
        self.content = {
            (name, secure_boot): stores.store(
                stores.variable('Of', name.encode()),
                *([KEY] if secure_boot else []))
            for name in ('own', 'brought', 'saved', 'carried')
            for secure_boot in (False, True)}
        self.packed = {
            key: varstore.pack(data, secure_boot=key[1])
            for key, data in self.content.items()}

    def store_in(self, case, name, state):
        """The content of a source."""
        if state == DAMAGED:
            return b'damaged ' + name.encode()
        return self.content[name, case.secure_boot != (state == OTHER)]

    def packed_in(self, case, name, state):
        if state == ABSENT:
            return None
        if state == DAMAGED:
            return b'damaged ' + name.encode()
        return self.packed[name, case.secure_boot != (state == OTHER)]

    def run_case(self, case):
        """Start a guest; what became of its store, or the refusal."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.flags(on_damage=case.on_damage, group='arm_nvram')
        rescue = case.event is Event.RESCUE
        if case.own != ABSENT:
            self.place.write_bytes(self.store_in(case, 'own', case.own))
        self.arrived = pathlib.Path(self.luggage.arrived(
            case.event, base.UUID, str(self.folder)).path)
        brought = self.packed_in(case, 'brought', case.brought)
        if brought is not None:
            self.arrived.write_bytes(brought)
        self.copied.packed = self.packed_in(case, 'saved', case.saved)
        carried = self.packed_in(case, 'carried', case.carried)
        self.started = (pathlib.Path(f'{self.place}.rescue') if rescue
                        else self.place)
        guest = view.Domain.parse(base.DOCUMENT.replace(
            '<os firmware="efi">', '<os>').replace(
            '<loader secure="no"/>',
            f'<loader type="pflash">/code</loader>'
            f'<nvram>{self.started}</nvram>'))
        try:
            return self.start.prepare(
                case.event, self.instance, guest, start.Known(
                    folder=str(self.folder),
                    own=Place.of(str(self.place), CONF),
                    secure_boot=case.secure_boot,
                    # the previous domain XML tells; an evacuation has none
                    other_firmware=(case.own == OTHER and case.event
                                    is not Event.EVACUATE),
                    carried=carried and images.Carried(
                        carried, case.secure_boot != (
                            case.carried == OTHER)),
                    ran_with_store=case.event in (
                        Event.HARD_REBOOT, Event.UNRESCUE),
                    of_other=True))
        except store.StoreNotUsable as e:
            return str(e)
        finally:
            with contextlib.suppress(FileNotFoundError):
                if not str(self.arrived).startswith(str(self.folder)):
                    self.left = self.arrived.exists()
                    self.arrived.unlink()

    def everything(self):
        """What is in the instance directory."""
        return [path.read_bytes() for path in self.folder.iterdir()]

    def test_what_holds_whatever_happens(self):
        fates = set()
        for case in CASES:
            found = self.run_case(case)
            refused = isinstance(found, str)
            fates.add('refused' if refused else found)
            content = (self.started.read_bytes() if self.started.exists()
                       else None)
            self.check(case, found, refused, content)
        print(f'{len(CASES)} combinations of events, sources and states',
              file=sys.stderr)
        self.assertEqual({
            'refused', Fate.KEEP, Fate.FRESH, Fate.LOST, Fate.BROUGHT,
            Fate.IMAGE, Fate.SAVED, Fate.COPY}, fates)

    def check(self, case, found, refused, content):
        own = (None if case.own == ABSENT
               else self.store_in(case, 'own', case.own))
        if refused:
            # nothing that was there is changed, and the damaged one is named
            if own is not None:
                self.assertEqual(own, self.place.read_bytes(), case)
            self.assertEqual('fail', case.on_damage, case)
            self.assertIn(DAMAGED, (case.own, case.brought, case.saved), case)
            names = {DAMAGED: []}
            for state, name in (
                    (case.own, f'store {self.place} '),
                    (case.brought, f'store {self.arrived}, which came along'),
                    (case.saved, 'The copy of the UEFI variables')):
                names.setdefault(state, []).append(name)
            self.assertTrue(any(name in found for name in names[DAMAGED]),
                            (case, found))
            self.assertIsNot(Event.RESCUE, case.event, case)
            return
        # no store of another firmware, and none that is damaged, starts
        if content is not None:
            right = {self.content[name, case.secure_boot]
                     for name in ('own', 'brought', 'saved', 'carried')}
            self.assertTrue(content in right, case)
        # what the guest had is not removed
        if own is not None and found in (Fate.FRESH, Fate.LOST):
            self.assertIn(own, self.everything(), case)
        # an own store that is sound is what the guest starts with
        if case.own == SOUND and case.event in (
                Event.HARD_REBOOT, Event.UNRESCUE, Event.REVERT):
            self.assertIs(Fate.KEEP, found, case)
            self.assertEqual(own, content, case)
        # new variables where there were some are told of
        if found is Fate.FRESH:
            self.assertIn(case.event, (
                Event.SPAWN, Event.REBUILD, Event.RESCUE), case)
            if case.event is not Event.RESCUE:
                # what came along or is in the image would have been used
                self.assertNotIn(SOUND, (case.carried,), case)
        # a rescue is there to mend it
        if case.event is Event.RESCUE:
            self.assertIn(found, (Fate.COPY, Fate.FRESH), case)
            if own is not None:
                self.assertEqual(own, self.place.read_bytes(), case)
            self.assertIs(case.own == SOUND, found is Fate.COPY, case)
