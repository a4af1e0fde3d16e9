# SPDX-License-Identifier: Apache-2.0
"""What is asked for and nobody reads is named."""

from nova_arm_ext import facts
from nova_arm_ext import metadefs
from nova_arm_ext import provenance
from nova_arm_ext.cmd import guests
from nova_arm_ext.cmd import unread
from nova_arm_ext.cmd.commands import audit
from tests.data import golden
from tests.unit.cmd import base

HOOKS = ('libvirt_compat', 'uefi', 'console', 'virtio_mmio', 'armv7',
         'pcie_root_ports')


class OfGuestTest(base.CommandTestCase):

    def found(self, specs=None, properties=None, hooks=HOOKS) -> list[str]:
        return unread.of_guest(facts.Guest(
            extra_specs=specs, image_properties=properties), hooks)

    def test_a_misspelt_name_gets_the_nearest(self) -> None:
        self.assertEqual(
            ['extra spec arm:virtio_transprt: nova-arm-ext does not know it; '
             'did you mean arm:virtio_transport?',
             'image property arm_video_modl: nova-arm-ext does not know it; '
             'did you mean arm_video_model?'],
            self.found({'arm:virtio_transprt': 'mmio'},
                       {'arm_video_modl': 'ramfb'}))

    def test_a_name_that_only_flavors_have(self) -> None:
        [found] = self.found(properties={'arm_skip_hooks': 'uefi'})

        self.assertIn('image property arm_skip_hooks: ', found)

    def test_a_hook_that_is_off(self) -> None:
        asked = {'arm:sve': 'on'}

        self.assertEqual(
            ['extra spec arm:sve: only the hook cpu_features reads it, which '
             'is not enabled in [arm] hooks'], self.found(asked))
        self.assertEqual([], self.found(asked, hooks=(*HOOKS,
                                                      'cpu_features')))

    def test_hooks_to_skip_that_do_not_run(self) -> None:
        self.assertEqual(
            ["extra spec arm:skip_hooks: the hook 'consol' is not enabled; "
             "did you mean console?"],
            self.found({'arm:skip_hooks': 'uefi, consol'}))

    def test_names_of_others_and_all_of_ours_are_silent(self) -> None:
        specs = {metadefs.FLAVOR + one.name: '' for one in
                 metadefs.PROPERTIES if one.of_flavor}
        properties = {metadefs.IMAGE + one.name: '' for one in
                      metadefs.PROPERTIES if one.of_image}

        self.assertEqual([], self.found(
            {**specs, 'hw:cpu_policy': 'x'}, {**properties, 'hw_x': 'y'},
            (*HOOKS, 'cpu_features')))

    def test_each_reader_is_a_hook_that_knows_the_name(self) -> None:
        names = {one.name for one in metadefs.PROPERTIES}

        self.assertLessEqual(set(unread.READERS), names)
        self.assertEqual(names - set(unread.READERS),
                         {'nvram_on_rebuild', 'skip_hooks'})


class CommandsTest(base.CommandTestCase):

    def test_preview_names_facts_specs_and_properties(self) -> None:
        self.facts = self.file('facts.json', {
            'format': 1, 'host': {'archh': 'aarch64'}, 'gest': {},
            'guest': {'extra_specs': {'arm:sve': 'on'},
                      'image_properties': {'arm_sv': 'on'}},
            'pci': None})

        ran = self.preview()

        for line in (
                '# facts/gest: it is not read; did you mean guest?',
                '# facts/host/archh: it is not read; did you mean arch?',
                '# extra spec arm:sve: only the hook cpu_features reads it, '
                'which is not enabled in [arm] hooks',
                '# image property arm_sv: nova-arm-ext does not know it; did '
                'you mean arm_sve?'):
            self.assertIn(line + '\n', ran.stdout)
        self.assertEqual(4, len(self.preview('-f', 'json').json['unread']))

    def test_facts_that_are_printed_are_all_read(self) -> None:
        self.assertEqual([], unread.of_facts(
            facts.Facts().to_json().encode()))

    def test_preview_of_a_document_without_architecture(self) -> None:
        self.document = self.file('none.xml', '<domain/>')

        self.assertIn('it names no architecture (os/type/@arch)',
                      self.preview().stdout)

    def test_audit_names_them_by_guest(self) -> None:
        hooks = golden.default_pipeline()
        document = base.DOCUMENT.replace('arm:free_pcie_root_ports',
                                         'arm:free_pcie_root_port')

        found = audit.judge(
            guests.Guest(name='g', uuid='u', document=document,
                         live=document), facts.Host(), hooks,
            provenance.Record(version='1', options='0'))

        self.assertEqual(
            ('extra spec arm:free_pcie_root_port: nova-arm-ext does not know '
             'it; did you mean arm:free_pcie_root_ports?',), found.unread)
        self.assertIn(f'# {found.unread[0]}', list(audit.to_diff(found)))
