# SPDX-License-Identifier: Apache-2.0
"""Reads the files that the user names: documents, facts, configuration."""

import glob
import os
import stat
import sys
from collections.abc import Sequence

from oslo_config import cfg

from nova_arm_ext.cmd.failure import Failure

#: Means standard input, as a file name.
STDIN = '-'

#: More than any nova.conf has; nova-compute itself has no such limit.
MAX_CONFIGURATION = 4 * 1024 * 1024


def name_of(file: str) -> str:
    """How a file is called in messages."""
    return 'standard input' if file == STDIN else file


def read(file: str, limit: int) -> bytes:
    """The content of a file, or of standard input.

    :param file: a path, or ``-``
    :param limit: so many bytes may be in it; of more nothing is kept
    :raises Failure: when it cannot be read or has more
    """
    try:
        if file == STDIN:
            if sys.stdin is None:
                raise Failure('standard input is closed')
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with open(file, 'rb') as opened:
                data = opened.read(limit + 1)
    except (OSError, ValueError) as e:
        raise _unreadable(file, e) from e
    if len(data) > limit:
        raise Failure(f'{name_of(file)} has more than the {limit} bytes that '
                      f'are read')
    return data


def files_of_nova_compute() -> tuple[list[str], list[str]]:
    """The files and folders that nova-compute reads where it is not told."""
    return (cfg.find_config_files(project='nova', prog='nova-compute'),
            cfg.find_config_dirs(project='nova', prog='nova-compute'))


def configuration(files: Sequence[str],
                  folders: Sequence[str] = ()) -> cfg.ConfigOpts:
    """The options of these files and of no others.

    :param folders: of each all files that end in .conf, read after the others
    :raises Failure: when one cannot be read
    """
    for file in files:
        try:
            found = os.stat(file)
            # oslo.config would call both of these a parse error, or worse
            if stat.S_ISDIR(found.st_mode):
                raise Failure(f'cannot read {file!r}: Is a directory')
            if found.st_size > MAX_CONFIGURATION:
                raise Failure(f'{file} has {found.st_size} bytes, more than '
                              f'the {MAX_CONFIGURATION} that are read')
        except (OSError, ValueError) as e:
            raise _unreadable(file, e) from e
    conf = cfg.ConfigOpts()
    try:
        conf(args=[], project='nova', default_config_files=list(files),
             default_config_dirs=list(folders))
    except UnicodeDecodeError as e:
        raise Failure(f'the configuration is not text in UTF-8: {e} '
                      f'({", ".join(files)})') from e
    except (cfg.Error, OSError) as e:
        raise Failure(f'cannot read the configuration: {e}') from e
    return conf


def _unreadable(file: str, error: Exception) -> Failure:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    name = name_of(file) if file == STDIN else repr(file)
    return Failure(f'cannot read {name}: {reason}')


def parsed(conf: cfg.ConfigOpts
           ) -> list[tuple[str, dict[str, dict[str, list[str]]]]]:
    """Each configuration file with what it says, be it known or not.

    :param conf: the configuration that they belong to
    :returns: names of files, and of each the values by section and name
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
