# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds the release notes."""

project = 'nova-arm-ext Release Notes'
copyright = 'nova-arm-ext developers'

extensions = [
    'reno.sphinxext',
]

# Sphinx's own theme: it searches these pages and loads nothing from elsewhere
html_theme = 'alabaster'
html_theme_options = {'page_width': '1100px', 'show_powered_by': False}
html_title = project
html_sidebars = {'**': ['about.html', 'searchfield.html', 'navigation.html']}
