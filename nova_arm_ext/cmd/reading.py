# SPDX-License-Identifier: Apache-2.0
"""Reads the files that the user names: domain XML, facts, configuration."""

import argparse
import glob
import os
import stat
import sys
from collections.abc import Sequence
from typing import TextIO

from oslo_config import cfg

from nova_arm_ext.cmd import asking
from nova_arm_ext.cmd.failure import Failure

#: The file name that stands for standard input.
STDIN = '-'

#: Bytes; more than any nova.conf has. nova-compute itself has no such limit.
MAX_CONFIGURATION = 4 * 1024 * 1024


def name_of(file: str) -> str:
    """The name of a file in messages."""
    return 'standard input' if file == STDIN else file


def read(file: str, limit: int, what: str, stderr: TextIO) -> bytes:
    """The content of a file, or of standard input.

    :param file: a path, or ``-``
    :param limit: the largest size, in bytes
    :param what: what the user has to type if standard input is a terminal
    :param stderr: where the user reads that
    :raises Failure: when the file cannot be read or is larger
    """
    try:
        if file == STDIN:
            if sys.stdin is None:
                raise Failure('standard input is closed')
            asking.announce(what, stderr)
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with open(file, 'rb') as opened:
                data = opened.read(limit + 1)
    except (OSError, ValueError) as e:
        raise _unreadable(file, e) from e
    if len(data) > limit:
        raise Failure(f'{name_of(file)} is larger than the limit of {limit} '
                      f'bytes')
    return data


def files_of_nova_compute() -> tuple[list[str], list[str]]:
    """The files and directories that nova-compute reads by default."""
    return (cfg.find_config_files(project='nova', prog='nova-compute'),
            cfg.find_config_dirs(project='nova', prog='nova-compute'))


def of_nova_compute(parsed_args: argparse.Namespace) -> cfg.ConfigOpts:
    """The options of nova-compute, from the files that it finds.

    As for nova-compute, ``--config-file`` replaces the files that it finds,
    and ``--config-dir`` the directories.

    :raises Failure: when a file cannot be read
    """
    return configuration(*files_of_nova_compute(), parsed_args.config)


def configuration(files: Sequence[str], folders: Sequence[str] = (),
                  options: Sequence[str] = ()) -> cfg.ConfigOpts:
    """The options of these files only.

    :param folders: directories; their files that end in .conf are read after
        the others
    :param options: --config-file and --config-dir, as they were typed
    :raises Failure: when a file cannot be read
    """
    given = [option.partition('=')[2] for option in options
             if option.startswith('--config-file=')]
    for file in given or files:
        try:
            found = os.stat(file)
            # oslo.config reports both as a parse error, or worse
            if stat.S_ISDIR(found.st_mode):
                raise Failure(f'cannot read {file!r}: Is a directory')
            if found.st_size > MAX_CONFIGURATION:
                raise Failure(f'{file} has {found.st_size} bytes, more than '
                              f'the limit of {MAX_CONFIGURATION}')
        except (OSError, ValueError) as e:
            raise _unreadable(file, e) from e
    conf = cfg.ConfigOpts()
    try:
        conf(args=list(options), project='nova',
             default_config_files=list(files),
             default_config_dirs=list(folders))
    except UnicodeDecodeError as e:
        raise Failure(f'the configuration is not UTF-8 text: {e} '
                      f'({", ".join(files)})') from e
    except cfg.ConfigFilesPermissionDeniedError as e:
        raise Failure(
            f'permission denied: {", ".join(e.config_files)}: run this as '
            f'root, or with --config-file /dev/null for the defaults') from e
    except (cfg.Error, OSError) as e:
        raise Failure(f'cannot read the configuration: {e}') from e
    return conf


def _unreadable(file: str, error: Exception) -> Failure:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    name = name_of(file) if file == STDIN else repr(file)
    return Failure(f'cannot read {name}: {reason}')


def source_of(conf: cfg.ConfigOpts, name: str, group: str | None = None
              ) -> str | None:
    """The configuration file that an option's value comes from.

    :returns: None if the value is the default
    """
    location = conf.get_location(name, group)
    if location is None or location.location is not cfg.Locations.user:
        return None
    return str(location.detail)


def parsed(conf: cfg.ConfigOpts
           ) -> list[tuple[str, dict[str, dict[str, list[str]]]]]:
    """What each configuration file says, also in unknown options.

    :param conf: the configuration that was read from them
    :returns: the name of each file, and its values by section and name
    """
    files = list(conf.config_file or [])
    for folder in conf.config_dir or []:
        files += sorted(glob.glob(os.path.join(folder, '*.conf')))
    found = []
    for file in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        found.append((file, sections))
    return found
