# SPDX-License-Identifier: Apache-2.0
"""One document's way through the hooks.

::

    document ── Arm? ── previous ── hook ── hook ── ... ── checks ── document
                 │ no
                 └──────────────────────────────── the same string
"""

import functools
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from lxml import etree
from oslo_config import cfg
from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext.domain import previous as places
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base
from nova_arm_ext.options import Check
from nova_arm_ext.pipeline import guard
from nova_arm_ext.pipeline import plugins
from nova_arm_ext.pipeline import validation
from nova_arm_ext.pipeline.reports import Finish
from nova_arm_ext.pipeline.reports import HookReport
from nova_arm_ext.pipeline.reports import Result

LOG = logging.getLogger(__name__)

_Step = Callable[[Domain, base.Report], None]


class _SkipHook(Exception):
    """The hooks have to run again without this one.

    :param refused: it refused what an existing guest asks for, and the guest
        keeps what it had
    """

    def __init__(self, hook: str, cause: str, *,
                 refused: bool = False) -> None:
        self.hook = hook
        self.cause = cause
        self.refused = refused
        super().__init__(hook, cause)


class Pipeline:
    """The enabled hooks with their options, ready for any number of guests.

    It keeps nothing between two documents, and several threads may use it at
    once.
    """

    def __init__(self, hooks: Iterable[tuple[str, base.Hook]], *,
                 on_hook_failure: str = 'fail', hook_warn_ms: int = 0,
                 check_schema: str = 'off',
                 validate: validation.Validator | None = None) -> None:
        """
        :param hooks: names and hooks in the order in which they run
        :param validate: the schema check, where there is a schema
        """
        self._hooks = tuple(plugins.Enabled(*named) for named in hooks)
        self._on_hook_failure = on_hook_failure
        self._hook_warn_ms = hook_warn_ms
        self._check_schema = check_schema
        self._validate = validate if check_schema != 'off' else None

    @classmethod
    def load(cls, conf: cfg.ConfigOpts, *,
             schema: Callable[[str], validation.Validator | None] | None
             = None, checks: Iterable[Check] = ()) -> 'Pipeline':
        """Make the pipeline that the configuration asks for.

        :param conf: parsed configuration; the options are registered here
        :param schema: makes the schema check from the schema's path
        :param checks: further checks, whose faults go into the same error
        :raises ConfigurationError: with every fault that was found
        """
        hooks, values = plugins.load(conf, checks)
        wanted = schema is not None and values.check_schema != 'off'
        return cls(
            hooks,
            on_hook_failure=values.on_hook_failure,
            hook_warn_ms=values.hook_warn_ms,
            check_schema=values.check_schema,
            validate=schema(values.schema) if schema and wanted else None)

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of the enabled hooks, in order."""
        return tuple(enabled.name for enabled in self._hooks)

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The options of each enabled hook, in the order of the hooks."""
        return {enabled.name: dict(vars(enabled.hook.options))
                for enabled in self._hooks}

    def run(self, xml: str, facts: Facts | Callable[[], Facts], *,
            existing: bool | None = None, previous: Domain | None = None,
            record: bool = False,
            finish: Finish | None = None) -> Result:
        """Adjust one document.

        :param xml: the domain document
        :param facts: what is known about host and guest, or a function that
            returns it, which is called only for Arm guests
        :param existing: whether the guest exists; where a hook refuses, the
            guest then keeps what it had, with a WARNING. By default it exists
            if the facts have a previous document.
        :param previous: the previous document of the facts, if it has been
            parsed already; it is only read
        :param record: keep the document before and after each hook, so that
            the reports can show diffs; this takes as long as the hooks
        :param finish: called with the document of an Arm guest and the
            reports at the end, for example to write down what was done
        :returns: the document for libvirt with a report of each hook; the
            same string if the guest is not Arm or nothing had to be changed
        :raises InvalidDocument: when this is no domain document
        :raises Refused: when a new guest cannot have what it asks for
        :raises HookFailed: when a hook crashed or broke its contract
        :raises InvalidResult: when the schema check is to fail
        """
        started = time.perf_counter()
        domain = Domain.parse(xml)
        if not domain.is_arm:
            return Result(xml=xml)
        if not isinstance(facts, Facts):
            facts = facts()
        if existing is None:
            existing = facts.guest.previous is not None
        domain.previous = previous or facts.guest.previous
        before = guard.Fingerprint.of(domain)
        skipped = self._skipped_by_flavor(domain, facts)
        while True:
            try:
                reports = self._run_all(domain, facts, existing, skipped,
                                        record)
                if not guard.is_intact(domain, before):
                    again = Domain.parse(xml, facts.guest.previous)
                    self._blame(before, domain, self._run_all(
                        again, facts, existing, skipped, record=True))
                break
            except _SkipHook as e:
                # hooks change the document in place, so all of them start
                # again with a fresh one
                skipped[e.hook] = e
                domain = Domain.parse(xml, facts.guest.previous)
                _log_skipped(domain, e)
        if finish is not None:
            finish(domain, reports)
        text = domain.to_xml()
        if text == xml or (not any(report.changed for report in reports)
                           and text == Domain.parse(xml).to_xml()):
            text = xml
        else:
            self._check(xml, domain)
        result = Result(xml=text, reports=tuple(reports),
                        seconds=time.perf_counter() - started)
        _log_result(domain, result)
        return result

    def _skipped_by_flavor(self, domain: Domain,
                           facts: Facts) -> dict[str, _SkipHook]:
        """The hooks that the flavor skips for this guest, and why.

        Names that are not enabled here may be enabled on other hosts.
        """
        asked = base.extra_specs(domain, facts).get(plugins.SKIP_HOOKS, '')
        names = {name.strip() for name in asked.split(',')}
        return {name: _SkipHook(
                    name, f'the extra spec {plugins.SKIP_HOOKS} of the flavor '
                          f'skips it for this instance')
                for name in self.hooks if name in names}

    def _run_all(self, domain: Domain, facts: Facts, existing: bool,
                 skipped: Mapping[str, _SkipHook], record: bool
                 ) -> list[HookReport]:
        """Run all hooks except those that are skipped.

        Of those that refused an existing guest, their ``keep`` runs.

        :raises _SkipHook: when another one has to be skipped
        """
        steps: list[tuple[str, _Step]] = [
            (enabled.name, functools.partial(
                self._run_hook, enabled, facts, existing,
                enabled.name in skipped))
            for enabled in self._hooks]
        if domain.previous is not None:
            # again at the end, for what the hooks have added
            device_places = _Places()
            steps = [(plugins.PREVIOUS, device_places.restore), *steps,
                     (plugins.PREVIOUS, device_places.restore_again)]
        reports = []
        before = domain.to_xml() if record else None
        for name, step in steps:
            report = HookReport(name, before)
            reports.append(report)
            if name in skipped:
                report.failure = skipped[name].cause
                if not skipped[name].refused:
                    report.after = before
                    continue
            started = time.perf_counter()
            step(domain, report)
            report.seconds = time.perf_counter() - started
            if record:
                before = report.after = domain.to_xml()
            if 0 < self._hook_warn_ms < report.seconds * 1000:
                LOG.warning(
                    '[instance: %s] Hook %s took %d ms, more than [arm] '
                    'hook_warn_ms = %d', domain.uuid, name,
                    report.seconds * 1000, self._hook_warn_ms)
        return reports

    def _run_hook(self, enabled: plugins.Enabled, facts: Facts,
                  existing: bool, keep: bool, domain: Domain,
                  report: base.Report) -> None:
        hook = enabled.hook
        try:
            if hook.applies_to(domain, facts):
                (hook.keep if keep else hook.adjust)(domain, facts, report)
                guard.check_root(domain)
        except errors.Refused as e:
            if not existing:
                raise
            raise _SkipHook(enabled.name, str(e), refused=not keep) from e
        except Exception as e:
            # our own errors name a place and a value of the document
            cause = (str(e) if isinstance(e, errors.ArmExtError)
                     else f'{type(e).__name__}: {e}')
            self._fail(enabled.name, cause, e)

    def _fail(self, name: str, cause: str,
              error: Exception | None = None) -> None:
        """Fail the guest's request, or have the hook skipped."""
        required = any(enabled.hook.required for enabled in self._hooks
                       if enabled.name == name)
        if self._on_hook_failure == 'fail' or required:
            raise errors.HookFailed(name, cause) from error
        raise _SkipHook(name, cause) from error

    def _blame(self, before: guard.Fingerprint, domain: Domain,
               again: Sequence[HookReport]) -> None:
        """Fail the first hook that changed what it does not declare."""
        found = guard.blame(before, again, domain, {
            enabled.name: enabled.hook.changes for enabled in self._hooks})
        if found is not None:
            self._fail(*found)

    def _check(self, xml: str, domain: Domain) -> None:
        """Validate against libvirt's schema, if that is wanted."""
        wrong = (None if self._validate is None else
                 validation.made_invalid(xml, domain, self._validate))
        if wrong is None:
            return
        message = (f"the hooks' result does not match libvirt's schema: "
                   f'{wrong}')
        if self._check_schema == 'fail':
            raise errors.InvalidResult(message)
        LOG.warning('[instance: %s] %s', domain.uuid, message)


class _Places:
    """The places of an existing guest's devices: before the hooks, and after
    them for what they have added or changed."""

    def __init__(self) -> None:
        self._restored: bytes | None = None

    def restore(self, domain: Domain, report: base.Report) -> None:
        counts = places.restore_places(domain)
        if counts:
            report.because('devices', 'as the guest saw them before: '
                           + ', '.join(f'{count} {name}'
                                       for name, count in counts.items()))
        self._restored = _devices(domain)

    def restore_again(self, domain: Domain, report: base.Report) -> None:
        if _devices(domain) != self._restored:
            self.restore(domain, report)
        if places.keep_a_port_free(domain):
            report.because(
                'devices/controller', 'one root port free for hotplug, which '
                'libvirt adds only where no port is named')


def _devices(domain: Domain) -> bytes | None:
    devices = domain.part('devices')
    return None if devices is None else etree.tostring(devices)


def _log_skipped(domain: Domain, skip: _SkipHook) -> None:
    if skip.refused:
        LOG.warning(
            '[instance: %s] Hook %s refuses what this instance asks for, and '
            'the instance keeps what it had: %s', domain.uuid, skip.hook,
            skip.cause)
    else:
        LOG.error(
            '[instance: %s] Hook %s failed and is skipped for this instance: '
            '%s', domain.uuid, skip.hook, skip.cause,
            exc_info=skip.__cause__)


def _log_result(domain: Domain, result: Result) -> None:
    for report in result.reports:
        for text in report.warnings:
            LOG.warning('[instance: %s] Hook %s: %s', domain.uuid,
                        report.hook, text)
    if not domain.is_virt:
        LOG.info('[instance: %s] %s', domain.uuid, domain.other_machine)
    changed = dict.fromkeys(r.hook for r in result.reports if r.changed)
    LOG.info('[instance: %s] Domain XML adjusted by %s in %.1f ms',
             domain.uuid, ', '.join(changed) or 'no hook',
             result.seconds * 1000)
    if not LOG.isEnabledFor(logging.DEBUG):
        return
    for report in result.reports:
        if report.changed:
            LOG.debug('[instance: %s] Hook %s:\n%s\n%s', domain.uuid,
                      report.hook,
                      '\n'.join(f'# {place}: {reason}'
                                for place, reason in report.reasons),
                      report.diff())
