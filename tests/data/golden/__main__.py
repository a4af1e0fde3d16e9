# SPDX-License-Identifier: Apache-2.0
"""Writes after.xml of the golden cases again: ``python -m tests.data.golden``.

With names of cases, only of those. Where the hooks refuse a case, it writes
refusal.txt. Read the diff before you commit it: guests
will see it.
"""

import sys
import textwrap

from nova_arm_ext import errors
from tests.data import golden


def main() -> None:
    pipeline = golden.default_pipeline()
    for case in sys.argv[1:] or golden.cases() + golden.refused():
        name = 'after.xml'
        try:
            made = pipeline.run(golden.before(case), golden.known(case)).xml
        except errors.Refused as e:
            name, made = 'refusal.txt', textwrap.fill(str(e), 79)
        made = made.rstrip('\n') + '\n'
        path = golden.FOLDER / case / name
        changed = not path.exists() or path.read_text() != made
        path.write_text(made)
        print('written ' if changed else 'the same', case)


if __name__ == '__main__':
    main()
