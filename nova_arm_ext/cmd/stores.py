# SPDX-License-Identifier: Apache-2.0
"""The variable stores on this host, and the domains they belong to."""

import dataclasses
import os
import re
import time
import uuid
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from lxml import etree
from oslo_config import cfg

from nova_arm_ext.cmd import guests
from nova_arm_ext.cmd import host
from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.compute.nvram import files

#: Where libvirt puts the stores of qemu:///system.
NVRAM_FOLDER = '/var/lib/libvirt/qemu/nvram'

#: Seconds, enough to read the XML of a few hundred domains twice.
PATIENCE = 60.0

#: The name of a store's domain, and the suffix of a file that was kept aside,
#: is being written, or is for a rescue.
_FILE = re.compile(r'(?P<begun>\.)?(?P<stem>[^/]+)_VARS\.(?:fd|raw|qcow2)'
                   r'(?P<rest>\.[^/]*)?', re.DOTALL)

#: A field in the template of instance names (instance_name_template).
_FIELD = re.compile(r'%(?:\(\w+\))?[-0-9.]*[diouxXs]')

MOUNTINFO = '/proc/self/mountinfo'

#: File systems that only one host can mount; all others may be shared.
_LOCAL = frozenset(('btrfs', 'ext2', 'ext3', 'ext4', 'f2fs', 'jfs', 'overlay',
                    'ramfs', 'reiserfs', 'tmpfs', 'xfs', 'zfs'))

_STATES = {0: 'unknown', 1: 'running', 2: 'blocked', 3: 'paused',
           4: 'shutting down', 5: 'shut off', 6: 'crashed',
           7: 'suspended by its system'}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """What libvirt says about one domain."""

    name: str
    uuid: str
    number: int | None       #: libvirt's ID, if it runs
    server: str | None       #: its name in Nova
    state: str
    active: bool
    suspended: bool          #: to disk, as Nova suspends
    nvram: str | None        #: of the running domain, or else its next start
    template: str | None
    stores: frozenset[str]   #: all that its XML names

    @property
    def title(self) -> str:
        return f'{self.name} ({self.uuid})'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where to look for stores."""

    nvram: str               #: libvirt's
    instances: str           #: Nova's instances_path
    name_template: str       #: Nova's instance_name_template

    @classmethod
    def configured(cls, conf: cfg.ConfigOpts, *, nvram: str | None = None,
                   instances: str | None = None) -> 'Folders':
        """The directories that a configuration names.

        :param nvram, instances: other directories than those
        :raises Failure: when one of these does not exist
        """
        # the same options as Nova's, whose modules cannot be imported here
        conf.register_opts([
            cfg.StrOpt('state_path', default='/var/lib/nova'),
            cfg.StrOpt('instances_path', default='$state_path/instances'),
            cfg.StrOpt('instance_name_template', default='instance-%08x')])
        for named in (nvram, instances):
            if named is not None and not os.path.isdir(named):
                raise Failure(f'there is no directory {named!r}')
        return cls(
            nvram=os.path.abspath(nvram or NVRAM_FOLDER),
            instances=os.path.abspath(instances or conf.instances_path),
            name_template=conf.instance_name_template)

    def split(self, path: str) -> tuple[str, str]:
        """The directory to trust for a path, and the path below it.

        Others may write below Nova's and libvirt's directories. Elsewhere it
        is the directory that the domain XML or the user names.
        """
        path = os.path.normpath(os.path.abspath(path))
        for folder in (self.instances, self.nvram):
            start = os.path.join(folder, '')
            if path.startswith(start):
                return folder, path[len(start):]
        return os.path.split(path)

    def are_names_of_nova(self, stem: str) -> bool:
        """Whether Nova may have given a domain this name."""
        fixed = _FIELD.split(self.name_template)
        return re.fullmatch('[0-9a-zA-Z_-]+'.join(map(re.escape, fixed)),
                            stem) is not None or _is_uuid(stem)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """One file, or the place of one that does not exist yet."""

    folder: str
    name: str                #: the path below the folder
    place: str               #: libvirt, instance or elsewhere
    domain: Domain | None
    size: int | None         #: None if it does not exist
    on_disk: int | None
    changed: float | None    #: content or owner, in seconds since the epoch
    is_aside: bool           #: kept aside, incomplete, or of a past rescue

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def is_kept(self) -> bool:
        """Whether a command kept it before it replaced a store."""
        return files.BEFORE in os.path.basename(self.name)

    @property
    def stem(self) -> str:
        """The name or UUID of the domain, from the name of the file."""
        found = _FILE.fullmatch(os.path.basename(self.name))
        return found['stem'] if found else ''

    @property
    def age(self) -> float | None:
        """Seconds since it was changed."""
        return (None if self.changed is None
                else max(0.0, time.time() - self.changed))


def domains(uri: str, seconds: float | None = None) -> list[Domain]:
    """All domains of a libvirt, read-only.

    :param seconds: how long to wait for the answer
    :raises Failure: when libvirt does not answer
    """
    known = []
    for one in host.answer(uri, seconds or PATIENCE, _documents):
        name, identity, number, state, active, suspended, documents = one
        named = [_nvram(document) for document in documents]
        first = next((nvram for nvram, _ in named if nvram), None)
        known.append(Domain(
            name=name, uuid=identity, number=number,
            server=guests.server_in(documents[-1]),
            state=_STATES.get(state, str(state)), active=active,
            suspended=suspended, nvram=first,
            template=next((template for _, template in named if template),
                          None),
            stores=frozenset(nvram for nvram, _ in named if nvram)))
    return known


def _documents(connection: Any) -> list[tuple[Any, ...]]:
    """State and XML of each domain; runs in the child.

    The XML of the running domain comes first, then that of its next start;
    they are the same if the domain is not active.
    """
    import libvirt
    found = []
    for domain in connection.listAllDomains():
        try:
            found.append((
                domain.name(), domain.UUIDString(), guests.number_of(domain),
                domain.state()[0],
                bool(domain.isActive()), bool(domain.hasManagedSaveImage()),
                (domain.XMLDesc(), domain.XMLDesc(
                    libvirt.VIR_DOMAIN_XML_INACTIVE))))
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def _nvram(document: str) -> tuple[str | None, str | None]:
    """Path and template of the store that domain XML names."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    found = etree.fromstring(document.encode(), parser).find('os/nvram')
    if found is None:
        return None, None
    source = found.find('source')
    path = (found.text or '').strip() if source is None else source.get('file')
    return (os.path.normpath(path) if path else None), found.get('template')


def find(folders: Folders, known: Sequence[Domain]) -> list[Store]:
    """Every store in libvirt's directory and in instance directories, and
    those that domains name elsewhere or that do not exist yet.

    :raises Failure: when a directory cannot be read
    """
    by_path = {path: domain for domain in known for path in domain.stores}
    by_name = {name: domain for domain in known
               for name in (domain.name, domain.uuid)}
    found = []
    for place, folder, name in _files(folders):
        path = os.path.join(folder, name)
        stem = _FILE.fullmatch(os.path.basename(name))
        owner = by_path.pop(path, None) or by_name.get(
            stem['stem'] if stem else '') or (
            by_name.get(name[:36]) if place == 'instance' else None)
        one = _store(folder, name, place, owner, is_aside=bool(
            stem and (stem['begun'] or stem['rest'])
            and not (owner and path in owner.stores)))
        if one.size is not None:     # otherwise it was just removed
            found.append(one)
    for path, domain in by_path.items():
        folder, name = folders.split(path)
        found.append(_store(
            folder, name, {folders.nvram: 'libvirt',
                           folders.instances: 'instance'}.get(
                               folder, 'elsewhere'), domain))
    return sorted(found, key=lambda store: store.path)


def _files(folders: Folders) -> Iterator[tuple[str, str, str]]:
    """Place, folder and name of each file that may be a store."""
    for name in _names(folders.nvram):
        if _FILE.fullmatch(name):
            yield 'libvirt', folders.nvram, name
    for inner in instances(folders):
        for name in _names(os.path.join(folders.instances, inner)):
            if _FILE.fullmatch(name):
                yield 'instance', folders.instances, f'{inner}/{name}'


def instances(folders: Folders) -> list[str]:
    """The names of instance directories, also during a resize."""
    return [name for name in _names(folders.instances)
            if _is_uuid(name.removesuffix('_resize'))]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise Failure(f'cannot read the directory {folder!r}: {e.strerror}; '
                      f'run this command as root') from e


def _store(folder: str, name: str, place: str, domain: Domain | None, *,
           is_aside: bool = False) -> Store:
    found = None
    try:
        found = os.lstat(os.path.join(folder, name))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as e:
        raise Failure(f'cannot access {os.path.join(folder, name)!r}: '
                      f'{e.strerror}; run this command as root') from e
    return Store(
        folder=folder, name=name, place=place, domain=domain,
        size=found.st_size if found else None,
        on_disk=found.st_blocks * 512 if found else None,
        # libvirt changes the owner at each start and stop
        changed=max(found.st_mtime, found.st_ctime) if found else None,
        is_aside=is_aside)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def orphans(folders: Folders, known: Sequence[Domain],
            older_than: float) -> Iterator[tuple[Store, str]]:
    """The stores in libvirt's directory without an instance.

    A store in an instance directory is removed with that. A store with a name
    that Nova does not give belongs to somebody else.

    :param older_than: seconds for which a store must not have changed
    :returns: each store with the reason to keep it all the same; empty if
        there is none
    """
    folders_of = {name.removesuffix('_resize') for name in instances(folders)}
    homeless = sorted(folders_of - {domain.uuid for domain in known})
    local = is_local(folders.instances)
    if local is False:
        homeless = []     # most belong to instances on other hosts
    for store in find(folders, known):
        if (store.place != 'libvirt' or store.domain is not None
                or store.stem in folders_of
                or not folders.are_names_of_nova(store.stem)
                or (store.age or 0.0) < older_than):
            continue
        kept = ''
        if local is None:
            kept = (f'it is not known where {folders.instances} is mounted, '
                    f'so an instance that it belongs to may be overlooked')
        elif homeless and not _is_uuid(store.stem):
            kept = (f'it may belong to {_some(homeless)}, which has an '
                    f'instance directory but no domain')
        elif _is_open(store):
            kept = 'a QEMU process has it open'
        yield store, kept


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return first + (f' or {len(others)} more' if others else '')


def _is_open(store: Store) -> bool:
    from nova_arm_ext import errors
    try:
        return files.in_use(store.folder, store.name)
    except (FileNotFoundError, errors.Damaged):
        return False     # a link, which is removed without following it


def is_local(folder: str, mountinfo: str = MOUNTINFO) -> bool | None:
    """Whether a directory is on a file system that only this host mounts.

    :param mountinfo: where the kernel lists what is mounted
    :returns: None if that is unknown, as below a plain chroot, which may have
        no mount for its files
    """
    where = os.path.join(os.path.realpath(folder), '')
    longest, kind = '', None
    try:
        with open(mountinfo, encoding='utf-8',
                  errors='surrogateescape') as file:
            lines = list(file)
    except OSError:
        return None     # no /proc
    for line in lines:
        before, _, after = line.partition(' - ')
        # white space is octal in it
        point = re.sub(r'\\([0-7]{3})', lambda m: chr(int(m[1], 8)),
                       before.split()[4])
        point = os.path.join(point, '')
        # the last mount at a place hides earlier ones
        if where.startswith(point) and len(point) >= len(longest):
            longest, kind = point, after.split()[0]
    return None if kind is None else kind in _LOCAL
