# SPDX-License-Identifier: Apache-2.0
"""CPU features and GIC as flavor or image asks."""

import dataclasses
import types
import unittest

from nova_arm_ext import cpu
from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.hooks import cpu_features
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import cpus
from tests.data import golden
from tests.support import base
from tests.support import contract
from tests.support import embed

GRAVITON3 = dataclasses.replace(
    cpu.parse_cpuinfo(cpus.cpuinfo('graviton3')), sve_lengths=(128, 256),
    gic_versions=(3,))
ALTRA = dataclasses.replace(
    cpu.parse_cpuinfo(cpus.cpuinfo('altra')), sve_lengths=(),
    gic_versions=(2, 3))


def hook(images_may_ask: bool = True) -> cpu_features.CpuFeatures:
    return cpu_features.CpuFeatures(types.SimpleNamespace(
        images_may_ask=images_may_ask))


def document(inside: str = '', *, arch: str = 'aarch64', kind: str = 'kvm',
             cpu: str = '<cpu mode="host-passthrough"/>',
             vcpus: int = 2) -> str:
    return (f'<domain type="{kind}"><vcpu>{vcpus}</vcpu><os>'
            f'<type arch="{arch}" machine="virt-7.2">hvm</type></os>'
            f'{cpu}{inside}</domain>')


class CpuFeaturesTest(base.TestCase):

    def adjusted(self, flavor: dict[str, str], *,
                 image: dict[str, str] | None = None,
                 xml: str | None = None, host: cpu.Cpu | None = GRAVITON3,
                 images_may_ask: bool = True,
                 ) -> tuple[view.Domain, list[tuple[str, str]]]:
        domain = view.Domain.parse(xml or document())
        report = hooks.Report()
        hook(images_may_ask).adjust(domain, facts.Facts(
            host=facts.Host(cpu=host), guest=facts.Guest(
                extra_specs=flavor, image_properties=image or {})), report)
        return domain, report.reasons

    def features(self, flavor: dict[str, str],
                 **more: object) -> dict[str, str]:
        domain, _ = self.adjusted(flavor, **more)
        return {element.get('name'): element.get('policy')
                for element in domain.element.iterfind('cpu/feature')}

    def refusal(self, flavor: dict[str, str], *, this_host: bool = False,
                **more: object) -> str:
        error = self.assertRaises(errors.Refused, self.adjusted, flavor,
                                  **more)
        self.assertEqual(this_host, error.this_host)
        return str(error)

    def test_a_guest_of_which_nothing_is_asked_stays(self) -> None:
        domain, reasons = self.adjusted({'hw:pmu': 'true'})

        self.assertEqual((document(), []), (base.compact(domain), reasons))

    def test_features_are_turned_on_and_off(self) -> None:
        for flavor, features in (
                ({'arm:sve': 'on'}, {'sve': 'require'}),
                ({'arm:sve': 'off'}, {'sve': 'disable'}),
                ({'arm:pauth': 'on'}, {'pauth': 'require'}),
                ({'arm:pauth': 'off', 'arm:sve': 'off'},
                 {'pauth': 'disable', 'sve': 'disable'}),
                ({'arm:sve_vector_length': '256'},
                 {'sve': 'require', 'sve256': 'require'}),
                ({'arm:sve': 'on', 'arm:sve_vector_length': '128'},
                 {'sve': 'require', 'sve128': 'require'})):
            self.assertEqual(features, self.features(flavor), flavor)

    def test_the_reasons_name_who_asks(self) -> None:
        _, reasons = self.adjusted({'arm:sve': 'off'},
                                   image={'arm_pauth': 'off'})

        self.assertEqual(
            [('cpu/feature[sve]', 'disabled, as the extra spec arm:sve of '
                                  'the flavor asks'),
             ('cpu/feature[pauth]', 'disabled, as the property arm_pauth of '
                                    'the image asks')], reasons)

    def test_what_nova_wrote_gives_way(self) -> None:
        # [libvirt] cpu_model_extra_flags
        flags = ("<cpu mode='host-passthrough'>"
                 "<feature policy='require' name='sve'/>"
                 "<feature policy='require' name='sve512'/></cpu>")

        self.assertEqual({'sve': 'disable'}, self.features(
            {'arm:sve': 'off'}, xml=document(cpu=flags)))
        self.assertEqual({'sve': 'require', 'sve256': 'require'},
                         self.features({'arm:sve_vector_length': '256'},
                                       xml=document(cpu=flags)))

    def test_the_flavor_wins_over_the_image(self) -> None:
        self.assertEqual({'sve': 'disable'}, self.features(
            {'arm:sve': 'off'}, image={'arm_sve': 'on'}))

    def test_images_ask_where_they_may(self) -> None:
        image = {'arm_sve_vector_length': '128'}

        self.assertIn('sve128', self.features({}, image=image))
        self.assertIn('images_may_ask', self.refusal(
            {}, image=image, images_may_ask=False))
        # what the flavor says needs nobody's leave
        self.assertIn('sve256', self.features(
            {'arm:sve_vector_length': '256'}, image=image,
            images_may_ask=False))

    def test_what_the_host_lacks_is_tried_on_another(self) -> None:
        for flavor, words in (
                ({'arm:sve': 'on'}, 'HW_CPU_AARCH64_SVE'),
                ({'arm:sve_vector_length': '128'}, 'HW_CPU_AARCH64_SVE'),
                ({'arm:pauth': 'on'}, 'CUSTOM_ARM_PAUTH')):
            self.assertIn(words, self.refusal(flavor, host=ALTRA,
                                              this_host=True))
        self.assertIn('CUSTOM_ARM_SVE_512', self.refusal(
            {'arm:sve_vector_length': '512'}, this_host=True))
        self.assertIn('it offers only GIC 3', self.refusal(
            {'arm:gic_version': '2'}, this_host=True))

    def test_what_the_host_lacks_is_off_already(self) -> None:
        # QEMU refuses a switch for what is not there
        self.assertEqual({}, self.features(
            {'arm:sve': 'off', 'arm:pauth': 'off'}, host=ALTRA))

    def test_a_libvirt_that_knows_no_pauth_is_not_asked_for_it(self) -> None:
        for value in ('on', 'off'):
            domain = view.Domain.parse(document())
            asking = facts.Facts(
                host=facts.Host(libvirt_version=(9, 0, 0)),
                guest=facts.Guest(extra_specs={'arm:pauth': value}))

            error = self.assertRaises(errors.Refused, hook().adjust, domain,
                                      asking, hooks.Report())

            self.assertTrue(error.this_host)
            self.assertIn('libvirt 9.0.0 does not know pauth', str(error))

    def test_libvirt_10_6_is_the_first_that_knows_pauth(self) -> None:
        for version, known in (((10, 5, 0), False), ((10, 6, 0), True)):
            asking = facts.Facts(
                host=facts.Host(libvirt_version=version),
                guest=facts.Guest(extra_specs={'arm:pauth': 'off'}))
            adjust = (view.Domain.parse(document()), asking, hooks.Report())
            if known:
                hook().adjust(*adjust)
            else:
                self.assertRaises(errors.Refused, hook().adjust, *adjust)

    def test_an_unknown_host_is_believed(self) -> None:
        for host in (None, cpu.Cpu()):
            self.assertEqual(
                {'sve': 'require', 'sve512': 'require', 'pauth': 'disable'},
                self.features({'arm:sve_vector_length': '512',
                               'arm:pauth': 'off'}, host=host))

    def test_emulation_has_what_qemu_has(self) -> None:
        for cpu_xml in ("<cpu mode='maximum'/>",
                        "<cpu mode='custom'><model>max</model></cpu>"):
            self.assertEqual(
                {'sve': 'require', 'sve512': 'require'}, self.features(
                    {'arm:sve_vector_length': '512'}, host=ALTRA,
                    xml=document(kind='qemu', cpu=cpu_xml)))
        for cpu_xml in ("<cpu mode='custom'><model>cortex-a57</model></cpu>",
                        ''):
            xml = document(kind='qemu', cpu=cpu_xml)
            self.assertIn('[libvirt] cpu_mode', self.refusal(
                {'arm:sve': 'on'}, xml=xml))
            self.assertEqual({}, self.features({'arm:sve': 'off'}, xml=xml))

    def test_32_bit_guests_have_none(self) -> None:
        xml = document(arch='armv7l')

        self.assertIn('32-bit', self.refusal({'arm:pauth': 'on'}, xml=xml))
        self.assertEqual({}, self.features({'arm:pauth': 'off'}, xml=xml))

    def test_values_are_those_that_libvirt_knows(self) -> None:
        for name, value in (('arm:sve', 'yes'), ('arm:pauth', ''),
                            ('arm:sve_vector_length', '200'),
                            ('arm:sve_vector_length', '4096'),
                            ('arm:gic_version', '4')):
            self.assertIn(f'the extra spec {name} of the flavor is {value!r}',
                          self.refusal({name: value}))
        self.assertIn('only SVE has a vector length', self.refusal(
            {'arm:sve': 'off', 'arm:sve_vector_length': '128'}))

    def gic(self, flavor: dict[str, str], **more: object) -> str | None:
        domain, _ = self.adjusted(flavor, **more)
        gic = domain.element.find('features/gic')
        return None if gic is None else gic.get('version')

    def test_the_gic_has_the_version_that_is_asked_for(self) -> None:
        self.assertIsNone(self.gic({'arm:sve': 'off'}))
        self.assertEqual('3', self.gic({'arm:gic_version': '3'}))
        self.assertEqual('host', self.gic({'arm:gic_version': 'host'}))
        self.assertEqual('2', self.gic(
            {'arm:gic_version': '2'}, host=ALTRA,
            xml=document("<features><acpi/><gic version='3'/></features>")))

    def test_a_gic_that_cannot_serve_the_guest_is_refused(self) -> None:
        self.assertIn('not 9', self.refusal(
            {'arm:gic_version': '2'}, host=ALTRA, xml=document(vcpus=9)))
        self.assertIn('the instance is emulated', self.refusal(
            {'arm:gic_version': 'host'}, xml=document(kind='qemu')))


class KeepTest(base.TestCase):
    """An existing guest with features that are no longer allowed."""

    ASKS = {'arm_sve_vector_length': '256', 'arm_pauth': 'off',
            'arm_gic_version': '3'}

    def run_hook(self, xml: str, previous: str | None,
                 images_may_ask: bool,
                 libvirt: facts.Version | None = None) -> view.Domain:
        return view.Domain.parse(Pipeline(
            [('cpu_features', hook(images_may_ask))]).run(
            xml, facts.Facts(host=facts.Host(cpu=GRAVITON3,
                                             libvirt_version=libvirt),
                             guest=facts.Guest(image_properties=self.ASKS,
                                               previous=previous))).xml)

    def test_it_keeps_its_features_and_its_gic(self) -> None:
        made = self.run_hook(document(), None, True)

        kept = self.run_hook(document(), made.to_xml(), False)

        self.assertEqual(
            {'sve': 'require', 'sve256': 'require', 'pauth': 'disable'},
            {element.get('name'): element.get('policy')
             for element in kept.element.iterfind('cpu/feature')})
        self.assertEqual('3', kept.element.find('features/gic').get('version'))

    def test_not_what_this_libvirt_does_not_know(self) -> None:
        made = self.run_hook(document(), None, True)

        kept = self.run_hook(document(), made.to_xml(), False, (10, 0, 0))

        self.assertEqual(['sve', 'sve256'], [
            element.get('name')
            for element in kept.element.iterfind('cpu/feature')])

    def test_not_where_the_operator_has_changed_the_cpu_mode(self) -> None:
        made = self.run_hook(document(), None, True)
        custom = document(
            cpu='<cpu mode="custom"><model>cortex-a57</model></cpu>')

        kept = self.run_hook(custom, made.to_xml(), False)

        self.assertEqual([], kept.element.findall('cpu/feature'))


class CpuFeaturesContractTest(contract.HookContract, base.TestCase):

    def make_hook(self) -> hooks.Hook:
        return hook()

    def documents(self):
        for xml, known in super().documents():
            yield xml, known
            yield xml, dataclasses.replace(known, guest=dataclasses.replace(
                known.guest, extra_specs={
                    'arm:sve_vector_length': '256', 'arm:pauth': 'off',
                    'arm:gic_version': '3'}))


class LibvirtTest(base.TestCase):
    """libvirt accepts the result, with QEMU's emulation."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.libvirt = embed.Process()
        try:
            cls.libvirt.__enter__()
        except embed.Unavailable as e:
            raise unittest.SkipTest(str(e)) from e
        cls.addClassCleanup(cls.libvirt.__exit__, None, None, None)

    def test_libvirt_takes_what_is_asked_for(self) -> None:
        known = golden.known('new-guest')
        with_hook = Pipeline([('cpu_features', hook())])
        after_others = golden.default_pipeline().run(
            golden.before('new-guest'), known).xml
        for flavor, features, gic in (
                ({'arm:sve_vector_length': '256'},
                 {'sve': 'require', 'sve256': 'require'}, None),
                ({'arm:sve': 'off', 'arm:gic_version': '3'},
                 {'sve': 'disable'}, '3')):
            made = with_hook.run(after_others, dataclasses.replace(
                known, guest=dataclasses.replace(
                    known.guest, extra_specs=flavor))).xml

            verdict = self.libvirt.define(made)

            self.assertEqual((None, None), (verdict.define, verdict.start))
            stored = view.Domain.parse(verdict.stored).element
            self.assertEqual(features, {
                element.get('name'): element.get('policy')
                for element in stored.iterfind('cpu/feature')})
            if gic:
                self.assertEqual(gic, stored.find('features/gic').get(
                    'version'))

    def test_whether_it_knows_pauth_is_as_the_hook_believes(self) -> None:
        # of the libvirt that runs the tests
        import libvirt
        number = libvirt.getVersion()
        xml = golden.default_pipeline().run(
            golden.before('new-guest'), golden.known('new-guest')).xml
        made = Pipeline([('cpu_features', hook())]).run(
            xml, facts.Facts(guest=facts.Guest(
                extra_specs={'arm:pauth': 'off'}))).xml

        verdict = self.libvirt.define(made)

        if number < 9001000:
            self.assertIn('unknown CPU feature: pauth', verdict.start)
        elif number >= 11003000:
            self.assertIsNone(verdict.start)
