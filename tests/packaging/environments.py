# SPDX-License-Identifier: Apache-2.0
"""Builds of the package and Python environments to install them into.

Both are made once per process, in a temporary directory that is removed when
the process ends. Nova is taken from the interpreter that runs the tests: its
site directory is copied with hard links, which takes a second, while an
installation takes minutes.
"""

import atexit
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import typing
import venv

ROOT = pathlib.Path(__file__).parents[2]
PTH = 'nova_arm_ext.pth'
START = 'nova_arm_ext.start'

# Variables of the caller's shell that must not reach the environments.
_UNWANTED = ('PYTHONPATH', 'PYTHONHOME', 'PYTHONSTARTUP', 'VIRTUAL_ENV')


def run(*command: str | os.PathLike[str],
        cwd: pathlib.Path | None = None) -> str:
    """Run a command, and return its standard output.

    :raises AssertionError: with all its output, if it fails
    """
    environment = {name: value for name, value in os.environ.items()
                   if name not in _UNWANTED}
    environment |= {'PIP_DISABLE_PIP_VERSION_CHECK': '1',
                    'PIP_NO_INPUT': '1',
                    'PYTHONDONTWRITEBYTECODE': '1'}
    done = subprocess.run(
        [os.fspath(part) for part in command], cwd=cwd, env=environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=600)
    if done.returncode:
        raise AssertionError(
            f'{done.args} ended with {done.returncode}\n'
            f'{done.stdout}\n{done.stderr}')
    return done.stdout


@functools.cache
def _scratch() -> pathlib.Path:
    directory = tempfile.mkdtemp(prefix='nova-arm-ext-packaging-')
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return pathlib.Path(directory)


def fresh(prefix: str) -> pathlib.Path:
    """An empty directory of its own in the scratch directory."""
    return pathlib.Path(tempfile.mkdtemp(prefix=f'{prefix}-', dir=_scratch()))


# Builds

def checkout() -> pathlib.Path:
    """A copy of the tree as a git checkout without tags.

    A build writes beside the sources, so it must not run in the tree. pbr
    takes only files that git knows into an sdist, so files that are not
    committed yet are committed in the copy.
    """
    target = fresh('checkout')
    if (ROOT / '.git').exists():
        listed = run('git', 'ls-files', '-z', '--cached', '--others',
                     '--exclude-standard', cwd=ROOT)
        for name in filter(None, listed.split('\0')):
            if (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
    else:
        shutil.copytree(ROOT, target, dirs_exist_ok=True)
    git = ('git', '-c', 'user.name=test', '-c', 'user.email=test@localhost',
           '-c', 'commit.gpgsign=false')
    run('git', 'init', '--quiet', cwd=target)
    for message in ('first', 'second'):
        run(*git, 'add', '--all', cwd=target)
        run(*git, 'commit', '--quiet', '--allow-empty', '--no-verify',
            '--message', message, cwd=target)
    return target


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """The sdist of the checkout, and the wheel of that sdist."""

    sdist: pathlib.Path
    wheel: pathlib.Path


@functools.cache
def build() -> Build:
    output = fresh('build')
    run(sys.executable, '-m', 'build', '--outdir', output, checkout())
    (sdist,) = output.glob('*.tar.gz')
    (wheel,) = output.glob('*.whl')
    return Build(sdist=sdist, wheel=wheel)


# Environments

class Environment:
    """A virtual environment."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.interpreter = directory / 'bin' / 'python'
        self.site = pathlib.Path(sysconfig.get_path(
            'purelib', 'venv', {'base': str(directory)}))

    def python(self, code: str) -> str:
        """What a process prints outside of any source tree."""
        return run(self.interpreter, '-c', code, cwd=self.directory)

    def report(self, code: str) -> typing.Any:
        """The value that the code leaves in `answer`."""
        return json.loads(self.python(
            f'{code}\nimport json\nprint(json.dumps(answer))'
        ).splitlines()[-1])

    def pip(self, *arguments: str | os.PathLike[str]) -> str:
        return run(self.interpreter, '-m', 'pip', *arguments,
                   cwd=self.directory)

    def freeze(self) -> set[str]:
        return set(self.pip('freeze', '--all').splitlines())

    def files(self) -> set[str]:
        return {str(path.relative_to(self.directory))
                for path in self.directory.rglob('*')
                # pip leaves an empty share/
                if path.is_symlink() or not path.is_dir()}


def empty() -> Environment:
    """An environment with only pip."""
    directory = fresh('empty')
    venv.create(directory, with_pip=True, symlinks=True)
    return Environment(directory)


def with_nova() -> Environment:
    """Nova's own environment, as one of Kolla's images has it."""
    return _linked(_nova_site())


def beside_nova() -> Environment:
    """An environment that sees Nova in a site directory elsewhere.

    As with Nova in a distribution's dist-packages, and pip installing to
    /usr/local, to the user's site directory, or to a virtual environment
    with --system-site-packages.
    """
    environment = empty()
    (environment.site / 'dist-packages.pth').write_text(
        f'import site; site.addsitedir({str(_nova_site())!r})\n')
    return environment


def nova_is_here() -> bool:
    """Whether the interpreter that runs the tests can import Nova."""
    return importlib.util.find_spec('nova') is not None


@functools.cache
def _nova_site() -> pathlib.Path:
    """A copy of the site directory that Nova is in, without nova-arm-ext."""
    nova = importlib.util.find_spec('nova')
    if nova is None or nova.origin is None:
        raise AssertionError(f'{sys.executable} cannot import nova')
    copy = _linked(pathlib.Path(nova.origin).parents[1])
    # The interpreter that runs the tests may have it, often as editable.
    copy.pip('uninstall', '--yes', 'nova-arm-ext')
    return copy.site


def _linked(site: pathlib.Path) -> Environment:
    """A new environment with the packages of the given site directory."""
    directory = fresh('nova')
    venv.create(directory, with_pip=False, symlinks=True)
    environment = Environment(directory)
    shutil.copytree(site, environment.site, dirs_exist_ok=True, symlinks=True,
                    copy_function=_link)
    return environment


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or links are not permitted
        shutil.copy2(source, target)
