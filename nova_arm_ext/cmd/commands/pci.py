# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext pci`: the PCI devices of this host, and which are skipped."""

import argparse
from collections.abc import Sequence
from typing import Any

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command

COLUMNS = ('Address', 'Vendor:Product', 'Class', 'Driver', 'Type',
           'Inventory')


class Pci(command.Lister):
    """List the PCI devices of this host, and which the inventory skips.

    The list shows what libvirt reports now. It does not show what Nova's own
    code adds (MAC addresses, numbers of virtual functions), nor which devices
    [pci] device_spec offers to instances.
    """

    _epilog = ('Inventory is "yes", or the rule that skips the device, or '
               'why it cannot be read. The command connects to libvirt '
               'read-only.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_connect(parser)
        arguments.add_config(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import inventory
        from nova_arm_ext.cmd import reading
        conf = reading.of_nova_compute(parsed_args)
        settings, named = inventory.settings_of(conf)
        documents = host.answer(
            host.uri_of(conf, parsed_args.connect),
            parsed_args.timeout or inventory.PATIENCE,
            inventory.read_documents)
        return COLUMNS, inventory.rows(documents, settings, named)
