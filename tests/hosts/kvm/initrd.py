# SPDX-License-Identifier: Apache-2.0
"""The initial RAM disk of an Arm host, which finds its disk."""

import gzip
import lzma
import pathlib
import subprocess
import tempfile

from tests.hosts.kvm import root as roots

#: What it loads before the disk is there.
_MODULES = ('virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4')


def make(root: pathlib.Path) -> bytes:
    """The initial RAM disk for the kernel in a root folder."""
    modules = root / 'usr/lib/modules' / roots.kernel(root)
    files = {'init': (roots.FILES / 'init').read_bytes(),
             'bin/busybox': next(root.glob('**/bin/busybox')).read_bytes()}
    order = module_order(
        _MODULES, (modules / 'modules.dep').read_text(),
        (modules / 'modules.builtin').read_text())
    for path in order:
        data = (modules / path).read_bytes()
        name = pathlib.Path(path).name
        if name.endswith('.xz'):
            data = lzma.decompress(data)
        files[f'modules/{name.removesuffix(".xz")}'] = data
    files['modules/order'] = ''.join(
        f'{pathlib.Path(path).name.removesuffix(".xz")}\n'
        for path in order).encode()
    return gzip.compress(_archive(files), 6, mtime=0)


def module_order(names: tuple[str, ...], dependencies: str,
                 builtin: str) -> list[str]:
    """The files of kernel modules, each after those that it needs.

    :param dependencies: the text of modules.dep
    :param builtin: the text of modules.builtin; these have no files
    """
    needs = {}
    for line in dependencies.splitlines():
        path, _, needed = line.partition(':')
        # The last one named is needed first.
        needs[_module(path)] = [*reversed(needed.split()), path]
    in_kernel = {_module(path) for path in builtin.splitlines()}
    order: dict[str, None] = {}
    for name in names:
        if _module(name) not in in_kernel:
            order |= dict.fromkeys(needs[_module(name)])
    return list(order)


def _module(path: str) -> str:
    return path.rpartition('/')[2].partition('.')[0].replace('-', '_')


def _archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive of these files and the folders that the init needs."""
    with tempfile.TemporaryDirectory(prefix='nova-arm-ext-initrd-') as name:
        tree = pathlib.Path(name)
        for empty in ('dev', 'new', 'proc', 'sys'):
            (tree / empty).mkdir()
        for place, data in files.items():
            path = tree / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)
        listed = sorted(str(path.relative_to(tree))
                        for path in tree.rglob('*'))
        return subprocess.run(
            ('cpio', '--quiet', '-o', '-H', 'newc', '-R', '0:0'), cwd=tree,
            input='\n'.join(listed).encode(), capture_output=True,
            check=True).stdout
