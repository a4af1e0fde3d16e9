# SPDX-License-Identifier: Apache-2.0
"""From the words that the user types to a command, and advice for others.

A command is found only by its whole name: "nvram rese" must not reset.
"""

import difflib
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from cliff import commandmanager

from nova_arm_ext.cmd.failure import Failure


class Commands(commandmanager.CommandManager):
    """All commands; some are in a group, such as "nvram list"."""

    def find_command(self, argv: Sequence[str]) -> tuple[Any, str, list[str]]:
        """The class of a command, its name, and its arguments.

        :raises Failure: when there is none; it names the nearest
        """
        words = leading_words(argv)
        for length in range(min(len(words), 2), 0, -1):
            if ' '.join(words[:length]) in self.commands:
                # cliff's own way from the name to the class
                factory, name, _ = super().find_command(list(words[:length]))
                return factory, name, list(argv[length:])
        raise Failure(self._advice(words))

    def group_in(self, argv: Sequence[str]) -> str | None:
        """The group that is asked for without one of its commands.

        :raises Failure: when options follow it
        """
        words = leading_words(argv)
        if len(words) != 1 or words[0] not in self.groups:
            return None
        if len(argv) > 1:
            raise Failure(f'{words[0]} needs one of its commands: '
                          f'{", ".join(self.inside(words[0]))}')
        return words[0]

    @property
    def groups(self) -> set[str]:
        """The first words of commands that have two."""
        return {name.partition(' ')[0] for name in self.commands
                if ' ' in name}

    def inside(self, group: str) -> list[str]:
        """The second words of a group's commands, sorted."""
        return sorted(name.partition(' ')[2] for name in self.commands
                      if name.startswith(f'{group} '))

    def help_of(self, group: str) -> str:
        """The commands of a group, each with what it does."""
        lines = [f'usage: nova-arm-ext {group} COMMAND ...', '', 'Commands:']
        for name in self.inside(group):
            factory, *_ = super().find_command([group, name])
            said = (factory.__doc__ or '').strip().partition('\n')[0]
            lines.append(f'  {group} {name:8}  {said.rstrip(".")}')
        lines += ['', f'"nova-arm-ext help {group} COMMAND" describes one.']
        return '\n'.join(lines) + '\n'

    def _advice(self, words: Sequence[str]) -> str:
        if not words:
            return 'no command is given'
        first, second = words[0], ' '.join(words[1:2])
        if first in self.groups:
            inside = self.inside(first)
            return f'{first} has no {second!r}' + did_you_mean(
                second, inside, f'; it has {", ".join(inside)}')
        every = sorted({name.partition(' ')[0] for name in self.commands})
        of_groups = {inner: f'{group} {inner}' for group in self.groups
                     for inner in self.inside(group)}
        close = nearest(first, every)
        if close is None and (inner := nearest(first, of_groups)):
            close = of_groups[inner]
        return f'{first!r} is not a command; ' + (
            f'did you mean {close}?' if close
            else f'the commands are {", ".join(every)}')


def leading_words(argv: Sequence[str]) -> list[str]:
    """The words in front of the first option."""
    words: list[str] = []
    for argument in argv:
        if argument.startswith('-'):
            break
        words.append(argument)
    return words


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The nearest of these words; None if none is near."""
    known = list(known)
    close = (difflib.get_close_matches(word, known, 1)
             or difflib.get_close_matches(word.lower(), known, 1)
             or [name for name in known if word and name.startswith(word)])
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = '') -> str:
    """The nearest of these words, as the end of a sentence.

    :param otherwise: the end of the sentence if none is near
    """
    close = nearest(word, known)
    return f'; did you mean {close}?' if close else otherwise
