# SPDX-License-Identifier: Apache-2.0
"""Where copies of variable stores are kept while a guest is nowhere.

A driver is found by an entry point in the namespace
``nova_arm_ext.nvram_stores`` and named by ``[arm_nvram] store``.
"""

import abc
import os
import stat
from typing import Any

from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import files

#: Why nobody else may have access.
_WHY = 'whoever writes to it decides which keys instances trust'


class Store(abc.ABC):
    """Copies of variable stores, packed, by the uuid of their guest.

    It is made with the parsed configuration, and registers options of its
    own there, if it has any.
    """

    def check(self) -> None:  # noqa: B027
        """Check, when nova-compute starts, that copies can be kept.

        :raises Exception: when they cannot; nova-compute does not start
        """

    @abc.abstractmethod
    def save(self, uuid: str, packed: bytes) -> None:
        """Keep a copy in the place of the guest's former one.

        :param packed: at most 1 MiB, with a checksum inside
        :raises Exception: when it is not kept; the former copy is then
        """

    @abc.abstractmethod
    def load(self, uuid: str) -> bytes | None:
        """The guest's copy; None if there is none.

        :raises Exception: when that cannot be told
        """

    @abc.abstractmethod
    def remove(self, uuid: str) -> None:
        """Forget the guest's copy, if there is one."""


class Directory(Store):
    """Files in a folder on storage that all compute hosts share."""

    def __init__(self, conf: Any) -> None:
        self._folder = conf.arm_nvram.directory

    def check(self) -> None:
        """Check that the folder is there, and is this user's only.

        It is not made: without its mount it would be on this host only.

        :raises OSError: with what is wrong, and what to do
        """
        found = self._found()
        if found.st_uid != os.geteuid():
            raise OSError(
                f'{self._folder} belongs to user {found.st_uid}; {_WHY} '
                f'(chown {os.geteuid()})')
        self._look()

    def _found(self) -> os.stat_result:
        try:
            found = os.stat(self._folder)
        except OSError as e:
            raise OSError(
                f'{self._folder}: {e.strerror}; mount storage that all '
                f'compute hosts share there') from e
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(f'{self._folder} is not a directory')
        return found

    def _look(self) -> None:
        """Check that the folder is still there: its mount can go away.

        What is found in its place is no folder, or usually open to others.

        :raises OSError: when it is not
        """
        mode = stat.S_IMODE(self._found().st_mode)
        if mode & 0o077:
            raise OSError(
                f'{self._folder} has the permissions {mode:o}; {_WHY} (mount '
                f'its storage, or chmod 0700)')

    def save(self, uuid: str, packed: bytes) -> None:
        self._look()
        files.write_atomic(self._folder, self._name(uuid), packed,
                           files.own())

    def load(self, uuid: str) -> bytes | None:
        self._look()
        try:
            return files.read(self._folder, self._name(uuid),
                              varstore.MAX_PACKED)
        except FileNotFoundError:
            return None

    def remove(self, uuid: str) -> None:
        self._look()
        files.remove(self._folder, self._name(uuid))

    @staticmethod
    def _name(uuid: str) -> str:
        return f'{uuid}_VARS.packed'
