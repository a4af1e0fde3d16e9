# SPDX-License-Identifier: Apache-2.0
"""What is replaced before a guest is started, without libvirt."""

import copy

from lxml import etree

from tests.starts import replaced
from tests.support import base

#: Everything that is replaced, and something that stays beside each.
DOCUMENT = '''\
<domain type='kvm'>
  <memoryBacking><hugepages/><access mode='shared'/></memoryBacking>
  <numatune><memory mode='strict' nodeset='0-1'/></numatune>
  <vcpu cpuset='0-15'>2</vcpu>
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
