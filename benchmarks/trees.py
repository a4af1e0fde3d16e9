# SPDX-License-Identifier: Apache-2.0
"""Measures this tree, and beside it that of another commit.

The measurements are those of this tree in both cases; only ``nova_arm_ext``
comes from the other one. Each runs in a process of its own.
"""

import compileall
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

HERE = pathlib.Path(__file__).parents[1]

PACKAGE = 'nova_arm_ext'
NOW, BEFORE = 'now', 'before'

#: The folder that has ``nova_arm_ext`` in it, by name.
Trees = Mapping[str, pathlib.Path]


@contextlib.contextmanager
def trees(before: str | None) -> Iterator[Trees]:
    """Copies of this ``nova_arm_ext`` and, if a commit is named, of its own.

    Both are compiled, as pip does when it installs a package; otherwise much
    of the time of a start would go into that.

    :raises subprocess.CalledProcessError: when there is no such commit
    """
    with tempfile.TemporaryDirectory() as folder:
        found = {NOW: pathlib.Path(folder, NOW)}
        shutil.copytree(HERE / PACKAGE, found[NOW] / PACKAGE)
        if before is not None:
            found[BEFORE] = pathlib.Path(folder, BEFORE)
            found[BEFORE].mkdir()
            packed = subprocess.run(
                ('git', 'archive', before, PACKAGE), cwd=HERE, check=True,
                stdout=subprocess.PIPE).stdout
            subprocess.run(('tar', '-x', '-C', found[BEFORE]), input=packed,
                           check=True)
        compileall.compile_dir(folder, quiet=1)
        yield found


def run(tree: pathlib.Path, module: str, *arguments: str) -> Any:
    """What a module prints as JSON, with a tree's ``nova_arm_ext``."""
    # the current directory comes first of all
    done = subprocess.run(
        (sys.executable, '-W', 'ignore', '-m', module, *arguments),
        cwd=tree, check=False, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': f'{tree}{os.pathsep}{HERE}',
             # for stevedore, which remembers entry points
             'XDG_CACHE_HOME': str(tree)})
    if done.returncode:
        raise RuntimeError(f'{module} failed with the tree {tree}')
    return json.loads(done.stdout)


def in_turn(of: Trees, turns: int, module: str, *arguments: str
            ) -> dict[str, Any]:
    """What a module prints for each tree, one after the other, put together.
    """
    found: dict[str, Any] = {}
    for turn in range(turns):
        for name in sorted(of, reverse=bool(turn % 2)):
            found[name] = together(found.get(name),
                                   run(of[name], module, *arguments))
    return found


def together(one: Any, other: Any) -> Any:
    """Two measurements of the same: lists are joined."""
    if isinstance(one, dict):
        return {key: together(one[key], other[key]) for key in one}
    return one + other if isinstance(one, list) else other
