# SPDX-License-Identifier: Apache-2.0
"""The row of hooks: load, check the set-up, run, check the result, report.

::

    document ── Arm? ── previous ── hook ── hook ── ... ── checks ── document
                 │ no
                 └──────────────────────────────── the same string
"""

import collections
import difflib
import importlib.metadata
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from lxml import etree
from oslo_config import cfg
from oslo_log import log as logging
from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base
from nova_arm_ext.options import Check
from nova_arm_ext.options import read_options

LOG = logging.getLogger(__name__)

NAMESPACE = 'nova_arm_ext.hooks'
GROUP = 'arm'

#: The extra spec of a flavor that names hooks, comma-separated, which are not
#: to touch its guests.
SKIP_HOOKS = 'arm:skip_hooks'

#: The name under which reports tell of what is taken over from the guest's
#: previous document.
PREVIOUS = 'previous'

OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        'default_hooks',
        default=('libvirt_compat,uefi,console,virtio_mmio,'
                 'armv7,pcie_root_ports'),
        help="""
The hooks that nova-arm-ext enables by default, for use as ``$default_hooks``
in ``hooks``. Not meant to be set.
"""),
    cfg.ListOpt(
        'hooks',
        default='$default_hooks',
        help="""
The hooks that adjust the domain XML of Arm guests, in the order in which they
run; pcie_root_ports runs at the end wherever it is listed. ``nova-arm-ext
hooks`` lists what is installed. To add one to the default ones write
``$default_hooks,mine``. An unknown name, one that is listed twice and an order
that a hook forbids keep nova-compute from starting.
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
for one guest; 0 never does. All default hooks together take a millisecond or
two. A slow hook is not stopped.
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
    hooks, faults = find_hooks()
    if faults:
        raise errors.ConfigurationError(list(faults.values()))
    return hooks


def find_hooks() -> tuple[dict[str, type[base.Hook]], dict[str, str]]:
    """Import every installed hook.

    :returns: the hooks and the faults, both by name; a broken plugin that is
        not enabled is nobody's trouble
    """
    faults: dict[str, str] = {}

    def broken(_: Any, entry_point: Any, error: BaseException) -> None:
        faults[entry_point.name] = (
            f'hook {entry_point.name} ({entry_point.value}) cannot be '
            f'imported: {type(error).__name__}: {error}')

    try:
        found = extension.ExtensionManager(
            NAMESPACE, on_load_failure_callback=broken)
    except (SystemExit, AssertionError) as e:
        # stevedore hands on these, without a name
        raise errors.ConfigurationError([
            f'an installed hook cannot be imported: {type(e).__name__}: {e}; '
            f'installed are: ' + ', '.join(
                entry_point.value for entry_point
                in importlib.metadata.entry_points(group=NAMESPACE))]) from e
    hooks: dict[str, type[base.Hook]] = {}
    for one in found:
        name = one.name
        if name == PREVIOUS:
            faults[name] = (f'hook {name} ({one.entry_point.value}) bears '
                            f"the name of the pipeline's own step")
        elif name in hooks:
            faults[name] = (f'hook {name} is installed twice: '
                            f'{hooks[name].__module__} and '
                            f'{one.plugin.__module__}')
        elif not (isinstance(one.plugin, type)
                  and issubclass(one.plugin, base.Hook)):
            faults[name] = (f'hook {name} ({one.entry_point.value}) is not a '
                            f'subclass of nova_arm_ext.hooks.base.Hook')
        elif not isinstance(one.plugin.order, base.Order):
            faults[name] = (f'the order of hook {name} is '
                            f'{one.plugin.order!r}, not one of FIRST, MIDDLE, '
                            f'LAST and END of nova_arm_ext.hooks.base')
        else:
            hooks[name] = one.plugin
    return hooks, faults


class HookReport(base.Report):
    """What one hook did to one document.

    :param before: the document before the hook, where it is recorded
    """

    #: the document after the hook, where it is recorded
    after: str | None = None
    seconds = 0.0
    #: why the hook was passed over; None if it was not
    failure: str | None = None

    def __init__(self, hook: str, before: str | None = None) -> None:
        super().__init__()
        self.hook = hook
        self.before = before

    @property
    def changed(self) -> bool:
        """Whether the hook changed the document.

        Where the documents were not recorded, a hook that gave a reason did.
        """
        if self.before is None:
            return bool(self.reasons)
        return self.before != self.after

    def diff(self) -> str:
        """The change as a unified diff; empty if there is none or nobody
        has asked for records."""
        if self.before is None or self.after is None or not self.changed:
            return ''
        return unified_diff(self.before, self.after, self.hook)


class Result(NamedTuple):
    """The document for libvirt, and how it came about."""

    xml: str
    reports: tuple[HookReport, ...] = ()
    seconds: float = 0.0


#: Gets the document of an Arm guest after the hooks, and their reports.
Finish = Callable[[Domain, Sequence[HookReport]], None]


class _Enabled(NamedTuple):
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
        self._hooks = tuple(_Enabled(name, hook) for name, hook in hooks)
        self._on_hook_failure = on_hook_failure
        self._hook_warn_ms = hook_warn_ms
        self._check_schema = check_schema
        self._validate = validate if check_schema != 'off' else None

    @classmethod
    def load(cls, conf: cfg.ConfigOpts, *,
             schema: Callable[[str], Validator | None] | None = None,
             checks: Iterable[Check] = ()) -> 'Pipeline':
        """Make the pipeline that the configuration asks for.

        :param conf: parsed configuration; the options are registered here
        :param schema: makes the schema check of the schema's path
        :param checks: what else is to be checked, so that all faults of the
            configuration are told in one message
        :raises ConfigurationError: with every fault that was found
        """
        conf.register_opts(OPTS, group=GROUP)
        installed, faults = find_hooks()
        # options of hooks that are not enabled are known all the same, so
        # that a configuration validator need not call them unknown
        for name, hook_class in list(installed.items()):
            try:
                conf.register_opts(hook_class.opts, group=group_of(name))
            except (cfg.Error, TypeError, AttributeError) as e:
                faults[name] = (f'the options of hook {name} cannot be '
                                f'registered: {type(e).__name__}: {e}')
                del installed[name]

        wrong: list[str] = []
        values = read_options(conf, GROUP, OPTS, wrong)
        names: list[str] = getattr(values, 'hooks', [])
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
            if name not in installed:
                continue
            known = len(wrong)
            options = read_options(conf, group_of(name),
                                   installed[name].opts, wrong)
            if len(wrong) > known:
                continue
            try:
                hooks.append((name, installed[name](options)))
            except Exception as e:
                # whatever a third party's constructor raises, it is a fault
                # of the set-up and is told with the others
                wrong.append(f'hook {name} cannot be made: '
                             f'{type(e).__name__}: {e}')
        for check in checks:
            wrong += check(conf)
        if wrong:
            raise errors.ConfigurationError(wrong)
        # hooks of others stand behind $default_hooks, so what is at the end
        # cannot be listed there
        hooks.sort(key=lambda named: named[1].order is base.END)
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

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """The options of each enabled hook, in the order of the hooks."""
        return {enabled.name: dict(vars(enabled.hook.options))
                for enabled in self._hooks}

    def run(self, xml: str, facts: Facts | Callable[[], Facts], *,
            existing: bool | None = None, record: bool = False,
            finish: Finish | None = None) -> Result:
        """Adjust one document.

        :param xml: the domain document
        :param facts: what is known about host and guest, or a function that
            tells it; asked for Arm guests alone
        :param existing: whether the guest exists, so that a hook that
            refuses is passed over with a WARNING; by default it does if the
            facts have a previous document
        :param record: keep the document before and after each hook, so that
            the reports can show diffs; it takes as long again as the hooks
        :param finish: called with the document of an Arm guest and the
            reports once all is done, such as to write down what was done
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
        domain.previous = facts.guest.previous
        checked = _checked(domain)
        had = _dear_parts(domain) if self._validate else []
        passed_over = self._kept_away(domain, facts)
        while True:
            # Hooks work in place on what was parsed from the string, so when
            # one is to be passed over, all start again without it.
            try:
                reports = self._round(domain, facts, existing, passed_over,
                                      record)
                if (_checked(domain) != checked
                        or next(domain.element.iter(etree.Entity), None)
                        is not None):
                    self._find_culprit(xml, domain, facts, existing,
                                       passed_over)
                break
            except _PassOver as e:
                passed_over[e.hook] = e.cause
                domain = Domain.parse(xml, facts.guest.previous)
                if isinstance(e.__cause__, errors.Refused):
                    LOG.warning(
                        '[instance: %s] Hook %s refuses what this guest asks '
                        'for, and the guest keeps what it had: %s',
                        domain.uuid, e.hook, e.cause)
                else:
                    LOG.error(
                        '[instance: %s] Hook %s failed and is skipped for '
                        'this guest: %s', domain.uuid, e.hook, e.cause,
                        exc_info=e.__cause__)
        if finish is not None:
            finish(domain, reports)
        text = domain.to_xml()
        if text == xml or not (
                any(report.changed for report in reports)
                or text != Domain.parse(xml).to_xml()):
            text = xml
        else:
            self._validated(xml, text, domain, had)
        result = Result(xml=text, reports=tuple(reports),
                        seconds=time.perf_counter() - started)
        self._tell(domain, result)
        return result

    def _kept_away(self, domain: Domain, facts: Facts) -> dict[str, str]:
        """The hooks that the flavor keeps away from the guest, and why.

        Names that are not enabled here may be so on other hosts.
        """
        asked = base.extra_specs(domain, facts).get(SKIP_HOOKS)
        if not asked:
            return {}
        names = {name.strip() for name in asked.split(',')}
        return {enabled.name: f'the extra spec {SKIP_HOOKS} of the flavor '
                              f'keeps it away from this guest'
                for enabled in self._hooks if enabled.name in names}

    def _round(self, domain: Domain, facts: Facts, existing: bool,
               passed_over: Mapping[str, str],
               record: bool) -> list[HookReport]:
        """Run all hooks but those that are passed over.

        :raises _PassOver: when another one has to be
        """
        reports = []
        before = domain.to_xml() if record else None
        steps: Sequence[_Enabled | _Step] = self._hooks
        if domain.previous is not None:
            # once more at the end, for what the hooks have added
            steps = (self._take_over, *steps, self._take_over_last)
        for step in steps:
            report = HookReport(
                step.name if isinstance(step, _Enabled) else PREVIOUS, before)
            reports.append(report)
            if report.hook in passed_over:
                report.after = before
                report.failure = passed_over[report.hook]
                continue
            started = time.perf_counter()
            if isinstance(step, _Enabled):
                self._run_one(step, facts, existing, domain, report)
            else:
                step(domain, report)
            report.seconds = time.perf_counter() - started
            if record:
                before = report.after = domain.to_xml()
            if (self._hook_warn_ms
                    and report.seconds * 1000 > self._hook_warn_ms):
                LOG.warning(
                    '[instance: %s] Hook %s took %d ms, more than [arm] '
                    'hook_warn_ms = %d', domain.uuid, report.hook,
                    report.seconds * 1000, self._hook_warn_ms)
        return reports

    @staticmethod
    def _take_over(domain: Domain, report: base.Report) -> None:
        counts = previous.take_over(domain)
        if counts:
            report.because('devices', 'as the guest has seen them: ' + ', '
                           .join(f'{count} {name}'
                                 for name, count in counts.items()))

    def _take_over_last(self, domain: Domain, report: base.Report) -> None:
        self._take_over(domain, report)
        if previous.keep_a_port_free(domain):
            report.because(
                'devices/controller', 'one root port free for hotplug, which '
                'libvirt adds only where no port is named')

    def _run_one(self, enabled: _Enabled, facts: Facts, existing: bool,
                 domain: Domain, report: base.Report) -> None:
        try:
            if enabled.hook.applies_to(domain, facts):
                enabled.hook.adjust(domain, facts, report)
                _check_whole(domain)
        except errors.Refused as e:
            if not existing:
                raise
            raise _PassOver(enabled.name, str(e)) from e
        except Exception as e:
            # errors of ours name a place and a value of the document
            cause = (str(e) if isinstance(e, errors.ArmExtError)
                     else f'{type(e).__name__}: {e}')
            self._failed(enabled.name, cause, e)

    def _failed(self, name: str, cause: str,
                error: Exception | None = None) -> None:
        """Fail the guest's request, or have the hook passed over."""
        required = any(enabled.name == name and enabled.hook.required
                       for enabled in self._hooks)
        if self._on_hook_failure == 'fail' or required:
            raise errors.HookFailed(name, cause) from error
        raise _PassOver(name, cause) from error

    def _find_culprit(self, xml: str, changed: Domain, facts: Facts,
                      existing: bool, passed_over: Mapping[str, str]) -> None:
        """Fail the first hook that changed what it had not declared."""
        domain = Domain.parse(xml, facts.guest.previous)
        reports = self._round(domain, facts, existing, passed_over, True)
        declared = {e.name: e.hook.changes for e in self._hooks}
        now = asked = _checked(Domain.parse(xml))
        for report in reports:
            if not report.changed or report.after is None:
                continue
            try:
                left = Domain.parse(report.after)
            except errors.InvalidDocument as e:
                self._failed(report.hook, f'what it left cannot be read: {e}')
                raise
            then, now = now, _checked(left)
            wrong = _differences(then, now,
                                 declared.get(report.hook, frozenset()))
            if wrong:
                self._failed(report.hook, '; '.join(wrong))
        # a hook need not do the same twice, and then nobody can be named
        wrong = _differences(asked, _checked(changed),
                             frozenset().union(*declared.values()))
        if wrong:
            raise errors.InvalidResult(
                f'the hooks {", ".join(declared)} together did what none of '
                f'them did again: {"; ".join(wrong)}')

    def _validated(self, xml: str, text: str, domain: Domain,
                   had: Sequence[tuple[Any, str]]) -> None:
        if self._validate is None:
            return
        # what no hook has touched is as valid as it was
        root, devices = domain.element, domain.part('devices')
        gone = set()
        for part, said in had:
            parent = part.getparent()
            if ((parent is root or parent is devices)
                    and _said(part) == said):
                tree.detach(part)
                if parent is root:
                    gone.add(part.tag)
        wrong = self._validate(root)
        if wrong is not None or not gone.isdisjoint(
                part.tag for part in root[:]):
            # a part that is missed, or is there for the second time
            wrong = self._validate(Domain.parse(text).element)
        if wrong is None or self._validate(Domain.parse(xml).element):
            return
        message = (f"the hooks' result does not match libvirt's schema: "
                   f'{wrong}')
        if self._check_schema == 'fail':
            raise errors.InvalidResult(message)
        LOG.warning('[instance: %s] %s', domain.uuid, message)

    @staticmethod
    def _tell(domain: Domain, result: Result) -> None:
        if not LOG.isEnabledFor(logging.INFO):
            return
        changed = dict.fromkeys(r.hook for r in result.reports if r.changed)
        LOG.info('[instance: %s] Domain XML adjusted by %s in %.1f ms',
                 domain.uuid, ', '.join(changed) or 'no hook',
                 result.seconds * 1000)
        if LOG.isEnabledFor(logging.DEBUG):
            for report in result.reports:
                if report.changed:
                    LOG.debug(
                        '[instance: %s] Hook %s:\n%s\n%s', domain.uuid,
                        report.hook,
                        '\n'.join(f'# {place}: {reason}'
                                  for place, reason in report.reasons),
                        report.diff())


class _PassOver(Exception):
    """The hooks have to start again without one of them."""

    def __init__(self, hook: str, cause: str) -> None:
        self.hook = hook
        self.cause = cause
        super().__init__(hook, cause)


_Step = Callable[[Domain, base.Report], None]

#: What no hook may change unless it declares to.
_CHECKED = frozenset(('uuid', 'name', 'memory', 'vcpu', 'disk', 'interface',
                      'serial', 'graphics'))


def _checked(domain: Domain) -> list[list[str | None]]:
    """What is compared before and after the hooks, in document order.

    By hand, in one walk: the same as an XPath union takes as long for a
    usual document and grows quadratically with the number of devices.
    """
    found: list[list[str | None]] = []
    for element in domain.element[:]:
        tag = element.tag
        if tag == 'devices':
            for device in element[:]:
                tag = device.tag
                if tag in _CHECKED:
                    found.append(_identified(device))
        elif tag in _CHECKED:
            found.append([tag, element.text, *element.values()])
    return found


#: What takes most of the time of libvirt's schema, which has no need of it.
#: By the uuid the log names the guest, so that stays.
_DEAR = frozenset((
    'memory', 'vcpu', 'iothreads', 'clock', 'cpu', 'features', 'disk',
    'interface', 'serial', 'graphics', 'video', 'input', 'rng'))


def _dear_parts(domain: Domain) -> list[tuple[Any, str]]:
    """The parts and devices that are dear to validate, and what they say."""
    return [(part, _said(part))
            for part in (*domain.element[:], *domain.devices[:])
            if part.tag in _DEAR]


def _said(part: Any) -> str:
    said: str = etree.tostring(part, encoding='unicode')
    return said


def _check_whole(domain: Domain) -> None:
    """Whether what a hook has left can be written and read as a domain.

    :raises TypeError: saying what it has left
    """
    root = domain.element
    if not etree.iselement(root) or root.tag != Domain.tag:
        raise TypeError(f'it left {_brief(root)} in the place of <domain>')


def _identified(device: Any) -> list[str | None]:
    """Tag, type, target name, MAC address and source of a device."""
    values = [device.tag, device.get('type'), device.get('device')]
    for child in device[:]:
        tag = child.tag
        if tag == 'source':
            for element in child.iter() if len(child) else (child,):
                values += element.values()
        elif tag == 'target':
            values.append(child.get('dev'))
        elif tag == 'mac':
            values.append(child.get('address'))
    return values


def _differences(then: Sequence[list[str | None]],
                 now: Sequence[list[str | None]],
                 allowed: frozenset[str]) -> list[str]:
    """What a hook changed without being allowed to, in sentences."""
    wrong = []
    for name in dict.fromkeys(tag for tag, *_ in (*then, *now)):
        was, became = ([value for tag, *values in found if tag == name
                        for value in values] for found in (then, now))
        if name not in allowed and was != became:
            wrong.append(f'{name} was {_brief(was)} and became '
                         f'{_brief(became)}, which the hook does not declare '
                         f'in "changes"')
    return wrong


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else text[:297] + '...'


def _wrong_order(hooks: Sequence[tuple[str, type[base.Hook]]]) -> list[str]:
    """What the hooks say about their place, against where they stand."""
    faults = []
    hooks = sorted(hooks, key=lambda named: named[1].order is base.END)
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


def unified_diff(before: str, after: str, name: str) -> str:
    """A unified diff of two documents, empty if they are equal."""
    return '\n'.join(difflib.unified_diff(
        before.split('\n'), after.split('\n'),
        f'before {name}', f'after {name}', lineterm=''))
