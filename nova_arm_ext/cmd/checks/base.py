# SPDX-License-Identifier: Apache-2.0
"""What a check is, what it finds, and where it looks."""

import dataclasses
import enum
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from lxml import etree
from oslo_config import cfg

from nova_arm_ext import facts
from nova_arm_ext import packages
from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import host
from nova_arm_ext.cmd import inventory
from nova_arm_ext.cmd import stores
from nova_arm_ext.compute import gather
from nova_arm_ext.domain import view

#: Seconds; a libvirtd that has just started first probes every QEMU, and the
#: XML of a few thousand PCI devices is read.
PATIENCE = 90.0

DEV_KVM = '/dev/kvm'
QEMU_CONF = '/etc/libvirt/qemu.conf'
OS_RELEASE = '/etc/os-release'


class Status(enum.Enum):
    """The result of a check, the worst one last."""

    OK = 'ok'
    NOT_APPLICABLE = 'not applicable'
    WARNING = 'warning'
    FAILURE = 'failure'

    @property
    def exit_status(self) -> int:
        """0, 1 or 2, the same as the codes of oslo.upgradecheck."""
        return {Status.WARNING: 1, Status.FAILURE: 2}.get(self, 0)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One result of a check.

    :param text: what was found, with place and value
    :param advice: what to do about it; empty if there is nothing to do
    """

    status: Status
    text: str
    advice: str = ''

    @property
    def is_unknown(self) -> bool:
        """Whether the check could not find out what it is about."""
        return (self.status is Status.NOT_APPLICABLE
                and self.text.startswith('unknown'))

    @property
    def sentence(self) -> str:
        """Text and advice on one line."""
        return failure.one_line(
            f'{self.text}; {self.advice}' if self.advice else self.text)


def ok(text: str) -> Finding:
    return Finding(status=Status.OK, text=text)


def not_applicable(text: str) -> Finding:
    return Finding(status=Status.NOT_APPLICABLE, text=text)


def warning(text: str, advice: str) -> Finding:
    return Finding(status=Status.WARNING, text=text, advice=advice)


def fault(text: str, advice: str) -> Finding:
    return Finding(status=Status.FAILURE, text=text, advice=advice)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What libvirt says, gathered at once by a process of its own.

    :param domain_capabilities: by Arm architecture, for which libvirt offers
        guests; without those for which libvirt reported an error
    :param pci: name, XML and error of each device; None if libvirt has no
        node devices
    """

    uri: str
    driver: str
    host: facts.Host
    capabilities: Any
    domain_capabilities: Mapping[str, Any]
    pci: list[tuple[str, str | None, str]] | None

    @property
    def is_local(self) -> bool:
        """Whether this libvirt runs on this machine."""
        return host.is_local(self.uri)

    @property
    def qemu_user(self) -> tuple[int, int] | None:
        """The user and group that QEMU runs as; None if unknown."""
        for model in self.capabilities.findall('host/secmodel'):
            label = model.findtext('baselabel')
            if model.findtext('model') == 'dac' and label:
                # such as +64055:+108
                user, _, group = label.replace('+', '').partition(':')
                return int(user), int(group)
        return None


class Silent(failure.Failure):
    """libvirt does not answer; the check "libvirt" says why."""


class Surroundings:
    """Where the checks look: configuration, libvirt, files."""

    def __init__(self, conf: cfg.ConfigOpts, uri: str, *,
                 descriptors: Iterable[str] = gather.DESCRIPTORS,
                 dev_kvm: str = DEV_KVM, nvram: str | None = None,
                 instances: str | None = None,
                 qemu_conf: str = QEMU_CONF,
                 os_release: str = OS_RELEASE,
                 patience: float = PATIENCE) -> None:
        """
        :param conf: parsed configuration; options are registered here
        :param uri: the libvirt to ask
        :param descriptors: directories of firmware descriptors
        :param nvram, instances: other directories of variable stores and of
            instances than libvirt's and Nova's
        :param qemu_conf: libvirt's configuration of QEMU
        :param os_release: the file that names the distribution
        :param patience: seconds to wait for an answer of libvirt
        """
        self.conf = conf
        self.uri = uri
        self.patience = patience
        self.descriptors = tuple(descriptors)
        self.dev_kvm = dev_kvm
        self.qemu_conf = qemu_conf
        self.os_release = os_release
        self._nvram = nvram
        self._instances = instances

    @functools.cached_property
    def _asked(self) -> Survey | Silent:
        question = functools.partial(_survey, descriptors=self.descriptors)
        try:
            try:
                answer = host.answer(self.uri, self.patience, question,
                                     read_only=False)
            except host.NoBinding:
                raise
            except failure.Failure:
                # without domain capabilities for a user who may only read
                answer = host.answer(self.uri, self.patience, question)
        except failure.Failure as e:
            return Silent(str(e))
        return Survey(
            uri=answer['uri'], driver=answer['driver'],
            host=facts.Facts.from_json(answer['facts']).host,
            capabilities=_parsed(answer['capabilities']),
            domain_capabilities={
                arch: _parsed(document) for arch, document
                in answer['domain_capabilities'].items()},
            pci=answer['pci'])

    @property
    def survey(self) -> Survey:
        """What libvirt says.

        :raises Silent: when it does not answer
        """
        if isinstance(self._asked, Silent):
            raise self._asked
        return self._asked

    @functools.cached_property
    def folders(self) -> stores.Folders:
        """Where variable stores are.

        :raises Failure: when a given directory does not exist
        """
        return stores.Folders.configured(
            self.conf, nvram=self._nvram, instances=self._instances)

    def package(self, what: str) -> str:
        """The package of this host that has something.

        :param what: see packages
        """
        return packages.here(what, self._release)

    @functools.cached_property
    def _release(self) -> dict[str, str]:
        try:
            return packages.os_release(pathlib.Path(
                self.os_release).read_text(errors='replace'))
        except OSError:
            return {}     # as in a container without the file

    @functools.cached_property
    def virt_type(self) -> str:
        """Nova's ``[libvirt] virt_type``."""
        # the same option as Nova's, whose module cannot be imported here
        self.conf.register_opt(cfg.StrOpt('virt_type', default='kvm'),
                               group='libvirt')
        return str(self.conf.libvirt.virt_type)


def _parsed(document: str) -> Any:
    return etree.fromstring(document.encode(), etree.XMLParser(
        resolve_entities=False, no_network=True))


def _survey(connection: Any, descriptors: Iterable[str]) -> dict[str, Any]:
    """All answers; runs in the child."""
    import libvirt as binding
    uri = connection.getURI()
    found = gather.host(connection, local=host.is_local(uri),
                        descriptors=descriptors)
    documents = {}
    for arch in sorted(view.ARM & (found.virt_types or {}).keys()):
        kinds = (found.virt_types or {})[arch]
        try:
            documents[arch] = connection.getDomainCapabilities(
                None, arch, 'virt', 'kvm' if 'kvm' in kinds else 'qemu', 0)
        except binding.libvirtError:
            continue     # there is no such machine type
    try:
        devices = inventory.read_documents(connection)
    except binding.libvirtError:
        devices = None
    return {'uri': uri, 'driver': connection.getType(),
            'facts': facts.Facts(host=found).to_json(),
            'capabilities': connection.getCapabilities(),
            'domain_capabilities': documents, 'pci': devices}


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One subject.

    :param look: finds what there is to report
    """

    name: str
    look: Callable[[Surroundings], Iterable[Finding]]

    def findings(self, place: Surroundings) -> Iterator[Finding]:
        """The findings, at least one; it never raises."""
        said = False
        try:
            for finding in self.look(place):
                said = True
                yield finding
        except Silent:
            yield not_applicable('unknown, because libvirt does not answer')
            return
        except failure.Failure as e:
            yield fault(str(e), 'correct that, then run this again')
            return
        except Exception as e:
            # one check must not end the others
            yield fault(f'the check itself failed: {type(e).__name__}: {e}',
                        '"nova-arm-ext --debug doctor" shows where; please '
                        'report it')
            return
        if not said:
            yield ok('no problem found')
