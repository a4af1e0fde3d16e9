# SPDX-License-Identifier: Apache-2.0
"""Where the command `nova-arm-ext` starts and ends.

An error is exactly one line on standard error, and exit status 2. Nothing else
is written there, except with --debug or --verbose.
"""

import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TextIO

from nova_arm_ext.cmd import NAME

FAILED = 2
INTERRUPTED = 130       # 128 + SIGINT, as shells count
BROKEN_PIPE = 141       # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: arguments, without the name of the program
    :returns: the exit status
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    stdout, stderr = sys.stdout, sys.stderr
    debug = '--debug' in arguments
    try:
        # imported here, so that Ctrl-C is silent from the beginning
        from nova_arm_ext.cmd import failure
        try:
            with quiet(stderr if debug else None):
                from nova_arm_ext.cmd import app
                if stdout is None:
                    raise failure.Failure('standard output is closed')
                status = app.App(stdout, stderr).run(arguments)
            stdout.flush()
            return status
        except BrokenPipeError:
            raise
        except Exception as e:
            if debug:
                traceback.print_exc(file=stderr)
            if stderr is not None:
                stderr.write(f'{NAME}: {failure.sentence(e)}\n')
            _abandon(stdout)
            return FAILED
    except BrokenPipeError:
        _abandon(stdout)
        return BROKEN_PIPE
    except KeyboardInterrupt:
        _abandon(stdout)
        return INTERRUPTED


@contextlib.contextmanager
def quiet(elsewhere: TextIO | None) -> Iterator[None]:
    """Hide what libraries and hooks print, warn or log.

    :param elsewhere: where to write prints and warnings instead; None to drop
        them
    """
    root = logging.getLogger()
    # without a handler, Python prints warnings and errors on standard error
    nowhere = logging.NullHandler()
    handlers, level = root.handlers[:], root.level
    root.addHandler(nowhere)
    try:
        sink = elsewhere or io.StringIO()
        with (contextlib.redirect_stdout(sink),
              contextlib.redirect_stderr(sink),
              warnings.catch_warnings()):
            if elsewhere is None:
                warnings.simplefilter('ignore')
            yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def _abandon(stdout: TextIO) -> None:
    """Flush standard output; if that fails, redirect it to nowhere.

    Python flushes it once more when it ends, and prints an error where nobody
    reads the output or the disk is full.
    """
    try:
        stdout.flush()
    except (OSError, ValueError, AttributeError):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stdout.fileno())
            os.close(nowhere)


if __name__ == '__main__':
    sys.exit(main())
