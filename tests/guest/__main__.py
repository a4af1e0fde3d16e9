# SPDX-License-Identifier: Apache-2.0
"""Build the probe guest if it is missing, and print its path."""

import sys

from tests.guest import build


def main() -> int:
    try:
        guest = build.ensure()
    except build.MissingTools as error:
        print(f'guest: {error}', file=sys.stderr)
        return 2
    for path in (guest.disk, guest.kernel, guest.initrd):
        print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
