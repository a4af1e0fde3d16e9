# SPDX-License-Identifier: Apache-2.0
"""Imports inside the package have one direction."""

from tests.support import base
from tests.support import tools

house = tools.load('house')

# Each may import itself and what stands before it.
LAYERS = ('errors', 'options', 'cpu', 'facts', 'packages', 'domain',
          'varstore', 'nvram', 'pci', 'compat', 'hooks', 'pipeline',
          'provenance', 'metadefs', 'opts', 'compute', 'cmd')

# `nova.virt.arm_ext` in nova's own words; the finder beside it is imported
# by every Python process and may import nothing.
ALIAS = 'nova_arm_ext.nova_virt.arm_ext'
OUTSIDE = {'nova_arm_ext': set(),
           'nova_arm_ext.nova_virt': set(),
           ALIAS: {'nova_arm_ext.compute.driver'}}


def within(name, package):
    return name == package or name.startswith(f'{package}.')


def layer(name):
    return name.split('.')[1]


class ImportsTest(base.TestCase):

    def test_every_module_has_its_place(self):
        strangers = [name for name, _, _ in house.modules()
                     if name not in OUTSIDE and layer(name) not in LAYERS]

        self.assertEqual([], strangers)

    def test_imports_point_to_what_stands_before(self):
        wrong = [
            f'{name} imports {target}' for name, target in house.imports()
            if name not in OUTSIDE and within(target, 'nova_arm_ext')
            and (target in OUTSIDE or LAYERS.index(layer(target))
                 > LAYERS.index(layer(name)))]

        self.assertEqual([], wrong)

    def test_hooks_know_each_other_by_their_base_alone(self):
        wrong = [
            f'{name} imports {target}' for name, target in house.imports()
            if within(name, 'nova_arm_ext.hooks')
            and within(target, 'nova_arm_ext.hooks')
            and target not in (name, 'nova_arm_ext.hooks.base')]

        self.assertEqual([], wrong)

    def test_only_compute_imports_nova(self):
        wrong = [
            f'{name} imports {target}' for name, target in house.imports()
            if within(target, 'nova')
            and not within(name, 'nova_arm_ext.compute')]

        self.assertEqual([], wrong)

    def test_only_compute_and_cmd_import_libvirt(self):
        wrong = [
            f'{name} imports {target}' for name, target in house.imports()
            if within(target, 'libvirt')
            and not within(name, 'nova_arm_ext.compute')
            and not within(name, 'nova_arm_ext.cmd')]

        self.assertEqual([], wrong)

    def test_what_stands_outside_imports_as_little_as_it_says(self):
        inside = {name: set() for name in OUTSIDE}

        for name, target in house.imports():
            if name in OUTSIDE and within(target, 'nova_arm_ext'):
                inside[name].add(target)

        self.assertEqual(OUTSIDE, inside)
