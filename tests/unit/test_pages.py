# SPDX-License-Identifier: Apache-2.0
"""Each command and fragment in the documentation is right.

It is tried here, or by a test that is named here.
"""

import ast
import functools
import importlib.util
import inspect
import io
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from unittest import mock

import fixtures
import nova
import os_traits
import yaml
from lxml import etree
from nova.api.validation.extra_specs import validators
from nova.conf import opts as nova_options
from nova.objects import image_meta
from oslo_config import cfg
from testtools.content import text_content

from nova_arm_ext import cpu
from nova_arm_ext import facts
from nova_arm_ext import metadefs
from nova_arm_ext import nvram
from nova_arm_ext import opts
from nova_arm_ext.cmd import app
from nova_arm_ext.compute import cpu as compute_cpu
from nova_arm_ext.compute import driver
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import hotplug
from nova_arm_ext.compute import schema
from nova_arm_ext.compute import seams
from nova_arm_ext.compute.nvram import images
from nova_arm_ext.pipeline import plugins
from nova_arm_ext.pipeline.run import Pipeline
from tests.hosts.kvm import command as arm_hosts
from tests.nova.documents import kinds
from tests.starts import matrix
from tests.support import base
from tests.support import pages
from tests.support import tools
from tests.unit import test_imports
from tests.unit import test_metadefs
from tools import suites
from tools import walkthrough

root = tools.load('root')

SCHEMA = '/usr/share/libvirt/schemas/domain.rng'

#: Commands that other tests run, and where.
COMMANDS_ELSEWHERE = {
    'pip install nova-arm-ext': 'tests/packaging/test_install.py',
    'pip install nova-arm-ext[nvram]': 'tests/packaging/test_install.py',
    'pip uninstall nova-arm-ext': 'tests/packaging/test_install.py',
    'tools/house': 'tests/unit/test_house.py',
    'tools/house --picture doc/source/contributor/house.svg':
        'tests/unit/test_house.py',
    'tools/demo': 'tests/hosts/one/test_demo.py',
    'tools/demo --no-guest': 'tests/hosts/one/test_demo.py',
    'tools/test': '.ci/run',
    'python=$(tools/environment nova34)/bin/python': 'tools/test',
    'PATH=$(tools/environment nova34)/bin:$PATH': 'tools/test',
    'kolla-build --base debian --template-override template-override.j2 '
    '^nova-': 'tests/packaging/test_kolla.py',
}

#: Files that pages show and other tests give to the programs that read them.
FILES_ELSEWHERE = {
    'contrib/kolla/kolla-build.conf': 'tests/packaging/test_kolla.py',
    'contrib/kolla/inventory': 'tests/packaging/test_kolla.py',
    'contrib/kolla/template-override.j2': 'tests/packaging/test_kolla.py',
    'examples/no-balloon/pyproject.toml':
        'tests/packaging/test_third_party.py',
}

FIRST_STEPS = str(walkthrough.SHOWN.relative_to(pages.TREE))

#: A hook of the example in examples/, which is not installed here.
EXAMPLE = ',no_balloon'


def blocks(*languages: str) -> list[pages.Block]:
    found = [block for block in pages.blocks() if block.language in languages]
    assert found, languages
    return found


def consoles() -> list[pages.Block]:
    """The commands on pages.

    tests/hosts/one/test_walkthrough.py runs the first steps.
    """
    return [block for block in blocks('console')
            if not block.source.startswith(FIRST_STEPS)]


def commands() -> list[tuple[str, list[str]]]:
    """Each command on a page, and its words."""
    return [(str(block), shlex.split(command.replace('\\\n', '')))
            for block in consoles() for command in block.commands]


class FragmentsTest(base.TestCase):
    """Fragments of files."""

    def test_each_language_is_known_here(self) -> None:
        self.assertEqual(
            set(), {(block.language, str(block)) for block in pages.blocks()
                    if block.language not in (
                        'console', 'ini', 'jinja', 'json', 'python', 'text',
                        'toml', 'xml', 'yaml')})

    def test_each_file_of_contrib_is_shown_or_tried(self) -> None:
        shown = {block.source for block in pages.blocks()}
        files = {str(path.relative_to(pages.TREE)) for path in
                 (pages.TREE / 'contrib').rglob('*') if path.is_file()
                 and path.suffix != '.rst'}

        self.assertEqual(set(), files - shown)

    def test_what_is_tried_elsewhere_is(self) -> None:
        for file, place in FILES_ELSEWHERE.items():
            self.assertIn(pathlib.Path(file).parent.name,
                          (pages.TREE / place).read_text(), file)

    def test_yaml(self) -> None:
        for block in blocks('yaml'):
            self.assertIsInstance(yaml.safe_load(block.text), dict, block)

    def test_python(self) -> None:
        for block in blocks('python'):
            ast.parse(block.text, str(block))

    def test_other_languages_are_tried_elsewhere(self) -> None:
        self.assertEqual([], [str(block) for block in blocks('jinja', 'toml')
                              if block.source not in FILES_ELSEWHERE])

    def test_json_is_facts(self) -> None:
        for block in blocks('json'):
            self.assertEqual(json.loads(block.text)['format'], 1)
            facts.Facts.from_json(block.text)

    def test_xml(self) -> None:
        for block in blocks('xml'):
            root = etree.fromstring(block.text)
            if root.tag == 'domain':
                validate = schema.load(SCHEMA)
                if validate is None:
                    self.skipTest(f'needs {SCHEMA}')
                self.assertIsNone(validate(root), block)

    def test_before_and_after_of_each_hook(self) -> None:
        for name, hook in plugins.installed_hooks().items():
            shown = re.findall(r'::\n\n((?: {4}.*\n|\n)+)', inspect.getdoc(
                hook) + '\n')

            self.assertGreaterEqual(len(shown), 2, name)
            for text in shown:
                # elements that go on are not closed
                etree.XMLPullParser().feed(f'<document>{text}')


class MessagesTest(base.TestCase):
    """Messages of the extension on the pages."""

    def assert_shown(self, page: str, message: str) -> None:
        shown = {' '.join(block.text.split()) for block in blocks('text')
                 if block.page == f'doc/source/{page}'}

        self.assertIn(message, shown)

    def test_each_text_is_one_of_these(self) -> None:
        self.assertEqual(
            {'admin/cpu.rst': 1, 'admin/releases.rst': 1,
             'contributor/architecture.rst': 2,
             'hooks/pcie_root_ports.rst': 1},
            {page: sum(block.page == f'doc/source/{page}'
                       for block in blocks('text'))
             for page in {block.page.removeprefix('doc/source/')
                          for block in blocks('text')}})

    def test_other_cpus(self) -> None:
        n1, v1 = (cpu.Cpu(cores=(core,)) for core in (
            cpu.Core.of(0x41, 3, 0xd0c, 1), cpu.Core.of(0x41, 1, 0xd40, 1)))

        why = compute_cpu.refusal(v1, n1, 'compatible', None)

        self.assert_shown('admin/cpu.rst', f'Migration pre-check error: {why}')

    def test_a_newer_nova(self) -> None:
        with mock.patch.object(seams, 'release', return_value='35.0.0'):
            seams.check(driver.ArmLibvirtDriver)

        self.assert_shown('admin/releases.rst', self.log.output.strip()
                          .removeprefix('WARNING '))

    def test_no_port_is_free(self) -> None:
        self.assert_shown('hooks/pcie_root_ports.rst', str(
            hotplug.NoFreeRootPort(
                ports=17, extra_spec='arm:free_pcie_root_ports',
                property='arm_free_pcie_root_ports',
                option='[arm_pcie_root_ports] free')))

    def test_the_direction_of_imports(self) -> None:
        self.assert_shown('contributor/architecture.rst',
                          ' <- '.join(test_imports.LAYERS))

    def test_the_map_names_each_module(self) -> None:
        [house] = [block.text for block in blocks('text')
                   if block.text.startswith('nova_arm_ext/')]
        named = set(re.findall(r'^  (\w+)(?:/|\.py) ', house, re.M))

        self.assertEqual({*test_imports.LAYERS, 'nova_virt'}, named)

    def test_files_that_contributors_are_sent_to(self) -> None:
        places = (pages.TREE, pages.TREE / 'nova_arm_ext')
        named = {text for page, text in pages.inline()
                 if page.startswith(('doc/source/contributor/', 'HACKING',
                                     'CONTRIBUTING'))
                 and re.fullmatch(r'[\w/.-]+(/|\.(py|rst|cfg|ini|toml))', text)
                 and 'mine' not in text}

        self.assertGreater(len(named), 30)
        self.assertEqual([], sorted(
            text for text in named
            if not any((place / text).exists() for place in places)))


@functools.cache
def known_options() -> dict[str, dict[str, cfg.Opt]]:
    """Nova's and our options by group and name."""
    known: dict[str, dict[str, cfg.Opt]] = {}
    for group, options in [*nova_options.list_opts(), *opts.list_opts()]:
        name = getattr(group, 'name', group) or 'DEFAULT'
        known.setdefault(name, {}).update(
            {option.dest: option for option in options})
    return known


class OptionsTest(base.TestCase):

    def assert_right(self, text: str, where: object) -> None:
        """Check that the options of nova.conf exist and have valid values."""
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path,
                            'nova.conf')
        path.write_text(text)
        said: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(str(path), said).parse()
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        for group, values in said.items():
            known = known_options().get(group, {})
            inside = None if group == 'DEFAULT' else group
            conf.register_opts(known.values(), group=inside)
            for name in values:
                self.assertIn(name, known, f'{where}: [{group}]')
                getattr(conf[inside] if inside else conf, name)
        # what is wrong beyond the type of a value
        Pipeline.load(conf, checks=opts.CHECKS)

    def test_fragments_of_nova_conf(self) -> None:
        for block in blocks('ini'):
            if block.source not in FILES_ELSEWHERE:
                self.assert_right(block.text.replace(EXAMPLE, ''), block)

    def test_options_that_the_text_names(self) -> None:
        named = 0
        for page, text in pages.inline():
            found = re.fullmatch(r'\[(\w+)\] (\w+)(?: = (.+))?', text)
            if not found:
                continue
            named += 1
            group, name, value = found.groups()
            self.assertIn(name, known_options().get(group, ()),
                          f'{page}: {text}')
            if value:
                self.assert_right(f'[{group}]\n{name} = {value}\n', page)
        self.assertGreater(named, 20)

    def test_groups_that_the_text_names(self) -> None:
        for page, text in pages.inline():
            if re.fullmatch(r'\[\w+\]', text):
                self.assertIn(text[1:-1], known_options(), page)


class CommandsTest(base.TestCase):
    """Commands."""

    def setUp(self) -> None:
        super().setUp()
        self.app = app.App(io.StringIO(), io.StringIO())

    def parser_of(self, words: list[str]):
        """The parser of one of our commands, and the words after its name."""
        factory, name, rest = self.app.command_manager.find_command(words)
        parser = factory(self.app, None, cmd_name=name).get_parser(name)
        parser.error = self.fail
        return parser, rest

    def check_ours(self, words: list[str]) -> None:
        shell = [number for number, word in enumerate(words)
                 if word in ('<', '>', '|')]
        parser, rest = self.parser_of(words[1:shell[0] if shell else None])
        parser.parse_args(rest)

    def check_status(self, words: list[str]) -> None:
        self.assertEqual(['upgrade', 'check'], words[-2:])

    def check_openstack(self, words: list[str]) -> None:
        subject, action = words[1:3]
        self.assertIn((subject, action), {
            ('image', 'create'), ('image', 'set'), ('image', 'unset'),
            ('flavor', 'create'), ('flavor', 'set'), ('server', 'create')})
        if action == 'unset':
            self.assertEqual(['--property', nvram.STORE_PROPERTY], words[3:5])
            return
        asked = dict(word.split('=', 1) for option, word in
                     itertools.pairwise(words)
                     if option == '--property')
        if subject != 'server':
            self.assertTrue(asked)
        for name, value in asked.items():
            if name.startswith('trait:'):
                self.check_trait(name.removeprefix('trait:'), value)
            elif subject == 'image':
                self.check_image_property(name, value)
            else:
                self.assertIn(':', name)
                self.assertIn(name, validators.VALIDATORS)
                validators.validate(name, value)

    def check_trait(self, name: str, value: str) -> None:
        self.assertEqual('required', value)
        if name.startswith('CUSTOM_'):
            self.assertTrue(name == host_facts.AARCH32_EL1
                            or cpu.is_ours(name))
        else:
            self.assertIn(name, os_traits.get_traits())

    def check_image_property(self, name: str, value: str) -> None:
        ours = {f'arm_{one.name}': one for one in metadefs.PROPERTIES
                if one.of_image}
        if name in ours:
            self.assertTrue(test_metadefs.is_right(ours[name], value), name)
        elif name not in ('kernel_id', 'ramdisk_id'):
            read = image_meta.ImageMetaProps.from_dict({name: value})
            self.assertEqual(value, getattr(read, name))

    def check_nova_manage(self, words: list[str]) -> None:
        category, action, *arguments = words[1:]
        # importing it would patch the whole process for eventlet
        source = pathlib.Path(nova.__file__).with_name('cmd') / 'manage.py'
        [methods] = [node.body for node in ast.parse(source.read_text()).body
                     if isinstance(node, ast.ClassDef)
                     and node.name == f'{category.capitalize()}Commands']
        [method] = [node for node in methods if
                    isinstance(node, ast.FunctionDef) and node.name == action]
        self.assertLessEqual(len(arguments), len(method.args.args) - 1)

    def check_glance(self, words: list[str]) -> None:
        self.assertEqual(['glance', 'md-namespace-import', '--file'],
                         words[:3])
        namespace = json.loads(
            (pages.TREE / 'etc/metadefs' / words[3]).read_text())
        self.assertIn('properties', namespace)

    def check_virsh(self, words: list[str]) -> None:
        subprocess.run(['virsh', 'help', words[1]], check=True,
                       capture_output=True)

    def check_module(self, words: list[str]) -> None:
        """Check a module of ours, its options and its actions."""
        self.assertEqual('-m', words[1])
        found = importlib.util.find_spec(words[2])
        if found.submodule_search_locations:
            found = importlib.util.find_spec(f'{words[2]}.__main__')
        text = pathlib.Path(found.origin).read_text()
        actions = words[3:4] if 'add_parser' in text else []
        # what follows shell is a command of the host's
        options = [word for word in words[3:] if word.startswith('--')
                   and 'shell' not in actions]
        for word in actions + options:
            self.assertIn(f"'{word}'", text)

    def check_suites(self, words: list[str]) -> None:
        known = [suite.name for suite in suites.SUITES]
        for name in words[1:]:
            self.assertIn(name, known)

    def check_mutants(self, words: list[str]) -> None:
        text = (pages.TREE / 'tools/mutants').read_text()
        for word in words[1:]:
            if word.startswith('--'):
                self.assertIn(f"'{word}'", text)
            elif '/' in word:
                self.assertTrue((pages.TREE / word).is_file(), word)
            elif not word.isdigit():
                place = pages.TREE / f'tests/data/mutants/{word}.toml'
                self.assertTrue(place.is_file(), word)

    def check_root(self, words: list[str]) -> None:
        parser = root.parser()
        parser.error = self.fail
        parser.parse_args(words[1:])

    def check_matrix(self, words: list[str]) -> None:
        parser = matrix.parser()
        parser.error = self.fail
        asked = parser.parse_args(words[1:])
        self.assertLessEqual(set(asked.suites), set(matrix.SUITES))
        self.assertLessEqual(
            set(asked.kind), {kind.name for kind in kinds.ARM_KINDS})

    def check_packages(self, words: list[str]) -> None:
        text = (pages.TREE / 'bindep.txt').read_text()
        for profile in words[1:]:
            self.assertRegex(text, rf'platform:dpkg [^]]*\b{profile}\b')

    def check_arm_host(self, words: list[str]) -> None:
        asked = arm_hosts.parser().parse_args(words[1:])
        self.assertEqual(words[1], asked.verb)

    def check_tox(self, words: list[str]) -> None:
        self.assertEqual('-e', words[1])
        self.assertIn(f'[testenv:{words[2]}]\n',
                      (pages.TREE / 'tox.ini').read_text())

    def check_installed(self, words: list[str]) -> None:
        """The file of the key, and the folder of copies."""
        self.assertIn(words[1:-1], (
            ['-g', 'nova', '-m', '0640', '/dev/null'],
            ['-d', '-o', 'nova', '-g', 'nova', '-m', '0700']))

    def check_key(self, words: list[str]) -> None:
        file = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'key'
        file.touch(0o640)
        subprocess.run(' '.join([*words[:-1], str(file)]), shell=True,
                       check=True)
        conf = cfg.ConfigOpts()
        conf.register_opts(nvram.OPTS, group=nvram.GROUP)
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override('image_key_file', str(file), nvram.GROUP)
        self.assertEqual(1, len(images.load_keys(conf)))

    CHECKS = {
        'install': check_installed, 'head': check_key,
        'nova-arm-ext': check_ours, 'nova-arm-ext-status': check_status,
        'openstack': check_openstack, 'nova-manage': check_nova_manage,
        'glance': check_glance, 'virsh': check_virsh,
        '$python': check_module, 'python': check_module,
        'tools/arm-host': check_arm_host, 'tools/mutants': check_mutants,
        'tools/matrix': check_matrix, 'tools/packages': check_packages,
        'tools/root': check_root, 'tools/test': check_suites, 'tox': check_tox,
    }

    def test_each_is_right(self) -> None:
        checked = 0
        for place, words in commands():
            if ' '.join(words) in COMMANDS_ELSEWHERE:
                continue
            if words[:2] == ['docker', 'exec']:
                words = words[words.index('nova-arm-ext'):]
            if words[0] == '$(tools/environment':
                words = ['python', *words[2:]]
            self.addDetail('command', text_content(f'{place}: {words}'))
            check = self.CHECKS.get(words[0])
            self.assertIsNotNone(check, 'nobody checks it')
            check(self, words)
            checked += 1
        self.assertGreater(checked, 60)

    def test_each_is_a_shell_command(self) -> None:
        script = '\n'.join(command for block in consoles()
                           for command in block.commands)

        done = subprocess.run(['bash', '-n'], input=script, text=True,
                              capture_output=True, check=False)

        self.assertEqual((0, ''), (done.returncode, done.stderr))

    def test_what_is_run_elsewhere_is(self) -> None:
        typed = {' '.join(words) for _, words in commands()}
        self.assertEqual(set(), COMMANDS_ELSEWHERE.keys() - typed)
        for command, place in COMMANDS_ELSEWHERE.items():
            self.assertIn(command.split()[0].rpartition('(')[2],
                          (pages.TREE / place).read_text(), place)

    def test_commands_that_the_text_names(self) -> None:
        names = [name for name, _ in self.app.command_manager]
        named = 0
        for page, text in pages.inline():
            if not text.startswith('nova-arm-ext '):
                continue
            named += 1
            words = re.sub(r'<.*?>', 'WORD', text).split()[1:]
            if any(name.startswith(f'{" ".join(words)} ') for name in names):
                continue    # a group of commands
            parser, rest = self.parser_of(words)
            for word in rest:
                if word.startswith('-'):
                    self.assertIn(word, parser._option_string_actions,
                                  f'{page}: {text}')
        self.assertGreater(named, 20)


class RunTest(base.TestCase):
    """Commands that need neither a guest nor another machine."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        case = pages.TREE / 'tests/data/golden/new-guest'
        for name, file in (('domain.xml', 'before.xml'),
                           ('before.xml', 'before.xml'),
                           ('facts.json', 'facts.json')):
            (self.folder / name).write_bytes((case / file).read_bytes())
        [fragment, *_] = blocks('ini')
        (self.folder / 'nova.conf').write_text(fragment.text)

    def run_here(self, command: str) -> subprocess.CompletedProcess[str]:
        tools = pathlib.Path(sys.executable).parent
        return subprocess.run(
            ['bash', '-c', command.replace('/etc/nova/', f'{self.folder}/')],
            cwd=self.folder, text=True, capture_output=True, check=False,
            stdin=subprocess.DEVNULL, timeout=100, env=os.environ | {
                'PATH': f'{tools}:{os.environ["PATH"]}',
                'XDG_CACHE_HOME': str(self.folder),
                'LIBVIRT_DEFAULT_URI': 'test:///default'})

    def test_the_commands_that_only_look_work(self) -> None:
        typed = dict.fromkeys(
            command for block in consoles()
            for command in block.commands
            if re.match('nova-arm-ext (hooks|facts|preview|pci)', command)
            and '--connect' not in command)

        results = {command: self.run_here(command) for command in typed}

        self.assertGreaterEqual(len(results), 7)
        for command, result in results.items():
            self.assertEqual(
                (int('--exit-code' in command), ''),
                (result.returncode, result.stderr), command)
            self.assertEqual('>' in command, not result.stdout, command)

    def test_the_upgrade_check_says_what_is_wrong(self) -> None:
        [command] = {command for block in consoles()
                     for command in block.commands
                     if command.startswith('nova-arm-ext-status ')}

        result = self.run_here(command)

        # libvirt's test driver is no host
        self.assertEqual(2, result.returncode, result.stderr)
        self.assertIn('Upgrade Check Results', result.stdout)
