# SPDX-License-Identifier: Apache-2.0
"""The domain document as a whole: parse, ask, find, add, remove, write."""

from typing import Any
from typing import ClassVar
from typing import TypeVar

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext.domain import fields
from nova_arm_ext.domain import tree

#: Architectures of guests that this library adjusts, in libvirt's words.
ARM = frozenset(('aarch64', 'armv7l'))

#: More than any of Nova's guests needs (64 disks and 64 NICs take 0.1 MiB).
MAX_BYTES = 4 * 1024 * 1024

#: Nova's namespaces end in the version of its format: .../nova/1.1
NOVA_NAMESPACE = 'http://openstack.org/xmlns/libvirt/nova/'

#: Bytes of libvirt's units of memory; without one it is KiB.
_UNITS = {'b': 1, 'bytes': 1} | {
    name: base ** power for power, letter in enumerate('KMGTPE', 1)
    for name, base in ((letter, 1024), (letter.lower(), 1024),
                       (f'{letter}iB', 1024), (f'{letter}B', 1000))}

V = TypeVar('V', bound='View')


def _parser(encoding: str | None) -> Any:
    # without the white space between elements, because to_xml indents again
    return etree.XMLParser(encoding=encoding, resolve_entities=False,
                           no_network=True, load_dtd=False, huge_tree=False,
                           remove_blank_text=True)


#: A string is decoded already, whatever encoding its declaration names.
#: Threads wait for each other while they parse.
_OF_STRINGS = _parser('utf-8')
_OF_BYTES = _parser(None)


class View:
    """One element of the document, with names and types.

    :param element: the element; the view holds nothing else
    """

    tag: ClassVar[str]

    def __init__(self, element: Any) -> None:
        self.element = element

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and other.element is self.element

    def __hash__(self) -> int:
        return hash(self.element)

    def __repr__(self) -> str:
        return etree.tostring(self.element, encoding='unicode')

    def remove(self) -> None:
        """Remove the element from the document."""
        tree.detach(self.element)


class Domain(View):
    """A libvirt domain document.

    :param element: the root element
    :param previous: the document that the guest had before, if it had one
    """

    tag = 'domain'

    virt_type = fields.text('@type')
    name = fields.text('name')
    uuid = fields.text('uuid')
    kernel = fields.text('os/kernel')
    vcpus = fields.number('vcpu')
    #: in libvirt's words
    arch = fields.text('os/type/@arch')
    #: such as ``virt`` or ``virt-7.2``
    machine = fields.text('os/type/@machine')

    def __init__(self, element: Any,
                 previous: 'str | Domain | None' = None) -> None:
        super().__init__(element)
        self._previous = previous
        # lxml forgets the Python object of an element that nobody refers to
        # and makes another one at the next walk, which takes most of its time
        self._kept = list(element.iter('{}*'))

    @classmethod
    def parse(cls, xml: str | bytes,
              previous: 'str | Domain | None' = None) -> 'Domain':
        """Read a domain document; entities and network stay off.

        :param xml: the document
        :param previous: the document that the guest had before
        :raises InvalidDocument: when it is malformed, has a document type
            declaration, is larger than MAX_BYTES or is no domain
        """
        parser = _OF_BYTES
        data = xml
        try:
            if isinstance(xml, str):
                parser = _OF_STRINGS
                data = xml.encode()
        except UnicodeEncodeError as e:
            raise errors.InvalidDocument(
                f'the domain document is not XML: {e}') from e
        if len(data) > MAX_BYTES:
            raise errors.InvalidDocument(
                f'the domain document has {len(data)} bytes, more than the '
                f'{MAX_BYTES} that are read')
        try:
            root = etree.fromstring(data, parser)
        except (etree.XMLSyntaxError, ValueError) as e:
            # libxml2 ends some of its messages with a line break
            raise errors.InvalidDocument(
                f'the domain document is not XML: '
                f'{" ".join(str(e).split())}') from e
        if root.getroottree().docinfo.doctype:
            raise errors.InvalidDocument(
                'the domain document has a document type declaration '
                '(<!DOCTYPE>), which libvirt does not write; remove it')
        if root.tag != cls.tag:
            raise errors.InvalidDocument(
                f'the root element is <{root.tag[:60]}>, not <domain>')
        return cls(root, previous)

    def to_xml(self) -> str:
        """The document as a string, indented by two spaces as Nova does."""
        return etree.tostring(self.element.getroottree(), encoding='unicode',
                              pretty_print=True)

    # What the document says.

    @property
    def previous(self) -> 'Domain | None':
        """The document that the guest had before, parsed when asked for."""
        if isinstance(self._previous, str):
            try:
                self._previous = Domain.parse(self._previous)
            except errors.InvalidDocument as e:
                raise errors.InvalidDocument(
                    f"the guest's previous document: {e}") from e
        return self._previous

    @previous.setter
    def previous(self, document: 'str | Domain | None') -> None:
        self._previous = document

    @property
    def previous_of_same_arch(self) -> 'Domain | None':
        """The previous document, if it has the same architecture."""
        previous = self.previous
        if previous is None or previous.arch != self.arch:
            return None
        return previous

    @property
    def is_arm(self) -> bool:
        """Whether the guest is an Arm machine."""
        return self.arch in ARM

    @property
    def is_virt(self) -> bool:
        """Whether the machine is QEMU's ``virt``, of whatever version."""
        machine = self.machine or ''
        return machine == 'virt' or machine.startswith('virt-')

    @property
    def other_machine(self) -> str:
        """What a machine other than ``virt`` means, in words."""
        named = f'the machine is {self.machine}' if self.machine else (
            'no machine is named')
        return f'{named}: most hooks work only on the machine virt'

    @property
    def has_pcie(self) -> bool:
        """Whether the machine has a PCI Express root (pcie.0)."""
        return self.is_arm and self.is_virt

    @property
    def has_virtio_mmio(self) -> bool:
        """Whether a device sits on virtio-mmio.

        libvirt then puts every virtio device without an address there, and
        adds no PCI Express port if no device needs one.
        """
        return any(address.get('type') == 'virtio-mmio'
                   for device in self.devices
                   for address in device if address.tag == 'address')

    @property
    def memory_kib(self) -> int | None:
        """The memory in KiB, rounded up; None if it cannot be read."""
        found = self.part('memory')
        text = '' if found is None else (found.text or '').strip()
        size = _UNITS.get('KiB' if found is None
                          else found.get('unit', 'KiB'))
        if size is None or not text.isascii() or not text.isdigit():
            return None
        return -(-int(text) * size // 1024)

    @property
    def has_graphics(self) -> bool:
        """Whether there is a graphical console: VNC, SPICE."""
        return tree.child(self.devices, 'graphics') is not None

    @property
    def extra_specs(self) -> dict[str, str] | None:
        """The flavor's extra specs as Nova 32 and newer write them.

        None if the document's metadata has none.
        """
        metadata = self._of_nova('instance')
        found = (None if metadata is None
                 else metadata.find('{*}flavor/{*}extraSpecs'))
        if found is None:
            return None
        return {spec.get('name', ''): spec.text or ''
                for spec in found.iterfind('{*}extraSpec')}

    @property
    def image_properties(self) -> dict[str, str]:
        """The image's properties as Nova 32 and newer write them."""
        metadata = self._of_nova('instance')
        return {} if metadata is None else {
            one.get('name', ''): one.text or '' for one
            in metadata.iterfind('{*}image/{*}properties/{*}property')}

    @property
    def names(self) -> list[str]:
        """The names in the document: of the domain and, as Nova writes them,
        of the server, its flavor, user and project."""
        metadata = self._of_nova('instance')
        found = [self.name]
        if metadata is not None:
            found += [metadata.findtext('{*}name'),
                      metadata.findtext('{*}owner/{*}user'),
                      metadata.findtext('{*}owner/{*}project')]
            found += [flavor.get('name') for flavor
                      in metadata.findall('{*}flavor')]
        return [name for name in found if name]

    @property
    def server_name(self) -> str | None:
        """The name of the server, as Nova writes it into the metadata."""
        metadata = self._of_nova('instance')
        return None if metadata is None else metadata.findtext('{*}name')

    @property
    def nova_version(self) -> str | None:
        """The release of Nova that wrote the document, if known."""
        package = self._of_nova('package')
        return None if package is None else package.get('version')

    def _of_nova(self, tag: str) -> Any:
        """The first element with a tag in Nova's metadata."""
        metadata = self.part('metadata')
        for element in (() if metadata is None
                        else metadata.iter('{*}' + tag)):
            if element.tag.startswith('{' + NOVA_NAMESPACE):
                return element
        return None

    # Finding, adding, removing.

    @property
    def devices(self) -> list[Any]:
        """The elements of all devices, in the order of the document."""
        found = self.part('devices')
        return [] if found is None else found[:]

    def part(self, tag: str) -> Any:
        """A child of the root element, such as ``os``; None without it."""
        return next(self.element.iterchildren(tag), None)

    def all(self, kind: type[V]) -> list[V]:
        """The devices of one kind, in the order of the document."""
        devices = self.part('devices')
        return [] if devices is None else [
            kind(element) for element in devices.iterchildren(kind.tag)]

    def add(self, kind: type[V], **values: Any) -> V:
        """Add a device after the last of its kind.

        :param values: fields of the view and what they are set to
        :returns: the view on the new device
        """
        view = kind(etree.Element(kind.tag))
        for name, value in values.items():
            setattr(view, name, value)
        self.insert(view.element)
        return view

    def insert(self, *elements: Any) -> None:
        """Insert devices of one kind after the last of that kind."""
        devices = self.child('devices')
        last = next(devices.iterchildren(elements[0].tag, reversed=True),
                    None)
        position = len(devices) if last is None else devices.index(last) + 1
        devices[position:position] = elements

    def child(self, tag: str) -> Any:
        """A child of the root element, which is made if it is missing.

        A new one is the last child: libvirt's schema allows the children of a
        domain in any order.
        """
        found = self.part(tag)
        return etree.SubElement(self.element, tag) if found is None else found


def arm_guest(xml: str | None) -> Domain | None:
    """A domain XML, parsed, if it is an Arm guest's.

    :returns: None of any other, which is not parsed where that can be seen
        without
    :raises InvalidDocument: when it is no domain XML
    """
    # not a mock of Nova's tests either
    if not isinstance(xml, str) or not any(arch in xml for arch in ARM):
        return None
    guest = Domain.parse(xml)
    return guest if guest.is_arm else None
