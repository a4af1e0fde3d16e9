# SPDX-License-Identifier: Apache-2.0
"""Starts of every kind of guest: what needs no libvirt."""

import contextlib
import copy
import csv
import io
import pathlib
from unittest import mock

import fixtures
from lxml import etree

from tests.nova.documents import guests
from tests.nova.documents import kinds
from tests.nova.documents.judge import Verdict
from tests.starts import faults
from tests.starts import matrix
from tests.starts import replaced
from tests.support import base

#: Everything that is replaced, and something that stays beside each.
DOCUMENT = '''\
<domain type='kvm'>
  <memoryBacking><hugepages/><access mode='shared'/></memoryBacking>
  <numatune><memory mode='strict' nodeset='0-1'/></numatune>
  <vcpu cpuset='0-15'>10</vcpu>
  <cputune><shares>512</shares><vcpupin vcpu='0' cpuset='8-15'/></cputune>
  <os><type arch='aarch64' machine='virt'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='host-passthrough'><topology sockets='2'/></cpu>
  <devices>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <auth username='nova'/>
      <source protocol='rbd' name='volumes/volume-1'><host name='a'/></source>
      <target dev='vda' bus='virtio'/>
      <address type='virtio-mmio'/>
    </disk>
    <disk type='file' device='disk'><source file='/a'/></disk>
    <interface type='hostdev' managed='yes'>
      <mac address='fa:16:3e:00:00:01'/>
      <source><address type='pci' bus='6'/></source>
      <vlan><tag id='101'/></vlan>
      <address type='pci' bus='1'/>
    </interface>
    <interface type='bridge'><source bridge='br-int'/></interface>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address bus='0x81'/></source>
      <address type='pci' bus='2'/>
    </hostdev>
  </devices>
</domain>
'''


def document(**attributes: str) -> str:
    domain = etree.fromstring(DOCUMENT)
    domain.attrib.update(attributes)
    return etree.tostring(domain, encoding='unicode')


def changed(text: str) -> etree._Element:
    return etree.fromstring(replaced.replaced(text)[0])


class ReplacedTest(base.TestCase):

    def test_each_replacement_is_made(self) -> None:
        _, made = replaced.replaced(DOCUMENT)

        self.assertEqual([one.name for one in replaced.TABLE], made)

    def test_a_second_time_nothing_is_replaced(self) -> None:
        # CPUs and nodes of the host are then the first one.
        xml, _ = replaced.replaced(DOCUMENT)

        self.assertEqual(xml, replaced.replaced(xml)[0])

    def test_without_kvm_the_processor_stays(self) -> None:
        domain = changed(document(type='qemu'))

        self.assertEqual('host-passthrough', domain.find('cpu').get('mode'))
        self.assertIsNone(domain.find('features/gic'))
        self.assertEqual('qemu', domain.get('type'))

    def test_a_guest_that_needs_nothing_stays_as_it_is(self) -> None:
        text = ("<domain type='qemu'><!-- one --><cpu mode='host-passthrough'"
                "/><devices><disk type='file'/></devices></domain>")

        xml, made = replaced.replaced(text)

        self.assertEqual([], made)
        self.assertEqual(etree.canonicalize(text), etree.canonicalize(xml))

    def test_a_disk_in_ceph_is_a_file_in_the_same_place(self) -> None:
        disk = changed(DOCUMENT).find('devices/disk')

        self.assertEqual(
            ["<driver name=\"qemu\" type=\"raw\"/>",
             '<source file="/var/lib/nova/volumes/volume-1"/>',
             '<target dev="vda" bus="virtio"/>',
             '<address type="virtio-mmio"/>'],
            [etree.tostring(part, encoding='unicode', with_tail=False)
             for part in disk])

    def test_devices_of_the_host_keep_their_slots(self) -> None:
        interfaces = changed(DOCUMENT).findall(
            "devices/interface[@type='ethernet']")

        self.assertEqual(['1', '2'], [interface.find('address').get('bus')
                                      for interface in interfaces])
        self.assertEqual(['fa:16:3e:00:00:01', '52:54:00'], [
            interfaces[0].find('mac').get('address'),
            interfaces[1].find('mac').get('address')[:8]])

    def test_everything_else_stays_as_it_is(self) -> None:
        before = etree.fromstring(DOCUMENT)
        after = changed(DOCUMENT)

        for domain in (before, after):
            domain.attrib.pop('type')
            for path in ('devices/*[address]', 'features/gic',
                         'memoryBacking/hugepages', 'cputune/shares'):
                for element in domain.xpath(path):
                    element.getparent().remove(element)
            for element in domain.iter():
                for name in ('cpuset', 'nodeset', 'mode'):
                    element.attrib.pop(name, None)

        self.assertEqual(written(before), written(after))

    def test_the_table_says_why(self) -> None:
        for one in replaced.TABLE:
            self.assertTrue(one.name and one.by and one.why, one)


def written(domain: etree._Element) -> str:
    """The elements without the white space between them."""
    own = copy.deepcopy(domain)
    for element in own.iter():
        element.tail = None
        element.text = (element.text or '').strip() or None
    return etree.tostring(own, encoding='unicode')


def result(**values: str) -> matrix.Result:
    return matrix.Result(**{
        'suite': 'trixie', 'host': kinds.AARCH64_KVM, 'kind': 'default',
        'state': matrix.STARTED, 'stock': matrix.FAILED} | values)


class MatrixTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.MockPatchObject(guests, 'why_not',
                                                 return_value=None))

    def run_with(self, *results: matrix.Result,
                 arguments: tuple[str, ...] = ('trixie',)) -> tuple[int, str]:
        """The exit status and what is printed, with these results."""
        found = {suite: [one for one in results if one.suite == suite]
                 for suite in matrix.SUITES}
        printed = io.StringIO()
        with mock.patch.object(matrix, 'judged', lambda suite, only: (
                f'heading of {suite}', found[suite])), (
                contextlib.redirect_stdout(printed)):
            return matrix.main(arguments), printed.getvalue()

    def test_each_kind_has_a_line(self) -> None:
        status, printed = self.run_with(
            result(), result(host=kinds.AARCH64_TCG, stock=matrix.STARTED),
            result(kind='numa', state=matrix.REFUSED, why='No nodes.'))

        self.assertEqual(0, status)
        self.assertIn('\ndefault ss-  Fs-\nnuma    r--  F--\n', printed)
        self.assertIn('Debian 13, aarch64-kvm: 1 started, 1 refused, '
                      '0 failed; stock Nova: 0 started\n', printed)

    def test_a_guest_that_fails_is_told_of(self) -> None:
        status, printed = self.run_with(
            result(state=matrix.FAILED, why='start: no'))

        self.assertEqual(1, status)
        self.assertTrue(printed.endswith(
            '\nDebian 13, aarch64-kvm, failed: start: no\n'
            '    default\n'), printed)

    def test_a_reason_is_told_once(self) -> None:
        _, printed = self.run_with(*(
            result(kind=kind, state=matrix.FAILED, why=(
                f'start: {time} qemu-system-arm: warning: slow\n{time} no'))
            for kind, time in (('default', '2026-12-01T16:14:23.4Z'),
                               ('mmio', '2026-12-01T16:14:24.5Z'))))

        self.assertTrue(printed.endswith(
            'failed: start: no\n    default, mmio\n'), printed)

    def test_each_libvirt_has_a_column(self) -> None:
        _, printed = self.run_with(
            *(result(suite=suite) for suite in matrix.SUITES), arguments=())

        self.assertIn('\ndefault s--  F--         s--  F--         '
                      's--  F--\n', printed)
        self.assertIn('heading of bookworm\nheading of trixie\n'
                      'heading of forky\n', printed)

    def test_nothing_started_is_a_failure(self) -> None:
        status, _ = self.run_with()

        self.assertEqual(1, status)

    def test_all_results_are_written(self) -> None:
        path = self.useFixture(fixtures.TempDir()).join('results.csv')

        self.run_with(result(why='a, b'),
                      arguments=('trixie', '--csv', path))

        with open(path) as file:
            [row] = csv.DictReader(file)
        self.assertEqual(('trixie', 'default', 'started', 'a, b', 'failed'),
                         (row['suite'], row['kind'], row['state'],
                          row['why'], row['stock']))

    def test_an_unknown_suite(self) -> None:
        said = io.StringIO()

        with contextlib.redirect_stderr(said):
            error = self.assertRaises(SystemExit, matrix.main, ['sid'])

        self.assertEqual(2, error.code)
        self.assertIn('there is no suite sid', said.getvalue())

    def test_each_suite_has_tests(self) -> None:
        modules = [
            path.read_text() for path in
            pathlib.Path(matrix.__file__).parent.glob('test_*.py')]

        for suite in matrix.SUITES:
            self.assertEqual(1, sum(f"suite = '{suite}'" in text
                                    for text in modules), suite)


class FaultsTest(base.TestCase):

    def test_two_guests_are_told_the_same(self) -> None:
        said = [
            faults.told(Verdict(start=(
                f'[1] internal error: {ended}: {time} qemu-system-aarch64: '
                f'warning: slow\n{time} qemu-system-aarch64: '
                f'/var/lib/{name}: none')))
            for ended, time, name in (
                ('process exited while connecting to monitor',
                 '2026-12-01T16:14:23.4Z', 'a'),
                ("QEMU unexpectedly closed the monitor (vm='b')",
                 '2026-12-02T17:15:24.5Z', 'b'))]

        self.assertEqual(said[0], said[1])
        self.assertEqual('start: [1] qemu-system-aarch64: : none', said[0])

    def test_a_fault_is_put_into_the_domain_xml(self) -> None:
        text = ("<domain><os><type machine='virt'/></os><features/><cpu/>"
                '<clock/><devices/></domain>')

        for name in faults.FAULTS:
            self.assertNotEqual(etree.canonicalize(text), etree.canonicalize(
                faults.with_fault(text, name)), name)
