# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext audit`: the instances of this host and what hooks changed."""

import argparse
import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command

if TYPE_CHECKING:
    from nova_arm_ext import facts
    from nova_arm_ext import provenance
    from nova_arm_ext.cmd import guests
    from nova_arm_ext.domain.view import Domain
    from nova_arm_ext.pipeline.run import Pipeline

PATIENCE = 30.0

#: The values of the column Now.
UNCHANGED = 'unchanged'
ADJUSTED = 'would be adjusted'
NOT_ARM = 'not an Arm guest'
WITHOUT_SECURE_BOOT = ('runs without Secure Boot, which its flavor or image '
                       'requires')
UNKNOWN = 'unknown'

#: The values of the column Recorded; the third also names the version.
UNTOUCHED = 'untouched'
SAME = 'this version'
OTHER_VERSION = 'adjusted by another version'
OTHER_OPTIONS = 'this version, other options'

#: The values of the column Without.
CANNOT_START = 'cannot start'
DIFFERENT = 'starts, with other devices'
AS_IT_IS = 'starts as it is'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result for one instance.

    :param hooks: those that would change the domain XML now
    :param unread: what is asked for, but nobody reads
    :param without: what happens to it without the extension
    :param why: the reasons for that, or why it is unknown
    :param lacks: what it was to have and does not have
    """

    name: str
    uuid: str
    recorded: str
    now: str
    hooks: tuple[str, ...] = ()
    diff: str = ''
    unread: tuple[str, ...] = ()
    without: str = ''
    why: str = ''
    lacks: str = ''


class Audit(command.Lister):
    """List the instances on this host, and what the hooks would change now.

    The hooks run on the domain XML that libvirt has. What Nova itself would
    write differently at the next hard reboot is not predicted: "unchanged"
    means that the hooks would not change the XML that is defined now.
    """

    _epilog = ('Recorded: which version of nova-arm-ext adjusted the '
               'instance when it was last defined; "untouched" if none did. '
               'Now: what the hooks of this configuration would do. '
               'Unread: extra specs arm:* of its flavor that no enabled hook '
               'reads. The '
               'command connects to libvirt read-only and changes nothing.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        arguments.add_connect(parser)
        arguments.add_config(parser)
        shown = parser.add_mutually_exclusive_group()
        shown.add_argument(
            '--diff', action='store_true',
            help='print what the hooks would change, instead of the table')
        shown.add_argument(
            '--before-removal', action='store_true',
            help='say whether stock Nova could start each instance; this uses '
                 'what was recorded when it was last defined')
        arguments.add_redact(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        if not parsed_args.diff:
            return int(super().run(parsed_args))
        verdicts, redacted = self._judged(parsed_args)
        for verdict in verdicts:
            for line in to_diff(verdict):
                self.app.stdout.write(redacted(line) + '\n')
        return 0

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        from nova_arm_ext.cmd.forms import Known
        verdicts, redacted = self._judged(parsed_args)
        if parsed_args.before_removal:
            columns: tuple[str, ...] = ('Guest', 'UUID', 'Without', 'Why')
            rows: list[tuple[str | None, ...]] = [
                (one.name, one.uuid, one.without, one.why)
                for one in verdicts]
        else:
            columns = ('Guest', 'UUID', 'Recorded', 'Now', 'Unread')
            rows = [(one.name, one.uuid, one.recorded, in_words(one),
                     '; '.join(one.unread) or None)
                    for one in verdicts]
        return columns, [tuple(Known(text and redacted(text)) for text in row)
                         for row in rows]

    def _judged(self, parsed_args: argparse.Namespace
                ) -> tuple[list[Verdict], Any]:
        import importlib.metadata

        from nova_arm_ext import opts
        from nova_arm_ext import provenance
        from nova_arm_ext.cmd import guests
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import NAME
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd import redaction
        from nova_arm_ext.compute import schema
        from nova_arm_ext.pipeline.run import Pipeline

        conf = reading.of_nova_compute(parsed_args)
        hooks = Pipeline.load(conf, schema=schema.load, checks=opts.CHECKS)
        ours = provenance.Record(version=importlib.metadata.version(NAME),
                                 options=provenance.digest(hooks))
        uri = host.uri_of(conf, parsed_args.connect)
        found = guests.every(uri, parsed_args.timeout)
        known = host.ask(uri, parsed_args.timeout or PATIENCE)
        verdicts = [judge(guest, known, hooks, ours) for guest in found]
        redacted: Any = str
        if parsed_args.redact:
            redacted = redaction.Redaction(
                name for guest in found for name in names(guest))
        return verdicts, redacted


def judge(guest: 'guests.Guest', host: 'facts.Host',
          hooks: 'Pipeline', ours: 'provenance.Record') -> Verdict:
    """The result for one instance; its faults do not end the command.

    :param hooks: those of this configuration
    :param ours: the version and options that they would record
    """
    from nova_arm_ext import errors
    from nova_arm_ext import facts
    from nova_arm_ext import provenance
    from nova_arm_ext.cmd import unread
    from nova_arm_ext.cmd.failure import one_line
    from nova_arm_ext.domain import view

    try:
        domain = view.Domain.parse(guest.document)
        record = provenance.read(domain)
        verdict = Verdict(name=guest.name, uuid=guest.uuid, now=UNCHANGED,
                          recorded=recorded_by(record, ours))
        if not domain.is_arm:
            return dataclasses.replace(verdict, now=NOT_ARM, without=AS_IT_IS,
                                       why=NOT_ARM)
        without, why = without_us(record, domain)
        verdict = dataclasses.replace(
            verdict, without=without, why=why,
            unread=tuple(map(one_line, unread.of_guest(
                facts.Guest(extra_specs=domain.extra_specs), hooks.hooks))))
    except errors.InvalidDocument as e:
        return Verdict(name=guest.name, uuid=guest.uuid, recorded=UNKNOWN,
                       now=UNKNOWN, without=UNKNOWN, why=one_line(str(e)))
    try:
        # the instance exists and keeps what it has
        result = hooks.run(guest.document, facts.Facts(
            host=host, guest=facts.Guest(
                extra_specs=domain.extra_specs, previous=guest.live)),
            existing=True, record=True)
    except errors.ArmExtError as e:
        return dataclasses.replace(
            verdict, now=f'{UNKNOWN}: {one_line(str(e))}')
    changing = tuple(dict.fromkeys(
        report.hook for report in result.reports if report.changed))
    if lacks_secure_boot(domain, host):
        verdict = dataclasses.replace(verdict, lacks=WITHOUT_SECURE_BOOT)
    if not changing:
        return verdict
    return dataclasses.replace(
        verdict, now=ADJUSTED, hooks=changing, diff='\n'.join(
            report.diff() for report in result.reports if report.changed))


def lacks_secure_boot(domain: 'Domain', host: 'facts.Host') -> bool:
    """Whether an instance that has to have Secure Boot does not have it."""
    from nova_arm_ext.domain import firmware
    if 'required' not in ((domain.extra_specs or {}).get('os:secure_boot'),
                          domain.image_properties.get('os_secure_boot')):
        return False
    has = firmware.Os.of(domain)
    one = host.firmware_at(has.loader)
    return (one is not None and not one.secure_boot) or (
        has.feature('secure-boot') is False)


def recorded_by(record: 'provenance.Record | None',
                ours: 'provenance.Record') -> str:
    """Which version adjusted an instance when it was last defined."""
    from nova_arm_ext.cmd.failure import one_line
    if record is None:
        return UNTOUCHED
    if record.version != ours.version:
        return one_line(f'{OTHER_VERSION} ({record.version})')
    return SAME if record.options == ours.options else OTHER_OPTIONS


def without_us(record: 'provenance.Record | None',
               domain: 'Domain') -> tuple[str, str]:
    """Whether stock Nova can start the instance, and why."""
    from nova_arm_ext.cmd.failure import one_line
    from nova_arm_ext.domain import firmware
    if record is None:
        return AS_IT_IS, 'nova-arm-ext did not adjust it'
    reasons = [(hook.name, reason) for hook in record.hooks
               for reason in hook.reasons]
    # Nova 33 and newer keep the loader that the XML names
    # (_copy_guest_firmware_elements); older releases find one themselves.
    has_loader = firmware.Os.of(domain).names_uefi
    essential = [(name, reason) for name, reason in reasons
                 if reason.essential and not (
                     has_loader and reason.place.startswith('os/loader'))]
    if not reasons:
        return AS_IT_IS, 'no hook had anything to change'
    return (CANNOT_START if essential else DIFFERENT,
            one_line('; '.join(f'{name}: {reason.place}: {reason.text}'
                               for name, reason in essential or reasons)))


def in_words(verdict: Verdict) -> str:
    """What the hooks would do now, and which of them."""
    said = verdict.now
    if said == ADJUSTED:
        said = f'{ADJUSTED} by {", ".join(verdict.hooks)}'
    return f'{said}; {verdict.lacks}' if verdict.lacks else said


def to_diff(verdict: Verdict) -> Iterator[str]:
    """What the hooks would change, as lines."""
    from nova_arm_ext.cmd.failure import printable
    yield printable(f'# instance {verdict.name} ({verdict.uuid}): '
                    f'{in_words(verdict)}')
    for line in verdict.unread:
        yield printable(f'# {line}')
    for line in verdict.diff.splitlines():
        yield printable(line)


def names(guest: 'guests.Guest') -> list[str]:
    """The names in the domain XML."""
    from nova_arm_ext import errors
    from nova_arm_ext.domain import view
    try:
        return view.Domain.parse(guest.document).names
    except errors.InvalidDocument:
        return [guest.name]
