# SPDX-License-Identifier: Apache-2.0
"""The variable store that the user names: found, read, checked, kept."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from nova_arm_ext import errors
from nova_arm_ext import varstore
from nova_arm_ext.cmd import guests
from nova_arm_ext.cmd import host
from nova_arm_ext.cmd import reading
from nova_arm_ext.cmd import stores
from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.compute.nvram import files


def of_host(parsed_args: argparse.Namespace
            ) -> tuple[stores.Folders, Callable[[], list[stores.Domain]]]:
    """The directories that options and configuration name, and a question
    for all domains.

    :raises Failure: when a directory does not exist
    """
    conf = reading.of_nova_compute(parsed_args)
    folders = stores.Folders.configured(
        conf, nvram=parsed_args.nvram_dir,
        instances=parsed_args.instances_dir)
    uri = host.uri_of(conf, parsed_args.connect)
    return folders, lambda: stores.domains(uri, parsed_args.timeout)


def of_guest(parsed_args: argparse.Namespace) -> stores.Store:
    """The store of an instance, or with a path.

    :raises Failure: when there is none, or more than one
    """
    (folders, domains), guest = of_host(parsed_args), parsed_args.guest
    found = stores.find(folders, domains())
    if '/' in guest:
        path = os.path.abspath(guest)
        matching = [store for store in found if store.path == path]
        if not matching:
            raise Failure(
                f'{path} is neither in {folders.nvram} nor in an instance '
                f'directory, and no domain names it')
        return matching[0]
    owner = guests.called(guest, {
        store.domain.uuid: store.domain for store in found
        if store.domain}.values())
    of_domain = [store for store in found
                 if owner is not None and store.domain == owner]
    matching = [store for store in of_domain
                if store.domain and store.domain.nvram == store.path] or [
        store for store in of_domain if not store.is_aside]
    if len(matching) != 1:
        raise Failure(
            f'the instance {guest!r} has no variable store on this host'
            if not matching else
            f'the instance {guest!r} has more than one store; give the path '
            f'of one: '
            + ', '.join(store.path for store in matching))
    return matching[0]


def sound(parsed_args: argparse.Namespace
          ) -> tuple[str, bytes, stores.Domain | None]:
    """Path, content and domain of the store that the user names.

    :raises Failure: when there is none
    :raises Damaged: when its content is not valid
    """
    guest = parsed_args.guest
    if '/' in guest:
        folder, name = of_host(parsed_args)[0].split(guest)
        domain = None
    else:
        try:
            store = of_guest(parsed_args)
        except Failure as e:
            if os.path.isfile(guest):
                raise Failure(f'{e}; for the file of this name, write '
                              f'./{guest}') from e
            raise
        folder, name, domain = store.folder, store.name, store.domain
    path = os.path.join(folder, name)
    try:
        data = files.read(folder, name)
        if not data.startswith(varstore.MAGIC):
            data = told(path, files.read_sound, folder, name)
    except OSError as e:
        raise Failure(f'cannot read {path!r}: {e.strerror}') from e
    return path, data, domain


def first_bytes(store: stores.Store) -> bytes:
    """The beginning of a store, which tells qcow2 from raw."""
    return files.read(store.folder, store.name)[:4]


def flash_size(store: stores.Store) -> int | None:
    """The size of the flash that the firmware expects, in bytes.

    This is the size of the template, because the store may be truncated.
    """
    if store.domain is None or store.domain.template is None:
        return None
    try:
        with open(store.domain.template, 'rb') as template:
            if template.read(4) == varstore.QCOW2:
                return None
            return template.seek(0, os.SEEK_END)
    except OSError:
        return None     # the template may be in another container


def keep(store: stores.Store, done: str) -> str | None:
    """Keep a store before it is replaced, packed if it is sound.

    :param done: what replaces it
    :returns: the name of the file, from the folder; None if there is no store
    """
    try:
        data = files.read(store.folder, store.name)
    except FileNotFoundError:
        return None
    try:
        varstore.check(data)
        data = varstore.pack(data)
    except errors.Damaged:
        pass     # it is kept as it is
    first = kept = f'{store.name}{files.BEFORE}{done}'
    number = 1
    while files.exists(store.folder, kept):
        number += 1
        kept = f'{first}-{number}'
    write(store.folder, kept, data)
    return kept


def write(folder: str, name: str, data: bytes) -> None:
    """Write a file in one step.

    :raises Failure: when it cannot be written; the old one stays
    """
    try:
        files.write_atomic(folder, name, data)
    except OSError as e:
        raise Failure(f'cannot write {os.path.join(folder, name)!r}: '
                      f'{e.strerror}') from e


def check(path: str, data: bytes, size: int | None = None) -> None:
    """Check the content of a store.

    :param size: bytes of flash that it is for; None if unknown
    :raises Failure: when it is not valid
    """
    told(path, varstore.check, data, size)


def told(path: str, function: Any, *args: Any) -> Any:
    """Call a function; add the name of the file to its error."""
    try:
        return function(*args)
    except errors.Damaged as e:
        if path in str(e):
            raise
        raise Failure(f'{path}: {e}') from e
