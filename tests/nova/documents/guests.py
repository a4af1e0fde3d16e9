# SPDX-License-Identifier: Apache-2.0
"""The installed release's domain XML, the pipeline's result, and libvirt's
verdict on both; each is computed once per process, when it is needed."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import subprocess
import sys
import tempfile
import typing

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import provenance
from nova_arm_ext.pipeline.reports import Finish
from nova_arm_ext.pipeline.run import Pipeline
from tests.nova.documents import judge
from tests.nova.documents import kinds

_TREE = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Guest:
    """One kind on one host, as Nova would pass it."""

    host: str
    kind: kinds.Kind
    document: str
    facts: facts.Facts

    def __str__(self) -> str:
        return f'{self.host} {self.kind.name}'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Adjusted:
    """The result of the pipeline for a guest: domain XML, or a refusal."""

    xml: str | None = None
    refusal: str | None = None


def why_not() -> str | None:
    """Why this process cannot judge domain XML, or None."""
    for name in ('nova', 'libvirt-python', 'gabbi'):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return (f'{name} is not installed here; tools/environment makes '
                    f'environments with all of it')
    for emulator in ('aarch64', 'arm', 'x86_64'):
        if not pathlib.Path(f'/usr/bin/qemu-system-{emulator}').exists():
            return f'qemu-system-{emulator} is not installed (bindep.txt)'
    if not pathlib.Path('/usr/bin/swtpm').exists():
        return 'swtpm is not installed (bindep.txt)'
    return None


class Judge(typing.Protocol):
    """What judges domain XML, with the facts of its host as JSON values."""

    host: dict[str, typing.Any]

    def verdict(self, document: str) -> judge.Verdict:
        """The verdict on domain XML."""


class Release:
    """All guests of the installed Nova, with a judge.

    :param stack: ends the judge
    :param asked: another judge than the one of this machine's libvirt, whose
        end is its maker's concern
    """

    def __init__(self, stack: contextlib.ExitStack,
                 asked: Judge | None = None) -> None:
        self._judge: Judge = (
            asked or stack.enter_context(judge.JudgeProcess()))
        self._directory = pathlib.Path(
            stack.enter_context(tempfile.TemporaryDirectory()))
        self._verdicts: dict[str, judge.Verdict] = {}
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        self._pipeline = Pipeline.load(conf)
        #: Nova's own refusals, by host and kind.
        self.refused_by_nova: dict[tuple[str, str], str] = {}

    @functools.cached_property
    def number(self) -> int:
        return int(importlib.metadata.version('nova').split('.')[0])

    @functools.cached_property
    def guests(self) -> tuple[Guest, ...]:
        """Every guest for which Nova generates domain XML."""
        place = self._directory / 'new'
        index = self._generate(place)
        by_name = {kind.name: kind
                   for kind in kinds.ARM_KINDS + kinds.X86_KINDS}
        found = []
        for entry in index['guests']:
            host, name = entry['host'], entry['kind']
            if entry['refusal']:
                self.refused_by_nova[host, name] = entry['refusal']
                continue
            known = json.loads((place / host / f'{name}.json').read_text())
            known['host'] = self._judge.host | known['host'] | {
                'firmware': self._judge.host['firmware']}
            found.append(Guest(
                host=host, kind=by_name[name],
                document=(place / host / f'{name}.xml').read_text(),
                facts=facts.Facts.from_json(json.dumps(known))))
        return tuple(found)

    def _generate(self, place: pathlib.Path,
                  *options: str) -> dict[str, typing.Any]:
        place.mkdir()
        host = self._judge.host
        done = subprocess.run(
            (sys.executable, '-W', 'ignore',
             '-m', 'tests.nova.documents.generate',
             '--libvirt', host['libvirt_version'],
             '--qemu', host['qemu_version'], *options, str(place)),
            cwd=_TREE, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:])
        return json.loads((place / 'index.json').read_text())

    @functools.cached_property
    def redefined(self) -> dict[Guest, str]:
        """What Nova generates when it redefines the adjusted guests."""
        if self.number < 33:
            # They take no notice of what the guest was.
            return {guest: guest.document for guest in self.guests}
        previous = self._directory / 'previous'
        for guest in self.guests:
            result = self.adjusted(guest)
            stored = result.xml and self.verdict(result.xml).stored
            if stored:
                (previous / guest.host).mkdir(parents=True, exist_ok=True)
                (previous / guest.host / f'{guest.kind.name}.xml').write_text(
                    stored)
        place = self._directory / 'again'
        self._generate(place, '--previous', str(previous))
        return {guest: (place / guest.host / f'{guest.kind.name}.xml'
                        ).read_text() for guest in self.guests}

    def on(self, host: str) -> list[Guest]:
        return [guest for guest in self.guests if guest.host == host]

    @functools.cache  # noqa: B019  one Release a process
    def adjusted(self, guest: Guest) -> Adjusted:
        return self.run(guest.document, guest.facts)

    @functools.cache  # noqa: B019  one Release a process
    def recorded(self, guest: Guest) -> str | None:
        """The adjusted domain XML with the driver's record; None if the guest
        is refused."""
        ours = provenance.Record(
            version=importlib.metadata.version('nova-arm-ext'),
            options=provenance.digest(self._pipeline))
        return self.run(
            guest.document, guest.facts,
            lambda domain, reports: provenance.write(
                domain, ours.of(reports))).xml

    def run(self, document: str, known: facts.Facts,
            finish: Finish | None = None) -> Adjusted:
        try:
            return Adjusted(xml=self._pipeline.run(document, known,
                                                   finish=finish).xml)
        except errors.Refused as e:
            return Adjusted(refusal=str(e))

    def verdict(self, document: str) -> judge.Verdict:
        if document not in self._verdicts:
            self._verdicts[document] = self._judge.verdict(document)
        return self._verdicts[document]

    def counts(self) -> dict[str, typing.Any]:
        """How many kinds libvirt accepts before and after the pipeline."""
        by_host = {}
        for host in kinds.EVERY_HOST:
            guests = self.on(host)
            results = [self.adjusted(guest) for guest in guests]
            by_host[host] = {
                'kinds': len(guests),
                'refused_by_nova': sum(
                    place == host for place, _ in self.refused_by_nova),
                'defined_as_nova_writes_them': sum(
                    not self.verdict(guest.document).define
                    for guest in guests),
                'defined_after_the_pipeline': sum(
                    result.xml is not None
                    and not self.verdict(result.xml).define
                    for result in results),
                'refused_by_purpose': sum(
                    result.xml is None for result in results),
            }
        return {'nova': importlib.metadata.version('nova'),
                'libvirt': self._judge.host['libvirt_version'],
                'hosts': by_host}


def main() -> None:
    """Print the counts as JSON."""
    with contextlib.ExitStack() as stack:
        print(json.dumps(Release(stack).counts(), indent=2))


if __name__ == '__main__':
    main()
