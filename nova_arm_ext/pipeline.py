# SPDX-License-Identifier: Apache-2.0
"""The row of hooks: load, check the set-up, run, check the result, report.

::

    document ── Arm? ── previous ── hook ── hook ── ... ── checks ── document
                 │ no
                 └──────────────────────────────── the same string
"""

import collections
import dataclasses
import difflib
import time
import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from lxml import etree
from oslo_config import cfg
from oslo_log import log as logging
from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext.domain import previous
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base

LOG = logging.getLogger(__name__)

NAMESPACE = 'nova_arm_ext.hooks'
GROUP = 'arm'

OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        'default_hooks',
        default='libvirt_compat,uefi',
        help="""
The hooks that nova-arm-ext enables by default, for use as ``$default_hooks``
in ``hooks``. Not meant to be set.
"""),
    cfg.ListOpt(
        'hooks',
        default='$default_hooks',
        help="""
The hooks that adjust the domain XML of Arm guests, in the order in which they
run. ``nova-arm-ext hooks`` lists what is installed. To add one to the default
ones write ``$default_hooks,mine``. An unknown name, one that is listed twice
and an order that a hook forbids keep nova-compute from starting.
"""),
    cfg.StrOpt(
        'on_hook_failure',
        default='fail',
        choices=[
            ('fail', 'The request for that guest fails. When the guest exists '
                     'already, its previous domain is defined again.'),
            ('skip', "That hook's change is dropped, the other hooks run, and "
                     'an ERROR is logged. Hooks that are required fail all '
                     'the same.')],
        help="""
What happens when a hook crashes, or changes what it may not change. Other
guests are not affected either way. The default never hands a document to
libvirt that lacks an adjustment.
"""),
    cfg.IntOpt(
        'hook_warn_ms',
        default=100, min=0,
        help="""
Log a WARNING that names a hook which takes longer than this many milliseconds
for one guest; 0 never does. All default hooks together take well below one
millisecond. A slow hook is not stopped.
"""),
    cfg.StrOpt(
        'check_schema',
        default='warn',
        choices=[
            ('off', 'Do not validate.'),
            ('warn', 'Log a WARNING and go on: libvirt itself does not '
                     'validate either, unless it is asked to.'),
            ('fail', "The guest's request fails.")],
        help="""
Whether the result of the hooks is validated against libvirt's own RNG schema,
where it is installed in this file system (see ``schema``). Only what the
hooks made invalid counts; a document that Nova made invalid does not.
"""),
    cfg.StrOpt(
        'schema',
        default='/usr/share/libvirt/schemas/domain.rng',
        help="""
Path of libvirt's schema of domain documents, for ``check_schema``. Where the
file is missing nothing is validated.
"""),
)

#: Returns None if a document is valid and what is wrong if it is not.
Validator = Callable[[Any], str | None]


def group_of(hook: str) -> str:
    """The option group of a hook: ``arm_uefi`` for ``uefi``."""
    return f'{GROUP}_{hook}'


def installed_hooks() -> Mapping[str, type[base.Hook]]:
    """The class of every hook that is installed, by name.

    :raises ConfigurationError: naming every entry point that is broken
    """
    hooks, faults = _find_hooks()
    if faults:
        raise errors.ConfigurationError(list(faults.values()))
    return hooks


def _find_hooks() -> tuple[dict[str, type[base.Hook]], dict[str, str]]:
    """Import every installed hook.

    :returns: the hooks and the faults, both by name; a broken plugin that is
        not enabled is nobody's trouble
    """
    faults: dict[str, str] = {}

    def broken(_: Any, entry_point: Any, error: BaseException) -> None:
        faults[entry_point.name] = (
            f'hook {entry_point.name} ({entry_point.value}) cannot be '
            f'imported: {type(error).__name__}: {error}')

    found = extension.ExtensionManager(
        NAMESPACE, on_load_failure_callback=broken)
    hooks: dict[str, type[base.Hook]] = {}
    for one in found:
        name = one.name
        if name in hooks:
            faults[name] = (f'hook {name} is installed twice: '
                            f'{hooks[name].__module__} and '
                            f'{one.plugin.__module__}')
        elif not (isinstance(one.plugin, type)
                  and issubclass(one.plugin, base.Hook)):
            faults[name] = (f'hook {name} ({one.entry_point.value}) is not a '
                            f'subclass of nova_arm_ext.hooks.base.Hook')
        else:
            hooks[name] = one.plugin
    return hooks, faults


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HookReport:
    """What one hook did to one document.

    :param before, after: the document on both sides of the hook; the same
        object if nothing was changed
    :param failure: why the hook's change was dropped; None if it was not
    """

    hook: str
    reasons: tuple[tuple[str, str], ...] = ()
    before: bytes
    after: bytes
    seconds: float = 0.0
    failure: str | None = None

    @property
    def changed(self) -> bool:
        """Whether the hook changed the document."""
        return self.before != self.after

    def diff(self) -> str:
        """The change as a unified diff, empty if there is none."""
        return unified_diff(_text(self.before), _text(self.after), self.hook)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The document for libvirt, and how it came about."""

    xml: str
    reports: tuple[HookReport, ...] = ()
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Enabled:
    """A hook as it is enabled here."""

    name: str
    hook: base.Hook


class Pipeline:
    """The enabled hooks with their options, ready for any number of guests.

    It keeps nothing between two documents and may be used by several threads
    at once.
    """

    def __init__(self, hooks: Sequence[tuple[str, base.Hook]], *,
                 on_hook_failure: str = 'fail', hook_warn_ms: int = 0,
                 check_schema: str = 'off',
                 validate: Validator | None = None) -> None:
        """
        :param hooks: names and hooks in the order in which they run
        :param validate: the schema check, where there is a schema
        """
        self._hooks = tuple(_Enabled(name=name, hook=hook)
                            for name, hook in hooks)
        self._on_hook_failure = on_hook_failure
        self._hook_warn_ms = hook_warn_ms
        self._check_schema = check_schema
        self._validate = validate if check_schema != 'off' else None

    @classmethod
    def load(cls, conf: cfg.ConfigOpts, *,
             schema: Callable[[str], Validator | None] | None = None,
             ) -> 'Pipeline':
        """Make the pipeline that the configuration asks for.

        :param conf: parsed configuration; the options are registered here
        :param schema: makes the schema check of the schema's path
        :raises ConfigurationError: with every fault that was found
        """
        conf.register_opts(OPTS, group=GROUP)
        installed, faults = _find_hooks()
        # options of hooks that are not enabled are known all the same, so
        # that a configuration validator need not call them unknown
        for name, hook_class in installed.items():
            conf.register_opts(hook_class.opts, group=group_of(name))

        wrong: list[str] = []
        values = _values(conf, GROUP, OPTS, wrong)
        names: list[str] = getattr(values, 'hooks', [])
        options = {
            name: _values(conf, group_of(name), installed[name].opts, wrong)
            for name in names if name in installed}
        for name, count in collections.Counter(names).items():
            if count > 1:
                wrong.append(f'[arm] hooks names {name} {count} times; once '
                             f'is enough')
            if name in faults:
                wrong.append(faults[name])
            elif name not in installed:
                wrong.append(
                    f'[arm] hooks names {name!r}, which is not installed; '
                    f'installed are: {", ".join(sorted(installed))}')
        wrong += _wrong_order([(name, installed[name]) for name in names
                               if name in installed])
        hooks = []
        for name in dict.fromkeys(names):
            if name in installed:
                try:
                    hooks.append((name, installed[name](options[name])))
                except Exception as e:
                    # whatever a third party's constructor raises, it is a
                    # fault of the set-up and is told with the others
                    wrong.append(f'hook {name} cannot be made: '
                                 f'{type(e).__name__}: {e}')
        if wrong:
            raise errors.ConfigurationError(wrong)
        return cls(
            hooks,
            on_hook_failure=values.on_hook_failure,
            hook_warn_ms=values.hook_warn_ms,
            check_schema=values.check_schema,
            validate=(schema(values.schema)
                      if schema and values.check_schema != 'off' else None))

    @property
    def hooks(self) -> tuple[str, ...]:
        """The names of the enabled hooks, in order."""
        return tuple(enabled.name for enabled in self._hooks)

    def run(self, xml: str, facts: Facts | Callable[[], Facts], *,
            existing: bool | None = None) -> Result:
        """Adjust one document.

        :param xml: the domain document
        :param facts: what is known about host and guest, or a function that
            tells it; asked for Arm guests alone
        :param existing: whether the guest exists, so that a hook that
            refuses is passed over with a WARNING; by default it does if the
            facts have a previous document
        :returns: the document for libvirt with a report of each hook; the
            same string if the guest is not Arm or nothing had to be changed
        :raises InvalidDocument: when this is no domain document
        :raises Refused: when what a new guest asks for cannot be had
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
        domain = Domain(domain.element, facts.guest.previous)
        original = domain.to_bytes()
        checked = _checked(domain)
        broken: dict[str, str] = {}
        while True:
            # A second round is rare: only when a hook is to be skipped that
            # changed what it may not change.
            reports, domain, text = self._round(
                domain, original, facts, existing, broken)
            culprit = self._culprit(checked, domain, reports)
            if culprit is None:
                break
            name, cause = culprit
            self._failed(name, cause, domain)
            broken[name] = cause
            domain = Domain.parse(original, facts.guest.previous)
        self._validated(original, text, domain)
        result = Result(
            xml=xml if text == original else domain.to_xml(),
            reports=tuple(reports),
            seconds=time.perf_counter() - started)
        self._tell(domain, result)
        return result

    def _round(self, domain: Domain, original: bytes, facts: Facts,
               existing: bool, broken: Mapping[str, str],
               ) -> tuple[list[HookReport], Domain, bytes]:
        """Run all hooks but the broken ones on a fresh document."""
        reports = []
        text = original
        if domain.previous is not None:
            report = self._take_over(domain, text, last=False)
            text = report.after
            reports.append(report)
        for enabled in self._hooks:
            if enabled.name in broken:
                reports.append(HookReport(
                    hook=enabled.name, before=text, after=text,
                    failure=broken[enabled.name]))
                continue
            domain, report = self._run_one(
                enabled, domain, text, facts, existing)
            text = report.after
            reports.append(report)
        if domain.previous is not None:
            # for what the hooks have added
            report = self._take_over(domain, text, last=True)
            text = report.after
            if report.changed:
                reports.append(report)
        return reports, domain, text

    @staticmethod
    def _take_over(domain: Domain, text: bytes, *, last: bool) -> HookReport:
        reason = base.Report()
        counts = previous.take_over(domain)
        if counts:
            reason.because('devices', 'as the guest has seen them: ' + ', '
                           .join(f'{count} {name}'
                                 for name, count in counts.items()))
        if last and previous.keep_a_port_free(domain):
            reason.because(
                'devices/controller', 'one root port free for hotplug, which '
                'libvirt adds only where no port is named')
        return HookReport(
            hook='previous', reasons=tuple(reason.reasons), before=text,
            after=domain.to_bytes() if reason.reasons else text)

    def _run_one(self, enabled: _Enabled, domain: Domain, text: bytes,
                 facts: Facts, existing: bool) -> tuple[Domain, HookReport]:
        """Run one hook as a transaction."""
        report = base.Report()
        failure = None
        started = time.perf_counter()
        try:
            if not enabled.hook.applies_to(domain, facts):
                return domain, HookReport(hook=enabled.name, before=text,
                                          after=text)
            enabled.hook.adjust(domain, facts, report)
            after = domain.to_bytes()
        except errors.Refused as e:
            if not existing:
                raise
            failure = str(e)
            LOG.warning(
                '[instance: %s] Hook %s refuses what this guest asks for, and '
                'the guest keeps what it had: %s',
                domain.uuid, enabled.name, e)
        except errors.InvalidDocument as e:
            # the hook met a value that it cannot read; the text names it
            failure = self._failed(enabled.name, str(e), domain, e)
        except Exception as e:
            failure = self._failed(
                enabled.name, f'{type(e).__name__}: {e}', domain, e)
        seconds = time.perf_counter() - started
        if self._hook_warn_ms and seconds * 1000 > self._hook_warn_ms:
            LOG.warning(
                '[instance: %s] Hook %s took %d ms, more than [arm] '
                'hook_warn_ms = %d', domain.uuid, enabled.name,
                seconds * 1000, self._hook_warn_ms)
        if failure is not None:
            domain = Domain.parse(text, domain.previous)
            after = text
        return domain, HookReport(
            hook=enabled.name, before=text,
            after=text if after == text else after, seconds=seconds,
            failure=failure, reasons=tuple(report.reasons))

    def _failed(self, name: str, cause: str, domain: Domain,
                error: Exception | None = None) -> str:
        """Fail the guest's request, or log that the hook is skipped."""
        required = any(enabled.name == name and enabled.hook.required
                       for enabled in self._hooks)
        if self._on_hook_failure == 'fail' or required:
            raise errors.HookFailed(name, cause) from error
        LOG.error('[instance: %s] Hook %s failed and is skipped for this '
                  'guest: %s', domain.uuid, name, cause, exc_info=error)
        return cause

    def _culprit(self, checked: Mapping[str, list[str]], domain: Domain,
                 reports: Sequence[HookReport]) -> tuple[str, str] | None:
        """The first hook that changed what it had not declared."""
        if _checked(domain) == checked:
            return None
        declared = {e.name: e.hook.changes for e in self._hooks}
        now = checked
        for report in reports:
            if not report.changed:
                continue
            then, now = now, _checked(Domain.parse(report.after))
            wrong = _differences(then, now, declared.get(report.hook,
                                                         frozenset()))
            if wrong:
                return report.hook, '; '.join(wrong)
        return None

    def _validated(self, original: bytes, text: bytes,
                   domain: Domain) -> None:
        if self._validate is None or text == original:
            return
        wrong = self._validate(domain.element)
        if wrong is None or self._validate(etree.fromstring(original)):
            return
        message = (f"the hooks' result does not match libvirt's schema: "
                   f'{wrong}')
        if self._check_schema == 'fail':
            raise errors.InvalidResult(message)
        LOG.warning('[instance: %s] %s', domain.uuid, message)

    @staticmethod
    def _tell(domain: Domain, result: Result) -> None:
        LOG.info(
            '[instance: %s] Domain XML adjusted by %s in %.1f ms',
            domain.uuid,
            ', '.join(r.hook for r in result.reports if r.changed)
            or 'no hook', result.seconds * 1000)
        if LOG.isEnabledFor(logging.DEBUG):
            for report in result.reports:
                if report.changed:
                    LOG.debug(
                        '[instance: %s] Hook %s:\n%s\n%s', domain.uuid,
                        report.hook,
                        '\n'.join(f'# {place}: {reason}'
                                  for place, reason in report.reasons),
                        report.diff())


#: What no hook may change unless it declares to, and where it is read.
_CHECKED: Mapping[str, etree.XPath] = types.MappingProxyType({
    name: etree.XPath(path, smart_strings=False) for name, path in (
        ('uuid', 'uuid/text()'),
        ('name', 'name/text()'),
        ('memory', 'memory/text() | memory/@unit'),
        ('vcpu', 'vcpu/text() | vcpu/@current'),
        ('disk', 'devices/disk/@device | devices/disk/target/@dev | '
                 'devices/disk/source//@*'),
        ('interface', 'devices/interface/@type | '
                      'devices/interface/mac/@address | '
                      'devices/interface/source//@*'),
        ('serial', 'devices/serial/@type | devices/serial/source//@*'),
        ('graphics', 'devices/graphics/@type'),
    )})


def _checked(domain: Domain) -> dict[str, list[str]]:
    """What is compared before and after the hooks, in document order."""
    return {name: read(domain.element) for name, read in _CHECKED.items()}


def _differences(then: Mapping[str, list[str]], now: Mapping[str, list[str]],
                 allowed: frozenset[str]) -> list[str]:
    """What a hook changed without being allowed to, in sentences."""
    return [f'{name} was {_brief(then[name])} and became {_brief(now[name])}, '
            f'which the hook does not declare in "changes"'
            for name in _CHECKED
            if name not in allowed and then[name] != now[name]]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else text[:297] + '...'


def _values(conf: cfg.ConfigOpts, group: str, opts: Sequence[cfg.Opt],
            faults: list[str]) -> types.SimpleNamespace:
    """The values of options, read once; what is wrong goes to faults."""
    values = types.SimpleNamespace()
    for opt in opts:
        try:
            setattr(values, opt.dest, conf[group][opt.dest])
        except (cfg.ConfigFileValueError, cfg.TemplateSubstitutionError,
                ValueError) as e:
            faults.append(f'[{group}] {opt.name}: {e}')
    return values


def _wrong_order(hooks: Sequence[tuple[str, type[base.Hook]]]) -> list[str]:
    """What the hooks say about their place, against where they stand."""
    faults = []
    names = [name for name, _ in hooks]
    for position, (name, hook) in enumerate(hooks):
        for earlier in hook.after:
            if earlier in names[position + 1:]:
                faults.append(f'[arm] hooks: {name} must stand behind '
                              f'{earlier}')
        for later, other in hooks[position + 1:]:
            if other.order < hook.order:
                faults.append(
                    f'[arm] hooks: {name} ({hook.order.name.lower()}) must '
                    f'stand behind {later} ({other.order.name.lower()})')
    return faults


def _text(document: bytes) -> str:
    # the bytes are ASCII with character references; people read characters
    return etree.tostring(etree.fromstring(document), encoding='unicode')


def unified_diff(before: str, after: str, name: str) -> str:
    """A unified diff of two documents, empty if they are equal."""
    return '\n'.join(difflib.unified_diff(
        before.splitlines(), after.splitlines(),
        f'before {name}', f'after {name}', lineterm=''))
