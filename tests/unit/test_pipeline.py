# SPDX-License-Identifier: Apache-2.0
"""The pipeline, with hooks of every kind."""

import concurrent.futures
import pathlib
import sys
import textwrap
import types

import fixtures
from lxml import etree
from oslo_config import cfg
from stevedore import _cache
from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.compute import schema
from nova_arm_ext.domain import devices
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.pipeline import plugins
from nova_arm_ext.pipeline.reports import Result
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import golden
from tests.support import base

XML = '''\
<domain type="kvm">
  <name>instance-00000001</name>
  <uuid>916180a7-0b43-5c08-b3c8-c738826880bb</uuid>
  <memory unit="KiB">1048576</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch="aarch64" machine="virt">hvm</type>
  </os>
  <devices>
    <disk type="file" device="disk">
      <source file="/a"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <interface type="bridge">
      <mac address="fa:16:3e:00:00:01"/>
      <source bridge="br-int"/>
    </interface>
    <serial type="pty"/>
    <graphics type="vnc"/>
  </devices>
</domain>
'''
UUID = '916180a7-0b43-5c08-b3c8-c738826880bb'
KNOWN = facts.Facts()
EXISTING = facts.Facts(guest=facts.Guest(previous=XML))


class Marks(hooks.Hook):
    """Adds a <mark> of its own."""

    def __init__(self, name: str = 'mark') -> None:
        super().__init__(None)
        self.name = name

    def adjust(self, domain, facts, report):
        if domain.element.find(self.name) is None:
            etree.SubElement(domain.element, self.name)
            report.because(self.name, 'it was missing')


class Does(hooks.Hook):
    """Does what the test wants."""

    def __init__(self, what, *, changes=(), required=False) -> None:
        super().__init__(None)
        self.what = what
        self.changes = frozenset(changes)
        self.required = required

    def adjust(self, domain, facts, report):
        report.because('somewhere', 'the test says so')
        return self.what(domain)


class Never(Marks):
    """Never applies."""

    def applies_to(self, domain, facts):
        return False


def raises(domain):
    etree.SubElement(domain.element, 'half-done')
    raise KeyError('oops')


def refuses(domain):
    etree.SubElement(domain.element, 'half-done')
    raise errors.Refused('you cannot have that')


def removes_a_disk(domain):
    domain.all(devices.Disk)[0].remove()


def swaps_the_uuid(domain):
    domain.uuid = '00000000-0000-0000-0000-000000000000'


def run(*named, xml=XML, known=KNOWN, record=False, existing=None,
        **options) -> Result:
    row = Pipeline(named, **options)
    return row.run(xml, known, record=record, existing=existing)


class RunTest(base.TestCase):

    def test_hooks_run_in_the_order_of_the_list(self):
        result = run(('b', Marks('b')), ('a', Marks('a')))

        domain = view.Domain.parse(result.xml)
        self.assertEqual(['b', 'a'],
                         [child.tag for child in domain.element][-2:])
        self.assertEqual(['b', 'a'], [r.hook for r in result.reports])

    def test_each_hook_is_reported_with_its_reasons(self):
        result = run(('a', Marks('a')), ('never', Never('b')),
                     ('again', Marks('a')))

        self.assertEqual([True, False, False],
                         [r.changed for r in result.reports])
        self.assertEqual([('a', 'it was missing')],
                         result.reports[0].reasons)

    def test_records_tell_each_hooks_change_as_a_diff(self):
        result = run(('a', Marks('a')), ('b', Marks('b')), record=True)

        diff = result.reports[1].diff()
        self.assertIn('before b', diff)
        self.assertIn('<b/>', diff)
        self.assertEqual('', run(('a', Marks('a'))).reports[0].diff())

    def test_a_document_that_needs_nothing_is_the_same_object(self):
        for xml in (XML, XML.strip(), f'<?xml version="1.0"?>\n{XML}',
                    XML.replace('"', "'"), '<!-- c -->' + XML):
            self.assertIs(xml, run(('never', Never()), xml=xml).xml)
            self.assertIs(xml, run(xml=xml).xml)

    def test_a_change_without_a_reason_is_a_change_all_the_same(self):
        class Silent(Marks):
            def adjust(self, domain, facts, report):
                etree.SubElement(domain.element, 'silent')

        self.assertIn('<silent/>', run(('silent', Silent())).xml)
        self.assertTrue(run(('silent', Silent()),
                            record=True).reports[0].changed)

    def test_a_reason_without_a_change_changes_nothing(self):
        self.assertIs(XML, run(('talks', Does(lambda domain: None))).xml)

    def test_other_architectures_are_the_same_object_and_ask_for_no_facts(
            self):
        def unwanted():
            raise AssertionError('nobody needs facts here')
        for arch in ('x86_64', 'riscv64', 's390x', 'armv6l', ''):
            xml = XML.replace('aarch64', arch)
            result = run(('boom', Does(raises)), xml=xml, known=unwanted)
            self.assertIs(xml, result.xml)
            self.assertEqual((), result.reports)
        self.assertEqual('', self.log.output)

    def test_facts_are_asked_for_when_the_guest_is_arm(self):
        asked = []

        run(('a', Marks()), known=lambda: asked.append(1) or KNOWN)

        self.assertEqual([1], asked)

    def test_what_is_no_domain_is_refused_before_all(self):
        for xml in ('', '<network/>', '<domain', '<!DOCTYPE domain>' + XML):
            self.assertRaises(errors.InvalidDocument, run,
                              ('a', Marks()), xml=xml)

    def test_a_previous_document_that_is_none_is_named(self):
        error = self.assertRaises(
            errors.InvalidDocument, run, ('a', Marks()),
            known=facts.Facts(guest=facts.Guest(previous='<broken')))

        self.assertIn('previous', str(error))

    def test_many_threads_get_what_one_gets(self):
        row = golden.default_pipeline()
        work = [(golden.before(case), golden.known(case))
                for case in golden.cases()]
        work = (work * 3)[:max(32, len(work))]
        alone = [row.run(*one).xml for one in work]

        with concurrent.futures.ThreadPoolExecutor(32) as threads:
            together = list(threads.map(lambda one: row.run(*one).xml, work))

        self.assertEqual(alone, together)

    def test_the_domain_of_a_hook_knows_the_previous_document(self):
        seen = []
        run(('a', Does(lambda domain: seen.append(domain.previous.uuid))),
            known=EXISTING)
        run(('a', Does(lambda domain: seen.append(domain.previous))))

        self.assertEqual([UUID, None], seen)


class PreviousTest(base.TestCase):

    HAD = XML.replace('bus="virtio"/>', 'bus="virtio"/><address type="pci" '
                      'domain="0x0000" bus="0x03" slot="0x00" '
                      'function="0x0"/>').replace(
        '<serial', '<controller type="pci" index="0" model="pcie-root"/>'
        '<controller type="pci" index="3" model="pcie-root-port"/><serial')

    def test_what_the_guest_had_stands_before_the_first_hook(self):
        seen = []

        def look(domain):
            seen.append(domain.all(devices.Disk)[0].address.bus)
        run(('look', Does(look)), known=facts.Facts(
            guest=facts.Guest(previous=self.HAD)))

        self.assertEqual([3], seen)

    def test_a_device_that_a_hook_adds_gets_its_old_address_too(self):
        had = self.HAD.replace(
            '<serial', '<rng model="virtio"><address type="pci" '
            'domain="0x0000" bus="0x03" slot="0x01" function="0x0"/></rng>'
            '<serial')

        result = run(('rng', Does(
            lambda domain: domain.add(devices.Rng, model='virtio'))),
            known=facts.Facts(guest=facts.Guest(previous=had)))

        domain = view.Domain.parse(result.xml)
        self.assertEqual(1, domain.all(devices.Rng)[0].address.slot)

    def test_places_are_restored_again_only_if_devices_changed(self):
        restore = self.useFixture(fixtures.MockPatch(
            'nova_arm_ext.pipeline.run.places.restore_places',
            side_effect=previous.restore_places)).mock
        known = facts.Facts(guest=facts.Guest(previous=self.HAD))

        run(('a', Marks('a')), known=known)
        self.assertEqual(1, restore.call_count)

        run(('rng', Does(
            lambda domain: domain.add(devices.Rng, model='virtio'))),
            known=known)
        self.assertEqual(3, restore.call_count)

    def test_one_that_is_parsed_already_is_used(self):
        had = view.Domain.parse(self.HAD)
        seen = []

        row = Pipeline([('look', Does(
            lambda domain: seen.append(domain.previous)))])
        row.run(XML, facts.Facts(guest=facts.Guest(previous=self.HAD)),
                previous=had)

        self.assertIs(had, seen[0])

    def test_a_port_stays_free_for_hotplug(self):
        result = run(known=facts.Facts(guest=facts.Guest(previous=self.HAD)))

        self.assertIn('<controller type="pci" model="pcie-root-port"/>',
                      result.xml)

    def test_it_is_reported_as_previous(self):
        result = run(known=facts.Facts(guest=facts.Guest(previous=self.HAD)),
                     record=True)

        self.assertEqual({'previous'}, {r.hook for r in result.reports})
        self.assertIn('bus="0x03"', result.reports[0].diff())

    def test_it_says_how_many_are_where_they_were(self):
        result = run(known=facts.Facts(guest=facts.Guest(previous=self.HAD)))

        self.assertEqual(
            [('devices', 'as the guest saw them before: 2 controllers, '
              '1 addresses'),
             ('devices/controller', 'one root port free for hotplug, which '
              'libvirt adds only where no port is named')],
            [reason for report in result.reports
             for reason in report.reasons])

    def test_a_wrong_number_fails_the_request_and_is_named(self):
        error = self.assertRaises(
            errors.InvalidDocument, run, known=facts.Facts(
                guest=facts.Guest(previous=self.HAD.replace(
                    'index="3"', 'index="three"'))))

        self.assertIn("controller/@index is 'three'", str(error))


class FailureTest(base.TestCase):
    """Hooks that crash or do what is forbidden."""

    BREACHES = {
        'raise': (raises, "KeyError: 'oops'"),
        'remove a disk': (removes_a_disk, 'disk was'),
        'swap the uuid': (swaps_the_uuid, 'uuid was'),
        'rename': (lambda domain: setattr(domain, 'name', 'x'), 'name was'),
        'take memory': (lambda domain: setattr(
            domain.element.find('memory'), 'text', '1'), 'memory was'),
        'take vcpus': (lambda domain: setattr(domain, 'vcpus', 1),
                       'vcpu was'),
        'another source': (lambda domain: domain.element.find(
            'devices/disk/source').set('file', '/b'), 'disk was'),
        'another target': (lambda domain: setattr(
            domain.all(devices.Disk)[0], 'dev', 'vdb'), 'disk was'),
        'add a disk': (lambda domain: domain.add(devices.Disk, dev='vdb'),
                       'disk was'),
        'another mac': (lambda domain: setattr(
            domain.all(devices.Interface)[0], 'mac', 'x'), 'interface was'),
        'remove an interface': (lambda domain: domain.all(
            devices.Interface)[0].remove(), 'interface was'),
        'remove a serial port': (lambda domain: domain.all(
            devices.Serial)[0].remove(), 'serial was'),
        'other graphics': (lambda domain: setattr(
            domain.all(devices.Graphics)[0], 'type', 'spice'),
            'graphics was'),
        'nothing left': (lambda domain: domain.element.clear(), ''),
        'other children': (lambda domain: [
            domain.element.replace(child, etree.Element('x'))
            for child in domain.element], ''),
        'no element': (lambda domain: setattr(domain, 'element', 'x'), ''),
        'none': (lambda domain: setattr(domain, 'element', None), ''),
        'another root': (lambda domain: setattr(
            domain.element, 'tag', 'network'), '<domain>'),
        'a child for the root': (lambda domain: setattr(
            domain, 'element', domain.element.find('os')), '<domain>'),
        'an entity': (lambda domain: domain.element.append(
            etree.Entity('nbsp')), 'nbsp'),
        'a list of strings': (lambda domain: setattr(
            domain.element, 'text', ['x']), ''),
        'a surrogate': (lambda domain: setattr(
            domain.element, 'text', '\ud800'), ''),
        'no number': (lambda domain: setattr(
            domain.element.find('vcpu'), 'text', 'two') or domain.vcpus,
            "domain/vcpu is 'two'"),
    }

    def test_fail_names_the_hook_and_what_it_did(self):
        for name, (what, words) in self.BREACHES.items():
            for row in ([('bad', Does(what))],
                        [('a', Marks('a')), ('bad', Does(what)),
                         ('b', Marks('b'))]):
                error = self.assertRaises(errors.HookFailed, run, *row)
                self.assertEqual('bad', error.hook, name)
                self.assertIn(words, error.cause, name)

    def test_skip_drops_its_change_and_runs_the_rest(self):
        expected = run(('a', Marks('a')), ('b', Marks('b'))).xml
        for name, (what, _) in self.BREACHES.items():
            result = run(('a', Marks('a')), ('bad', Does(what)),
                         ('b', Marks('b')), on_hook_failure='skip')

            self.assertEqual(expected, result.xml, name)
            self.assertEqual(
                [None, None],
                [r.failure for r in result.reports if r.hook != 'bad'])
            bad = [r for r in result.reports if r.hook == 'bad']
            self.assertEqual([False], [r.changed for r in bad], name)
            self.assertTrue(all(r.failure for r in bad), name)

    def test_skip_logs_one_error_with_instance_hook_and_cause(self):
        run(('bad', Does(raises)), on_hook_failure='skip')

        lines = [line for line in self.log.output.splitlines()
                 if line.startswith('ERROR')]
        self.assertEqual(1, len(lines))
        for word in (UUID, 'bad', "KeyError: 'oops'"):
            self.assertIn(word, lines[0])

    def test_the_first_of_two_culprits_is_named_and_both_are_skipped(self):
        row = [('one', Does(swaps_the_uuid)), ('two', Does(removes_a_disk))]

        error = self.assertRaises(errors.HookFailed, run, *row)
        result = run(*row, ('a', Marks('a')), on_hook_failure='skip')

        self.assertEqual('one', error.hook)
        self.assertEqual(run(('a', Marks('a'))).xml, result.xml)
        self.assertEqual(['one', 'two'], [
            r.hook for r in result.reports if r.failure])

    def test_a_required_hook_fails_all_the_same(self):
        for what in (raises, swaps_the_uuid):
            error = self.assertRaises(
                errors.HookFailed, run, ('bad', Does(what, required=True)),
                on_hook_failure='skip')
            self.assertEqual('bad', error.hook)

    def test_what_a_hook_declares_it_may_change(self):
        result = run(('good', Does(removes_a_disk, changes=['disk'])))

        self.assertNotIn('<disk', result.xml)
        error = self.assertRaises(
            errors.HookFailed, run,
            ('bad', Does(swaps_the_uuid, changes=['disk', 'name'])))
        self.assertIn('uuid', error.cause)

    def test_one_hooks_permission_is_not_anothers(self):
        error = self.assertRaises(
            errors.HookFailed, run,
            ('may', Does(lambda domain: None, changes=['disk'])),
            ('may-not', Does(removes_a_disk)))

        self.assertEqual('may-not', error.hook)

    def test_a_hook_that_breaks_its_word_only_once_gets_through_nothing(self):
        times = []

        def once(domain):
            times.append(1)
            if len(times) == 1:
                swaps_the_uuid(domain)
        for on_hook_failure in ('fail', 'skip'):
            times.clear()
            error = self.assertRaises(
                errors.ArmExtError, run, ('once', Does(once)),
                on_hook_failure=on_hook_failure)
            self.assertIn('uuid', str(error))

    def test_what_applies_to_raises_counts_as_well(self):
        class Bad(Marks):
            def applies_to(self, domain, facts):
                raise ZeroDivisionError('no')

        error = self.assertRaises(errors.HookFailed, run, ('bad', Bad()))

        self.assertEqual('ZeroDivisionError: no', error.cause)

    def test_what_adjust_returns_is_nobodys_business(self):
        for garbage in (False, 'x', object(), []):
            self.assertIn('<a/>', run(
                ('odd', Does(lambda domain, garbage=garbage: garbage)),
                ('a', Marks('a'))).xml)

    def test_an_interrupt_is_not_a_hooks_failure(self):
        def interrupts(domain):
            raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, run,
                          ('bad', Does(interrupts)), on_hook_failure='skip')

    def test_a_failed_hook_leaves_no_trace_for_the_next_guest(self):
        times = []

        def first(domain):
            times.append(1)
            if len(times) == 1:
                raises(domain)
        row = Pipeline([('bad', Does(first)), ('a', Marks('a'))])

        self.assertRaises(errors.HookFailed, row.run, XML, KNOWN)

        self.assertNotIn('half-done', row.run(XML, KNOWN).xml)


class RefusalTest(base.TestCase):

    def test_a_new_guest_is_refused_whatever_the_failure_policy(self):
        for on_hook_failure in ('fail', 'skip'):
            error = self.assertRaises(
                errors.Refused, run, ('no', Does(refuses)),
                on_hook_failure=on_hook_failure)
            self.assertEqual('you cannot have that', str(error))

    def test_an_existing_guest_keeps_what_it_had_with_a_warning(self):
        for options in ({'known': EXISTING}, {'existing': True},
                        {'known': EXISTING, 'existing': True}):
            result = run(('no', Does(refuses)), ('a', Marks('a')), **options)

            self.assertIn('<a/>', result.xml)
            self.assertNotIn('half-done', result.xml)
        warnings = [line for line in self.log.output.splitlines()
                    if line.startswith('WARNING')]
        self.assertEqual(3, len(warnings))
        for word in (UUID, 'no', 'you cannot have that'):
            self.assertIn(word, warnings[0])
        self.assertNotIn('ERROR', self.log.output)

    def test_the_hook_gives_it_what_it_had(self):
        class Refuses(Marks):

            def adjust(self, domain, facts, report):
                refuses(domain)

            def keep(self, domain, facts, report):
                super().adjust(domain, facts, report)

        result = run(('no', Refuses('kept')), known=EXISTING)

        self.assertIn('<kept/>', result.xml)
        self.assertNotIn('half-done', result.xml)
        report = next(r for r in result.reports if r.hook == 'no')
        self.assertTrue(report.changed)
        self.assertEqual('you cannot have that', report.failure)

    def test_a_hook_that_fails_to_keep_is_a_hook_that_fails(self):
        class Fails(Does):

            def keep(self, domain, facts, report):
                raises(domain)

        error = self.assertRaises(errors.HookFailed, run,
                                  ('no', Fails(refuses)), known=EXISTING)
        result = run(('no', Fails(refuses)), ('a', Marks('a')),
                     known=EXISTING, on_hook_failure='skip')

        self.assertIn('oops', str(error))
        self.assertIn('<a/>', result.xml)
        self.assertNotIn('half-done', result.xml)

    def test_a_required_hook_may_refuse_an_existing_guest_without_harm(self):
        self.assertIn('<a/>', run(
            ('no', Does(refuses, required=True)), ('a', Marks('a')),
            known=EXISTING).xml)

    def test_a_resize_may_say_that_the_guest_is_asked_anew(self):
        self.assertRaises(errors.Refused, run, ('no', Does(refuses)),
                          known=EXISTING, existing=False)


class LogTest(base.TestCase):

    def lines(self, level: str) -> list[str]:
        return [line for line in self.log.output.splitlines()
                if line.startswith(level)]

    def test_one_info_line_a_guest_names_hooks_that_changed_something(self):
        run(('a', Marks('a')), ('never', Never()), ('b', Marks('b')))

        self.assertEqual(1, len(self.lines('INFO')))
        self.assertRegex(self.lines('INFO')[0],
                         rf'{UUID}.* adjusted by a, b in \d+\.\d ms$')

    def test_a_guest_that_needed_nothing_has_its_line_too(self):
        run(('never', Never()))

        self.assertRegex(self.lines('INFO')[0], r'by no hook in')

    def test_at_debug_each_hook_shows_its_diff_and_why(self):
        run(('a', Marks('a')), ('never', Never()), record=True)

        self.assertIn('# a: it was missing', self.log.output)
        self.assertIn('+<a/>', self.log.output.replace('  ', ''))
        self.assertEqual(1, len(self.lines('DEBUG')))

    def test_a_slow_hook_is_named(self):
        clock = [0.0]

        def slow(domain):
            clock[0] += 0.25
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.pipeline.run.time',
            types.SimpleNamespace(perf_counter=lambda: clock[0])))

        for limit, warned in ((249, True), (250, False), (0, False)):
            before = len(self.lines('WARNING'))
            result = run(('quick', Marks()), ('slow', Does(slow)),
                         hook_warn_ms=limit)
            new = self.lines('WARNING')[before:]
            self.assertEqual(warned, len(new) == 1, limit)
            self.assertIn('by quick, slow in 250.0 ms', self.lines('INFO')[-1])
            if warned:
                self.assertIn('Hook slow took 250 ms', new[0])
                self.assertIn(UUID, new[0])
        self.assertEqual(0.25, result.reports[1].seconds)


#: A schema of a few lines, so that the check is tested on every machine.
RNG = '''\
<grammar xmlns="http://relaxng.org/ns/structure/1.0">
  <start><element name="domain"><ref name="any"/></element></start>
  <define name="any">
    <zeroOrMore><choice>
      <attribute><anyName/></attribute>
      <text/>
      <element><anyName><except><name>bad</name></except></anyName>
        <ref name="any"/></element>
    </choice></zeroOrMore>
  </define>
</grammar>
'''
LIBVIRT_RNG = '/usr/share/libvirt/schemas/domain.rng'


class SchemaTest(base.TestCase):

    def setUp(self):
        super().setUp()
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (path / 'domain.rng').write_text(RNG)
        self.validate = schema.load(str(path / 'domain.rng'))

    def checked(self, *named, xml=XML, mode='warn') -> Result:
        return run(*named, xml=xml, check_schema=mode, validate=self.validate)

    def test_what_the_hooks_made_invalid_is_warned_of(self):
        result = self.checked(('bad', Marks('bad')))

        self.assertIn('<bad/>', result.xml)
        self.assertIn(f"WARNING [instance: {UUID}] the hooks' result does not "
                      f"match libvirt's schema", self.log.output)

    def test_fail_fails_and_off_does_not_look(self):
        self.assertRaises(errors.InvalidResult, self.checked,
                          ('bad', Marks('bad')), mode='fail')

        self.checked(('bad', Marks('bad')), mode='off')

        self.assertNotIn('WARNING', self.log.output)

    def test_what_was_invalid_before_does_not_count(self):
        invalid = XML.replace('<devices>', '<bad/><devices>')

        for mode in ('warn', 'fail'):
            result = self.checked(('a', Marks('a')), xml=invalid, mode=mode)
            self.assertIn('<a/>', result.xml)
        self.assertNotIn('WARNING', self.log.output)

    def test_a_valid_result_says_nothing(self):
        self.checked(('a', Marks('a')), mode='fail')

        self.assertNotIn('WARNING', self.log.output)

    def test_what_a_hook_does_to_a_disk_counts(self):
        self.assertRaises(
            errors.InvalidResult, self.checked,
            ('bad', Does(lambda domain: etree.SubElement(
                domain.all(devices.Disk)[0].element, 'bad'))), mode='fail')

    def test_only_addresses_of_libvirt_are_not_validated(self):
        validated = []

        def far(domain):
            etree.SubElement(domain.all(devices.Interface)[0].element,
                             'address', type='pci', bus='0x09')

        result = run(('far', Does(far)), known=facts.Facts(
            guest=facts.Guest(previous=PreviousTest.HAD)), check_schema='warn',
            validate=lambda root: validated.append(
                etree.tostring(root, encoding='unicode')))

        self.assertIn('bus="0x03"', result.xml)
        self.assertNotIn('bus="0x03"', validated[0])
        self.assertIn('bus="0x09"', validated[0])

    def test_the_whole_result_is_validated_and_it_alone_if_it_is_valid(self):
        seen = []

        def validate(root):
            seen.append([child.tag for child in root])

        result = run(('a', Marks('a')), check_schema='fail',
                     validate=validate)

        self.assertEqual([[child.tag for child in etree.fromstring(
            result.xml)]], seen)

    def test_a_part_that_is_there_twice_counts(self):
        def once(root):
            clocks = root.findall('clock')
            return f'{len(clocks)} clocks' if len(clocks) > 1 else None

        row = ('a', Does(lambda domain: etree.SubElement(
            domain.element, 'clock', offset='utc')))
        given = XML.replace('<devices>', '<clock offset="utc"/><devices>')

        raised = self.assertRaises(
            errors.InvalidResult, run, row, xml=given, check_schema='fail',
            validate=once)
        self.assertIn('2 clocks', str(raised))
        run(row, xml=XML, check_schema='fail', validate=once)

    def test_a_part_that_the_schema_cannot_do_without_is_not_missed(self):
        def needed(root):
            return None if root.find('clock') is not None else 'no clock'

        given = XML.replace('<devices>', '<clock offset="utc"/><devices>')

        run(('a', Marks('a')), xml=given, check_schema='fail',
            validate=needed)

    def test_a_skipped_hooks_change_does_not_count(self):
        def bad(domain):
            etree.SubElement(domain.element, 'bad')
            raise ValueError('x')

        result = run(('bad', Does(bad)), ('a', Marks('a')),
                     on_hook_failure='skip', check_schema='fail',
                     validate=self.validate)

        self.assertIn('<a/>', result.xml)

    def test_libvirts_own_schema_finds_what_it_does_not_know(self):
        if not pathlib.Path(LIBVIRT_RNG).exists():
            self.skipTest(f'libvirt is not installed: no {LIBVIRT_RNG}')
        self.validate = schema.load(LIBVIRT_RNG)

        self.assertRaises(errors.InvalidResult, self.checked,
                          ('bad', Marks('bad')), mode='fail')
        self.checked(('good', Does(lambda domain: domain.add(
            devices.Memballoon, model='none'))), mode='fail')

    def test_threads_get_their_own_verdicts(self):
        row = Pipeline([('bad', Does(
            lambda domain: domain.name == 'bad' and etree.SubElement(
                domain.element, 'bad')))], check_schema='fail',
            validate=self.validate)

        def verdict(number: int) -> bool:
            name = 'bad' if number % 2 else 'good'
            try:
                row.run(XML.replace('instance-00000001', name), KNOWN)
            except errors.InvalidResult:
                return False
            return True
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            verdicts = list(threads.map(verdict, range(200)))

        self.assertEqual([True, False] * 100, verdicts)


class InstalledHooks(fixtures.Fixture):
    """A distribution with hooks, on sys.path for one test.

    :param hooks: entry points, names to values
    :param source: of the module arm_ext_third_party
    """

    MODULE = 'arm_ext_third_party'

    def __init__(self, hooks: dict[str, str], source: str) -> None:
        self._hooks = hooks
        self._source = source

    def _setUp(self) -> None:
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (path / f'{self.MODULE}.py').write_text(textwrap.dedent(self._source))
        info = path / 'arm_ext_third_party-1.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: arm-ext-third-party\nVersion: 1\n')
        (info / 'entry_points.txt').write_text(
            '[nova_arm_ext.hooks]\n' + ''.join(
                f'{name} = {value}\n' for name, value in self._hooks.items()))
        self.useFixture(fixtures.PythonPathEntry(str(path)))
        # stevedore keeps what it has found, in memory and in a file
        self.useFixture(fixtures.MonkeyPatch(
            'stevedore._cache.get_group_all', _cache.Cache(
                self.useFixture(fixtures.TempDir()).path).get_group_all))
        self.useFixture(fixtures.MonkeyPatch(
            'stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE', {}))
        self.addCleanup(sys.modules.pop, self.MODULE, None)


SOURCE = '''
from oslo_config import cfg
from nova_arm_ext.hooks import base
class Good(base.Hook):
    """Good."""
    opts = (cfg.IntOpt('free', default=1, min=0, max=9, help='x'),)
    def adjust(self, domain, facts, report):
        if domain.element.find('good') is None:
            domain.child('good').text = str(self.options.free)
            report.because('good', 'it was missing')
class Last(Good):
    order = base.LAST
    opts = ()
class First(Last):
    order = base.FIRST
class End(Last):
    order = base.END
class After(Last):
    order = base.MIDDLE
    after = ('good', 'not-installed')
class Abstract(base.Hook):
    """Has no adjust."""
class Crashes(Last):
    def __init__(self, options):
        raise RuntimeError('no room')
class NoOrder(Last):
    order = 7
class BadOpts(Last):
    opts = None
class SameTwice(Last):
    opts = (cfg.IntOpt('x', default=1), cfg.StrOpt('x', default='y'))
class NoHook:
    pass
'''
NAMES = {'good': 'Good', 'last': 'Last', 'first': 'First', 'after': 'After',
         'end': 'End',
         'abstract': 'Abstract', 'crashes': 'Crashes', 'no_hook': 'NoHook',
         'missing': 'Missing'}


class LoadTest(base.TestCase):

    def install(self, names=None, source=SOURCE) -> None:
        names = NAMES if names is None else names
        self.useFixture(InstalledHooks(
            {name: f'{InstalledHooks.MODULE}:{value}'
             for name, value in names.items()}, source))

    def load(self, text: str = '') -> Pipeline:
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (path / 'nova.conf').write_text(textwrap.dedent(text))
        conf = cfg.ConfigOpts()
        conf([], project='nova', default_config_dirs=[],
             default_config_files=[str(path / 'nova.conf')])
        return Pipeline.load(conf)

    def faults(self, text: str) -> list[str]:
        error = self.assertRaises(errors.ConfigurationError, self.load, text)
        self.assertEqual(1, len(str(error).splitlines()), error)
        return list(error.faults)

    def test_the_default_hooks_are_enabled(self):
        names = self.load().hooks

        self.assertEqual(('libvirt_compat', 'uefi'), names[:2])
        self.assertEqual(len(names), len(set(names)))

    def test_a_third_party_hook_runs_behind_the_default_ones(self):
        self.install()

        row = self.load('''
            [arm]
            hooks = $default_hooks,good
            [arm_good]
            free = 7
        ''')

        # but for the one that counts what all others have made
        self.assertEqual(('good', 'pcie_root_ports'), row.hooks[-2:])
        result = row.run(XML, facts.Facts())
        self.assertIn('<good>7</good>', result.xml)
        self.assertEqual('good', result.reports[-2].hook)

    def test_the_end_is_the_end_wherever_it_is_listed(self):
        self.install()

        row = self.load('[arm]\nhooks = first,end,good,last\n')

        self.assertEqual(('first', 'good', 'last', 'end'), row.hooks)

    def test_no_hook_at_all_is_a_choice(self):
        self.assertEqual((), self.load('[arm]\nhooks =\n').hooks)

    def test_a_plugin_that_is_broken_but_not_enabled_harms_nobody(self):
        self.install()

        self.assertEqual(('good',), self.load('[arm]\nhooks = good\n').hooks)

    def test_all_faults_of_a_set_up_come_at_once(self):
        self.install()

        faults = self.faults('''
            [arm]
            hooks = last,after,good,good,unknown,missing,no_hook,first,uefi,libvirt_compat,abstract,crashes
            hook_warn_ms = -1
            check_schema = perhaps
            [arm_good]
            free = 10
        ''')  # noqa: E501

        for words in (('[arm] hooks names good 2 times',),
                      ("names 'unknown'", 'not installed', 'libvirt_compat'),
                      ('hook missing', 'cannot be imported', 'Missing'),
                      ('hook no_hook', 'not a subclass'),
                      ('after must be listed after good',),
                      ('uefi must be listed after libvirt_compat',),
                      ('last (last) must be listed after first (first)',),
                      ('hook abstract cannot be made', 'adjust'),
                      ('hook crashes cannot be made', 'no room'),
                      ('[arm] hook_warn_ms', '-1'),
                      ('[arm] check_schema', 'perhaps'),
                      ('[arm_good] free', '10')):
            self.assertEqual(1, len([
                fault for fault in faults
                if all(word in fault for word in words)]), (words, faults))

    def test_a_hook_with_a_wrong_option_is_one_fault(self):
        faults = self.faults('[arm_libvirt_compat]\ndisabled_rules = none\n')

        self.assertEqual(1, len(faults), faults)
        self.assertIn('[arm_libvirt_compat] disabled_rules', faults[0])
        self.assertIn('none', faults[0])

    def test_an_unknown_name_in_a_list_of_names_is_a_fault(self):
        faults = self.faults('[arm]\nhooks = $no_such_option,uefi\n')

        self.assertEqual(1, len([f for f in faults if '[arm] hooks' in f]))

    def test_a_module_that_does_not_import_is_told_with_its_reason(self):
        for source, words in (('import no_such_module', 'no_such_module'),
                              ('this is no python', 'SyntaxError'),
                              ('assert False, "not here"', 'not here'),
                              ('raise SystemExit("bye")', 'bye'),
                              ('raise RuntimeError("boom")', 'boom')):
            with InstalledHooks({'broken': f'{InstalledHooks.MODULE}:Good'},
                                source):
                faults = self.faults('[arm]\nhooks = broken\n')
            self.assertEqual(1, len(faults))
            self.assertIn(InstalledHooks.MODULE, faults[0])
            self.assertIn(words, faults[0])

    def test_a_plugin_with_odd_attributes_is_a_fault_not_a_traceback(self):
        for name in ('NoOrder', 'BadOpts', 'SameTwice'):
            with InstalledHooks(
                    {'odd': f'{InstalledHooks.MODULE}:{name}',
                     'first': f'{InstalledHooks.MODULE}:First'}, SOURCE):
                faults = self.faults('[arm]\nhooks = odd,first\n')
                self.assertIn('hook odd', faults[0], name)
                self.assertEqual(('first',), self.load(
                    '[arm]\nhooks = first\n').hooks)

    def test_a_name_that_is_taken_is_told(self):
        self.install({'uefi': 'Good'})

        faults = self.faults('[arm]\nhooks = uefi\n')

        self.assertEqual(1, len(faults))
        self.assertIn('hook uefi is installed twice', faults[0])

    def test_installed_hooks_names_every_broken_plugin(self):
        self.install()

        error = self.assertRaises(errors.ConfigurationError,
                                  plugins.installed_hooks)

        self.assertEqual(2, len(error.faults))

    def test_it_does_what_the_options_say(self):
        made = self.load('''
            [arm]
            on_hook_failure = skip
            hook_warn_ms = 17
            check_schema = warn
        ''')

        self.assertEqual(('skip', 17, 'warn'), (
            made._on_hook_failure, made._hook_warn_ms, made._check_schema))

    def test_it_tells_the_options_of_its_hooks(self):
        self.install()

        self.assertEqual({'good': {'free': 7}, 'last': {}}, self.load('''
            [arm]
            hooks = good,last
            [arm_good]
            free = 7
        ''').options)

    def test_the_schema_is_made_only_where_it_is_wanted(self):
        asked = []

        for mode, count in (('off', 0), ('warn', 1), ('fail', 1)):
            asked.clear()
            conf = cfg.ConfigOpts()
            conf([], project='x', default_config_files=[],
                 default_config_dirs=[])
            conf.register_opts(plugins.OPTS, group='arm')
            conf.set_override('check_schema', mode, group='arm')
            Pipeline.load(conf, schema=asked.append)
            self.assertEqual(count, len(asked), mode)

    def test_loading_twice_is_no_trouble(self):
        conf = cfg.ConfigOpts()
        conf([], project='x', default_config_files=[],
             default_config_dirs=[])

        first = Pipeline.load(conf)

        self.assertEqual(first.hooks, Pipeline.load(conf).hooks)

    def test_the_namespace_is_read_by_stevedore(self):
        self.install()

        found = extension.ExtensionManager(
            plugins.NAMESPACE, on_load_failure_callback=lambda *_: None)

        self.assertIn('good', found.names())


class SkipHooksTest(base.TestCase):

    def run_with(self, asked: str, **more) -> Result:
        hooks_here = Pipeline(
            [(name, Marks(name)) for name in ('one', 'two', 'three')])
        return hooks_here.run(XML, facts.Facts(guest=facts.Guest(
            extra_specs={plugins.SKIP_HOOKS: asked}, **more)))

    def test_a_flavor_skips_hooks_for_its_guests(self) -> None:
        result = self.run_with(' two, three')

        self.assertIn('<one', result.xml)
        self.assertNotIn('<two', result.xml)
        self.assertEqual(
            [None, *['the extra spec arm:skip_hooks of the flavor skips it '
                     'for this instance'] * 2],
            [report.failure for report in result.reports])

    def test_names_that_are_not_enabled_here_are_ignored(self) -> None:
        result = self.run_with('nobody,previous,,', previous=XML)

        for name in ('one', 'two', 'three'):
            self.assertIn(f'<{name}', result.xml)
