# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext nvram`: the UEFI variable stores of this host's guests."""

import argparse
import os
import re
from typing import Any
from typing import TYPE_CHECKING

from cliff import columns

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command

if TYPE_CHECKING:
    from nova_arm_ext.cmd import stores

_GUEST = ("a libvirt domain's name or UUID, which is the server's ID, or the "
          "path of a store")


class Bytes(columns.FormattableColumn):
    """A number of bytes, for people in the unit that fits."""

    def human_readable(self) -> str:
        if self._value is None:
            return '-'
        for power, unit in ((30, 'GiB'), (20, 'MiB'), (10, 'KiB')):
            if self._value >= 1 << power:
                return f'{self._value / (1 << power):.4g} {unit}'
        return f'{self._value} B'


class Age(columns.FormattableColumn):
    """A number of seconds, for people in the unit that fits."""

    def human_readable(self) -> str:
        if self._value is None:
            return '-'
        for length, unit in ((86400, 'd'), (3600, 'h'), (60, 'min')):
            if self._value >= length:
                return f'{self._value // length:.0f} {unit}'
        return f'{self._value:.0f} s'

    def machine_readable(self) -> int | None:
        return None if self._value is None else int(self._value)


class _OnHost:
    """What all of these commands have."""

    _epilog = ''

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)     # type: ignore[misc]
        arguments.add_connect(parser)
        arguments.add_config_file(parser)
        arguments.add_folders(parser)
        return parser


class _List(_OnHost, command.Lister):
    """A list of stores."""


class List(_List):
    """List the variable stores on this host, and their guests.

    Size is that of the guest's flash, On disk what it takes. Age is the time
    since content or owner changed; libvirt changes the owner at each start
    and stop. Where is libvirt for libvirt's own folder, instance for that of
    the instance.
    """

    _epilog = ('A store that a domain names and that is not there yet has no '
               'size. Only a read-only connection is made. -f json gives '
               'bytes and seconds.')

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from nova_arm_ext.cmd import stores
        folders = _folders(parsed_args)
        found = stores.find(folders, stores.domains(parsed_args.connect))
        return (('Store', 'Guest', 'UUID', 'State', 'Size', 'On disk', 'Age',
                 'Where', 'Template'), [_row(store) for store in found])


def _row(store: 'stores.Store') -> tuple[Any, ...]:
    from nova_arm_ext.cmd.failure import printable
    domain = store.domain
    return (
        printable(store.path), domain.name if domain else '-',
        domain.uuid if domain else '-',
        'put aside' if store.is_aside
        else 'suspended' if domain and domain.suspended
        else domain.state if domain else 'no domain',
        Bytes(store.size), Bytes(store.on_disk), Age(store.age), store.place,
        (domain and domain.template) or '-')


class Show(_OnHost, command.Command):
    """Show what a guest's variable store says.

    Boot order and boot options, keys and state of Secure Boot, and each
    variable by its name. Values of other variables are not shown: one may
    hold a password.
    """

    _epilog = ("A file that backup wrote can be shown as well. libvirt is not "
               "asked where a path is given. This needs virt-firmware: pip "
               "install 'nova-arm-ext[nvram]'.")

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('guest', metavar='GUEST', help=_GUEST)
        parser.add_argument('--json', action='store_true',
                            help='print JSON, for scripts')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        import json

        from nova_arm_ext import varstore
        from nova_arm_ext.cmd import variables
        path, data, domain = _sound(parsed_args)
        if data.startswith(varstore.MAGIC):
            data = varstore.unpack(data)
            _check(path, data)
        flash = variables.raw(data)
        if flash is not data:
            _check(path, flash)
        found = variables.describe(flash)
        if parsed_args.json:
            guest = domain and {'name': domain.name, 'uuid': domain.uuid,
                                'state': domain.state}
            self.app.stdout.write(json.dumps(
                {'store': path, 'guest': guest, **found}, indent=2) + '\n')
        else:
            from nova_arm_ext.cmd.failure import printable
            self.app.stdout.write(
                f'Store: {printable(path)}\n'
                + (f'Guest: {domain.title}, {domain.state}\n' if domain
                   else '') + variables.to_text(found))
        return 0


class Backup(_OnHost, command.Command):
    """Write a guest's variable store to a file, packed and with a checksum.

    The file has a few KiB, and restore makes the same store of it byte for
    byte. A guest may run meanwhile; then it is what the store holds when
    nobody writes it for half a second.
    """

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('guest', metavar='GUEST', help=_GUEST)
        parser.add_argument('file', metavar='FILE',
                            help='the file to write, which must not exist')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd.failure import Failure
        path, data, _ = _sound(parsed_args)
        if data.startswith(varstore.MAGIC):
            raise Failure(f'{path} is a backup already')
        packed = _told(path, varstore.pack, data)
        if os.path.lexists(parsed_args.file):
            raise Failure(f'{parsed_args.file!r} exists already')
        _write(*os.path.split(os.path.abspath(parsed_args.file)), packed)
        self.app.stdout.write(
            f'{path}: {len(data)} bytes, packed in {len(packed)} in '
            f'{parsed_args.file}\n')
        return 0


class _Replacing(_OnHost, command.Command):
    """Puts another store in the place of a guest's."""

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('guest', metavar='GUEST', help=_GUEST)
        return parser

    def replace(self, parsed_args: argparse.Namespace, data: bytes,
                store: 'stores.Store', origin: str) -> int:
        """Write the store, if no guest reads the old one.

        :param data: the new store, raw or qcow2
        :param origin: how it is called in messages
        """
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd.failure import Failure
        from nova_arm_ext.compute import store_files
        _check(origin, data, _flash_size(store))
        domain = store.domain
        if domain is not None and domain.active:
            raise Failure(f'the guest {domain.title} is {domain.state}: stop '
                          f'it first (openstack server stop)')
        if domain is not None and domain.suspended:
            raise Failure(
                f'the guest {domain.title} is suspended, and its memory has a '
                f'copy of the store: resume and stop it first')
        if store.path.endswith('.rescue'):
            raise Failure(
                f'{store.path} is a copy for a rescue, which goes with it: '
                f'unrescue and stop the guest first')
        is_qcow2 = store.path.endswith('.qcow2')
        try:
            if store_files.in_use(store.folder, store.name):
                raise Failure(f'{store.path} is in use: a QEMU that this '
                              f'libvirt does not know of has it open')
            is_qcow2 = _first_bytes(store) == varstore.QCOW2
        except FileNotFoundError:
            pass     # it was lost, or the guest was never started
        if is_qcow2 != data.startswith(varstore.QCOW2):
            raise Failure(
                f'{origin} is {"raw" if is_qcow2 else "qcow2"} and '
                f'{store.path} is {"qcow2" if is_qcow2 else "raw"}; convert '
                f'it with qemu-img convert')
        _write(store.folder, store.name, data)
        self.app.stdout.write(f'{store.path} is now as {origin}\n')
        return 0


class Restore(_Replacing):
    """Put a backup in the place of a guest's variable store.

    The backup is checked first, and the guest must be stopped. If anything
    fails the old store stays as it is.
    """

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('file', metavar='FILE',
                            help='a file that backup has written')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd import reading
        packed = reading.read(parsed_args.file, varstore.MAX_PACKED)
        data = _told(parsed_args.file, varstore.unpack, packed)
        return self.replace(parsed_args, data, _of_guest(parsed_args),
                            reading.name_of(parsed_args.file))


class Reset(_Replacing):
    """Put the firmware's template in the place of a guest's variable store.

    All variables of the guest are lost: boot options, keys that it has
    enrolled. The guest must be stopped.
    """

    _epilog = ('The template is the one that the domain names (nvram/'
               '@template). A backup before is a good idea.')

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--template', metavar='FILE',
            help="another template than the domain's, such as "
                 "/usr/share/AAVMF/AAVMF_VARS.fd")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd.failure import Failure
        from nova_arm_ext.compute import store_files
        store = _of_guest(parsed_args)
        template = parsed_args.template or (
            store.domain and store.domain.template)
        if not template:
            raise Failure(f'no document names the template of {store.path}: '
                          f'give it with --template')
        return self.replace(
            parsed_args, reading.read(template, store_files.MAX_SIZE), store,
            template)


class Orphans(_List):
    """List the stores that no guest has any more; remove them with --yes.

    These are files in libvirt's folder with a name of Nova's that neither a
    libvirt domain nor an instance's folder accounts for.
    """

    _epilog = ('An instance that is being moved or rebooted hard has no '
               'domain for a while, so that it is better to remove while none '
               'is. A store that may be that of such an instance is kept '
               'where instances are on a local file system.')

    _faults = 0

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--older-than', metavar='TIME', type=_seconds, default='1d',
            help='leave out what was changed since then, in m, h or d '
                 '(default: 1d)')
        parser.add_argument('--yes', action='store_true',
                            help='remove them')
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        status: int = super().run(parsed_args)
        if self._faults:
            from nova_arm_ext.cmd import failure
            self.app.stdout.flush()
            raise failure.Failure(
                f'{self._faults} of the stores could not be removed')
        return status

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from nova_arm_ext.cmd import stores
        from nova_arm_ext.cmd.failure import printable
        folders = _folders(parsed_args)
        found = list(stores.orphans(
            folders, stores.domains(parsed_args.connect),
            parsed_args.older_than))
        still = set()
        if parsed_args.yes and found:
            # a guest may have come back meanwhile
            still = {store.path for store, kept in stores.orphans(
                folders, stores.domains(parsed_args.connect),
                parsed_args.older_than) if not kept}
        rows = []
        for store, kept in found:
            outcome = f'kept: {kept}' if kept else 'orphan'
            if parsed_args.yes and not kept:
                outcome = (self._remove(store) if store.path in still
                           else 'kept: it is in use again')
            rows.append((printable(store.path), Bytes(store.on_disk),
                         Age(store.age), outcome))
        return ('Store', 'On disk', 'Age', 'Outcome'), rows

    def _remove(self, store: 'stores.Store') -> str:
        from nova_arm_ext import errors
        from nova_arm_ext.cmd.failure import one_line
        from nova_arm_ext.compute import store_files
        try:
            store_files.remove(store.folder, store.name)
        except (errors.Damaged, OSError) as e:
            self._faults += 1
            return one_line(f'NOT REMOVED: {e}')
        return 'removed'


def _seconds(text: str) -> float:
    found = re.fullmatch(r'(\d+)([mhd])', text)
    if not found:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no time such as 30m, 12h or 7d')
    return int(found[1]) * {'m': 60.0, 'h': 3600.0, 'd': 86400.0}[found[2]]


def _folders(parsed_args: argparse.Namespace) -> 'stores.Folders':
    """The folders that options and configuration name.

    :raises Failure: when one that is named is not there
    """
    from nova_arm_ext.cmd import reading
    from nova_arm_ext.cmd import stores
    return stores.Folders.configured(
        reading.configuration(parsed_args.config_file),
        nvram=parsed_args.nvram_dir, instances=parsed_args.instances_dir)


def _of_guest(parsed_args: argparse.Namespace) -> 'stores.Store':
    """The store that the user means by a guest or by its path.

    :raises Failure: when there is none, or more than one
    """
    from nova_arm_ext.cmd import stores
    from nova_arm_ext.cmd.failure import Failure
    folders, guest = _folders(parsed_args), parsed_args.guest
    found = stores.find(folders, stores.domains(parsed_args.connect))
    if '/' in guest:
        path = os.path.abspath(guest)
        matching = [store for store in found if store.path == path]
        if not matching:
            raise Failure(
                f'{path} is neither in {folders.nvram} nor in the folder of '
                f'an instance, and no domain names it')
        return matching[0]
    of_domain = [store for store in found if store.domain is not None
                 and guest in (store.domain.name, store.domain.uuid)]
    matching = [store for store in of_domain
                if store.domain and store.domain.nvram == store.path] or [
        store for store in of_domain if not store.is_aside]
    if len(matching) != 1:
        raise Failure(
            f'the guest {guest!r} has no variable store on this host'
            if not matching else
            f'it is not clear which store is that of {guest!r}: '
            + ', '.join(store.path for store in matching))
    return matching[0]


def _sound(parsed_args: argparse.Namespace
           ) -> tuple[str, bytes, 'stores.Domain | None']:
    """Path, content and guest of the store that the user means.

    :raises Failure: when there is none
    :raises Damaged: when it is not sound
    """
    from nova_arm_ext import varstore
    from nova_arm_ext.cmd.failure import Failure
    from nova_arm_ext.compute import store_files
    guest = parsed_args.guest
    if '/' in guest:
        folder, name = _folders(parsed_args).split(guest)
        domain = None
    else:
        store = _of_guest(parsed_args)
        folder, name, domain = store.folder, store.name, store.domain
    path = os.path.join(folder, name)
    try:
        data = store_files.read(folder, name)
        if not data.startswith(varstore.MAGIC):
            data = _told(path, store_files.read_sound, folder, name)
    except OSError as e:
        raise Failure(f'cannot read {path!r}: {e.strerror}') from e
    return path, data, domain


def _first_bytes(store: 'stores.Store') -> bytes:
    from nova_arm_ext.compute import store_files
    return store_files.read(store.folder, store.name)[:4]


def _flash_size(store: 'stores.Store') -> int | None:
    """Bytes of flash that the firmware of a guest is made for.

    The file of the store is not asked: it may be a truncated one.
    """
    from nova_arm_ext import varstore
    if store.domain is None or store.domain.template is None:
        return None
    try:
        with open(store.domain.template, 'rb') as template:
            if template.read(4) == varstore.QCOW2:
                return None
            return template.seek(0, os.SEEK_END)
    except OSError:
        return None     # it may be in another container


def _write(folder: str, name: str, data: bytes) -> None:
    from nova_arm_ext.cmd.failure import Failure
    from nova_arm_ext.compute import store_files
    try:
        store_files.write_atomic(folder, name, data)
    except OSError as e:
        raise Failure(f'cannot write {os.path.join(folder, name)!r}: '
                      f'{e.strerror}') from e


def _check(path: str, data: bytes, size: int | None = None) -> None:
    from nova_arm_ext import varstore
    _told(path, varstore.check, data, size)


def _told(path: str, function: Any, *args: Any) -> Any:
    """Call a function of a store, and name the file in what it says."""
    from nova_arm_ext import errors
    from nova_arm_ext.cmd.failure import Failure
    try:
        return function(*args)
    except errors.Damaged as e:
        if path in str(e):
            raise
        raise Failure(f'{path}: {e}') from e
