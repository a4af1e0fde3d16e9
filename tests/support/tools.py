# SPDX-License-Identifier: Apache-2.0
"""Programs in tools/ as modules, so that a test can call their functions."""

import importlib.machinery
import importlib.util
import pathlib
import types

TOOLS = pathlib.Path(__file__).resolve().parents[2] / 'tools'


def load(name: str) -> types.ModuleType:
    """The functions of a program written in Python.

    :param name: of the file, which has no suffix
    """
    loader = importlib.machinery.SourceFileLoader(name, str(TOOLS / name))
    spec = importlib.util.spec_from_loader(name, loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
