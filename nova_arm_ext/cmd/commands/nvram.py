# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext nvram`: the UEFI variable stores on this host."""

import argparse
import os
import re
from typing import Any
from typing import TYPE_CHECKING

from cliff import columns

from nova_arm_ext.cmd import arguments
from nova_arm_ext.cmd import command
from nova_arm_ext.cmd import forms

if TYPE_CHECKING:
    from nova_arm_ext.cmd import stores

_GUEST = ("the server's ID or name, the name or ID of the libvirt domain, or "
          "the path of a variable store (with a slash)")


class Bytes(columns.FormattableColumn):
    """A number of bytes; people see the unit that fits."""

    def human_readable(self) -> str:
        if self._value is None:
            return '-'
        for power, unit in ((30, 'GiB'), (20, 'MiB'), (10, 'KiB')):
            if self._value >= 1 << power:
                return f'{self._value / (1 << power):.4g} {unit}'
        return f'{self._value} B'


class Age(columns.FormattableColumn):
    """A number of seconds; people see the unit that fits."""

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
    """The options of all these commands."""

    _epilog = ''

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)     # type: ignore[misc]
        arguments.add_connect(parser)
        arguments.add_config(parser)
        arguments.add_folders(parser)
        return parser


class _List(_OnHost, command.Lister):
    """A list of stores."""


class List(_List):
    """List the variable stores (NVRAM files) on this host.

    Size is the size of the flash that the guest sees, On disk the space that
    the file uses. Age is the time since its content or owner changed; libvirt
    changes the owner at each start and stop. Where is "libvirt" for libvirt's
    own directory, and "instance" for the instance directory.
    """

    _epilog = ('A store that does not exist yet, but that a domain names, '
               'has no size. The command connects to libvirt read-only. With '
               '-f json, sizes are in bytes and ages in seconds.')

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd import stores
        folders, domains = chosen.of_host(parsed_args)
        found = stores.find(folders, domains())
        return (('Store', 'Guest', 'UUID', 'State', 'Size', 'On disk', 'Age',
                 'Where', 'Template'), [_row(store) for store in found])


def _row(store: 'stores.Store') -> tuple[Any, ...]:
    from nova_arm_ext.cmd.failure import printable
    domain = store.domain
    return (
        printable(store.path), forms.Known(domain and domain.name),
        forms.Known(domain and domain.uuid),
        'kept' if store.is_kept
        else 'put aside' if store.is_aside
        else 'suspended' if domain and domain.suspended
        else domain.state if domain else 'no domain',
        Bytes(store.size), Bytes(store.on_disk), Age(store.age), store.place,
        forms.Known(domain and domain.template))


class Show(_OnHost, command.Command):
    """Show the content of an instance's variable store.

    Shows the boot order and boot options, the state and keys of Secure Boot,
    and the names of all variables. Values of other variables are not shown,
    because one may hold a password.
    """

    _epilog = ("INSTANCE can also be the path of a file that backup wrote, "
               "or - for standard input. Then libvirt is not asked. This "
               "command needs "
               "virt-firmware: pip install 'nova-arm-ext[nvram]'.")

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('guest', metavar='INSTANCE', help=_GUEST)
        forms.add(parser, forms.TABLE)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd import variables
        from nova_arm_ext.compute.nvram import files
        domain = None
        if parsed_args.guest == reading.STDIN:
            path = reading.name_of(reading.STDIN)
            data = reading.read(reading.STDIN, files.MAX_SIZE,
                                'a variable store', self.app.stderr)
        else:
            path, data, domain = chosen.sound(parsed_args)
        if data.startswith(varstore.MAGIC):
            data = chosen.told(path, varstore.unpack, data)
        chosen.check(path, data)
        flash = variables.raw(data)
        if flash is not data:
            chosen.check(path, flash)
        found = variables.describe(flash)
        if parsed_args.formatter != forms.TABLE:
            guest = domain and {'name': domain.name, 'uuid': domain.uuid,
                                'state': domain.state}
            self.app.stdout.write(forms.dump(
                parsed_args.formatter,
                {'store': path, 'guest': guest, **found}))
        else:
            from nova_arm_ext.cmd.failure import printable
            self.app.stdout.write(
                f'Store: {printable(path)}\n'
                + (f'Guest: {domain.title}, {domain.state}\n' if domain
                   else '') + variables.to_text(found))
        return 0


class Backup(_OnHost, command.Command):
    """Write an instance's variable store to a file.

    The file has a checksum and a size of a few KiB, and restore makes the
    same store from it, byte for byte. The instance may run: then the command
    waits until nobody has written the store for half a second.
    """

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('guest', metavar='INSTANCE', help=_GUEST)
        parser.add_argument('file', metavar='FILE',
                            help='the file to write, which must not exist; '
                                 '- for standard output')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd.failure import Failure
        path, data, _ = chosen.sound(parsed_args)
        if data.startswith(varstore.MAGIC):
            raise Failure(f'{path} is already a backup')
        packed = chosen.told(path, varstore.pack, data)
        if parsed_args.file == reading.STDIN:
            if self.app.stdout.isatty():
                raise Failure('a backup is not text, and standard output is '
                              'a terminal: redirect it to a file')
            self.app.stdout.flush()
            self.app.stdout.buffer.write(packed)
            return 0
        if os.path.lexists(parsed_args.file):
            raise Failure(f'{parsed_args.file!r} already exists')
        folder, name = os.path.split(os.path.abspath(parsed_args.file))
        chosen.write(folder, name, packed)
        self.app.stdout.write(
            f'{path}: {len(data)} bytes, written to {parsed_args.file} in '
            f'{len(packed)} bytes\n')
        return 0


class _Replacing(_OnHost, command.Command):
    """Replaces an instance's variable store."""

    #: what it is called in the name of the file that keeps the old store
    done = ''

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('guest', metavar='INSTANCE', help=_GUEST)
        parser.add_argument(
            '--yes', action='store_true',
            help='do not ask; needed if standard input is not a terminal')
        return parser

    def replace(self, parsed_args: argparse.Namespace, data: bytes,
                store: 'stores.Store', origin: str) -> int:
        """Write the store, if no guest uses the old one and the user agrees.

        The old one is kept.

        :param data: the new store, raw or qcow2
        :param origin: its name in messages
        """
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd import asking
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd.failure import Failure
        from nova_arm_ext.cmd.failure import printable
        from nova_arm_ext.compute.nvram import files
        chosen.check(origin, data, chosen.flash_size(store))
        domain = store.domain
        if domain is not None and domain.active:
            raise Failure(f'the instance {domain.title} is {domain.state}: '
                          f'stop it first (openstack server stop)')
        if domain is not None and domain.suspended:
            raise Failure(
                f'the instance {domain.title} is suspended, and its memory '
                f'has a copy of the store: resume it, then stop it')
        if store.path.endswith('.rescue'):
            raise Failure(
                f'{store.path} is a copy that Nova removes after the rescue: '
                f'unrescue the instance, then stop it')
        is_qcow2 = store.path.endswith('.qcow2')
        try:
            if files.in_use(store.folder, store.name):
                raise Failure(f'{store.path} is in use: a QEMU process that '
                              f'this libvirt does not know has it open')
            is_qcow2 = chosen.first_bytes(store) == varstore.QCOW2
        except FileNotFoundError:
            pass     # it was lost, or the instance was never started
        if is_qcow2 != data.startswith(varstore.QCOW2):
            raise Failure(
                f'{origin} is {"raw" if is_qcow2 else "qcow2"} and '
                f'{store.path} is {"qcow2" if is_qcow2 else "raw"}: use '
                f'"qemu-img convert"')
        asking.confirm(
            f'{store.path} '
            + (f'of {domain.title} ' if domain else '')
            + f'gets the content of {origin}, and loses its variables',
            parsed_args.yes, self.app.stderr)
        kept = chosen.keep(store, self.done)
        try:
            chosen.write(store.folder, store.name, data)
        except BaseException:
            if kept:
                files.remove(store.folder, kept)
            raise
        self.app.stdout.write(f'{store.path} now has the content of '
                              f'{origin}\n')
        if kept:
            kept = os.path.join(store.folder, kept)
            self.app.stdout.write(printable(
                f'The old store is kept as {kept}; to get it back: '
                f'nova-arm-ext nvram restore {parsed_args.guest} {kept}')
                + '\n')
        return 0


class Restore(_Replacing):
    """Replace an instance's variable store with a backup.

    The instance must be stopped. The backup is checked first. If anything
    fails, the old store stays as it is. Otherwise it is kept beside the new
    one, with a name that ends in .before-restore.
    """

    done = 'restore'

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument('file', metavar='FILE',
                            help='a file that backup wrote, or - for '
                                 'standard input')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext import varstore
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd import reading
        packed = reading.read(parsed_args.file, varstore.MAX_PACKED,
                              'a backup', self.app.stderr)
        data = chosen.told(parsed_args.file, varstore.unpack, packed)
        return self.replace(parsed_args, data, chosen.of_guest(parsed_args),
                            reading.name_of(parsed_args.file))


class Reset(_Replacing):
    """Replace an instance's variable store with the firmware's template.

    All its variables are lost, such as boot options and enrolled keys. The
    instance must be stopped. The old store is kept beside the new one, with a
    name that ends in .before-reset.
    """

    _epilog = ('The template is the one that the domain XML names (nvram/'
               '@template).')

    done = 'reset'

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--template', metavar='FILE',
            help="another template than that of the domain XML, such as "
                 "/usr/share/AAVMF/AAVMF_VARS.fd")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd import reading
        from nova_arm_ext.cmd.failure import Failure
        from nova_arm_ext.compute.nvram import files
        store = chosen.of_guest(parsed_args)
        template = parsed_args.template or (
            store.domain and store.domain.template)
        if not template:
            raise Failure(f'no domain XML names the template of '
                          f'{store.path}: give it with --template')
        return self.replace(
            parsed_args, reading.read(
                template, files.MAX_SIZE, 'a template', self.app.stderr),
            store, reading.name_of(template))


class Orphans(_List):
    """List variable stores without an instance; remove them with --yes.

    These are files in libvirt's directory with a name that Nova gives, for
    which there is neither a libvirt domain nor an instance directory.
    """

    _epilog = ('While an instance is being moved or hard rebooted, it has no '
               'domain for a while. Use --yes only when no instance is. If '
               'the instance directories are on a local file system, stores '
               'that may belong to such an instance are kept.')

    _faults = 0
    _summary = ''

    def get_parser(self, prog_name: str) -> Any:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--older-than', metavar='TIME', type=_seconds, default='1d',
            help='list only stores that have not changed for this time, with '
                 'the unit m, h or d (default: 1d)')
        parser.add_argument('--yes', action='store_true',
                            help='remove the listed stores')
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        status: int = super().run(parsed_args)
        if parsed_args.formatter == forms.TABLE:
            self.app.stdout.write(self._summary)
        if self._faults:
            from nova_arm_ext.cmd import failure
            self.app.stdout.flush()
            raise failure.Failure(
                f'{self._faults} of the stores could not be removed')
        return status

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from nova_arm_ext.cmd import chosen
        from nova_arm_ext.cmd import stores
        from nova_arm_ext.cmd.failure import printable
        folders, domains = chosen.of_host(parsed_args)
        known = domains()
        found = list(stores.orphans(folders, known, parsed_args.older_than))
        every = list(stores.orphans(folders, known, 0.0))
        young = len(every) - len(found)
        still = set()
        if parsed_args.yes and found:
            # an instance may have come back meanwhile
            still = {store.path for store, kept in stores.orphans(
                folders, domains(), parsed_args.older_than) if not kept}
        rows = []
        for store, kept in found:
            outcome = f'kept: {kept}' if kept else 'orphan'
            if parsed_args.yes and not kept:
                outcome = (self._remove(store) if store.path in still
                           else 'kept: it is in use again')
            rows.append((printable(store.path), Bytes(store.on_disk),
                         Age(store.age), outcome))
        left = [store for store, kept in found if not kept]
        size = Bytes(sum(store.on_disk or 0 for store in left))
        self._summary = (
            f'{len(left)} without an instance, {size.human_readable()}'
            + (f'; {young} younger than {_time(parsed_args.older_than)}'
               if young else '')
            + ('; nothing was removed: add --yes'
               if left and not parsed_args.yes else '') + '\n')
        return ('Store', 'On disk', 'Age', 'Outcome'), rows

    def _remove(self, store: 'stores.Store') -> str:
        from nova_arm_ext import errors
        from nova_arm_ext.cmd.failure import one_line
        from nova_arm_ext.compute.nvram import files
        try:
            files.remove(store.folder, store.name)
        except (errors.Damaged, OSError) as e:
            self._faults += 1
            return one_line(f'NOT REMOVED: {e}')
        return 'removed'


def _time(seconds: float) -> str:
    return Age(seconds).human_readable()


def _seconds(text: str) -> float:
    found = re.fullmatch(r'(\d+)([mhd])', text)
    if not found:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a time such as 30m, 12h or 7d')
    return int(found[1]) * {'m': 60.0, 'h': 3600.0, 'd': 86400.0}[found[2]]
