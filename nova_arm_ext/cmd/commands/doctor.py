# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext doctor`: is this compute host ready for Arm instances?"""

import argparse
from typing import Any
from typing import TYPE_CHECKING

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import colour
from nova_arm_ext.cmd import command
from nova_arm_ext.cmd import forms

if TYPE_CHECKING:
    from nova_arm_ext.cmd.checks import base

_COLOURS = {'OK': colour.GREEN, 'NOT_APPLICABLE': colour.BOLD,
            'WARNING': colour.YELLOW, 'FAILURE': colour.RED}


class Doctor(command.Command):
    """Check whether this host is ready for Arm instances.

    Prints one line per check, and what to do. It checks the installation, the
    configuration, Nova, libvirt, KVM, PCI devices, firmware and variable
    stores. Run it as root where nova-compute runs, in the same container and
    Python environment.
    """

    _epilog = ('The last line counts the results. The command changes '
               'nothing, except with --define-test: then libvirt defines a '
               'few domains, which are undefined at once and never started. '
               'Exit status: 0 if all checks pass, 1 with warnings, '
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
        forms.add(parser, forms.TABLE)
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
        stdout, form = self.app.stdout, parsed_args.formatter
        colours = colour.wanted(stdout)
        found = []
        for check in every:
            for finding in check.findings(place):
                found.append((check.name, finding))
                if form == forms.TABLE:
                    stdout.write(redacted(line(check.name, finding,
                                               colours=colours)))
                    stdout.flush()     # the next one may take long
        stdout.write(count(found) if form == forms.TABLE else redacted(
            forms.dump(form, to_object(found))))
        return max(finding.status.exit_status for _, finding in found)


def line(name: str, finding: 'base.Finding', *,
         colours: bool = False) -> str:
    """One finding for people."""
    status = f'{finding.status.value:15}'
    if colours:
        status = colour.of(status, _COLOURS[finding.status.name])
    return f'{status} {name}: {finding.sentence}\n'


def count(found: 'list[tuple[str, base.Finding]]') -> str:
    """The last line for people: how many findings have which status."""
    from nova_arm_ext.cmd.checks.base import Status
    statuses = [finding.status for _, finding in found]
    return f'{len(found)} results: ' + ', '.join(
        f'{statuses.count(status)} {status.value}' for status in Status
        if status in statuses) + '\n'


def to_object(found: 'list[tuple[str, base.Finding]]') -> dict[str, Any]:
    """All findings for programs."""
    worst = max(finding.status.exit_status for _, finding in found)
    return {
        'status': ('ok', 'warning', 'failure')[worst],
        'checks': [{
            'check': name, 'status': finding.status.value,
            'text': finding.text, 'advice': finding.advice or None,
        } for name, finding in found],
    }
