# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds the documents."""

import pathlib
import sys

# The programs in tools/ are not installed.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))

from nova_arm_ext import facts
from nova_arm_ext import nvram
from nova_arm_ext.hooks import libvirt_compat
from tools import suites

project = 'nova-arm-ext'
copyright = 'nova-arm-ext developers'

extensions = [
    'oslo_config.sphinxext',
    'sphinx.ext.autodoc',
]

# Sphinx's own theme: it searches these pages and loads nothing from elsewhere
html_theme = 'alabaster'
html_theme_options = {'page_width': '1100px', 'show_powered_by': False}
html_title = project
html_sidebars = {'**': ['about.html', 'searchfield.html', 'navigation.html']}
modindex_common_prefix = ['nova_arm_ext.']
exclude_patterns = ['_generated']


def rules_table() -> str:
    """The rules of libvirt_compat as a table in reStructuredText."""
    lines = ['.. list-table::', '   :header-rows: 1', '',
             '   * - Rule', '     - libvirt', '     - Nova', '     - Why']
    for rule in libvirt_compat.RULES:
        since, until = (version and facts.format_version(version)
                        for version in (rule.since, rule.until))
        versions = ' '.join(filter(None, (
            since and f'from {since}', until and f'before {until}'))) or 'all'
        lines += [f'   * - ``{rule.name}``', f'     - {versions}',
                  f'     - {rule.nova}', f'     - {rule.reason}']
    return '\n'.join(lines) + '\n'


def write_generated(app: object) -> None:
    """Made from the code before the pages are read."""
    place = pathlib.Path(__file__).parent / '_generated'
    place.mkdir(exist_ok=True)
    (place / 'libvirt_compat_rules.rst').write_text(rules_table())
    (place / 'nvram_table.rst').write_text(nvram.table())
    (place / 'suites.rst').write_text(suites.table())


def setup(app: object) -> None:
    app.connect('builder-inited', write_generated)
