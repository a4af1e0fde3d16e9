# SPDX-License-Identifier: Apache-2.0
"""CPU data of real hosts; see README.rst."""

import pathlib

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    return sorted(path.parents[1].name
                  for path in FOLDER.glob('*/proc/cpuinfo'))


def cpuinfo(name: str) -> str:
    """The text of one host's /proc/cpuinfo."""
    return (FOLDER / name / 'proc/cpuinfo').read_text()
