# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext explain`: what each hook changed in an instance, and why."""

import argparse
from collections.abc import Iterator
from typing import Any
from typing import TYPE_CHECKING

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command
from nova_arm_ext.cmd import forms

if TYPE_CHECKING:
    from nova_arm_ext import provenance
    from nova_arm_ext.domain.view import Domain


class Explain(command.Command):
    """Show what each hook changed when an instance was last defined, and why.

    The command reads the record that nova-compute writes into the domain's
    metadata; it needs no log.
    """

    _epilog = ('The command connects to libvirt read-only. An instance that '
               'stock Nova defined last, or that is not an Arm guest, has '
               'no record; the output says so.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'guest', metavar='INSTANCE',
            help="the server's ID or name, or the name or ID of the libvirt "
                 "domain")
        arguments.add_connect(parser)
        arguments.add_config(parser)
        forms.add(parser, forms.TABLE)
        arguments.add_redact(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import provenance
        from nova_arm_ext.cmd import guests
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd import redaction
        from nova_arm_ext.domain import view

        uri = host.uri_of(reading.of_nova_compute(parsed_args),
                          parsed_args.connect)
        guest = guests.one(uri, parsed_args.guest, parsed_args.timeout)
        domain = view.Domain.parse(guest.live)
        record = provenance.read(domain)
        form = parsed_args.formatter
        text = (''.join(f'{line}\n' for line in to_text(domain, record))
                if form == forms.TABLE
                else forms.dump(form, to_object(domain, record)))
        if parsed_args.redact:
            text = redaction.Redaction(domain.names)(text)
        self.app.stdout.write(text)
        return 0


def to_text(domain: 'Domain',
            record: 'provenance.Record | None') -> Iterator[str]:
    """The record for people, as lines."""
    from nova_arm_ext.cmd.failure import one_line
    yield one_line(f'instance {domain.name} ({domain.uuid}), {domain.arch}')
    if not domain.is_arm:
        yield 'not an Arm guest: nova-arm-ext does not change it'
        return
    if record is None:
        yield 'not adjusted: nova-arm-ext did not define it'
        return
    yield one_line(f'adjusted by nova-arm-ext {record.version}, options '
                   f'{record.options}')
    for hook in record.hooks:
        if hook.failure is not None:
            said = f'not applied: {hook.failure}'
        elif hook.reasons:
            said = 'changed the domain XML'
        else:
            said = 'changed nothing'
        yield ''
        yield one_line(f'{hook.name}: {said}')
        for reason in hook.reasons:
            yield '  ' + one_line(f'{reason.place}: {reason.text}')


def to_object(domain: 'Domain',
              record: 'provenance.Record | None') -> dict[str, Any]:
    """The record for programs."""
    import dataclasses
    import json
    # lists, which YAML has, and not tuples
    return dict(json.loads(json.dumps({
        'guest': {'name': domain.name, 'uuid': domain.uuid,
                  'arch': domain.arch},
        'record': record and dataclasses.asdict(record)})))
