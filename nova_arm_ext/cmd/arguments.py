# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

import argparse


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """Add ``--config-file``, which may be given several times."""
    parser.add_argument(
        '--config-file', metavar='FILE', action='append', default=[],
        help='a configuration file, such as the nova.conf of nova-compute; '
             'may be given several times, the last one wins (default: none, '
             'and the defaults of all options)')


def add_connect(parser: argparse.ArgumentParser) -> None:
    """Add ``--connect``, which names the libvirt to ask."""
    parser.add_argument(
        '--connect', metavar='URI',
        help='the libvirt to ask (default: $LIBVIRT_DEFAULT_URI, or '
             'qemu:///system)')
