# SPDX-License-Identifier: Apache-2.0
"""What `tools/demo` shows: the hooks' work on a guest that Nova builds."""

import argparse
import dataclasses
import json
import logging
import os
import pathlib
import platform
import sys
import textwrap
import time
from typing import Any

from nova_arm_ext import facts
from nova_arm_ext.pipeline.reports import Result
from nova_arm_ext.pipeline.run import Pipeline

#: For the demonstration without a guest: a compute host with Debian 12.
DEBIAN_12 = facts.Host(
    arch='aarch64', libvirt_version=(9, 0, 0), qemu_version=(7, 2, 22),
    firmware=(facts.Firmware(
        arch='aarch64', machines=('virt-*',),
        loader='/usr/share/AAVMF/AAVMF_CODE.fd',
        template='/usr/share/AAVMF/AAVMF_VARS.fd'),))


class Paper:
    """Writes headings, facts and diffs, in colour on a terminal."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and not os.environ.get('NO_COLOR')

    def _paint(self, code: str, text: str) -> str:
        return f'\033[{code}m{text}\033[0m' if self._colour else text

    def heading(self, text: str) -> None:
        print(f'\n{self._paint("1", text)}\n{"=" * len(text)}')

    def line(self, name: str, value: object) -> None:
        print(f'  {name:<22}{value}')

    def hook(self, report: dict[str, Any]) -> None:
        state = 'changed' if report['diff'] else 'nothing to do'
        print(f'\n{self._paint("1;36", report["hook"])}  ({state})')
        for place, reason in report['reasons']:
            print(textwrap.fill(
                f'{place}: {reason}', 78, initial_indent='  * ',
                subsequent_indent='    '))
        if report['diff']:
            print()
        # the two lines of file names say nothing here
        for line in report['diff'].splitlines()[2:]:
            code = {'+': '32', '-': '31', '@': '36'}.get(line[:1], '0')
            print(f'    {self._paint(code, line)}')


def as_data(result: Result) -> list[dict[str, Any]]:
    """The reports as JSON values."""
    return [{'hook': report.hook, 'reasons': report.reasons,
             'diff': report.diff(), 'milliseconds': report.seconds * 1000}
            for report in result.reports]


def boot(folder: pathlib.Path) -> dict[str, Any]:
    """Boot a guest; runs in the sandbox, with Nova in the same process."""
    from tests.hosts.one import bed as beds
    from tests.support import sandbox
    bed = beds.Bed(folder)
    bed.start()
    results = []
    pipe = bed.nova_driver._adjustment.pipeline
    run = pipe.run

    def noted(*args: Any, **kwargs: Any) -> Result:
        result = run(*args, **(kwargs | {'record': True}))
        results.append(result)
        return result

    pipe.run = noted
    sandbox.say('POST /servers')
    started = time.monotonic()
    try:
        server = bed.boot(config_drive=True)
        sandbox.say(f'ACTIVE after {time.monotonic() - started:.0f} s; '
                    f'UEFI loads the guest, emulated by QEMU (TCG)')
        report = server.report()
    except (beds.ActionFailed, beds.GuestTimeout) as error:
        raise RuntimeError(f'{error}\n{bed.state()}') from error
    return {'hooks': as_data(results[0]),
            'seconds': time.monotonic() - started,
            # a set is no JSON
            'guest': dataclasses.asdict(report) | {
                'features': sorted(report.features),
                'root_ports': report.root_ports}}


def without_guest() -> list[dict[str, Any]]:
    """The pipeline on a document that Nova makes here and now."""
    from oslo_config import cfg

    from tests.nova.documents import generate
    from tests.nova.documents import kinds
    kind = next(k for k in kinds.ARM_KINDS if k.name == 'config-drive')
    outcome = generate.Build(kinds.AARCH64_KVM, [kind], 9000000,
                             7002022, None).outcomes()[kind.name]
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    pipe = Pipeline.load(conf)
    logging.disable(logging.CRITICAL)
    return as_data(pipe.run(outcome.document, facts.Facts(host=DEBIAN_12),
                            record=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog='tools/demo')
    parser.add_argument('--no-guest', action='store_true')
    asked = parser.parse_args()
    paper = Paper()

    def progress(text: str) -> None:
        print(f'  ... {text}', file=sys.stderr, flush=True)

    if asked.no_guest:
        hooks = without_guest()
        paper.heading('What the hooks changed in a document of Nova 34')
        for report in hooks:
            paper.hook(report)
        return 0

    from tests import guest
    from tests.support import sandbox
    progress('the guest image (made once, about 20 s)')
    guest.ensure()
    reason = sandbox.why_not()
    if reason:
        print(f'No guest can be booted here: {reason}', file=sys.stderr)
        return 1
    answer = sandbox.call('tools.demo:boot', timeout=400, progress=progress)
    paper.heading('What the hooks changed before libvirt saw the guest')
    for report in answer['hooks']:
        paper.hook(report)
    said = answer['guest']
    paper.heading('What the guest says about itself')
    machine = platform.machine()
    paper.line('arch', said['arch'] + (
        f'  (emulated on {machine}, no KVM)' if machine != 'aarch64' else ''))
    paper.line('efi', 'yes' if said['efi'] else 'no')
    paper.line('kernel', said['kernel'])
    paper.line('config drive', said['config_drive'] or 'none')
    paper.line('PCIe root ports', said['root_ports'])
    for disk in said['disks']:
        paper.line('disk', f'{disk["name"]}  {disk["kind"]}  '
                           f'{disk["size"] >> 20} MiB')
    for device in said['virtio']:
        paper.line('virtio', f'{device["driver"]} at {device["parent"]}')
    for name in said['inputs']:
        paper.line('input', name)
    paper.line('graphics', ', '.join((*said['framebuffers'], *said['dri'])))
    print(f'\nFrom POST /servers to this report: {answer["seconds"]:.0f} s')
    print(json.dumps({'arch': said['arch'], 'efi': said['efi']}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
