# SPDX-License-Identifier: Apache-2.0
"""Measures this tree, and beside it that of another commit.

The measurements are those of this tree in both cases; only ``nova_arm_ext``
comes from the other one. Each runs in a process of its own.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

HERE = pathlib.Path(__file__).parents[1]

NOW, BEFORE = 'now', 'before'

#: The folder that has ``nova_arm_ext`` in it, by name.
Trees = Mapping[str, pathlib.Path]


@contextlib.contextmanager
def trees(before: str | None) -> Iterator[Trees]:
    """This tree and, if a commit is named, its ``nova_arm_ext``.

    :raises subprocess.CalledProcessError: when there is no such commit
    """
    if before is None:
        yield {NOW: HERE}
        return
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ('git', 'archive', before, 'nova_arm_ext'), cwd=HERE, check=True,
            stdout=subprocess.PIPE).stdout
        subprocess.run(('tar', '-x', '-C', folder), input=packed, check=True)
        yield {NOW: HERE, BEFORE: pathlib.Path(folder)}


def run(tree: pathlib.Path, module: str, *arguments: str) -> Any:
    """What a module prints as JSON, with a tree's ``nova_arm_ext``."""
    # -P: the current directory does not come first
    done = subprocess.run(
        (sys.executable, '-P', '-W', 'ignore', '-m', module, *arguments),
        cwd=HERE, check=False, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': f'{tree}{os.pathsep}{HERE}'})
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

