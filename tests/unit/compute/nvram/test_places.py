# SPDX-License-Identifier: Apache-2.0
"""Where the files of variable stores are."""

import os
import pathlib
import types

import fixtures

from nova_arm_ext.compute.nvram import places
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from tests.support import base

CONF = types.SimpleNamespace(instances_path='/instances')
LOADER = '<loader type="pflash">/code.fd</loader>'


def guest(system: str, disks: str = '') -> view.Domain:
    return view.Domain.parse(
        f'<domain><name>one</name><os>{system}</os>'
        f'<devices>{disks}</devices></domain>')


class PlaceTest(base.TestCase):

    def test_what_is_below_the_folder_of_instances_is_opened_from_there(self):
        # no link is followed from there on
        place = places.Place.of('/instances/u/u_VARS.fd', CONF)

        self.assertEqual(('/instances', 'u/u_VARS.fd'), place)
        self.assertEqual('/instances/u/u_VARS.fd', place.path)

    def test_a_path_may_be_spelled_otherwise(self):
        self.assertEqual(('/instances', 'u/u_VARS.fd'), places.Place.of(
            '/instances//u/../u/u_VARS.fd', CONF))
        self.assertEqual(('/instances2', 'u_VARS.fd'), places.Place.of(
            '/instances2/u_VARS.fd', CONF))

    def test_the_folder_of_any_other_file_is_trusted(self):
        place = places.Place.of('/var/nvram/one_VARS.fd', CONF)

        self.assertEqual(('/var/nvram', 'one_VARS.fd'), place)
        self.assertEqual('/var/nvram/one_VARS.fd', place.path)


class StoreOfTest(base.TestCase):

    def test_a_store_is_where_the_document_says(self):
        self.assertEqual('/a/v.fd', places.store_of(
            guest(f'{LOADER}<nvram>/a/v.fd</nvram>')))

    def test_libvirt_has_a_name_for_one_without_a_path(self):
        self.assertEqual(f'{places.LIBVIRT}/one_VARS.fd',
                         places.store_of(guest(LOADER)))

    def test_a_guest_without_a_file_has_none(self):
        for system in (
                '<nvram>/a/v.fd</nvram>',
                '<loader type="pflash" stateless="yes">/code.fd</loader>',
                f'{LOADER}<nvram type="network"><source/></nvram>'):
            self.assertIsNone(places.store_of(guest(system)), system)


class RescueTest(base.TestCase):

    def test_a_rescue_has_a_store_or_a_disk_of_the_rescue(self):
        own = f'{LOADER}<nvram>/u/v.fd</nvram>'
        for system, disks, is_rescue in (
                (own, '', False),
                (own, '<disk><source file="/u/disk"/></disk>', False),
                (own, '<disk device="cdrom"/>', False),
                (own, '<disk device="cdrom"/>'
                 '<disk><source file="/u/disk.rescue"/></disk>', True),
                ('', '<disk><source file="/u/disk.rescue"/></disk>', True),
                (f'{LOADER}<nvram>/u/v.fd.rescue</nvram>', '', True)):
            self.assertIs(is_rescue, places.is_rescue(guest(system, disks)),
                          (system, disks))


class FolderTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def test_a_file_is_in_a_folder_however_that_is_spelled(self):
        (self.root / 'new').mkdir()
        (self.root / 'old').symlink_to(self.root / 'new')
        folder = str(self.root / 'new')

        for path, inside in ((f'{folder}/file', True),
                             (f'{self.root}/old/file', True),
                             (f'{self.root}/old/../new/file', True),
                             (f'{folder}/inner/file', False),
                             (f'{folder}er/file', False)):
            self.assertIs(inside, places.is_inside(path, folder), path)

    def test_libvirts_folder_is_asked_for_each_suffix(self):
        self.assertEqual(
            [(places.LIBVIRT, 'one_VARS.fd'), (places.LIBVIRT, 'one_VARS.raw'),
             (places.LIBVIRT, 'one_VARS.qcow2')], places.in_libvirt('one'))


class PathForTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.useFixture(fixtures.TempDir()).path

    def path(self, event: Event, previous: str | None = None, *,
             is_new: bool = False, is_here: bool = False) -> str | None:
        return places.path_for(event, 'u', self.folder, previous,
                               is_new=is_new, is_here=is_here)

    def test_a_rescue_has_a_store_of_its_own_with_the_same_suffix(self):
        for previous in ('/a/v.qcow2', '/a/v.qcow2.rescue'):
            self.assertEqual(f'{self.folder}/u_VARS.qcow2.rescue',
                             self.path(Event.RESCUE, previous))
        self.assertIsNone(self.path(Event.RESCUE))

    def test_one_that_arrives_comes_into_the_instance_directory(self):
        for previous, is_here in (('/a/v.qcow2', False),
                                  (f'{self.folder}/u_VARS.qcow2', True)):
            self.assertEqual(f'{self.folder}/u_VARS.qcow2', self.path(
                Event.ARRIVE, previous, is_here=is_here))
        self.assertEqual(f'{self.folder}/u_VARS',
                         self.path(Event.ARRIVE, is_here=True))

    def test_a_resize_on_one_host_leaves_libvirts_folder_alone(self):
        self.assertEqual('/a/v.fd', self.path(
            Event.ARRIVE, '/a/v.fd', is_here=True))

    def test_a_new_guest_has_the_name_that_is_there(self):
        self.assertEqual(f'{self.folder}/u_VARS',
                         self.path(Event.SPAWN, is_new=True))

        # what is no file has the name too
        os.symlink('/nowhere', f'{self.folder}/u_VARS.raw')

        self.assertEqual(f'{self.folder}/u_VARS.raw',
                         self.path(Event.SPAWN, is_new=True))

    def test_any_other_keeps_its_path(self):
        for previous in ('/a/v.fd', '/a/v.fd.rescue'):
            self.assertEqual('/a/v.fd',
                             self.path(Event.HARD_REBOOT, previous))
        self.assertIsNone(self.path(Event.HARD_REBOOT))
