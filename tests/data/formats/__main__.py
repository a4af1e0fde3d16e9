# SPDX-License-Identifier: Apache-2.0
"""Writes the files of this version.

``python -m tests.data.formats 1.0.0``, once, when version 1.0.0 is released.
An existing folder is never overwritten.
"""

import json
import sys

from nova_arm_ext import provenance
from nova_arm_ext import varstore
from tests.data import formats
from tests.data import golden
from tests.support import embed


def main() -> None:
    [version] = sys.argv[1:]
    hooks = golden.default_pipeline()
    ours = provenance.Record(version=version,
                             options=provenance.digest(hooks))
    records: list[provenance.Record] = []

    def finish(domain, reports):
        records.append(ours.of(reports))
        provenance.write(domain, records[-1])

    made = hooks.run(golden.before(formats.CASE), golden.known(formats.CASE),
                     finish=finish).xml
    with embed.Process() as process:
        stored = process.define(made).stored
    if stored is None:
        raise SystemExit('libvirt does not define the document')
    folder = formats.FOLDER / version
    folder.mkdir()
    (folder / 'domain.xml').write_text(stored.rstrip('\n') + '\n')
    (folder / 'store.packed').write_bytes(varstore.pack(formats.store()))
    (folder / 'expected.json').write_text(json.dumps(
        {'version': version, 'reasons': [
            (hook.name, reason.place) for record in records
            for hook in record.hooks for reason in hook.reasons]},
        indent=2) + '\n')


if __name__ == '__main__':
    main()
