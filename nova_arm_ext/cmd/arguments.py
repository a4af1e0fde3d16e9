# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

import argparse


def add_config_file(
        parser: argparse.ArgumentParser,
        default: str = 'none, and the defaults of all options') -> None:
    """Add ``--config-file``, which may be given several times.

    :param default: what the command reads where it is not given
    """
    parser.add_argument(
        '--config-file', metavar='FILE', action='append', default=[],
        help='a configuration file, such as the nova.conf of nova-compute; '
             f'may be given several times, the last one wins (default: '
             f'{default})')


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that name where variable stores are."""
    parser.add_argument(
        '--nvram-dir', metavar='DIR',
        help="libvirt's folder of stores (default: "
             "/var/lib/libvirt/qemu/nvram)")
    parser.add_argument(
        '--instances-dir', metavar='DIR',
        help="Nova's folder of instances (default: instances_path in the "
             "configuration, or /var/lib/nova/instances)")


def add_connect(parser: argparse.ArgumentParser) -> None:
    """Add ``--connect``, which names the libvirt to ask."""
    parser.add_argument(
        '--connect', metavar='URI',
        help='the libvirt to ask (default: $LIBVIRT_DEFAULT_URI, or '
             'qemu:///system)')


def add_redact(parser: argparse.ArgumentParser) -> None:
    """Add ``--redact``, for output that goes into a public bug report."""
    parser.add_argument(
        '--redact', action='store_true',
        help='replace names, UUIDs, addresses and paths by words that say '
             'nothing, the same everywhere')
