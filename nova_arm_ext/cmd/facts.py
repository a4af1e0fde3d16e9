# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext facts`: what libvirt says about this host, as JSON."""

import argparse
from typing import Any

from cliff import command

from nova_arm_ext.cmd import arguments

#: A libvirtd that has just started asks every QEMU on the host first.
PATIENCE = 30.0


class Facts(command.Command):
    """Print the facts about this host as JSON.

    What could not be found out is null. There is nothing secret in it, so
    that it can go into a bug report; preview reads it with --facts.
    """

    _epilog = ('Only a read-only connection is made. Facts that libvirt does '
               'not know (whether KVM runs 32-bit guests, the firmware '
               'descriptors) are looked up on this machine, and are null '
               'where the URI leads to another one.')

    def get_epilog(self) -> str:
        # cliff's own looks through all installed packages, to name the one
        # that brought the command
        return self._epilog

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_connect(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        # not above: cliff imports every command to run one
        from nova_arm_ext import facts
        from nova_arm_ext.cmd import host
        found = host.ask(parsed_args.connect or host.default_uri(), PATIENCE)
        self.app.stdout.write(facts.Facts(host=found).to_json() + '\n')
        return 0
