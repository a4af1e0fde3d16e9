# SPDX-License-Identifier: Apache-2.0
"""Asks libvirt about the host, with a time limit."""

import ipaddress
import multiprocessing
import os
import signal
import socket
import urllib.parse
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from nova_arm_ext import facts
from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.compute import binding

DEFAULT_URI = 'qemu:///system'

#: The user of nova-compute.
NOVA_USER = 'nova'

_AUTH_FILE = '~/.config/libvirt/auth.conf'


class NoBinding(Failure):
    """The Python module libvirt is not installed."""


def uri_of(conf: cfg.ConfigOpts, given: str | None = None) -> str:
    """The connection URI of the libvirt to ask.

    :param conf: the configuration of nova-compute
    :param given: the URI that the user gave
    :returns: that, or nova-compute's, or virsh's
    """
    # the same option as Nova's, whose module cannot be imported here
    conf.register_opt(cfg.StrOpt('connection_uri', default=''),
                      group='libvirt')
    return (given or conf.libvirt.connection_uri
            or os.environ.get('LIBVIRT_DEFAULT_URI') or DEFAULT_URI)


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
        raise Failure(f'libvirt at {uri} does not answer: {value}'
                      + _advice(str(value)))
    return value


def _advice(error: str) -> str:
    """What to do about an error of libvirt, as the end of a sentence."""
    if 'Permission denied' in error or 'authentication' in error.lower():
        return '; run this as root, or as a user of the group libvirt'
    return ''


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
        pipe.send((True, question(_connected(uri, read_only))))
    except Exception as e:
        # the other process reports it
        pipe.send((False, str(e) or type(e).__name__))


def _connected(uri: str, read_only: bool) -> Any:
    """A connection with the user names and passwords that Nova would use."""
    libvirt = binding.libvirt
    file = _auth_file()
    if file is not None:
        os.environ['LIBVIRT_AUTH_FILE'] = file
    # without a callback libvirt ignores that file (remoteAuthInteract)
    return libvirt.openAuth(
        uri, [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE],
              lambda missing, _: -1 if missing else 0, None],
        libvirt.VIR_CONNECT_RO if read_only else 0)


def _auth_file() -> str | None:
    """The file with the passwords of Nova's user, if this user has none.

    Kolla writes it for the user nova; the command runs as root.
    """
    if os.environ.get('LIBVIRT_AUTH_FILE') or os.path.exists(
            os.path.expanduser(_AUTH_FILE)):
        return None
    novas = os.path.expanduser(f'~{NOVA_USER}{_AUTH_FILE[1:]}')
    return novas if os.path.exists(novas) else None


def _facts(connection: Any) -> str:
    from nova_arm_ext.compute import gather
    host = gather.host(connection, local=is_local(connection.getURI()))
    return facts.Facts(host=host).to_json()


def is_local(uri: str) -> bool:
    """Whether a libvirt URI names the machine on which this runs."""
    parts = urllib.parse.urlsplit(uri)
    if parts.hostname:
        return _is_address_here(parts.hostname)
    return parts.scheme.partition('+')[2] in ('', 'unix')


def _is_address_here(name: str) -> bool:
    """Whether an IP address is one of this machine's.

    Kolla's nova-compute connects to the libvirt of its host by TCP.
    """
    if name in ('localhost', socket.gethostname()):
        return True
    try:
        family = (socket.AF_INET6 if ipaddress.ip_address(name).version == 6
                  else socket.AF_INET)
    except ValueError:
        return False
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        try:
            own.connect((name, 9))     # this sends nothing
        except OSError:
            return False
        # packets for an address of this machine come from that address
        return str(own.getsockname()[0]) == name


def _end(child: Any) -> None:
    """End the child and the processes that it started, such as ssh."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()     # it is not the leader of a group yet
    child.join()
    child.close()
