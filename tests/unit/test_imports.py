# SPDX-License-Identifier: Apache-2.0
"""Imports inside the package point one way."""

import ast
import pathlib

import nova_arm_ext
from tests import base

PACKAGE = pathlib.Path(nova_arm_ext.__file__).parent

# Each may import itself and what stands before it.
LAYERS = ('errors', 'options', 'cpu', 'facts', 'domain', 'varstore', 'nvram',
          'pci', 'hooks', 'pipeline', 'provenance', 'metadefs', 'opts',
          'compute', 'cmd')

# `nova.virt.arm_ext` in nova's own words; the finder beside it is imported
# by every Python process and may import nothing.
ALIAS = 'nova_arm_ext.nova_virt.arm_ext'
OUTSIDE = {'nova_arm_ext': set(),
           'nova_arm_ext.nova_virt': set(),
           ALIAS: {'nova_arm_ext.compute.driver'}}


def modules():
    """Each module's name and tree."""
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
        if parts[-1] == '__init__':
            parts = parts[:-1]
        yield '.'.join(parts), path, ast.parse(path.read_text(), str(path))


def imported(name, path, tree):
    """The modules that a module names in imports, wherever they stand.

    `from a import b` names a.b where that is a module of the package, and a
    otherwise.
    """
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ''
            if node.level:
                parts = package.split('.')
                parts = parts[:len(parts) - node.level + 1]
                origin = '.'.join([*parts, origin] if origin else parts)
            for alias in node.names:
                whole = f'{origin}.{alias.name}'
                yield whole if is_module(whole) else origin


def is_module(name):
    path = PACKAGE.parent.joinpath(*name.split('.'))
    return path.with_suffix('.py').is_file() or (
        path / '__init__.py').is_file()


def imports():
    """Pairs of a module and one it imports."""
    for name, path, tree in modules():
        for target in imported(name, path, tree):
            yield name, target


def within(name, package):
    return name == package or name.startswith(f'{package}.')


def layer(name):
    return name.split('.')[1]


class ImportsTest(base.TestCase):

    def test_every_module_has_its_place(self):
        strangers = [name for name, _, _ in modules()
                     if name not in OUTSIDE and layer(name) not in LAYERS]

        self.assertEqual([], strangers)

    def test_imports_point_to_what_stands_before(self):
        wrong = [
            f'{name} imports {target}' for name, target in imports()
            if name not in OUTSIDE and within(target, 'nova_arm_ext')
            and (target in OUTSIDE or LAYERS.index(layer(target))
                 > LAYERS.index(layer(name)))]

        self.assertEqual([], wrong)

    def test_hooks_know_each_other_by_their_base_alone(self):
        wrong = [
            f'{name} imports {target}' for name, target in imports()
            if within(name, 'nova_arm_ext.hooks')
            and within(target, 'nova_arm_ext.hooks')
            and target not in (name, 'nova_arm_ext.hooks.base')]

        self.assertEqual([], wrong)

    def test_only_compute_imports_nova(self):
        wrong = [
            f'{name} imports {target}' for name, target in imports()
            if within(target, 'nova')
            and not within(name, 'nova_arm_ext.compute')]

        self.assertEqual([], wrong)

    def test_only_compute_and_cmd_import_libvirt(self):
        wrong = [
            f'{name} imports {target}' for name, target in imports()
            if within(target, 'libvirt')
            and not within(name, 'nova_arm_ext.compute')
            and not within(name, 'nova_arm_ext.cmd')]

        self.assertEqual([], wrong)

    def test_what_stands_outside_imports_as_little_as_it_says(self):
        inside = {name: set() for name in OUTSIDE}

        for name, target in imports():
            if name in OUTSIDE and within(target, 'nova_arm_ext'):
                inside[name].add(target)

        self.assertEqual(OUTSIDE, inside)
