# SPDX-License-Identifier: Apache-2.0
"""pbr's build backend, whose wheels also make `nova.virt.arm_ext` known.

Nova imports its driver from `nova.virt`, a package that other distributions
cannot extend since Nova 31. Two startup files beside the package therefore
install the import finder of `nova_arm_ext.nova_virt` whenever Python starts:

* nova_arm_ext.start names the function to call. Python 3.15 and later read it
  (PEP 829), and then ignore the import line of the .pth file of the same name.
* nova_arm_ext.pth has an import line for older versions, which ignore the
  .start file. Python 3.20 and later warn of such lines: remove the .pth file
  when Python 3.15 is the oldest supported version.

Neither pbr nor setuptools can place a file at the root of site-packages, and
an editable wheel takes no file but its own, so the files are added to each
finished wheel, regular or editable.

The import line catches its errors: otherwise every Python process of the
environment would show a traceback at its start if only these files were left
of nova-arm-ext. A .start file cannot do so.
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

STARTUP_FILES = [
    pathlib.Path(__file__).with_name(name)
    for name in ('nova_arm_ext.pth', 'nova_arm_ext.start')]

build_sdist = pbr_build.build_sdist
get_requires_for_build_editable = pbr_build.get_requires_for_build_editable
get_requires_for_build_sdist = pbr_build.get_requires_for_build_sdist
get_requires_for_build_wheel = pbr_build.get_requires_for_build_wheel
prepare_metadata_for_build_editable = (
    pbr_build.prepare_metadata_for_build_editable)
prepare_metadata_for_build_wheel = pbr_build.prepare_metadata_for_build_wheel


def build_wheel(wheel_directory, config_settings=None,
                metadata_directory=None):
    return _with_startup_files(pbr_build.build_wheel, wheel_directory,
                               config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None,
                   metadata_directory=None):
    return _with_startup_files(pbr_build.build_editable, wheel_directory,
                               config_settings, metadata_directory)


def _with_startup_files(build, wheel_directory, config_settings,
                        metadata_directory):
    """Build a wheel and write it again with the startup files in it.

    WheelFile checks what it reads against the old RECORD and writes a new one.

    :param build: the function of pbr that builds the wheel
    :returns: the wheel's file name
    """
    with tempfile.TemporaryDirectory() as bare_directory:
        name = build(bare_directory, config_settings, metadata_directory)
        with (WheelFile(os.path.join(bare_directory, name)) as bare,
              WheelFile(os.path.join(wheel_directory, name), 'w') as wheel):
            for path in STARTUP_FILES:
                wheel.write(path, path.name)
            for item in bare.infolist():
                if item.filename != bare.record_path:
                    wheel.writestr(item, bare.read(item))
    return name
