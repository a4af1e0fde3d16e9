# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext preview`: what the hooks change in domain XML."""

import argparse
import dataclasses
import json
import logging
from collections.abc import Iterator
from typing import Any
from typing import TextIO
from typing import TYPE_CHECKING

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import colour
from nova_arm_ext.cmd import command
from nova_arm_ext.cmd import forms

if TYPE_CHECKING:
    from nova_arm_ext import facts
    from nova_arm_ext.domain.view import Domain
    from nova_arm_ext.pipeline.reports import Result

#: Seconds that the local libvirt may take to answer.
PATIENCE = 3.0

CHANGED = 1


class Preview(command.Command):
    """Show what the hooks would change in domain XML, and why.

    Runs the same pipeline as nova-compute, without Nova, and changes nothing.
    """

    _epilog = (
        'Extra specs of the flavor come from the facts, or else from the '
        "metadata of the domain XML, where Nova 32 and newer write them. "
        'Image properties (arm_*) come only from the facts, as '
        'guest.image_properties, because Nova does not write them into the '
        'domain XML. '
        'Without --facts, the command asks libvirt, read-only. If it does '
        'not answer within 3 seconds (or --timeout), the host is unknown; the '
        'output says so. '
        'Exit status: 0; 1 with --exit-code if something changes; 2 with '
        'one line on standard error if there is an error.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'domain', metavar='DOMAIN.xml', nargs='?', default='-',
            help='the domain XML, as Nova generates it or "virsh dumpxml '
                 '--inactive" prints it (default: -, standard input)')
        parser.add_argument(
            '--facts', metavar='FILE',
            help='facts about host and instance as JSON, in the form that '
                 '"nova-arm-ext facts" prints; values that are not in it '
                 'are unknown, and libvirt is not asked')
        arguments.add_config(parser)
        arguments.add_connect(parser)
        forms.add(
            parser, 'diff', 'xml', default='diff',
            text='; diff: what each hook changes and why, in colour on a '
                 'terminal unless $NO_COLOR is set; xml: only the resulting '
                 'XML; json and yaml: the resulting XML, and the reasons and '
                 'the diff of each hook')
        parser.add_argument(
            '--timings', action='store_true',
            help='add the time that each hook took, in milliseconds, to json '
                 'and yaml')
        parser.add_argument(
            '--exit-code', action='store_true',
            help='exit with 1 if the XML would change, as git diff does')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import errors
        from nova_arm_ext.cmd import failure
        from nova_arm_ext.cmd import host
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd import unread
        from nova_arm_ext.compute import schema
        from nova_arm_ext.domain import view
        from nova_arm_ext.pipeline.run import Pipeline

        if parsed_args.facts == parsed_args.domain == reading.STDIN:
            raise failure.Failure(
                'domain XML and facts cannot both come from standard input')
        document = reading.read(parsed_args.domain, view.MAX_BYTES,
                                'domain XML', self.app.stderr)
        try:
            domain = view.Domain.parse(document)
        except errors.InvalidDocument as e:
            raise failure.Failure(
                f'{reading.name_of(parsed_args.domain)}: {e}') from e
        conf = reading.of_nova_compute(parsed_args)
        known = _Facts(self.app.stderr, parsed_args.facts, domain,
                       host.uri_of(conf, parsed_args.connect),
                       parsed_args.timeout or PATIENCE)
        logged = _Logged()
        with logged:
            hooks = Pipeline.load(conf, schema=schema.load)
            before = _text(document, domain)
            result = hooks.run(before, known, record=True)
        preview = _Result(
            document=document, domain=domain, result=result,
            changed=result.xml != before, facts=known,
            unread=(*known.unread, *unread.of_guest(
                known.known.guest, hooks.hooks)),
            logged=tuple(logged.lines))
        form = parsed_args.formatter
        if form == 'xml':
            self._write_bytes(preview.to_xml())
        elif form == 'diff':
            self._write_diff(preview)
        else:
            self.app.stdout.write(forms.dump(
                form, preview.to_object(timings=parsed_args.timings)))
        return CHANGED if parsed_args.exit_code and preview.changed else 0

    def _write_bytes(self, data: bytes) -> None:
        # XML has its own encoding, whatever the terminal's is
        self.app.stdout.flush()
        self.app.stdout.buffer.write(data)

    def _write_diff(self, preview: '_Result') -> None:
        from nova_arm_ext.cmd import failure
        stdout = self.app.stdout
        if stdout.isatty():
            colours = colour.wanted(stdout)
            for line in preview.to_diff():
                shown = failure.printable(line.expandtabs())
                stdout.write((_coloured(shown) if colours else shown) + '\n')
        else:
            self._write_bytes(''.join(
                f'{line}\n' for line in preview.to_diff()).encode())


class _Facts:
    """The facts for one preview, and the origin of those about the host."""

    def __init__(self, stderr: TextIO, file: str | None, domain: 'Domain',
                 uri: str, seconds: float) -> None:
        """
        :param stderr: where a user at a terminal is told what to type
        :param file: the facts file; None to ask libvirt when facts are needed
        :param domain: has the extra specs that count if the file has none
        :param uri: the libvirt to ask
        :param seconds: how long to wait for its answer
        :raises Failure: when the file cannot be used
        """
        from nova_arm_ext import errors
        from nova_arm_ext import facts
        from nova_arm_ext.cmd import failure
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd import unread
        from nova_arm_ext.domain import view

        self._file = file
        self._domain = domain
        self._uri = uri
        self._seconds = seconds
        self.known = facts.Facts()
        self.origin = 'not needed'
        self.unread: list[str] = []
        if file is not None:
            name = reading.name_of(file)
            try:
                # twice: it can hold the previous XML
                text = reading.read(file, 2 * view.MAX_BYTES, 'facts (JSON)',
                                    stderr)
                self.known = facts.Facts.from_json(text)
                self.unread = unread.of_facts(text)
            except errors.InvalidFacts as e:
                raise failure.Failure(f'{name}: {e}') from e
            self.origin = f'from {name}'

    def __call__(self) -> 'facts.Facts':
        if self._file is None:
            self._ask()
        if self.known.guest.extra_specs is None:
            self.known = dataclasses.replace(
                self.known, guest=dataclasses.replace(
                    self.known.guest, extra_specs=self._domain.extra_specs))
        return self.known

    def _ask(self) -> None:
        from nova_arm_ext.cmd import failure
        from nova_arm_ext.cmd import host
        try:
            self.known = dataclasses.replace(
                self.known, host=host.ask(self._uri, self._seconds))
            self.origin = f'from libvirt at {self._uri}'
        except failure.Failure as e:
            # not an error: hooks work with an unknown host
            self.origin = f'unknown, because {e}'


class _Logged(logging.Handler):
    """Collects what nova-compute would log as a WARNING or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        from nova_arm_ext.cmd import failure
        self.lines.append(failure.one_line(
            f'{record.levelname} {record.getMessage()}'))

    def __enter__(self) -> '_Logged':
        logging.getLogger('nova_arm_ext').addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger('nova_arm_ext').removeHandler(self)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """The result in each format."""

    document: bytes
    domain: 'Domain'
    result: 'Result'
    changed: bool
    facts: _Facts
    unread: tuple[str, ...]
    logged: tuple[str, ...]

    def to_xml(self) -> bytes:
        """The resulting XML; the same bytes if nothing changed."""
        if not self.changed:
            return self.document
        return self.result.xml.encode()

    def to_object(self, *, timings: bool) -> dict[str, Any]:
        """Everything, for programs.

        :param timings: also how long each hook took, which is never the same
        """
        return {
            'changed': self.changed,
            'facts': json.loads(self.facts.known.to_json()),
            'facts_origin': self.facts.origin,
            'hooks': [{
                'name': report.hook,
                'changed': report.changed,
                'reasons': [{'place': place, 'reason': reason}
                            for place, reason in report.reasons],
                'diff': report.diff(),
                'failure': report.failure,
                **({'milliseconds': round(report.seconds * 1000, 3)}
                   if timings else {}),
            } for report in self.result.reports],
            'unread': list(self.unread),
            'logged': list(self.logged),
            'xml': self.result.xml,
        }

    def to_diff(self) -> Iterator[str]:
        """Each hook's reasons and its change, as lines."""
        from nova_arm_ext.cmd.failure import one_line
        domain = self.domain
        yield one_line(f'# domain {domain.name}, {domain.arch}')
        if domain.arch is None:
            yield ('# it names no architecture (os/type/@arch), so it is not '
                   'an Arm guest: nothing changes')
            return
        if not domain.is_arm:
            yield '# not an Arm guest: nothing changes'
            return
        if not domain.is_virt:
            yield one_line(f'# {domain.other_machine}')
        yield one_line(f'# host facts: {self.facts.origin}')
        for line in self.unread:
            yield one_line(f'# {line}')
        for line in self.logged:
            yield f'# nova-compute would log: {line}'
        for report in self.result.reports:
            yield '#'
            if report.failure is not None:
                said = f'not applied: {report.failure}'
            elif report.changed:
                said = 'changes the XML'
            else:
                said = 'changes nothing'
            yield one_line(f'# {report.hook}: {said}')
            for place, reason in report.reasons:
                yield f'#   {one_line(place)}: {one_line(reason)}'
            yield from report.diff().splitlines()


def _text(document: bytes, domain: 'Domain') -> str:
    """The XML as a string, the form in which Nova passes it."""
    encoding = domain.element.getroottree().docinfo.encoding or 'utf-8'
    try:
        return document.decode(encoding)
    except (LookupError, UnicodeDecodeError):
        # libxml2 knows encodings that Python does not
        return domain.to_xml()


def _coloured(line: str) -> str:
    for start, its in (('#', colour.BOLD), ('---', colour.BOLD),
                       ('+++', colour.BOLD), ('@@', colour.CYAN),
                       ('-', colour.RED), ('+', colour.GREEN)):
        if line.startswith(start):
            return colour.of(line, its)
    return line
