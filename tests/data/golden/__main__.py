# SPDX-License-Identifier: Apache-2.0
"""Writes after.xml of the golden cases again: ``python -m tests.data.golden``.

With names of cases, only of those. Read the diff before you commit it: guests
will see it.
"""

import sys

from tests.data import golden


def main() -> None:
    pipeline = golden.default_pipeline()
    for case in sys.argv[1:] or golden.cases():
        made = pipeline.run(golden.before(case), golden.known(case)).xml
        made = made.rstrip('\n') + '\n'
        path = golden.FOLDER / case / 'after.xml'
        changed = not path.exists() or path.read_text() != made
        path.write_text(made)
        print('written ' if changed else 'the same', case)


if __name__ == '__main__':
    main()
