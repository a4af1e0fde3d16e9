# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext-status upgrade check`: the checks of doctor, for tools.

The command, its table, its ``--json`` and its exit status are those of
oslo.upgradecheck, as ``nova-status upgrade check`` has them.
"""

import functools
import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from nova_arm_ext.cmd import checks
from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import host
from nova_arm_ext.cmd import main as main_module
from nova_arm_ext.cmd import reading
from nova_arm_ext.cmd.checks import base


class Checks(upgradecheck.UpgradeCommands):
    """Each check of the doctor, with its findings in one text."""

    _upgrade_checks = tuple(
        (check.name, functools.partial(
            lambda self, check: self.result_of(check), check=check))
        for check in checks.CHECKS)

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    @functools.cached_property
    def _place(self) -> base.Surroundings:
        return base.Surroundings(self._conf, host.uri_of(self._conf))

    def result_of(self, check: base.Check) -> upgradecheck.Result:
        """The result of one check, as oslo.upgradecheck shows it."""
        # libraries that Nova imports warn on standard error
        with main_module.quiet(None):
            found = list(check.findings(self._place))
        worst = max(map(_code, found))
        return upgradecheck.Result(
            upgradecheck.Code(worst), '. '.join(
                finding.sentence for finding in found
                if _code(finding) == worst))


def _code(finding: base.Finding) -> int:
    """The code of oslo.upgradecheck; what is unknown is no success."""
    if finding.is_unknown:
        return int(upgradecheck.Code.WARNING)
    return finding.status.exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    :param argv: arguments, without the name of the program
    :returns: 0, 1 with warnings, 2 with failures, 255 for an error
    """
    conf = cfg.ConfigOpts()
    files, _ = reading.files_of_nova_compute()
    try:
        return upgradecheck.main(
            conf, 'nova', Checks(conf),
            list(sys.argv[1:] if argv is None else argv), files)
    except cfg.Error as e:
        sys.stderr.write(f'nova-arm-ext-status: {failure.one_line(str(e))}\n')
        return 255


if __name__ == '__main__':
    sys.exit(main())
