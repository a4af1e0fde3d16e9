# SPDX-License-Identifier: Apache-2.0
"""Ends or stops nova-compute as it comes to a step that a test names.

The kernel does it (SIGKILL, SIGSTOP), so the process has no say in it. The
signal and the step are in a file that a test leaves on the host's disk while
nova-compute runs there:

    KILL before nova_arm_ext.compute.nvram.store:Stores.pack
    STOP after nova.virt.libvirt.utils:copy_image 3

that is before a function is entered, or after it has done its work; with a
number, the so manyth time from now on.
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
    """Wait for the file, beside all else that this process does."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    asked = pathlib.Path(ASKED)
    while True:
        if asked.exists():
            _arm(*asked.read_text().split())
            # Whoever wrote it waits for that.
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
