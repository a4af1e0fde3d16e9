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
    """List this host's PCI devices, and which the inventory skips.

    It is what libvirt says now. What nova-compute adds from Nova's own code
    (MAC addresses, numbers of virtual functions) is not shown, nor which
    devices [pci] device_spec lets guests have.
    """

    _epilog = ('Inventory says yes, or which rule skips a device, or why it '
               'cannot be read. Only a read-only connection is made.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_connect(parser)
        arguments.add_config_file(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import inventory
        settings, named = inventory.configured(parsed_args.config_file)
        documents = host.answer(
            parsed_args.connect or host.default_uri(), inventory.PATIENCE,
            inventory.read_documents)
        return COLUMNS, inventory.rows(documents, settings, named)
