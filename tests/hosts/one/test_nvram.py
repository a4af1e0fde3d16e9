# SPDX-License-Identifier: Apache-2.0
"""A guest's UEFI variables live as long as the guest, on one host.

At each boot the guest adds one to a number in a variable. A number that is too
small shows that variables were lost, or that old ones came back.
"""

import pathlib

from tests.hosts.one import base

LIBVIRT = pathlib.Path('/var/lib/libvirt/qemu/nvram')


class VariableStoreTestCase(base.GuestTestCase):

    def stores(self):
        """All files of variable stores on the host."""
        return {str(path) for folder in (LIBVIRT, self.bed.instances)
                for path in folder.rglob('*_VARS*')
                if not path.name.endswith('_VARS.host')}

    def path_of(self, server):
        return str(self.bed.instances / server.uuid
                   / f'{server.uuid}_VARS.fd')


class VariableStoreTest(VariableStoreTestCase):

    def test_a_guest_keeps_its_variables_as_long_as_it_lives(self):
        server = self.bed.boot()
        self.assertEqual(1, server.report().boots)
        self.assertEqual({self.path_of(server)}, self.stores())

        server.hard_reboot()
        self.assertEqual(2, server.report().boots)
        server.stop()
        server.start()
        self.assertEqual(3, server.report().boots)

        server.rescue()
        # the rescue system counts in a copy that is removed afterwards
        self.assertEqual(4, server.report().boots)
        server.unrescue()
        self.assertEqual(4, server.report().boots)
        self.assertEqual({self.path_of(server)}, self.stores())

        server.delete()
        self.assertEqual(set(), self.stores())

    def test_a_store_that_somebody_removes_is_told_of(self):
        server = self.bed.boot()
        self.assertEqual(1, server.report().boots)
        # QEMU has all of it in its memory, and writes that when it resumes
        server.suspend()
        pathlib.Path(self.path_of(server)).unlink()
        server.resume()
        server.hard_reboot()
        self.assertEqual(2, server.report().boots)
        self.assertNotIn('arm_nvram_lost', server.events)

        server.stop()
        pathlib.Path(self.path_of(server)).unlink()
        server.start()

        self.assertEqual(1, server.report().boots)
        self.assertIn('arm_nvram_lost', server.events)
        self.assertIn(f'put it back: nova-arm-ext nvram restore {server.uuid} '
                      f'FILE', self.bed.log())

    def test_a_rebuild_resets_them_unless_told_otherwise(self):
        server = self.bed.boot()
        self.assertEqual(1, server.report().boots)

        server.rebuild(arm_nvram_on_rebuild='keep')
        self.assertEqual(2, server.report().boots)
        server.rebuild()
        self.assertEqual(1, server.report().boots)
        self.assertEqual({self.path_of(server)}, self.stores())


class AdoptedStoreTest(VariableStoreTestCase):

    bed_options = {'driver': 'libvirt.StockDriver'}

    def test_a_guest_of_nova_alone_keeps_them_where_they_are(self):
        # its path is that of Nova's own driver
        server = self.bed.boot()
        self.assertEqual(1, server.report().boots)
        [path] = self.stores()
        self.assertEqual(str(LIBVIRT), str(pathlib.Path(path).parent))
        server.stop()
        self.bed.restart_compute('arm_ext.ArmLibvirtDriver')

        server.start()
        self.assertEqual(2, server.report().boots)
        server.hard_reboot()
        self.assertEqual(3, server.report().boots)
        server.rescue()
        self.assertEqual(4, server.report().boots)
        self.assertEqual(2, len(self.stores()))
        server.unrescue()
        self.assertEqual(4, server.report().boots)
        self.assertEqual({path}, self.stores())

        server.rescue()
        server.delete()
        self.assertEqual(set(), self.stores())
