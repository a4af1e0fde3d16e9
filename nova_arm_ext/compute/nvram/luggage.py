# SPDX-License-Identifier: Apache-2.0
"""What is kept for a guest in its instance directory beside its store.

A packed store and the domain XML on the way to another host; a packed store
over a rebuild; the domain XML while Nova has undefined the guest; and a note
which host used the directory last.
"""

import os
from typing import Any

from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram import files
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.places import Place
from nova_arm_ext.domain import view
from nova_arm_ext.nvram import Event

LOG = logging.getLogger(__name__)

#: The domain XML that a guest had, in its instance directory.
DOCUMENT = 'arm-domain.xml'
#: Nova's own file with that of a guest that is rescued (rescue, 29 to 34).
BEFORE_RESCUE = 'unrescue.xml'


class Luggage:
    """The files of guests on their way.

    :param conf: parsed configuration
    """

    def __init__(self, conf: Any) -> None:
        self._conf = conf

    # -- On the way to another host ------------------------------------------

    def pack_luggage(self, uuid: str, folder: str, packed: bytes | None,
                     document: str) -> tuple[str, str]:
        """Write what is to go along into a folder of the guest's.

        :param packed: its store; without one an empty file goes, so that
            none of an earlier time is taken for it
        :param document: its domain XML
        :returns: the names of the files in that folder
        """
        for name, data in ((_packed(uuid), packed or b''),
                           (DOCUMENT, document.encode())):
            _write(self._place(folder, name), data)
        return _packed(uuid), DOCUMENT

    def has_arrived(self, uuid: str, folder: str) -> bool:
        """Whether something came along that no start has used yet."""
        return os.path.lexists(os.path.join(folder, _packed(uuid)))

    def arrived(self, event: Event, uuid: str, folder: str) -> Place:
        """Where the packed store is that an operation has brought.

        :param folder: the instance directory
        """
        if event is Event.REBUILD:
            # Nova removes the instance directory meanwhile
            return Place(self._conf.instances_path, _packed(uuid))
        return self._place(folder, _packed(uuid))

    def remove_packed(self, uuid: str, folder: str) -> None:
        """Remove the store that was to go along."""
        store.remove(self._place(folder, _packed(uuid)))

    def keep_for_rebuild(self, uuid: str, packed: bytes | None) -> None:
        """Keep a packed store over a rebuild; None for a new one."""
        place = self.arrived(Event.REBUILD, uuid, '')
        if packed is None:
            store.remove(place)
        else:
            _write(place, packed)

    # -- The domain XML ------------------------------------------------------

    def document(self, folder: str) -> str | None:
        """The domain XML that is saved in an instance directory.

        One that is not whole is renamed, with a WARNING.

        :returns: None if there is none that can be used
        """
        place = self._place(folder, DOCUMENT)
        try:
            document = files.read(*place, view.MAX_BYTES).decode()
            view.Domain.parse(document)
        except FileNotFoundError:
            return None
        except (errors.Damaged, errors.InvalidDocument, ValueError) as e:
            LOG.warning(
                'The saved domain XML %s is not whole and is not used: %s. It '
                'is renamed to %s', place.path, e,
                os.path.join(place.folder, files.put_aside(*place)))
            return None
        return document

    def before_rescue(self, folder: str) -> str | None:
        """The domain XML that Nova keeps while a guest is rescued."""
        try:
            return files.read(*self._place(folder, BEFORE_RESCUE),
                              view.MAX_BYTES).decode()
        except FileNotFoundError:
            return None

    def write_document(self, folder: str, document: str) -> None:
        """Save a domain XML in an instance directory."""
        _write(self._place(folder, DOCUMENT), document.encode())

    def remove_document(self, folder: str) -> None:
        """Remove the domain XML that was saved."""
        store.remove(self._place(folder, DOCUMENT))

    # -- Which host ----------------------------------------------------------

    def mark(self, uuid: str, folder: str) -> None:
        """Note that this host uses the store in an instance directory.

        A directory that is on this host only and one that is shared look the
        same where disks are elsewhere (Ceph). After an evacuation this note
        tells whose store is there.
        """
        # without the directory there is no store to tell of
        if store.exists(Place.of(folder, self._conf)):
            _write(self._place(folder, _host_note(uuid)),
                   self._conf.host.encode())

    def last_host(self, uuid: str, folder: str) -> str | None:
        """The host that used the store last; None if no note says so."""
        place = self._place(folder, _host_note(uuid))
        try:
            return files.read(*place, limit=255).decode()
        except FileNotFoundError:
            return None
        except (OSError, errors.Damaged, ValueError) as e:
            LOG.warning('The note %s cannot be read: %s', place.path, e)
            return None

    def forget(self, uuid: str, folder: str, *, own_only: bool) -> None:
        """Remove the store from an instance directory that stays.

        :param own_only: not if another host has used it last
        """
        if own_only and self.last_host(uuid, folder) != self._conf.host:
            return
        for name in (*(f'{uuid}_VARS{suffix}' for suffix in places.SUFFIXES),
                     _packed(uuid), _host_note(uuid), DOCUMENT):
            store.remove(self._place(folder, name))

    def _place(self, folder: str, name: str) -> Place:
        return Place.of(os.path.join(folder, name), self._conf)


def read_packed(place: Place) -> bytes:
    """A packed store; empty if there is none."""
    try:
        return files.read(*place, varstore.MAX_PACKED)
    except FileNotFoundError:
        return b''


def _packed(uuid: str) -> str:
    return f'{uuid}_VARS.packed'


def _host_note(uuid: str) -> str:
    return f'{uuid}_VARS.host'


def _write(place: Place, data: bytes) -> None:
    files.write_atomic(*place, data, files.own())
