# SPDX-License-Identifier: Apache-2.0
"""The domains that are defined on this host, with their XML."""

import dataclasses
from typing import Any

from nova_arm_ext.cmd import host
from nova_arm_ext.cmd.failure import Failure

#: Seconds, enough to read the XML of a few hundred guests twice.
PATIENCE = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """What libvirt has of one guest.

    :param document: the XML for its next start
    :param live: the XML of the running guest; the same if it does not run
    """

    name: str
    uuid: str
    document: str
    live: str


def every(uri: str, seconds: float | None = None) -> list[Guest]:
    """All guests of a libvirt, sorted by name, read-only.

    :param seconds: how long to wait for the answer
    :raises Failure: when libvirt does not answer
    """
    return sorted((Guest(name=name, uuid=identity, document=document,
                         live=live) for name, identity, document, live
                   in host.answer(uri, seconds or PATIENCE, _documents)),
                  key=lambda guest: guest.name)


def one(uri: str, wanted: str, seconds: float | None = None) -> Guest:
    """The guest with a name or UUID.

    :raises Failure: when there is none, or libvirt does not answer
    """
    for guest in every(uri, seconds):
        if wanted in (guest.name, guest.uuid):
            return guest
    raise Failure(f'libvirt at {uri} has no instance {wanted!r}; give the '
                  f"name of its domain, or the server's ID")


def _documents(connection: Any) -> list[tuple[str, str, str, str]]:
    """Name, UUID and XML of each guest; runs in the child."""
    import libvirt
    found = []
    for domain in connection.listAllDomains():
        try:
            document = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            found.append((
                domain.name(), domain.UUIDString(), document,
                domain.XMLDesc() if domain.isActive() else document))
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise     # otherwise it was just removed
    return found
