# SPDX-License-Identifier: Apache-2.0
"""libvirt's verdict on domain XML, fast, for the tests of the core.

The same driver and verdict as in ``tests.nova.documents.judge``, in a separate
process. The capabilities of the host are not read, because libvirt starts all
installed emulators for that, which takes long.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types

from tests.nova.documents import judge


class Unavailable(Exception):
    """libvirt's QEMU driver is not available; the error says why."""


class Process:
    """libvirt's QEMU driver in a separate process, a context manager.

    :raises Unavailable: on entering
    """

    def __enter__(self) -> 'Process':
        # sockets in the root must fit into 108 characters
        self._directory = tempfile.mkdtemp(prefix='embed-')
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.support.embed', self._directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            cwd=pathlib.Path(__file__).parents[2],
            env=os.environ | {
                'LIBVIRT_LOG_OUTPUTS': f'3:file:{self._directory}/log'})
        try:
            self._answer()
        except Unavailable:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 value: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        self._process.communicate(timeout=30)
        shutil.rmtree(self._directory)

    def define(self, document: str) -> judge.Verdict:
        """libvirt's error and XML, without the path of the test's folder."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(document) + '\n')
        self._process.stdin.flush()
        verdict = judge.Verdict(**json.loads(self._answer()))
        return dataclasses.replace(
            verdict, stored=verdict.stored and verdict.stored.replace(
                f'{self._directory}/root', ''))

    def _answer(self) -> str:
        assert self._process.stdout and self._process.stderr
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(
                "libvirt's QEMU driver does not open here: "
                + self._process.stderr.read().strip().rpartition('\n')[2])
        return line


def main() -> None:
    driver = judge.Judge(pathlib.Path(sys.argv[1]) / 'root')
    print('ready', flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(
            driver.verdict(json.loads(line)))), flush=True)
    driver.close()
    # libvirt's threads may outlive the connection
    os._exit(0)


if __name__ == '__main__':
    main()
