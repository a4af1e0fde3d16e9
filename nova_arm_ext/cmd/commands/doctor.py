# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext doctor`: is this compute host ready for Arm instances?"""

import argparse
from typing import Any
from typing import TYPE_CHECKING

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command

if TYPE_CHECKING:
    from nova_arm_ext.cmd.checks import base


class Doctor(command.Command):
    """Check whether this host is ready for Arm instances.

    Prints one line per check, and what to do. It checks the installation, the
    configuration, Nova, libvirt, KVM, PCI devices, firmware and variable
    stores. Run it as root where nova-compute runs, in the same container and
    Python environment.
    """

    _epilog = ('It changes nothing, except with --define-test: then libvirt '
               'defines a few domains, which are undefined at once and never '
               'started. Exit status: 0 if all checks pass, 1 with warnings, '
               '2 with failures.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_connect(parser)
        arguments.add_config(parser)
        arguments.add_folders(parser)
        parser.add_argument(
            '--define-test', action='store_true',
            help='let libvirt define a domain of each of these kinds, after '
                 'the hooks, and undefine it: UEFI, Secure Boot, vIOMMU, '
                 'ARMv7, many root ports, all on virtio-mmio')
        parser.add_argument('--json', action='store_true',
                            help='print JSON, for scripts')
        arguments.add_redact(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext.cmd import checks
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd import redaction
        from nova_arm_ext.cmd.checks import base
        from nova_arm_ext.cmd.checks import canaries

        conf = reading.of_nova_compute(parsed_args)
        place = base.Surroundings(
            conf, host.uri_of(conf, parsed_args.connect),
            nvram=parsed_args.nvram_dir, instances=parsed_args.instances_dir,
            patience=parsed_args.timeout or base.PATIENCE)
        every = [*checks.CHECKS]
        if parsed_args.define_test:
            every.append(base.Check('define test', canaries.define_test))
        redacted = redaction.Redaction() if parsed_args.redact else str
        found = []
        for check in every:
            for finding in check.findings(place):
                found.append((check.name, finding))
                if not parsed_args.json:
                    self.app.stdout.write(redacted(line(check.name, finding)))
                    self.app.stdout.flush()
        if parsed_args.json:
            self.app.stdout.write(redacted(to_json(found)))
        return max(finding.status.exit_status for _, finding in found)


def line(name: str, finding: 'base.Finding') -> str:
    """One finding for people."""
    return f'{finding.status.value:15} {name}: {finding.sentence}\n'


def to_json(found: 'list[tuple[str, base.Finding]]') -> str:
    """All findings for programs."""
    import json
    worst = max(finding.status.exit_status for _, finding in found)
    return json.dumps({
        'status': ('ok', 'warning', 'failure')[worst],
        'checks': [{
            'check': name, 'status': finding.status.value,
            'text': finding.text, 'advice': finding.advice or None,
        } for name, finding in found],
    }, indent=2) + '\n'
