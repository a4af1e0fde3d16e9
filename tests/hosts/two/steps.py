# SPDX-License-Identifier: Apache-2.0
"""Kills or stops nova-compute when it reaches a step that a test names.

It sends itself SIGKILL or SIGSTOP, which no process can handle. A test writes
signal and step into a file on the host's disk while nova-compute runs there:

    KILL before nova_arm_ext.compute.nvram.store:Stores.pack
    STOP after nova.virt.libvirt.utils:copy_image 3

That is before a function is called, or after it has returned. With a number N,
the Nth time from now on.
"""

import collections.abc
import functools
import importlib
import inspect
import os
import pathlib
import signal
import threading
import time
import typing

ASKED = '/srv/step'


def watch() -> None:
    """Wait for the file in the background."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    asked = pathlib.Path(ASKED)
    while True:
        if asked.exists():
            _arm(*asked.read_text().split())
            # The test waits until the file is gone.
            asked.unlink()
        time.sleep(0.1)


def _arm(name: str, when: str, place: str, number: str = '1') -> None:
    module, _, path = place.partition(':')
    *owners, function = path.split('.')
    owner = functools.reduce(getattr, owners,
                             importlib.import_module(module))
    found = inspect.getattr_static(owner, function)
    signalling = _signalling(getattr(owner, function),
                             getattr(signal, f'SIG{name}'), when, int(number))
    setattr(owner, function, staticmethod(signalling)
            if isinstance(found, staticmethod) else signalling)


def _signalling(function: collections.abc.Callable[..., typing.Any],
                signal_number: int, when: str,
                left: int) -> collections.abc.Callable[..., typing.Any]:

    def send() -> None:
        if not left:
            os.kill(os.getpid(), signal_number)

    @functools.wraps(function)
    def wrapped(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        nonlocal left
        left -= 1
        if when == 'before':
            send()
        result = function(*args, **kwargs)
        if when == 'after':
            send()
        return result

    return wrapped
