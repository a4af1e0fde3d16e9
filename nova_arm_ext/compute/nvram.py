# SPDX-License-Identifier: Apache-2.0
"""Carries out the plan for variable stores on the files of this host."""

import os
from collections.abc import Callable
from typing import Any
from typing import NamedTuple
from typing import TypeVar

from nova import exception
from oslo_log import log as logging
from stevedore import extension

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.compute import nvram_stores
from nova_arm_ext.compute import privileged
from nova_arm_ext.compute import store_files
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event
from nova_arm_ext.nvram import Fate

LOG = logging.getLogger(__name__)

#: Where libvirt puts the store of a guest whose document names none.
LIBVIRT = '/var/lib/libvirt/qemu/nvram'
SUFFIXES = ('.fd', '.raw', '.qcow2')

#: Nova removes whatever ends so in the instance directory on unrescue.
RESCUE = '.rescue'

#: The document that a guest had, in its instance directory: beside the
#: packed store on its way to another host, and while Nova has undefined it.
DOCUMENT = 'arm-domain.xml'
_MAX_DOCUMENT = view.MAX_BYTES

_MAX_KEY = 4096

#: How often a store that is being written is read again.
_TRIES = 3

T = TypeVar('T')


class StoreNotUsable(exception.NovaException):
    """A guest's variable store is damaged, or cannot be moved or written.

    The API shows why.
    """

    msg_fmt = '%(reason)s'


class Carried(NamedTuple):
    """A store that an image carries."""

    packed: bytes
    secure_boot: bool    #: whether it is one of firmware for Secure Boot


class Place(NamedTuple):
    """Where a file lies: the trusted folder, and its path from there."""

    folder: str
    name: str

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)


def store_of(guest: view.Domain) -> str | None:
    """The path of a guest's store, as its document has it.

    :returns: None if it has no store, or one that is no file
    """
    has = firmware.Os.of(guest)
    if not has.has_uefi or has.is_stateless or not has.nvram_is_file:
        return None
    if has.nvram:
        return has.nvram
    # libvirt older than 9.2 does not keep the path of what it selects, and
    # has one name for it (qemuDomainNVRAMPathFormat)
    return os.path.join(LIBVIRT, f'{guest.name}_VARS.fd')


def is_inside(path: str, folder: str) -> bool:
    """Whether a store lies in the instance directory."""
    return os.path.dirname(path) == folder


def path_for(event: Event, uuid: str, folder: str, had: str | None, *,
             is_new: bool, is_here: bool) -> str | None:
    """Where the store of a guest is to lie.

    :param folder: the instance directory
    :param had: where it lay by the guest's previous document
    :param is_new: there is no such document
    :param is_here: this host has the guest's domain
    :returns: ending in ``_VARS`` where the template decides on the suffix;
        None where nothing is to be said about it
    """
    if event is Event.RESCUE:
        return had and nvram.file_of(folder, uuid, had) + RESCUE
    if event is Event.ARRIVE:
        if is_here and had and not is_inside(had, folder):
            return had
        return nvram.file_of(folder, uuid, had)
    if is_new:
        # one that is there, on shared storage, keeps its name
        return next(
            (path for suffix in SUFFIXES if os.path.lexists(
                path := nvram.file_of(folder, uuid, suffix=suffix))),
            nvram.file_of(folder, uuid))
    return had and had.removesuffix(RESCUE)


def load_store(conf: Any) -> nvram_stores.Store | None:
    """The store driver that ``[arm_nvram] store`` names.

    :raises ConfigurationError: when it is not installed or cannot be made
    """
    name = conf.arm_nvram.store
    if not name:
        return None
    faults: dict[str, str] = {}

    def broken(_: Any, entry_point: Any, error: BaseException) -> None:
        faults[entry_point.name] = f'{type(error).__name__}: {error}'

    found = {one.name: one.plugin for one in extension.ExtensionManager(
        nvram.STORES, on_load_failure_callback=broken)}
    if name in faults:
        raise errors.ConfigurationError([
            f'[arm_nvram] store: {name} cannot be imported: {faults[name]}'])
    if name not in found:
        raise errors.ConfigurationError([
            f'[arm_nvram] store names {name!r}, which is not installed; '
            f'installed are: {", ".join(sorted(found))}'])
    try:
        made: nvram_stores.Store = found[name](conf)
    except Exception as e:
        # whatever the constructor of a third party raises
        raise errors.ConfigurationError([
            f'[arm_nvram] store: {name} cannot be made: '
            f'{type(e).__name__}: {e}']) from e
    return made


def load_key(conf: Any) -> bytes | None:
    """The secret in ``[arm_nvram] image_key_file``; None without one.

    :raises ConfigurationError: when it cannot be read, can be read by others
        or is too short
    """
    path = conf.arm_nvram.image_key_file
    if not path:
        return None
    place = f'[arm_nvram] image_key_file {path}'
    try:
        with open(path, 'rb') as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(_MAX_KEY).strip()
    except OSError as e:
        raise errors.ConfigurationError([f'{place}: {e.strerror}']) from e
    if mode & 0o007:
        raise errors.ConfigurationError([
            f'{place} has the permissions {mode & 0o777:o}; take those of '
            f'all others from it (chmod 0640)'])
    if len(key) < varstore.MIN_KEY:
        raise errors.ConfigurationError([
            f'{place} has {len(key)} bytes, and a secret needs '
            f'{varstore.MIN_KEY} (head -c 32 /dev/urandom | base64)'])
    return key


class Stores:
    """The variable stores of this host's Arm guests.

    :param conf: parsed configuration
    :param store: the driver of the store for copies, if there is one
    :param key: for the stores that images carry; None if they carry none
    """

    def __init__(self, conf: Any, store: nvram_stores.Store | None,
                 key: bytes | None = None) -> None:
        self._conf = conf
        self._store = store
        self._key = key

    @classmethod
    def load(cls, conf: Any) -> 'Stores':
        """With the driver and the key that the configuration names.

        :raises ConfigurationError: with every fault of both
        """
        made: list[Any] = []
        faults: list[str] = []
        for load in (load_store, load_key):
            try:
                made.append(load(conf))
            except errors.ConfigurationError as e:
                faults += e.faults
        if faults:
            raise errors.ConfigurationError(faults)
        return cls(conf, *made)

    def _place(self, path: str) -> Place:
        instances = self._conf.instances_path
        name = os.path.relpath(path, instances)
        if name.startswith('../'):
            return Place(*os.path.split(path))
        return Place(instances, name)

    # -- When a guest starts -------------------------------------------------

    def before_start(self, event: Event, instance: Any, folder: str,
                     guest: view.Domain, *, source: str | None = None,
                     carried: Carried | None = None,
                     other_firmware: bool = False, had: bool = False,
                     of_other: bool | None = None) -> Fate | None:
        """Have the right store lie where a guest's document says.

        :param folder: the instance directory
        :param guest: the document with which it starts
        :param source: the path of the store of which a rescue gets a copy
        :param carried: the store that the image carries
        :param other_firmware: it has been made for another firmware
        :param had: the guest has run, with a store that was to stay there
        :param of_other: the instance directory is that of another host
            where nothing there says which host used it last
        :returns: what became of the store; None if the guest has none
        :raises StoreNotUsable: when it is damaged, and is to stay; when it
            cannot be written
        """
        path = store_of(guest)
        brought = self._brought(event, instance.uuid, folder)
        if path is None:
            self._remove(brought)
            return None
        place = self._place(path)
        inside = is_inside(path, folder)
        host = self._last_host(instance.uuid, folder)
        present = self._exists(self._place(source or path))
        # libvirt's folder may be in another container, and the store with it
        had = had and (inside or self._exists(
            Place(*os.path.split(os.path.dirname(path)))))
        state = nvram.State(
            present=present,
            had=had,
            inside=inside,
            brought=(event in (Event.ARRIVE, Event.REBUILD)
                     and self._has_content(brought)),
            saved=((event in (Event.UNSHELVE, Event.EVACUATE)
                    or (had and not present))
                   and self.has_copy(instance.uuid)),
            carried=carried is not None,
            other_firmware=other_firmware,
            of_other=bool(of_other if host is None
                          else host != self._conf.host))
        fate = nvram.decide(event, state)
        size = _flash_size(guest)
        try:
            if fate is Fate.KEEP:
                self._check(place, size)
            elif fate is Fate.COPY and source:
                self._write(place, self._pack(self._place(source), size),
                            size)
            elif fate is Fate.BROUGHT:
                self._write(place, self._read_packed(brought), size)
            elif fate is Fate.IMAGE and carried is not None:
                self._write(place, carried.packed, size)
            elif fate is Fate.SAVED and self._store is not None:
                self._write(place, self._store.load(instance.uuid) or b'',
                            size)
            else:
                self._clear(instance, place)
        except errors.Damaged as e:
            self._damaged(instance, place, e)
            fate = Fate.LOST
        except OSError as e:
            raise StoreNotUsable(reason=(
                f'The UEFI variable store {place.path} cannot be written or '
                f'read; what is there and what came along stays: reset the '
                f"guest's state and reboot it hard when the cause is gone: "
                f'{e}')) from e
        if event is not Event.RESCUE:
            if inside and host != self._conf.host:
                self.mark(instance.uuid, folder)
            self._remove(brought)
        if fate is Fate.LOST:
            LOG.warning(
                'The UEFI variables of this guest are lost (%s): it starts '
                'with a new store, %s. Boot entries and Secure Boot keys of '
                'its own are gone. If there is a backup, stop the guest and '
                'put it back: nova-arm-ext nvram restore %s FILE',
                event.name.lower(), path, instance.uuid, instance=instance)
        elif fate is Fate.SAVED and had:
            LOG.warning(
                'The UEFI variable store %s of this guest was not there. The '
                'copy in the store that [arm_nvram] names has taken its '
                'place; what was changed since it was made is lost',
                path, instance=instance)
        return fate

    def _damaged(self, instance: Any, place: Place, error: Exception) -> None:
        if self._conf.arm_nvram.on_damage != 'fresh':
            raise StoreNotUsable(reason=(
                f'The UEFI variable store {place.path} cannot be used: '
                f'{error}. Restore or reset it with "nova-arm-ext nvram", or '
                f'set [arm_nvram] on_damage = fresh')) from error
        LOG.warning('The UEFI variable store %s cannot be used: %s',
                    place.path, error, instance=instance)
        self._clear(instance, place)

    def _clear(self, instance: Any, place: Place) -> None:
        if not self._exists(place):
            return
        aside = _as_needed(store_files.put_aside, privileged.put_aside,
                           *place)
        LOG.warning('What lay in the place of the UEFI variable store of this '
                    'guest is not its own or not sound, and is put aside: %s',
                    os.path.join(place.folder, aside), instance=instance)

    def _brought(self, event: Event, uuid: str, folder: str) -> Place:
        if event is Event.REBUILD:
            # Nova removes the instance directory meanwhile
            return Place(self._conf.instances_path, self._packed(uuid))
        return self._place(os.path.join(folder, self._packed(uuid)))

    # -- On the way ----------------------------------------------------------

    def is_missing(self, guest: view.Domain) -> bool:
        """Whether nothing lies where the store of a guest should be."""
        path = store_of(guest)
        return path is not None and not self._exists(self._place(path))

    def check(self, guest: view.Domain) -> None:
        """Check the store of a guest.

        :raises StoreNotUsable: when it is damaged, and is not to be replaced
        """
        path = store_of(guest)
        if path is None or not self._exists(self._place(path)):
            return
        try:
            self._check(self._place(path), _flash_size(guest))
        except errors.Damaged as e:
            if self._conf.arm_nvram.on_damage != 'fresh':
                self._damaged(None, self._place(path), e)

    def pack(self, guest: view.Domain, path: str | None = None
             ) -> bytes | None:
        """The store of a guest, packed.

        :param path: where it lies, if that is not where its document says
        :returns: None if there is none
        :raises StoreNotUsable: when it is damaged, and is not to be replaced
        """
        path = path or store_of(guest)
        if path is None or not self._exists(self._place(path)):
            return None
        try:
            return self._pack(self._place(path), _flash_size(guest))
        except errors.Damaged as e:
            if self._conf.arm_nvram.on_damage == 'fresh':
                LOG.warning('The UEFI variable store %s does not go along: '
                            '%s', path, e)
                return None
            self._damaged(None, self._place(path), e)
            raise

    def before_rebuild(self, uuid: str, guest: view.Domain,
                       what: str) -> None:
        """Save the store of a guest over its rebuild, or see to a new one.

        :param what: ``keep`` or ``reset``, the copies too
        :raises Exception: as the driver of the store for copies does
        """
        place = self._brought(Event.REBUILD, uuid, '')
        packed = self.pack(guest) if what == 'keep' else None
        if packed is None:
            self._remove(place)
        else:
            self._write_own(place, packed)
        if what == 'reset' and self._store is not None:
            self._store.remove(uuid)

    def leave(self, uuid: str, folder: str, packed: bytes | None,
              document: str) -> tuple[str, str]:
        """Write what is to go along into a folder of the guest's.

        :param packed: its store; without one an empty file goes, so that
            none from another time is taken for it
        :returns: the names of the files in that folder
        """
        for name, data in ((self._packed(uuid), packed or b''),
                           (DOCUMENT, document.encode())):
            self._write_own(self._place(os.path.join(folder, name)), data)
        return self._packed(uuid), DOCUMENT

    def has_arrived(self, uuid: str, folder: str) -> bool:
        """Whether something came along that no start has used yet."""
        return os.path.lexists(os.path.join(folder, self._packed(uuid)))

    def remove_packed(self, uuid: str, folder: str) -> None:
        """Remove the store that was to go along."""
        self._remove(self._place(os.path.join(folder, self._packed(uuid))))

    def document(self, folder: str) -> str | None:
        """The document that was left in an instance directory."""
        try:
            return store_files.read(
                *self._place(os.path.join(folder, DOCUMENT)),
                _MAX_DOCUMENT).decode()
        except FileNotFoundError:
            return None

    def write_document(self, folder: str, document: str) -> None:
        """Leave a document in an instance directory."""
        self._write_own(self._place(os.path.join(folder, DOCUMENT)),
                        document.encode())

    def remove_document(self, folder: str) -> None:
        """Remove the document that was left."""
        self._remove(self._place(os.path.join(folder, DOCUMENT)))

    # -- When a guest has gone -----------------------------------------------

    def mark(self, uuid: str, folder: str) -> None:
        """Note that this host uses the store in an instance directory.

        A directory that lies on this host alone and one that is shared look
        the same, where disks are elsewhere (Ceph). After an evacuation this
        note tells whose store lies there.
        """
        place = self._place(os.path.join(folder, self._host_note(uuid)))
        # without the directory there is no store of which to tell
        if self._exists(self._place(folder)):
            self._write_own(place, self._conf.host.encode())

    def forget(self, uuid: str, folder: str, *, own_only: bool) -> None:
        """Remove the store from an instance directory that stays.

        :param own_only: not if another host has used it last
        """
        if own_only and self._last_host(uuid, folder) != self._conf.host:
            return
        for name in (*(f'{uuid}_VARS{suffix}' for suffix in SUFFIXES),
                     self._packed(uuid), self._host_note(uuid), DOCUMENT):
            self._remove(self._place(os.path.join(folder, name)))

    def remove_from_libvirt(self, name: str) -> None:
        """Remove what lies in libvirt's folder under a domain's name.

        Only for domains that this host does not have any more.
        """
        for place in self._in_libvirt(name):
            self._remove(place)
            LOG.info('Removed the UEFI variable store %s of a guest that is '
                     'not here any more', place.path)

    def lies_in_libvirt(self, name: str) -> bool:
        """Whether a store lies in libvirt's folder under a domain's name."""
        return bool(self._in_libvirt(name))

    def _in_libvirt(self, name: str) -> list[Place]:
        return [place for suffix in SUFFIXES if self._exists(
            place := Place(LIBVIRT, f'{name}_VARS{suffix}'))]

    # -- Copies --------------------------------------------------------------

    @property
    def has_store(self) -> bool:
        """Whether there is a store for copies."""
        return self._store is not None

    def has_copy(self, uuid: str) -> bool:
        """Whether the store for copies, if there is one, has a guest's.

        :raises Exception: as the driver does
        """
        return self._store is not None and self._store.load(uuid) is not None

    def save(self, uuid: str, guest: view.Domain, *,
             running: bool = False) -> bool:
        """Keep a copy of a guest's store in the store driver.

        :param running: QEMU may write meanwhile, so it is read until it is
            the same twice
        :returns: whether a copy was kept: not if there is no store, or if it
            is being written all the time
        :raises Exception: as the driver does
        """
        if self._store is None:
            return False
        packed = self._settled(guest) if running else self.pack(guest)
        if packed is None:
            return False
        self._store.save(uuid, packed)
        return True

    def _settled(self, guest: view.Domain) -> bytes | None:
        """The store of a guest that may be writing it."""
        packed = self.pack(guest)
        for _ in range(_TRIES):
            before, packed = packed, self.pack(guest)
            if packed == before:
                return packed
        return None

    def may_have_copies(self, uuid: str) -> bool:
        """Whether there can be a copy of a guest's store."""
        return self.has_store or self._exists(
            self._brought(Event.REBUILD, uuid, ''))

    def remove_copies(self, uuid: str) -> None:
        """Forget the copies of a guest that is deleted."""
        self._remove(self._brought(Event.REBUILD, uuid, ''))
        if self._store is not None:
            self._store.remove(uuid)

    # -- Images --------------------------------------------------------------

    @property
    def go_into_images(self) -> bool:
        """Whether images carry stores."""
        return self._key is not None

    def for_image(self, instance: Any, guest: view.Domain, *,
                  secure_boot: bool) -> str | None:
        """The store of a guest as the property of an image.

        :param secure_boot: whether its firmware is for Secure Boot
        :returns: None if there is none that can be carried, with a WARNING
        """
        if self._key is None or store_of(guest) is None:
            return None
        try:
            packed = self._settled(guest)
            if packed is not None:
                return varstore.seal(packed, self._key,
                                     secure_boot=secure_boot)
            why = 'it is not there, or is being written all the time'
        except (errors.Damaged, StoreNotUsable) as e:
            why = str(e)
        LOG.warning('The snapshot does not carry the UEFI variables of this '
                    'guest: %s', why, instance=instance)
        return None

    def from_image(self, image: str, properties: Any) -> Carried | None:
        """The store that an image carries.

        :param image: its uuid
        :param properties: its properties
        :returns: None if it carries none, or none that can be used, with a
            WARNING, where ``[arm_nvram] on_damage`` says to start all the
            same
        :raises StoreNotUsable: when it does not say so
        """
        value = properties.get(nvram.STORE_PROPERTY)
        if self._key is None or not value:
            return None
        try:
            return Carried(*varstore.unseal(str(value), self._key))
        except errors.Damaged as e:
            reason = (f'The UEFI variables in the property '
                      f'{nvram.STORE_PROPERTY} of image {image} cannot be '
                      f'used: {e}')
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise StoreNotUsable(reason=(
                    f'{reason}. Remove the property from the image')) from e
            LOG.warning('%s', reason)
            return None

    # -- Files ---------------------------------------------------------------

    @staticmethod
    def _packed(uuid: str) -> str:
        return f'{uuid}_VARS.packed'

    @staticmethod
    def _host_note(uuid: str) -> str:
        return f'{uuid}_VARS.host'

    def _last_host(self, uuid: str, folder: str) -> str | None:
        place = self._place(os.path.join(folder, self._host_note(uuid)))
        try:
            return store_files.read(*place, limit=255).decode()
        except FileNotFoundError:
            return None

    @staticmethod
    def _exists(place: Place) -> bool:
        return _as_needed(store_files.exists, privileged.exists, *place)

    @staticmethod
    def _has_content(place: Place) -> bool:
        try:
            return bool(Stores._read_packed(place))
        except FileNotFoundError:
            return False

    @staticmethod
    def _check(place: Place, size: int | None) -> None:
        _as_needed(
            lambda folder, name, size: varstore.check(
                store_files.read(folder, name), size),
            privileged.check, *place, size)

    @staticmethod
    def _pack(place: Place, size: int | None) -> bytes:
        return _as_needed(privileged.checked_and_packed, privileged.pack,
                          *place, size)

    @staticmethod
    def _read_packed(place: Place) -> bytes:
        return store_files.read(*place, varstore.MAX_PACKED)

    @staticmethod
    def _write(place: Place, packed: bytes, size: int | None) -> None:
        # libvirt's folder is closed to Nova's user
        _as_needed(privileged.check_and_write, privileged.write, *place,
                   packed, size)

    @staticmethod
    def _write_own(place: Place, data: bytes) -> None:
        store_files.write_atomic(*place, data, store_files.own())

    @staticmethod
    def _remove(place: Place) -> None:
        _as_needed(store_files.remove, privileged.remove, *place)


def _flash_size(guest: view.Domain) -> int | None:
    """The bytes of flash that a guest's firmware is made for, if known."""
    template = firmware.Os.of(guest).nvram_template
    if template is None:
        return None
    try:
        with open(template, 'rb') as file:
            if file.read(len(varstore.QCOW2)) == varstore.QCOW2:
                return None
            return file.seek(0, os.SEEK_END)
    except OSError:
        # libvirt may have it in a container of its own
        return None


def _as_needed(direct: Callable[..., T], as_root: Callable[..., T],
               *args: Any) -> T:
    """Do something as this user, and as root where that is not allowed.

    In this order: on shared storage root may be nobody.
    """
    try:
        return direct(*args)
    except PermissionError:
        return as_root(*args)
