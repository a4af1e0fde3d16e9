# SPDX-License-Identifier: Apache-2.0
"""Golden cases: domain XML, facts, and the result of the default hooks.

Each folder is a case of three files: ``before.xml``, ``facts.json`` (as
``nova-arm-ext preview --facts`` reads it, with the guest's previous domain
XML) and ``after.xml``. Where the hooks refuse the guest, ``refusal.txt`` has
the sentence instead.
"""

import pathlib

from oslo_config import cfg

from nova_arm_ext import facts
from nova_arm_ext.pipeline.run import Pipeline

FOLDER = pathlib.Path(__file__).parent


def cases() -> list[str]:
    """The names of the cases that have a result."""
    return sorted(path.parent.name for path in FOLDER.glob('*/before.xml')
                  if not (path.parent / 'refusal.txt').exists())


def refused() -> list[str]:
    """The names of the cases that are refused."""
    return sorted(path.parent.name for path in FOLDER.glob('*/refusal.txt'))


def before(case: str) -> str:
    return (FOLDER / case / 'before.xml').read_text()


def after(case: str) -> str:
    return (FOLDER / case / 'after.xml').read_text()


def refusal(case: str) -> str:
    """The sentence of a case that is refused, on one line."""
    return ' '.join((FOLDER / case / 'refusal.txt').read_text().split())


def known(case: str) -> facts.Facts:
    return facts.Facts.from_json((FOLDER / case / 'facts.json').read_text())


def default_pipeline() -> Pipeline:
    """The default hooks with their default options."""
    conf = cfg.ConfigOpts()
    conf([], project='golden', default_config_files=[],
         default_config_dirs=[])
    return Pipeline.load(conf)
