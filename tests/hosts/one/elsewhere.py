# SPDX-License-Identifier: Apache-2.0
"""Runs host tests with the libvirt, QEMU and firmware of a Debian suite.

``python -m tests.hosts.one.elsewhere trixie tests.hosts.one.test_boot``, as
root. Nova and its libraries are those of this environment; the suite is in a
root folder (``tools/root``), of which the sandbox of each test is made.
"""

import argparse
import os
import sys

from tests import guest
from tests.guest import build
from tests.starts import bed

#: The cache inside; libvirt's is kept by tools/root.
CACHE = '/var/cache/nova-arm-ext'
# Its arguments are tests.
_SCRIPT = '''\
mkdir {cache}
ln -s {guests} {cache}/guest
ln -s /var/cache/libvirt {cache}/libvirt
export NOVA_ARM_EXT_CACHE={cache} PATH={binaries}:$PATH
exec python -W ignore -m testtools.run "$@"
'''


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m tests.hosts.one.elsewhere',
        description=__doc__.splitlines()[0])
    parser.add_argument('suite', help='as tools/root names it')
    parser.add_argument('tests', nargs='+')
    asked = parser.parse_args()
    for arch in guest.INGREDIENTS:
        guest.ensure(arch)
    guests = build.cache_folder() / 'guest'
    script = _SCRIPT.format(cache=CACHE, guests=guests,
                            binaries=f'{sys.prefix}/bin')
    root = str(bed.TREE / 'tools/root')
    os.execv(root, [
        root, 'run', asked.suite, '--bare',
        *(f'--bind={path}' for path in (*bed.python(), str(guests))), '--',
        'sh', '-e', '-c', script, 'elsewhere', *asked.tests])


if __name__ == '__main__':
    main()
