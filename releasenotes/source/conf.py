# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds the release notes."""

project = 'nova-arm-ext Release Notes'
copyright = 'nova-arm-ext developers'

extensions = [
    'openstackdocstheme',
    'reno.sphinxext',
]

html_theme = 'openstackdocs'
pygments_style = 'native'

openstackdocs_repo_name = 'nova-arm-ext'
openstackdocs_auto_name = False
openstackdocs_use_storyboard = False
