# SPDX-License-Identifier: Apache-2.0
"""Both serial ports of a guest carry what its kernel says."""

import contextlib
import socket

from lxml import etree

from tests.hosts.one import base


class SerialConsolesTest(base.GuestTestCase):

    @contextlib.contextmanager
    def second_port(self, server, timeout: float):
        """A connection to the second serial port, as Nova's proxy opens it."""
        [source] = etree.fromstring(server.live_xml()).xpath(
            'devices/serial[2]/source')
        with socket.create_connection(
                (source.get('host'), int(source.get('service'))),
                timeout) as port:
            yield port

    def heard(self, port, until: bytes) -> bytes:
        """The output of the port up to this text."""
        said = b''
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
        with self.second_port(server, timeout=120) as port:
            second = self.heard(port, b'Linux version')
            first = server.report()
            port.sendall(b'a word for the guest\n')
            answer = self.heard(port, b'input a word for the guest')

        # Nova's line names ttyS0, which is the PCI port
        self.assertIn('console=ttyS0', first.cmdline)
        self.assertIn('console=ttyAMA0', first.cmdline)
        self.assertIn(b'Linux version', second)
        self.assertIn(b'=== probe input a word for the guest', answer)
        self.assertIn('Linux version', server.console)
        serials = [device for device in first.pci
                   if device.device_class.startswith('0700')]
        self.assertEqual(1, len(serials))

        server.hard_reboot()

        self.assertEqual(first.pci, server.report().pci)
