# SPDX-License-Identifier: Apache-2.0
"""Asks libvirt about the host, with a time limit."""

import multiprocessing
import os
import signal
import urllib.parse
from collections.abc import Callable
from typing import Any

from nova_arm_ext import facts
from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.compute import binding

DEFAULT_URI = 'qemu:///system'


class NoBinding(Failure):
    """The Python module libvirt is not installed."""


def default_uri() -> str:
    """The connection URI to use by default, as virsh does."""
    return os.environ.get('LIBVIRT_DEFAULT_URI') or DEFAULT_URI


def ask(uri: str, seconds: float) -> facts.Host:
    """The facts of the host.

    :param uri: a libvirt connection URI
    :param seconds: how long to wait for the answer
    :raises Failure: when there is no answer
    """
    text: str = answer(uri, seconds, _facts)
    return facts.Facts.from_json(text).host


def answer(uri: str, seconds: float, question: Callable[[Any], Any], *,
           read_only: bool = True) -> Any:
    """Call a function with a connection, in a process of its own.

    Calls of libvirt have no time limit. libvirt and ssh also write to
    standard error and read standard input.

    :param question: gets the connection; its result must be picklable
    :param read_only: open a read-only connection. Domain capabilities need
        one that is not (libvirt 9.0).
    :returns: the function's result
    :raises NoBinding: when libvirt cannot be asked
    :raises Failure: when there is no answer
    """
    for fault in binding.faults():
        raise NoBinding(fault)
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
        target=_answer, args=(uri, question, theirs, read_only), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise Failure(f'libvirt at {uri} does not answer within '
                          f'{seconds:g} s')
        found, value = ours.recv()
    except EOFError:
        raise Failure(f'libvirt at {uri} does not answer: its client '
                      f'crashed') from None
    finally:
        _end(child)
        ours.close()
    if not found:
        raise Failure(f'libvirt at {uri} does not answer: {value}')
    return value


def _answer(uri: str, question: Callable[[Any], Any], pipe: Any,
            read_only: bool) -> None:
    """What the child process does."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    # If the command was started without one of them, the pipe has its number.
    for stream in {0, 1, 2} - {pipe.fileno()}:
        os.dup2(nowhere, stream)
    try:
        libvirt = binding.libvirt
        connect = libvirt.openReadOnly if read_only else libvirt.open
        pipe.send((True, question(connect(uri))))
    except Exception as e:
        # the other process reports it
        pipe.send((False, str(e) or type(e).__name__))


def _facts(connection: Any) -> str:
    from nova_arm_ext.compute import gather
    host = gather.host(connection, local=is_local(connection.getURI()))
    return facts.Facts(host=host).to_json()


def is_local(uri: str) -> bool:
    """Whether a libvirt URI names the machine on which this runs."""
    parts = urllib.parse.urlsplit(uri)
    transport = parts.scheme.partition('+')[2]
    return not parts.hostname and transport in ('', 'unix')


def _end(child: Any) -> None:
    """End the child and the processes that it started, such as ssh."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()     # it is not the leader of a group yet
    child.join()
    child.close()
