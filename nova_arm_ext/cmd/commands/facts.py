# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext facts`: what libvirt says about this host, as JSON."""

import argparse
import contextlib
from typing import Any

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command
from nova_arm_ext.cmd import forms

#: Seconds; a libvirtd that has just started first probes every QEMU.
PATIENCE = 30.0


class Facts(command.Command):
    """Print the facts about this host as JSON.

    A value that could not be found out is null. The output holds nothing
    secret, so you can attach it to a bug report; preview reads it with
    --facts. "pci" lists the devices that are not in the PCI inventory, and
    why.
    """

    _epilog = ('The command connects to libvirt read-only. It looks up on '
               'this machine what libvirt does not know: whether KVM runs '
               '32-bit guests, and the firmware descriptors. These are null '
               'if the URI names another machine.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_connect(parser)
        arguments.add_config(parser)
        forms.add(parser, default='json')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        import json

        from nova_arm_ext import facts
        from nova_arm_ext.cmd import failure
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import inventory
        from nova_arm_ext.cmd import reading

        conf = reading.of_nova_compute(parsed_args)
        settings, named = inventory.settings_of(conf)
        uri = host.uri_of(conf, parsed_args.connect)
        seconds = parsed_args.timeout
        found = facts.Facts(host=host.ask(uri, seconds or PATIENCE))
        shown = {**json.loads(found.to_json()), 'pci': None}
        # there are facts also if libvirt has no node devices
        with contextlib.suppress(failure.Failure):
            listed = inventory.rows(
                host.answer(uri, seconds or inventory.PATIENCE,
                            inventory.read_documents), settings, named)
            shown['pci'] = {'devices': len(listed),
                            'left_out': inventory.left_out(listed)}
        self.app.stdout.write(forms.dump(
            parsed_args.formatter, dict(sorted(shown.items()))))
        return 0
