# SPDX-License-Identifier: Apache-2.0
"""What the pipeline costs for Nova's default AArch64 document.

Run in an environment that has Nova and nova-arm-ext in it::

    $(tools/environment nova34)/bin/python -m benchmarks.pipeline

Everything is measured side by side in one run: in each round every candidate
has its turn, and what is printed is the median over the rounds of the ratio
within a round, so that a machine that grows slower meanwhile does no harm.
Logging is off, as it costs more than all hooks together.
"""

# Nova's test packages patch threads as they are imported and must come first.
from tests.nova.documents import generate  # isort: skip

import argparse
import importlib.metadata
import json
import logging
import platform
import statistics
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from unittest import mock

import libvirt
from lxml import etree
from nova.virt.libvirt import driver as libvirt_driver
from oslo_config import cfg

from nova_arm_ext import facts
from nova_arm_ext.compute import schema
from tests.nova.documents import kinds

try:
    from nova_arm_ext.pipeline import plugins
    from nova_arm_ext.pipeline.run import Pipeline
except ImportError:
    # another commit's, from before the pipeline was a package
    from nova_arm_ext import pipeline as plugins
    from nova_arm_ext.pipeline import Pipeline

#: A compute host with Debian 12.
HOST = facts.Host(
    arch='aarch64', libvirt_version=(9, 0, 0), qemu_version=(7, 2, 22),
    firmware=(facts.Firmware(
        arch='aarch64', machines=('virt-*',),
        loader='/usr/share/AAVMF/AAVMF_CODE.fd',
        template='/usr/share/AAVMF/AAVMF_VARS.fd'),))


def seconds(call: Callable[[], Any], times: int) -> float:
    started = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started) / times


#: what no AArch64 guest of Nova's can do without
NEEDED = 'libvirt_compat,uefi'


def loaded(check_schema: str,
           hooks: str = '') -> Pipeline:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    conf.register_opts(plugins.OPTS, group=plugins.GROUP)
    conf.set_override('check_schema', check_schema, group=plugins.GROUP)
    if hooks:
        conf.set_override('default_hooks', hooks, group=plugins.GROUP)
    return Pipeline.load(conf, schema=schema.load)


def measure(nova: Callable[[], str], rounds: int,
            times: int) -> dict[str, list[float]]:
    """Seconds of each candidate in each round."""
    document = nova()
    known = facts.Facts(host=HOST, guest=facts.Guest(
        extra_specs={}, image_properties={}))
    without, checked = loaded('off'), loaded('warn')
    few, few_checked = loaded('off', NEEDED), loaded('warn', NEEDED)
    result = without.run(document, known, record=True)
    existing = facts.Facts(host=HOST, guest=facts.Guest(
        extra_specs={}, image_properties={}, previous=result.xml))
    if result.xml == document:
        raise RuntimeError('the hooks left the document as it was')
    candidates: dict[str, Callable[[], Any]] = {
        'parse and serialise': lambda: etree.tostring(
            etree.fromstring(document), encoding='unicode'),
        'default hooks': lambda: without.run(document, known),
        '  schema checked': lambda: checked.run(document, known),
        '  guest exists': lambda: without.run(document, existing),
        NEEDED: lambda: few.run(document, known),
        '  with schema check': lambda: few_checked.run(document, known),
        "Nova's _get_guest_xml": nova,
    }
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        seconds(call, 3)
    for _ in range(rounds):
        for name, call in candidates.items():
            found[name].append(seconds(call, times))
    return found


def in_nova(kind: kinds.Kind, rounds: int,
            times: int) -> dict[str, list[float]]:
    """Measure with the document of a kind of guest, where Nova makes it."""
    original = libvirt_driver.LibvirtDriver._get_guest_xml
    found: dict[str, list[float]] = {}

    def repeated(*args: Any, **kwargs: Any) -> str:
        logging.disable(logging.CRITICAL)
        try:
            found.update(measure(lambda: original(*args, **kwargs), rounds,
                                 times))
        finally:
            logging.disable(logging.NOTSET)
        return original(*args, **kwargs)

    with mock.patch.object(libvirt_driver.LibvirtDriver, '_get_guest_xml',
                           repeated):
        generate.Build(kinds.AARCH64_KVM, [kind], 9000000,
                       7002022, None).outcomes()
    return found


def of_sizes(sizes: Sequence[int], rounds: int,
             times: int) -> dict[str, dict[str, list[float]]]:
    """Measurements with one disk and one interface, and with more of each.

    :returns: by ``default``, ``8 disks``, ``8 interfaces`` and so on
    """
    found = {'default': in_nova(kinds.Kind(name='default'), rounds, times)}
    for size in sizes[1:]:
        for name, asks in (
                # one disk is no volume
                (f'{size} disks', {'volumes': size - 1}),
                (f'{size} interfaces', {'interfaces': size})):
            found[name] = in_nova(
                kinds.Kind(name=name.replace(' ', '-'), **asks), rounds,
                max(2, times // size))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--times', type=int, default=100)
    parser.add_argument('--json', metavar='SIZE', type=int, nargs='+',
                        help='print the measurements with so many devices as '
                             'JSON')
    asked = parser.parse_args()
    if asked.json:
        json.dump(of_sizes(asked.json, asked.rounds, asked.times), sys.stdout)
        return
    found = in_nova(kinds.Kind(name='default'), asked.rounds, asked.times)

    base, nova = found['parse and serialise'], found["Nova's _get_guest_xml"]
    print(f'Nova {importlib.metadata.version("nova")}, lxml '
          f'{etree.__version__}, libvirt-python {libvirt.getVersion()}, '
          f'Python {platform.python_version()}, {platform.machine()}; '
          f'{asked.rounds} rounds of {asked.times}\n')
    print(f'{"":<26}{"median":>9}{"x parse and":>14}{"share of":>10}')
    print(f'{"":<26}{"us":>9}{"serialise":>14}{"Nova":>10}')
    for name, times in found.items():
        ratio = statistics.median(
            t / b for t, b in zip(times, base, strict=True))
        share = statistics.median(
            t / n for t, n in zip(times, nova, strict=True))
        print(f'{name:<26}{statistics.median(times) * 1e6:>9.0f}'
              f'{ratio:>14.2f}{share:>10.1%}')


if __name__ == '__main__':
    main()
