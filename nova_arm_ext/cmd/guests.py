# SPDX-License-Identifier: Apache-2.0
"""The domains that are defined on this host, with their XML."""

import dataclasses
from collections.abc import Iterable
from typing import Any
from typing import Protocol
from typing import TypeVar

from nova_arm_ext import errors
from nova_arm_ext.cmd import host
from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.domain import view

#: Seconds, enough to read the XML of a few hundred guests twice.
PATIENCE = 60.0


class Named(Protocol):
    """Something that has the names of a guest."""

    @property
    def name(self) -> str: ...

    @property
    def uuid(self) -> str: ...

    @property
    def number(self) -> int | None: ...

    @property
    def server(self) -> str | None: ...


T = TypeVar('T', bound=Named)


def called(wanted: str, known: Iterable[T]) -> T | None:
    """The guest that the user means.

    :param wanted: the domain's name, UUID or ID, or the server's name in Nova
    :returns: None if there is none
    :raises Failure: when several servers have this name
    """
    known = list(known)
    for fits in (lambda one: one.name == wanted,
                 lambda one: one.uuid == wanted.lower(),
                 lambda one: str(one.number) == wanted,
                 lambda one: one.server == wanted):
        found = [one for one in known if fits(one)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Failure(
                f'{len(found)} servers have the name {wanted!r}; give the ID '
                f'of one: {", ".join(sorted(one.uuid for one in found))}')
    return None


def server_in(document: str) -> str | None:
    """The server's name that Nova wrote into domain XML."""
    try:
        return view.Domain.parse(document).server_name
    except errors.InvalidDocument:
        return None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """What libvirt has of one guest.

    :param number: libvirt's ID; None if it does not run
    :param document: the XML for its next start
    :param live: the XML of the running guest; the same if it does not run
    """

    name: str
    uuid: str
    document: str
    live: str
    number: int | None = None

    @property
    def server(self) -> str | None:
        """The server's name in Nova."""
        return server_in(self.document)


def every(uri: str, seconds: float | None = None) -> list[Guest]:
    """All guests of a libvirt, sorted by name, read-only.

    :param seconds: how long to wait for the answer
    :raises Failure: when libvirt does not answer
    """
    return sorted((Guest(name=name, uuid=identity, number=number,
                         document=document, live=live)
                   for name, identity, number, document, live
                   in host.answer(uri, seconds or PATIENCE, _documents)),
                  key=lambda guest: guest.name)


def one(uri: str, wanted: str, seconds: float | None = None) -> Guest:
    """The guest that the user means (see `called`).

    :raises Failure: when there is none, or libvirt does not answer
    """
    guest = called(wanted, every(uri, seconds))
    if guest is None:
        raise Failure(
            f"libvirt at {uri} has no instance {wanted!r}; give the server's "
            f"ID or name, or the name of the domain")
    return guest


def _documents(connection: Any
               ) -> list[tuple[str, str, int | None, str, str]]:
    """Name, UUID, ID and XML of each guest; runs in the child."""
    import libvirt
    found = []
    for domain in connection.listAllDomains():
        try:
            document = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            found.append((
                domain.name(), domain.UUIDString(), number_of(domain),
                document,
                domain.XMLDesc() if domain.isActive() else document))
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise     # otherwise it was just removed
    return found


def number_of(domain: Any) -> int | None:
    """libvirt's ID of a domain; None if it does not run."""
    number = int(domain.ID())
    return None if number < 0 else number
