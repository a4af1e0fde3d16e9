# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import argparse

#: Options that may also be in front of the command.
ANYWHERE = frozenset(('--config-file', '--config-dir', '--connect',
                      '--timeout'))


def add_config_file(
        parser: argparse.ArgumentParser,
        default: str = 'none: all options have their defaults') -> None:
    """Add ``--config-file``, which may be given several times.

    :param default: what the command reads without this option
    """
    parser.add_argument(
        '--config-file', metavar='FILE', action='append', default=[],
        help='a configuration file, such as the nova.conf of nova-compute; '
             f'can be given several times, later files take precedence '
             f'(default: {default})')


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where variable stores are."""
    parser.add_argument(
        '--nvram-dir', metavar='DIR',
        help="libvirt's directory of variable stores (default: "
             "/var/lib/libvirt/qemu/nvram)")
    parser.add_argument(
        '--instances-dir', metavar='DIR',
        help="Nova's directory of instances (default: instances_path in the "
             "configuration, or /var/lib/nova/instances)")


def add_connect(parser: argparse.ArgumentParser) -> None:
    """Add ``--connect``, the URI of the libvirt to ask."""
    parser.add_argument(
        '--connect', metavar='URI',
        help='the connection URI of libvirt (default: '
             '$LIBVIRT_DEFAULT_URI, or qemu:///system)')


def add_redact(parser: argparse.ArgumentParser) -> None:
    """Add ``--redact``, for output in a public bug report."""
    parser.add_argument(
        '--redact', action='store_true',
        help='replace names, UUIDs, addresses and paths with placeholders; '
             'the same value always gets the same placeholder')
