# SPDX-License-Identifier: Apache-2.0
"""Makes `nova.virt.arm_ext` importable, wherever Nova itself is installed.

Nova imports `nova.virt.<compute_driver>`, and `nova.virt` does not extend its
path: since Nova 31 it is a plain package, before that it joins only packages
that pkg_resources knows. So an import finder answers for this one name, with
the module `arm_ext` beside this file. It stands last in `sys.meta_path`: a
module of that name inside Nova would win.

The file nova_arm_ext.start in site-packages, or before Python 3.15 the file
nova_arm_ext.pth, installs the finder whenever Python starts, in every process
of the environment. Therefore this module imports nothing but `sys`, and the
driver is imported only when Nova asks for it.
"""

import sys

TYPE_CHECKING = False  # as in typing, which costs milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ALIAS = 'nova.virt.arm_ext'


class Finder:
    """Finds the one module, as if this directory belonged to `nova.virt`."""

    @staticmethod
    def find_spec(fullname: str, path: 'Sequence[str] | None' = None,
                  target: 'ModuleType | None' = None) -> 'ModuleSpec | None':
        if fullname != ALIAS:
            return None
        from importlib.machinery import PathFinder
        return PathFinder.find_spec(fullname, __path__, target)


def install() -> None:
    """Let imports ask the finder; a second call changes nothing."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
