# SPDX-License-Identifier: Apache-2.0
"""Starts the hosts for a module of tests."""

import pathlib
import shutil
import subprocess
import tempfile

from tests import guest
from tests.hosts.two import cloud
from tests.hosts.two import container
from tests.support import sandbox

#: In addition to what tests.hosts.one needs.
PROGRAMS = {
    'ip': 'iproute2',
    'mariadbd': 'mariadb-server',
    'nsenter': 'util-linux',
    'rabbitmq-server': 'rabbitmq-server',
    'rsync': 'rsync',
    'ss': 'iproute2',
    'ssh': 'openssh-client',
    'sshd': 'openssh-server',
}


def why_not() -> str | None:
    """What this machine lacks; None if it can run the hosts."""
    if reason := sandbox.why_not():
        return reason
    missing = {package for program, package in PROGRAMS.items()
               if shutil.which(program, path=sandbox.search_path()) is None}
    if missing:
        return f'needs Debian packages: {" ".join(sorted(missing))}'
    return None


class Bed:
    """The hosts in their own folder, a context manager."""

    def __init__(self, *, shared: bool = False,
                 progress: cloud.Progress = lambda text: None) -> None:
        """
        :param shared: whether the hosts have one instances folder
        """
        self._shared = shared
        self._progress = progress

    def __enter__(self) -> cloud.Cloud:
        guest.ensure()
        glance = _glance()
        self._folder = tempfile.TemporaryDirectory(prefix='nova-arm-ext-')
        self._cloud = cloud.Cloud(
            pathlib.Path(self._folder.name), glance, shared=self._shared,
            progress=self._progress)
        try:
            self._cloud.start()
        except BaseException:
            self.__exit__()
            raise
        return self._cloud

    def __exit__(self, *_: object) -> None:
        self._cloud.stop()
        self._folder.cleanup()


def _glance() -> pathlib.Path:
    """The environment with Glance; made if it is missing."""
    done = subprocess.run(
        [container.TREE / 'tools/environment', 'glance'], check=True,
        stdout=subprocess.PIPE, text=True)
    return pathlib.Path(done.stdout.splitlines()[-1])
