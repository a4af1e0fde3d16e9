# SPDX-License-Identifier: Apache-2.0
"""Both serial ports of a guest carry what its kernel says."""

import socket

from lxml import etree

from tests.functional import base


class SerialConsolesTest(base.GuestTestCase):

    def second_port(self, server, until: bytes, timeout: float) -> bytes:
        """What the second serial port has said when it has said this."""
        [source] = etree.fromstring(server.live_xml()).xpath(
            'devices/serial[2]/source')
        said = b''
        with socket.create_connection(
                (source.get('host'), int(source.get('service'))),
                timeout) as port:
            while until not in said:
                more = port.recv(4096)
                if not more:
                    break
                said += more
        return said

    def test_a_kernel_of_its_own_is_heard_on_two_ports(self):
        self.bed.services.flags(enabled=True, group='serial_console')
        server = self.bed.boot(
            image_properties={'hw_serial_port_count': '2',
                              **self.bed.kernel()},
            extra_specs={'hw:serial_port_count': '2'})
        second = self.second_port(server, b'Linux version', timeout=120)
        first = server.report()

        # Nova's line names ttyS0, which is the PCI port
        self.assertIn('console=ttyS0', first.cmdline)
        self.assertIn('console=ttyAMA0', first.cmdline)
        self.assertIn(b'Linux version', second)
        self.assertIn('Linux version', server.console)
        serials = [device for device in first.pci
                   if device.device_class.startswith('0700')]
        self.assertEqual(1, len(serials))

        server.hard_reboot()

        self.assertEqual(first.pci, server.report().pci)
