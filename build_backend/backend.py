# SPDX-License-Identifier: Apache-2.0
"""pbr's build backend, whose wheels also make `nova.virt.arm_ext` known.

Nova imports its driver from `nova.virt`, a package that other distributions
cannot extend since Nova 31. A path configuration file beside the package,
nova_arm_ext.pth, therefore installs the import finder of
`nova_arm_ext.nova_virt` whenever Python starts. Neither pbr nor setuptools
can place a file at the root of site-packages, and an editable wheel takes no
file but its own, so the file is added to each finished wheel, regular or
editable.

The file guards its one import, because a line that fails there shows a
traceback at every start of every Python process in the environment, even if
nothing but remains of an uninstalled nova-arm-ext are left.
"""

import os
import pathlib
import tempfile

from pbr import build as pbr_build
from wheel.wheelfile import WheelFile

__all__ = [
    'build_editable',
    'build_sdist',
    'build_wheel',
    'get_requires_for_build_editable',
    'get_requires_for_build_sdist',
    'get_requires_for_build_wheel',
    'prepare_metadata_for_build_editable',
    'prepare_metadata_for_build_wheel',
]

PTH = pathlib.Path(__file__).with_name('nova_arm_ext.pth')

build_sdist = pbr_build.build_sdist
get_requires_for_build_editable = pbr_build.get_requires_for_build_editable
get_requires_for_build_sdist = pbr_build.get_requires_for_build_sdist
get_requires_for_build_wheel = pbr_build.get_requires_for_build_wheel
prepare_metadata_for_build_editable = (
    pbr_build.prepare_metadata_for_build_editable)
prepare_metadata_for_build_wheel = pbr_build.prepare_metadata_for_build_wheel


def build_wheel(wheel_directory, config_settings=None,
                metadata_directory=None):
    return _with_pth(pbr_build.build_wheel, wheel_directory,
                     config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None,
                   metadata_directory=None):
    return _with_pth(pbr_build.build_editable, wheel_directory,
                     config_settings, metadata_directory)


def _with_pth(build, wheel_directory, config_settings, metadata_directory):
    """Build a wheel and write it anew with the file in it.

    WheelFile compares what it reads with the first RECORD and writes the
    second.
    """
    with tempfile.TemporaryDirectory() as bare_directory:
        name = build(bare_directory, config_settings, metadata_directory)
        with (WheelFile(os.path.join(bare_directory, name)) as bare,
              WheelFile(os.path.join(wheel_directory, name), 'w') as wheel):
            wheel.write(PTH, PTH.name)
            for item in bare.infolist():
                if item.filename != bare.record_path:
                    wheel.writestr(item, bare.read(item))
    return name
