# SPDX-License-Identifier: Apache-2.0
"""What holds for the libvirt and QEMU of every Debian suite."""

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import subprocess
import time
import unittest

from tests.nova.documents import guests
from tests.nova.documents import kinds
from tests.starts import bed
from tests.starts import faults
from tests.starts import matrix
from tests.starts import replaced

ROOT = bed.TREE / 'tools/root'
#: A time to sleep that no other process has, with the number of this one.
SECONDS = '98765.4321'
TIMEOUT = 120


def why_not() -> str | None:
    """Why this process cannot start guests, or None."""
    if os.geteuid():
        return 'needs root, for namespaces and for libvirtd'
    if not shutil.which('mmdebstrap'):
        return 'mmdebstrap is not installed (bindep.txt)'
    return guests.why_not()


def processes_with(word: str) -> list[str]:
    """The processes that have it in their command line."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            arguments = path.read_text().split('\0')
        except OSError:
            continue               # it has ended meanwhile
        if word in arguments:
            found.append(path.parent.name)
    return found


class SuiteContract:
    """A mixin with the tests for the suite whose name is ``suite``."""

    suite: str
    _stack: contextlib.ExitStack
    _bed: bed.Bed
    _release: guests.Release

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)
        cls._stack = contextlib.ExitStack()
        cls.addClassCleanup(cls._stack.close)
        cls._bed = cls._stack.enter_context(bed.Bed(cls.suite))
        cls._release = guests.Release(cls._stack, cls._bed)

    def test_every_guest_starts_or_is_refused(self) -> None:
        results = matrix.results(self.suite, self._bed, self._release)

        failed = [f'{one.host} {one.kind}: {one.why}' for one in results
                  if one.state == matrix.FAILED]
        self.assertNotEqual([], results)
        self.assertEqual([], failed, '\n'.join(
            ('', matrix.shown(results, [self.suite]), *failed)))

    def test_no_replacement_hides_a_fault(self) -> None:
        """What is refused is refused in the same words, whatever else is
        replaced in the domain XML."""
        plain = self.adjusted(kinds.ON_X86, 'default')
        self.assertEqual([], replaced.replaced(plain)[1])
        replacing = self.with_each_replacement()
        cases = [(name, replacement) for name in faults.FAULTS
                 for replacement in replacing]
        with concurrent.futures.ThreadPoolExecutor(bed.JUDGES) as pool:
            expected = dict(zip(faults.FAULTS, pool.map(
                lambda name: self.verdict(plain, name), faults.FAULTS),
                strict=True))
            said = pool.map(lambda case: self.verdict(
                replacing[case[1]], case[0]), cases)

        self.assertNotIn('start: ', expected.values())
        found = [f'{replacement}, {name}:\n  {words}\n  {expected[name]}'
                 for (name, replacement), words
                 in zip(cases, said, strict=True) if words != expected[name]]
        self.assertEqual([], found, '\n' + '\n'.join(found))

    def test_a_command_leaves_nothing(self) -> None:
        name = f'{SECONDS}{os.getpid()}'
        done = self.run_inside(
            f'sleep {name} & echo text > /etc/written; '
            'virsh -q net-list --all --name && exit 7')

        self.assertEqual(7, done.wait(TIMEOUT))
        self.assertEqual([], processes_with(name))
        place = subprocess.run((ROOT, 'make', self.suite), check=True,
                               capture_output=True, text=True).stdout.strip()
        self.assertFalse(os.path.exists(f'{place}/root/etc/written'))

    def test_a_command_ends_with_its_caller(self) -> None:
        name = f'{SECONDS}{os.getpid()}'
        run = self.run_inside(f'sleep {name} & echo sleeps; wait')
        assert run.stdout
        self.assertEqual('sleeps\n', run.stdout.readline())
        self.assertNotEqual([], processes_with(name))

        run.kill()
        run.wait(TIMEOUT)

        end = time.monotonic() + TIMEOUT
        while processes_with(name) and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual([], processes_with(name))

    def run_inside(self, script: str) -> 'subprocess.Popen[str]':
        run = subprocess.Popen((ROOT, 'run', self.suite, '--', 'sh', '-c',
                                script), stdout=subprocess.PIPE, text=True)
        assert run.stdout
        self.addCleanup(run.stdout.close)
        return run

    def verdict(self, document: str, fault: str) -> str:
        text, _ = replaced.replaced(faults.with_fault(document, fault))
        return faults.told(self._bed.verdict(text))

    def adjusted(self, host: str, kind: str) -> str:
        [guest] = [guest for guest in self._release.on(host)
                   if guest.kind.name == kind]
        xml = self._release.adjusted(guest).xml
        assert xml is not None
        return xml

    def with_each_replacement(self) -> dict[str, str]:
        """The first guest for each, by its name."""
        found: dict[str, str] = {}
        for guest in self._release.on(kinds.AARCH64_KVM):
            xml = self._release.adjusted(guest).xml
            if xml is not None:
                for name in replaced.replaced(xml)[1]:
                    found.setdefault(name, xml)
        self.assertEqual({one.name for one in replaced.TABLE}, set(found))
        return found
