# SPDX-License-Identifier: Apache-2.0
"""What runs now and for how long, on a terminal or in a log.

A terminal has one line that is written again each second; a log gets a line
each minute. Both name the steps that run and how many tests they have done.
"""

import contextlib
import os
import pathlib
import re
import shutil
import threading
import time
import typing
from collections.abc import Callable
from collections.abc import Iterator

#: What stestr prints when a test is done.
TEST = re.compile(rb'^\{\d+\} .+ \.\.\. ', re.M)

_CLEAR = '\r\x1b[K'


def spent(seconds: float) -> str:
    """A time in words.

    >>> spent(125.4)
    '2 min 5 s'
    """
    minutes, rest = divmod(int(seconds), 60)
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


class Step:
    """Something that takes a while and prints to a log.

    :param name: what people call it
    :param log: the file that its commands write to; empty or missing so far
    :param live: whether its lines are shown at once, and not when it is done
    :param clock: tells the time in seconds
    """

    def __init__(self, name: str, log: pathlib.Path, live: bool,
                 clock: Callable[[], float]) -> None:
        self.name = name
        self.log = log
        self.live = live
        self.tests = 0
        self._clock = clock
        self._started = clock()
        self._seen = 0
        self._last_line = ''
        log.touch()

    def follow(self, *, to_the_end: bool = False) -> str:
        """What is new in the log, and count the tests in it.

        :param to_the_end: also a last line that is not complete
        """
        with open(self.log, 'rb') as log:
            log.seek(self._seen)
            new = log.read()
        if not to_the_end:
            new = new[:new.rfind(b'\n') + 1]
        self._seen += len(new)
        self.tests += len(TEST.findall(new))
        text = new.decode(errors='replace')
        for line in text.splitlines():
            self._last_line = ' '.join(line.split()) or self._last_line
        return text

    def __str__(self) -> str:
        if self.tests:
            state = f'{self.tests} tests, '
        elif self._last_line:
            state = f'{self._last_line[:60]}, '
        else:
            state = ''
        return f'{self.name}: {state}{self.took}'

    @property
    def took(self) -> str:
        return spent(self._clock() - self._started)


class Screen:
    """The only one that prints; threads may share it.

    :param stream: where to
    :param clock: tells the time in seconds
    """

    def __init__(self, stream: typing.TextIO,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = (stream.isatty()
                             and os.environ.get('TERM') != 'dumb')
        self._is_drawn = False
        self._every = 1 if self._is_terminal else 60
        self._shown_at = clock()
        self._steps: list[Step] = []
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick_on)

    def __enter__(self) -> 'Screen':
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ticker.join()

    def _tick_on(self) -> None:
        while not self._ended.wait(1):
            self.tick()

    def tick(self) -> None:
        """Show what is new: lines of a live step, and the steps that run."""
        with self._lock:
            for step in self._steps:
                new = step.follow()
                if step.live and new:
                    self.write(new)
            if self._steps and self._clock() - self._shown_at >= self._every:
                self._shown_at = self._clock()
                if self._is_terminal:
                    self._draw()
                else:
                    self.write(f'== {self._state()}\n')

    def write(self, text: str) -> None:
        """Print whole lines above the line of progress."""
        with self._lock:
            if self._is_drawn:
                self._stream.write(_CLEAR)
                self._is_drawn = False
            self._stream.write(text)
            self._draw()

    def _state(self) -> str:
        return ' | '.join(map(str, self._steps))

    def _draw(self) -> None:
        if self._is_terminal and self._steps:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f'{_CLEAR}{self._state()[:width]}')
            self._is_drawn = True
        self._stream.flush()

    @contextlib.contextmanager
    def step(self, name: str, log: pathlib.Path, *, live: bool = False,
             quiet: bool = False) -> Iterator[Step]:
        """Something begins, and what it printed is shown when it ends.

        :param quiet: only its last line, while it runs
        """
        step = Step(name, log, live, self._clock)
        self.write(f'== {name}: begins\n' if quiet
                   else f'\n== {name}: begins\n')
        with self._lock:
            self._steps.append(step)
        try:
            yield step
        finally:
            with self._lock:
                self._steps.remove(step)
                rest = step.follow(to_the_end=True)
                text = rest if live else log.read_text(errors='replace')
                if quiet:
                    text = ''
                if text and not text.endswith('\n'):
                    text += '\n'
                self.write(f'{text}== {name}: took {step.took}\n')
