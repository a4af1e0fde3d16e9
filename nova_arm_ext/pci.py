# SPDX-License-Identifier: Apache-2.0
"""PCI devices, and the rules by which the inventory skips some of them."""

import dataclasses
import json
import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext import options

GROUP = 'arm_pci'

#: The forms of a rule, for messages.
FORMS = (
    'vendor:product such as 177d:a034; vendor:* such as 177d:*; an address '
    'such as 0002:01:00.1; a range of addresses such as '
    '0002:01:00.1-0002:01:1f.7; driver=NAME such as driver=thunder-nicvf; '
    'class=CODE with 2, 4 or 6 digits such as class=0200')

OPTS: tuple[cfg.Opt, ...] = (
    cfg.BoolOpt(
        'enabled',
        default=True,
        help="""
Whether this host has an inventory of PCI devices. Without one nova-compute
reads no PCI device, and no PCI device can be passed through to an instance.
"""),
    cfg.StrOpt(
        'when_device_spec_empty',
        default='inventory',
        choices=[
            ('inventory', 'Read all devices nevertheless, as Nova does. '
                          'Nova then drops each of them.'),
            ('nothing', 'Read nothing and report no device.')],
        help="""
What to do when ``[pci] device_spec`` is empty, so that no device can be passed
through anyway. ``nothing`` saves the time that the inventory takes, and does
not touch devices that are not meant for instances.
"""),
    cfg.StrOpt(
        'default_skip',
        default='177d:a01e,177d:a034,177d:0011',
        help="""
The rules that are in ``skip`` by default, for use as ``$default_skip`` there.
Not meant to be set. These are the on-chip NIC of Cavium ThunderX, its virtual
function, and the virtual function of the first silicon. ``[pci] device_spec``
takes precedence: a device that it names by vendor and product, only by vendor,
or by address is not skipped by a rule of this list.
"""),
    cfg.ListOpt(
        'skip',
        default='$default_skip',
        help="""
Rules for PCI devices that are left out of the inventory. Of such a device only
the identity is read, not its network interfaces. A rule is a vendor and a
product such as ``177d:a034``, all products of a vendor such as ``177d:*``, an
address such as ``0002:01:00.1``, a range of addresses such as
``0002:01:00.1-0002:01:1f.7``, a driver such as ``driver=thunder-nicvf``, or a
class code or its first 2 or 4 digits such as ``class=0200``. To add a rule to
the default ones write ``$default_skip,driver=mine``. nova-compute does not
start if a rule is invalid. ``nova-arm-ext pci`` shows which rule skips which
device.
"""),
    cfg.IntOpt(
        'min_interval',
        default=10, min=0,
        help="""
An inventory that is younger than this many seconds is used again, even if it
is empty. The default is well below the interval of Nova's periodic task, 60
seconds.
"""),
    cfg.IntOpt(
        'max_age',
        default=300, min=0,
        help="""
The age in seconds at which a new inventory is made. It is made earlier when
libvirt reports that a device was added, removed or changed, and after a
temporary fault, but never before ``min_interval`` has passed.
"""),
    cfg.IntOpt(
        'keep_last_good',
        default=600, min=0,
        help="""
How many seconds the last good answer about a device is used when the device
cannot be read because of a temporary fault, for example a timeout. Nova
deletes a device that is missing from one inventory. The same applies when
libvirt lists no device at all after it has listed some.
"""),
)

#: Domain (32 bits on some hosts), bus, slot, function.
Address = tuple[int, int, int, int]

_PARTS = ('domain', 'bus', 'slot', 'function')
_HEX = '[0-9a-f]'
_ADDRESS = (f'({_HEX}{{4,8}}):({_HEX}{{2}}):({_HEX}{{2}})'
            rf'\.([0-7])')
_RULES = {form: re.compile(pattern) for form, pattern in {
    'ids': rf'({_HEX}{{4}}):({_HEX}{{4}}|\*)',
    'address': _ADDRESS,
    'range': f'{_ADDRESS}-{_ADDRESS}',
    'driver': r'driver=([\w.-]+)',
    'class': f'class=(?:0x)?((?:{_HEX}{{2}}){{1,3}})',
}.items()}
_NAME = re.compile(
    f'pci_({_HEX}{{4,8}})_({_HEX}{{2}})_({_HEX}{{2}})_([0-7])')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What a PCI device is, according to its XML.

    :param physical_function: the address of the device of which this one is
        a virtual function
    :param has_virtual_functions: it can be split into virtual functions
    """

    name: str
    address: Address
    vendor: int
    product: int
    driver: str | None = None
    class_code: int | None = None
    physical_function: Address | None = None
    has_virtual_functions: bool = False

    @property
    def ids(self) -> str:
        """As ``177d:a034``."""
        return f'{self.vendor:04x}:{self.product:04x}'


def format_address(address: Address) -> str:
    """As ``0002:01:00.1``."""
    domain, bus, slot, function = address
    return f'{domain:04x}:{bus:02x}:{slot:02x}.{function:x}'


def address_in(name: str) -> Address | None:
    """The address in libvirt's name of a PCI device, ``pci_0002_01_00_1``."""
    found = _NAME.fullmatch(name)
    return _digits(found.groups()) if found else None


def parse(xml: str) -> Any:
    """The root element of a node device's XML.

    :raises InvalidDocument: if it is not such XML
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        device = etree.fromstring(xml, parser)
    except (etree.XMLSyntaxError, ValueError, TypeError) as e:
        raise errors.InvalidDocument(f'the document is not XML: {e}') from e
    if device.tag != 'device':
        raise errors.InvalidDocument(
            f'the document is a {device.tag!r}, not a device')
    return device


def identify(device: Any) -> Identity:
    """Read the identity of a PCI device.

    :param device: the root element of its XML
    :raises InvalidDocument: with the place and the value that is wrong
    """
    # of several elements with one name the last one counts, as in Nova; plain
    # loops, because lxml's own searches take twice as long
    top = {child.tag: child for child in device}
    name = top['name'].text if 'name' in top else None
    if not name:
        raise errors.InvalidDocument('device/name is missing')
    capability = _capability(device, 'pci')
    parts = {child.tag: child for child in capability}
    ids = []
    for place in ('vendor', 'product'):
        number = _number(f'{place}/@id', parts[place].get('id')
                         if place in parts else None, 16)
        if not 0 <= number <= 0xffff:
            # Nova's database has room for four digits
            raise errors.InvalidDocument(f'{place}/@id is {number:#x}')
        ids.append(number)
    # the first one that says anything counts, as in Nova
    physical, has_virtual = None, False
    for inner in capability.iterchildren('capability'):
        if inner.get('type') == 'virt_functions':
            has_virtual = True
            break
        parent = (inner.find('address')
                  if inner.get('type') == 'phys_function' else None)
        if parent is not None:
            physical = _address(*(
                _number(f'phys_function/address/@{part}', parent.get(part),
                        16) for part in _PARTS))
            break
    try:
        class_code = int(parts['class'].text, 16)
    except (KeyError, TypeError, ValueError):
        class_code = None     # missing before libvirt 5.2, or unusable
    return Identity(
        name=name,
        address=_address(*(
            _number(part, parts[part].text if part in parts else None, 10)
            for part in _PARTS)),
        vendor=ids[0], product=ids[1],
        driver=top['driver'].findtext('name') if 'driver' in top else None,
        class_code=class_code,
        physical_function=physical, has_virtual_functions=has_virtual)


def _capability(device: Any, kind: str) -> Any:
    found = None
    for child in device.iterchildren('capability'):
        if child.get('type') == kind:
            found = child
    if found is None:
        raise errors.InvalidDocument(
            f"capability[@type='{kind}'] is missing")
    return found


def numa_node(device: Any) -> int | None:
    """The NUMA node of a PCI device, None if its XML has none.

    :raises InvalidDocument: with the value that is wrong
    """
    node = None
    for element in _capability(device, 'pci').iterchildren('numa'):
        node = _number('numa/@node', element.get('node'), 10)
    return node


def card_serial(device: Any) -> str | None:
    """The serial number in a PCI device's vital product data.

    :raises InvalidDocument: when this is not a PCI device
    """
    serial: str | None = None
    for inner in _capability(device, 'pci').iterchildren('capability'):
        if inner.get('type') == 'vpd':
            serial = None
            for field in inner.iterchildren('fields'):
                if field.get('access') == 'readonly':
                    for element in field.iterchildren('serial_number'):
                        serial = element.text
    return serial


def net_features(device: Any) -> list[str | None]:
    """The features of a network interface.

    :raises InvalidDocument: when this is not a network interface
    """
    return [feature.get('name') for feature
            in _capability(device, 'net').iterchildren('feature')]


def _number(place: str, text: str | None, base: int) -> int:
    if text is None:
        raise errors.InvalidDocument(f'{place} is missing')
    try:
        return int(text, base)
    except ValueError as e:
        raise errors.InvalidDocument(f'{place} is {text[:40]!r}') from e


def _address(domain: int, bus: int, slot: int, function: int) -> Address:
    # not checked: Nova itself ignores what is out of range
    return domain, bus, slot, function


def _digits(digits: Sequence[str]) -> Address:
    return _address(*(int(d, 16) for d in digits))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule by which devices are skipped.

    A field that is None is not compared.
    """

    text: str
    vendor: int | None = None
    product: int | None = None
    first: Address | None = None
    last: Address | None = None
    driver: str | None = None
    #: the leading hexadecimal digits of the class code
    class_digits: str | None = None

    @classmethod
    def parse(cls, text: str) -> 'Rule':
        """Read a rule.

        :raises ValueError: with what is wrong
        """
        lower = text.strip().lower()
        found = {form: pattern.fullmatch(lower)
                 for form, pattern in _RULES.items()}
        if match := found['ids']:
            return cls(
                text=text, vendor=int(match[1], 16),
                product=None if match[2] == '*' else int(match[2], 16))
        if match := found['address'] or found['range']:
            first = _digits(match.groups()[:4])
            last = _digits(match.groups()[-4:])
            if last < first:
                raise ValueError(f'{text!r} ends before it begins')
            if first[2] > 0x1f or last[2] > 0x1f:
                raise ValueError(f'{text!r} has a slot above 1f')
            return cls(text=text, first=first, last=last)
        if found['driver']:
            # names of kernel modules may have capital letters
            return cls(text=text, driver=text.strip()[len('driver='):])
        if match := found['class']:
            return cls(text=text, class_digits=match[1])
        raise ValueError(f'{text!r} is not a rule')

    def has_address(self, address: Address) -> bool:
        """Whether this is a rule for addresses, and for this one."""
        return (self.first is not None and self.last is not None
                and self.first <= address <= self.last)

    def matches(self, device: Identity) -> bool:
        """Whether it skips the device. An unknown value never matches."""
        if self.first is not None:
            return self.has_address(device.address)
        if self.driver is not None:
            return device.driver == self.driver
        if self.class_digits is not None:
            return (device.class_code is not None
                    and f'{device.class_code:06x}'.startswith(
                        self.class_digits))
        return (self.vendor == device.vendor
                and self.product in (None, device.product))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The options of the inventory.

    :param skip: rules in the order in which they are tried
    :param yielding: the rules over which ``[pci] device_spec`` takes
        precedence
    """

    enabled: bool = True
    nothing_without_device_spec: bool = False
    skip: tuple[Rule, ...] = ()
    yielding: frozenset[str] = frozenset()
    min_interval: float = 10
    max_age: float = 300
    keep_last_good: float = 600

    @classmethod
    def load(cls, conf: cfg.ConfigOpts) -> 'Settings':
        """Read the options, which are registered here.

        :raises ConfigurationError: with every fault that was found
        """
        conf.register_opts(OPTS, group=GROUP)
        faults: list[str] = []
        values = options.read_options(conf, GROUP, OPTS, faults)
        rules: dict[str, list[Rule]] = {}
        known = len(faults)
        for option in ('skip', 'default_skip'):
            texts = getattr(values, option, ())
            if isinstance(texts, str):
                texts = [one for one in texts.split(',') if one.strip()]
            rules[option] = []
            for text in texts:
                try:
                    rules[option].append(Rule.parse(text))
                except ValueError as e:
                    faults.append(f'[{GROUP}] {option}: {e}')
        if len(faults) > known:
            faults.append(f'a rule of [{GROUP}] is one of: {FORMS}')
        if faults:
            raise errors.ConfigurationError(faults)
        return cls(
            enabled=values.enabled,
            nothing_without_device_spec=(
                values.when_device_spec_empty == 'nothing'),
            skip=tuple(rules['skip']),
            yielding=frozenset(r.text for r in rules['default_skip']),
            min_interval=values.min_interval, max_age=values.max_age,
            keep_last_good=values.keep_last_good)

    def skipped_by(self, device: Identity,
                   named: 'DeviceSpec') -> str | None:
        """The rule that skips a device, as configured; None if none does.

        :param named: what ``[pci] device_spec`` names
        """
        for rule in self.skip:
            if rule.matches(device) and not (
                    rule.text in self.yielding and named.names(device)):
                return rule.text
        return None

    def skipped_address(self, address: Address) -> str | None:
        """The rule that skips a device of which only the address is known."""
        for rule in self.skip:
            if rule.has_address(address) and rule.text not in self.yielding:
                return rule.text
        return None


def faults(conf: cfg.ConfigOpts) -> Sequence[str]:
    """What is wrong with the options, one sentence each."""
    try:
        Settings.load(conf)
    except errors.ConfigurationError as e:
        return e.faults
    return ()


class DeviceSpec:
    """The devices that ``[pci] device_spec`` names.

    :param specs: the values of the option. One that cannot be read is
        ignored; Nova itself does not start with it.
    """

    def __init__(self, specs: Iterable[str] = ()) -> None:
        self._specs: list[Mapping[str, Any]] = []
        for text in specs:
            try:
                one = json.loads(text)
            except ValueError:
                continue
            self._specs += [spec for spec in
                            (one if isinstance(one, list) else [one])
                            if isinstance(spec, dict)]

    def __bool__(self) -> bool:
        return bool(self._specs)

    def names(self, device: Identity) -> bool:
        """Whether an entry means this specific device.

        By vendor and product, only by vendor, or by an address: its own or
        that of its physical function.
        """
        return any(self._names(spec, device) for spec in self._specs)

    @staticmethod
    def _names(spec: Mapping[str, Any], device: Identity) -> bool:
        vendor, product = (
            str(spec.get(key, '*')).strip().lower()
            for key in ('vendor_id', 'product_id'))
        if (vendor not in ('*', f'{device.vendor:04x}')
                or product not in ('*', f'{device.product:04x}')):
            return False
        address = spec.get('address')
        if address and not any(
                _covers(address, one)
                for one in (device.address, device.physical_function) if one):
            return False
        return vendor != '*' or (bool(address) and address != '*:*:*.*')


def _covers(wanted: Any, address: Address) -> bool:
    """Whether an address in Nova's forms, a glob or regular expressions,
    covers this one."""
    fields = re.split('[:.]', format_address(address))
    if isinstance(wanted, dict):
        keys = ('domain', 'bus', 'slot', 'function')
        try:
            return all(re.match(str(wanted.get(key, '.*')), field)
                       for key, field in zip(keys, fields, strict=True))
        except re.error:
            return False
    left, _, function = str(wanted).partition('.')
    parts = left.split(':')
    # as nova.pci.devspec reads it: parts that are missing on the left match
    # any value
    patterns = [*['*'] * (3 - len(parts)), *parts, function]
    if len(patterns) != 4:
        return False
    return all(_same(pattern.strip(), field)
               for pattern, field in zip(patterns, fields, strict=True))


def _same(pattern: str, field: str) -> bool:
    if pattern in ('', '*'):
        return True
    try:
        return int(pattern, 16) == int(field, 16)
    except ValueError:
        return False


def summary(skipped: Mapping[str, Collection[str]]) -> str:
    """How many devices were skipped, and why, in a sentence.

    :param skipped: names of devices by the rule that skips them
    """
    if not skipped:
        return 'no device is skipped'
    total = sum(len(names) for names in skipped.values())
    return f'{total} skipped: ' + ', '.join(
        f'{len(names)} by {rule}' for rule, names in sorted(skipped.items()))
