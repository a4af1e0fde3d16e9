# SPDX-License-Identifier: Apache-2.0
"""A test that runs on its own host, in the sandbox.

Each test runs in a process in the sandbox, and its result is reported as if it
had run here. Only that process imports Nova, because Nova's test modules patch
the interpreter.
"""

import pathlib
import typing
import unittest

import testtools
from testtools import content

from tests import guest
from tests.support import base
from tests.support import sandbox


class GuestTestCase(base.TestCase):
    """A test with real guests. `self.bed` is there while it runs."""

    #: Seconds for a whole test, with the start of libvirt and Nova. Waiting
    #: for a guest has its own, shorter limit.
    timeout = 400.0

    #: The guests that it boots. They are built before, because the sandbox has
    #: no network.
    arches: typing.ClassVar[tuple[str, ...]] = ('aarch64',)

    #: Arguments of Bed besides the folder.
    bed_options: typing.ClassVar[dict[str, typing.Any]] = {}

    def run(self, result: typing.Any = None) -> typing.Any:
        if sandbox.inside():
            return super().run(result)
        if result is None:
            result = self.defaultTestResult()
        outcome = testtools.ExtendedToOriginalDecorator(result)
        outcome.startTest(self)
        try:
            self._run_elsewhere(outcome)
        finally:
            outcome.stopTest(self)
        return result

    def _run_elsewhere(self, outcome: typing.Any) -> None:
        reason = sandbox.why_not()
        if reason:
            outcome.addSkip(self, reason=reason)
            return
        for arch in self.arches:
            guest.ensure(arch)
        try:
            said = sandbox.call('tests.hosts.one.base:run_one',
                                timeout=self.timeout, test=self.id())
        except sandbox.SandboxError as error:
            outcome.addError(self, details={
                'sandbox': content.text_content(str(error))})
            return
        details = {name: content.text_content(text)
                   for name, text in said['details'].items()}
        if said['outcome'] == 'skip':
            outcome.addSkip(self, reason=said['reason'])
        elif said['outcome'] == 'success':
            outcome.addSuccess(self, details=details)
        else:
            outcome.addFailure(self, details=details)

    def setUp(self) -> None:
        super().setUp()
        from tests.hosts.one import bed
        folder = pathlib.Path(_folder or '')
        self.bed = bed.Bed(folder, **self.bed_options)
        self.addOnException(
            lambda _: self.addDetail(
                'bed', content.text_content(self.bed.state())))
        self.bed.start()


#: The sandbox's folder, known once `run_one` has been called.
_folder: pathlib.Path | None = None


def run_one(folder: pathlib.Path, test: str) -> dict[str, typing.Any]:
    """Run one test by its id, inside the sandbox."""
    global _folder
    _folder = folder
    [case] = unittest.defaultTestLoader.loadTestsFromName(test)
    result = testtools.TestResult()
    case.run(result)
    if result.skip_reasons:
        [reason] = result.skip_reasons
        return {'outcome': 'skip', 'reason': reason, 'details': {}}
    texts = [text for _, text in (*result.failures, *result.errors)]
    if texts or not result.wasSuccessful():
        return {'outcome': 'failure', 'reason': '',
                'details': {f'traceback-{number}': text
                            for number, text in enumerate(texts)}}
    return {'outcome': 'success', 'reason': '', 'details': {}}
