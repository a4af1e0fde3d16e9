# SPDX-License-Identifier: Apache-2.0
"""Adds up the test runner's own results: `python -m tools.totals FILE ...`.

Each file is a subunit stream of one run. Prints the failed tests and the
reasons of the skipped ones, and as the last line how many there were of each;
exits 1 if a test failed, or if none ran in one of them.
"""

import collections
import pathlib
import sys

import subunit
import testtools


def main(paths: list[str]) -> int:
    passed = failed = 0
    is_empty = False
    reasons: collections.Counter[str] = collections.Counter()
    for path in paths:
        summary = testtools.StreamSummary()
        with open(path, 'rb') as stream:
            case = subunit.ByteStreamToStreamResult(stream)
            summary.startTestRun()
            case.run(summary)
            summary.stopTestRun()
        reasons.update(reason for _, reason in summary.skipped)
        wrong = [test.id() for test, _ in
                 (*summary.errors, *summary.failures)]
        wrong += [test.id() for test in summary.unexpectedSuccesses]
        failed += len(wrong)
        passed += (summary.testsRun - len(wrong) - len(summary.skipped))
        name = pathlib.Path(path).stem
        print(f'{name}: {summary.testsRun} run, {len(wrong)} failed, '
              f'{len(summary.skipped)} skipped')
        for test in wrong:
            print(f'  failed: {test}')
        if not summary.testsRun:
            is_empty = True
            print('  no test ran')
    for reason, count in reasons.most_common():
        print(f'skipped {count}: {reason}')
    print(f'{passed} passed, {failed} failed, {sum(reasons.values())} skipped')
    return 1 if failed or is_empty or not passed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
