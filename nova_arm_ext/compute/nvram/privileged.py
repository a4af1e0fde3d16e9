# SPDX-License-Identifier: Apache-2.0
"""What is done to variable stores as root, through Nova's privsep.

libvirt leaves the file of a stopped guest to root, mode 0600. Nova's own
context serves: oslo.privsep takes functions of any module whose name begins
as the context's does, with "nova", and rootwrap asks for the context alone.
Each function says who may ask for what by its arguments: a folder that is
trusted and the path of a store beneath it, in which no link is followed.
"""

import nova.privsep

from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import files


@nova.privsep.sys_admin_pctxt.entrypoint
def check(folder: str, name: str, size: int | None) -> None:
    """Check a store (see `files.read_sound`)."""
    files.read_sound(folder, name, size)


@nova.privsep.sys_admin_pctxt.entrypoint
def state(folder: str, name: str) -> tuple[int, int, int]:
    """What changes when a store is written (see `files.state`)."""
    # privsep hands it over as a list
    return files.state(folder, name)


@nova.privsep.sys_admin_pctxt.entrypoint
def pack(folder: str, name: str, size: int | None,
         secure_boot: bool | None) -> bytes:
    """Check a store, and pack it."""
    return checked_and_packed(folder, name, size, secure_boot)


@nova.privsep.sys_admin_pctxt.entrypoint
def write(folder: str, name: str, packed: bytes, size: int | None) -> None:
    """Write a store that came packed (see `check_and_write`)."""
    check_and_write(folder, name, packed, size)


@nova.privsep.sys_admin_pctxt.entrypoint
def exists(folder: str, name: str) -> bool:
    """Whether anything has a store's name."""
    return files.exists(folder, name)


@nova.privsep.sys_admin_pctxt.entrypoint
def put_aside(folder: str, name: str) -> str:
    """Give a store another name (see `files.put_aside`)."""
    return files.put_aside(folder, name)


@nova.privsep.sys_admin_pctxt.entrypoint
def remove(folder: str, name: str) -> bool:
    """Remove a store (see `files.remove`)."""
    return files.remove(folder, name)


@nova.privsep.sys_admin_pctxt.entrypoint
def remove_all(folder: str, name: str) -> bool:
    """Remove a store and what was renamed (see `files.remove_all`)."""
    return files.remove_all(folder, name)


def checked_and_packed(folder: str, name: str, size: int | None,
                       secure_boot: bool | None) -> bytes:
    """A store, packed, if it is sound.

    :raises Damaged: when it is not
    """
    data = files.read_sound(folder, name, size)
    return varstore.pack(data, secure_boot=secure_boot)


def check_and_write(folder: str, name: str, packed: bytes,
                    size: int | None) -> None:
    """Write a store that came packed, for this process, if it is sound.

    :raises Damaged: when it is not, or a link lies in its place
    :raises OSError: as `files.write_atomic` does
    """
    data = varstore.unpack(packed)
    varstore.check(data, size)
    # libvirt gives it to QEMU's user when the guest starts
    files.write_atomic(folder, name, data, files.own())
