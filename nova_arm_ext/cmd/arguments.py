# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import argparse
from typing import Any

#: Options that may also be in front of the command.
ANYWHERE = frozenset(('--config-file', '--config-dir', '--connect',
                      '--timeout'))


class _InOrder(argparse.Action):
    """Keeps the configuration files and directories in their order."""

    def __call__(self, parser: Any, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        namespace.config = [*namespace.config, f'{option_string}={values}']


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config-file`` and ``--config-dir``, as nova-compute has them."""
    parser.set_defaults(config=[])
    parser.add_argument(
        '--config-file', metavar='FILE', action=_InOrder, dest='config',
        help='a configuration file of nova-compute; can be given several '
             'times, later ones take precedence (default: the files that '
             'nova-compute finds, such as /etc/nova/nova.conf and '
             '/etc/nova/nova-compute.conf)')
    parser.add_argument(
        '--config-dir', metavar='DIR', action=_InOrder, dest='config',
        help='a directory of configuration files that end in .conf '
             '(default: those that nova-compute finds, such as '
             '/etc/nova/nova.conf.d)')


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
    """Add ``--connect`` and ``--timeout``, for the libvirt to ask."""
    parser.add_argument(
        '--connect', metavar='URI',
        help='the connection URI of libvirt (default: that of nova-compute, '
             '[libvirt] connection_uri; if it is not set, '
             '$LIBVIRT_DEFAULT_URI or qemu:///system)')
    parser.add_argument(
        '--timeout', metavar='SECONDS', type=_seconds,
        help='how long to wait for each answer of libvirt (default: '
             'as long as the question needs)')


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 86400.0:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number of seconds such as 30')
    return seconds


def add_redact(parser: argparse.ArgumentParser) -> None:
    """Add ``--redact``, for output in a public bug report."""
    parser.add_argument(
        '--redact', action='store_true',
        help='replace names, UUIDs, addresses and paths with placeholders; '
             'the same value always gets the same placeholder')
