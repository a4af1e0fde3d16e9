# SPDX-License-Identifier: Apache-2.0
"""All suites of tests: what each of them runs, and what that takes.

`tools/test` runs them, and the table of the contributors' pages is made from
them.
"""

import dataclasses
import textwrap

#: Nova's releases that are tested; the pins of each are in
#: tests/data/constraints.
RELEASES = ('nova29', 'nova30', 'nova31', 'nova32', 'nova33', 'nova34')
#: What does not depend on the release runs with this one.
NEWEST = 'nova34'

#: Two lanes run at once: guests wait for their own start most of the time.
GUESTS = 'guests'
OTHERS = 'others'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of stestr.

    :param name: of its results; no two runs have the same
    :param directory: where its tests are, below tests/
    :param workers: processes at once
    :param options: of ``stestr run``: which tests are chosen
    """

    name: str
    directory: str
    workers: int = 1
    options: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """What is asked for by one name.

    :param name: as it is typed
    :param what: what it runs, in one sentence
    :param environment: of tools/environment, or None where it needs none
    :param glance: whether it needs the environment of Glance as well
    :param packages: profiles of tools/packages that it needs
    :param runs: its runs of stestr, one after the other
    :param command: what runs instead of stestr; ``{python}`` is the
        environment's
    :param lane: suites of one lane run one after the other
    :param minutes: how long it takes on two processors without KVM, once its
        environments are made; an estimate begins with "about"
    :param by_default: whether it runs when no suite is named, as in CI
    """

    name: str
    what: str
    environment: str | None = NEWEST
    glance: bool = False
    packages: tuple[str, ...] = ('test',)
    runs: tuple[Run, ...] = ()
    command: tuple[str, ...] = ()
    lane: str = OTHERS
    minutes: str
    by_default: bool = True

    @property
    def needs(self) -> str:
        """What has to be installed for it, in words."""
        environments = [self.environment] if self.environment else []
        environments += ['glance'] if self.glance else []
        return '; '.join((
            f'environment {" and ".join(environments) or "of its own"}',
            f'packages {" ".join(self.packages)}'))


def _number(release: str) -> str:
    """The number of a release as people write it: 34 for nova34."""
    return release.removeprefix('nova')


def _release(release: str) -> Suite:
    """One release: its domain XML, its driver, and the unit tests beside it.

    The slow tests run with the oldest release, the newest and one between, the
    benchmarks only with the newest, where the suite `unit` has all unit tests.
    """
    if release == NEWEST:
        options = ()
    elif release in ('nova29', 'nova31'):
        options = ('--exclude-regex', r'nova[.]test_benchmarks[.]')
    else:
        options = ('--exclude-regex',
                   r'nova[.](test_benchmarks|test_migration|nvram)[.]')
    runs = [Run(name=release, directory='nova', options=options)]
    if release != NEWEST:
        runs.append(Run(name=f'{release}-unit', directory='unit/compute'))
    return Suite(
        name=release,
        what=f'The driver with the fake libvirt of Nova {_number(release)}; '
             'the domain XML that this release makes, before and after the '
             'hooks, with libvirt as the judge.',
        environment=release,
        runs=tuple(runs),
        minutes='7' if release in ('nova29', 'nova31', NEWEST) else '3')


def _conformance(release: str) -> Suite:
    name = f'conformance-{release}'
    return Suite(
        name=name,
        what=f"Nova {_number(release)}'s own unit tests of its libvirt "
             'driver, run with ArmLibvirtDriver.',
        environment=release,
        runs=(Run(name=name, directory='conformance'),),
        lane=GUESTS,
        minutes='3',
        by_default=release in ('nova29', 'nova31', 'nova33'))


def _hosts_one(release: str) -> Suite:
    name = f'hosts-one-{release}'
    return Suite(
        name=name,
        what=f'With Nova {_number(release)}: the variables of a real '
             'instance; an instance made by stock Nova that gets the '
             'extension and loses it again.',
        environment=release,
        packages=('test', 'guest'),
        runs=(Run(name=name, directory='hosts/one',
                  options=(r'test_(nvram|redefinition)[.]',)),),
        lane=GUESTS,
        minutes='about 8',
        by_default=False)


def _libvirt(name: str, debian: str, minutes: str) -> Suite:
    module = name.removeprefix('libvirt-')
    return Suite(
        name=name,
        what=f'Every kind of instance, started by the libvirt and QEMU of '
             f'{debian} in a root folder (tools/root).',
        packages=('test', 'roots'),
        runs=(Run(name=name, directory='starts',
                  options=(rf'test_{module}[.]',)),),
        minutes=minutes,
        by_default=False)


#: Options of a run in which each worker gets whole modules of hosts/two.
_BY_MODULE = ('--group-regex', r'tests[.]hosts[.]two[.][^.]+')

#: In the order in which they run. What stands behind the suites with guests
#: in their lane makes both lanes equally long.
SUITES = (
    Suite(
        name='style',
        what='pre-commit, the documentation and the sample configuration.',
        environment=None,
        command=('tools/style',),
        minutes='1'),
    Suite(
        name='unit',
        what='Everything that needs no process of Nova, no libvirt and no '
             'guest.',
        runs=(Run(name='unit', directory='unit', workers=2),),
        minutes='3'),
    Suite(
        name='packaging',
        what='Builds the package and installs it in every supported way; its '
             'metadata definitions in a Glance.',
        runs=(Run(name='packaging', directory='packaging'),),
        minutes='4'),
    Suite(
        name='hosts-one',
        what='Real instances: Nova in one process, libvirtd and QEMU.',
        packages=('test', 'guest'),
        runs=(Run(name='hosts-one', directory='hosts/one'),),
        lane=GUESTS,
        minutes='23'),
    Suite(
        name='conformance',
        what=f"Nova {_number(NEWEST)}'s own unit tests of its libvirt "
             'driver, run with ArmLibvirtDriver.',
        runs=(Run(name='conformance', directory='conformance'),),
        minutes='3'),
    *(_conformance(release) for release in RELEASES),
    *(_release(release) for release in RELEASES),
    Suite(
        name='mutants-sample',
        what='Some of the mutants: the code is broken on purpose, and the '
             'tests have to notice it.',
        command=('{python}', 'tools/mutants', '--sample', '24', '--seed', '1'),
        minutes='2'),
    Suite(
        name='hosts-api',
        what="Nova's functional tests of servers with PCI devices, run with "
             'ArmLibvirtDriver.',
        runs=(Run(name='hosts-api', directory='hosts/api'),),
        minutes='about 5',
        by_default=False),
    *(_hosts_one(release) for release in RELEASES),
    Suite(
        name='kvm',
        what='Real instances with KVM, on an Arm host that QEMU emulates '
             'with its hypervisor mode.',
        packages=('test', 'guest', 'roots', 'kvm'),
        runs=(Run(name='kvm', directory='hosts/kvm'),),
        lane=GUESTS,
        minutes='about 25',
        by_default=False),
    Suite(
        name='hosts-two',
        what='Real instances that move between two compute hosts.',
        glance=True,
        packages=('test', 'guest', 'hosts_two'),
        # Each module has hosts of its own, which take a while to start.
        runs=(Run(name='hosts-two', directory='hosts/two', workers=2,
                  options=(*_BY_MODULE, '--exclude-regex',
                           r'test_(copies|faults|soak)[.]')),),
        lane=GUESTS,
        minutes='about 60',
        by_default=False),
    Suite(
        name='hosts-two-faults',
        what='Two compute hosts on which nova-compute is killed, a disk is '
             'full, memory is short, the store for copies is away, or two '
             'requests come at once.',
        glance=True,
        packages=('test', 'guest', 'hosts_two'),
        runs=(Run(name='hosts-two-faults', directory='hosts/two', workers=2,
                  options=(*_BY_MODULE, r'test_(copies|faults)[.]')),),
        lane=GUESTS,
        minutes='about 40',
        by_default=False),
    Suite(
        name='hosts-two-soak',
        what='200 operations, planned by a seed, on instances on two compute '
             'hosts.',
        glance=True,
        packages=('test', 'guest', 'hosts_two'),
        runs=(Run(name='hosts-two-soak', directory='hosts/two',
                  options=(r'test_soak[.]',)),),
        lane=GUESTS,
        minutes='about 60',
        by_default=False),
    _libvirt('libvirt-debian12', 'Debian 12', 'about 10'),
    _libvirt('libvirt-debian13', 'Debian 13', 'about 10'),
    _libvirt('libvirt-testing', 'Debian testing', 'about 10'),
    Suite(
        name='mutants',
        what='All mutants; prints what no test notices.',
        command=('{python}', 'tools/mutants'),
        minutes='10',
        by_default=False),
)


def lanes(asked: list[Suite]) -> list[list[Suite]]:
    """The suites of each lane, in the order in which they were asked for."""
    return [[suite for suite in asked if suite.lane == lane]
            for lane in (GUESTS, OTHERS)]


def packages(asked: list[Suite]) -> list[str]:
    """The profiles of all these suites, each once."""
    return list(dict.fromkeys(
        profile for suite in asked for profile in suite.packages))


def _parts() -> tuple[tuple[str, list[Suite]], ...]:
    return (
        ('These run when no suite is named, as in CI',
         [suite for suite in SUITES if suite.by_default]),
        ('These run only on request, because of the time that they take',
         [suite for suite in SUITES if not suite.by_default]))


def listing() -> str:
    """All suites in plain text, as ``tools/test --help`` shows them."""
    lines = []
    for title, part in _parts():
        lines += [f'{title}:', '']
        for suite in part:
            lines += [f'  {suite.name} ({suite.minutes} min)',
                      textwrap.indent(textwrap.fill(suite.what, 72),
                                      ' ' * 6),
                      f'      Needs: {suite.needs}']
        lines.append('')
    lines.append('The minutes are from two processors without KVM, with all '
                 'environments made;\nthose with "about" are estimates.')
    return '\n'.join(lines)


def table() -> str:
    """All suites as tables in reStructuredText."""
    lines = []
    for title, part in _parts():
        lines += [f'{title}:', '', '.. list-table::', '   :header-rows: 1',
                  '   :widths: 20 40 28 12', '',
                  '   * - Suite', '     - What it runs', '     - Needs',
                  '     - Minutes']
        for suite in part:
            where = ', '.join(f'``tests/{run.directory}/``'
                              for run in suite.runs)
            lines += [f'   * - ``{suite.name}``',
                      f'     - {where}{": " if where else ""}{suite.what}',
                      f'     - {suite.needs}',
                      f'     - {suite.minutes}']
        lines.append('')
    return '\n'.join(lines)
