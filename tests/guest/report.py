# SPDX-License-Identifier: Apache-2.0
"""The reports of the probe guest on its console, as values."""

import dataclasses
import re

_BEGIN = re.compile(r'^=== probe report (\d+) begin ===$')
_UPTIME = re.compile(r'^=== probe uptime (\d+) ===$', re.MULTILINE)
_END = re.compile(r'^=== probe report (\d+) end lines=(\d+) ===$')

#: The PCI class of a bridge between PCI buses: a PCIe root port on `virt`.
_BRIDGE = '060400'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PciDevice:
    address: str
    device_class: str
    device_id: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VirtioDevice:
    """`parent` is a PCI address or the name of a virtio-mmio transport."""

    name: str
    driver: str
    transport: str
    parent: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """`place` is the device's path below /sys/devices."""

    name: str
    size: int
    kind: str
    serial: str | None
    place: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    name: str
    mac: str
    place: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One report of the guest about its hardware."""

    number: int
    arch: str
    efi: bool
    #: Boots with this variable store; None if EFI variables do not work.
    boots: int | None
    #: What SMBIOS calls the machine; None without such tables.
    product: str | None
    kernel: str
    cmdline: str
    cpus: int
    #: Of the first CPU, as Linux names them.
    features: frozenset[str]
    #: The interrupt controller, such as "GICv3".
    gic: str | None
    memory_kib: int
    pci: tuple[PciDevice, ...]
    virtio: tuple[VirtioDevice, ...]
    disks: tuple[Disk, ...]
    config_drive: str | None
    #: The instance that the config drive names.
    config_drive_uuid: str | None
    inputs: tuple[str, ...]
    framebuffers: tuple[str, ...]
    dri: tuple[str, ...]
    interfaces: tuple[Interface, ...]
    #: The lines as the guest wrote them.
    text: str

    @property
    def root_ports(self) -> int:
        return sum(1 for device in self.pci if device.device_class == _BRIDGE)

    @property
    def hardware(self) -> tuple[object, ...]:
        """What a system remembers of its hardware: slots, disks with names."""
        return self.pci, self.virtio, self.disks, self.interfaces


def reports(console: str) -> list[Report]:
    """The complete reports on a console, oldest first.

    After a new start the console has only the new boot.
    """
    found = []
    number, lines = None, []
    for line in console.replace('\r', '').split('\n'):
        if begin := _BEGIN.match(line):
            number, lines = int(begin[1]), []
        elif end := _END.match(line):
            if (int(end[1]), int(end[2])) == (number, len(lines)):
                found.append(parse(number, lines))
            number = None
        elif number is not None:
            lines.append(line)
    return found


def uptimes(console: str) -> list[int]:
    """The uptimes in seconds that the guest has reported."""
    return [int(seconds) for seconds in
            _UPTIME.findall(console.replace('\r', ''))]


def parse(number: int, lines: list[str]) -> Report:
    said: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition('=')
        said.setdefault(key, []).append(value)

    def one(key: str) -> str | None:
        return said[key][0] if key in said else None

    def each(key: str) -> list[list[str]]:
        return [value.split(' ') for value in said.get(key, ())]

    boots = one('boots')
    drive, drive_uuid = (one('config_drive') or ' ').split(' ')
    return Report(
        number=number,
        arch=said['arch'][0],
        efi=said['efi'][0] == 'yes',
        boots=int(boots) if boots else None,
        product=one('product'),
        kernel=said['kernel'][0],
        cmdline=said['cmdline'][0],
        cpus=int(said['cpus'][0]),
        features=frozenset((one('features') or '').split()),
        gic=one('gic') or None,
        memory_kib=int(said['memory'][0]),
        pci=tuple(PciDevice(address=address, device_class=device_class,
                            device_id=device_id)
                  for address, device_class, device_id in each('pci')),
        virtio=tuple(VirtioDevice(name=name, driver=driver,
                                  transport=transport, parent=parent)
                     for name, driver, transport, parent in each('virtio')),
        disks=tuple(Disk(name=name, size=int(size), kind=kind,
                         serial=None if serial == '-' else serial,
                         place=place)
                    for name, size, kind, serial, place in each('disk')),
        config_drive=drive or None,
        config_drive_uuid=drive_uuid or None,
        inputs=tuple(said.get('input', ())),
        framebuffers=tuple(said.get('framebuffer', ())),
        dri=tuple(said.get('dri', ())),
        interfaces=tuple(Interface(name=name, mac=mac, place=place)
                         for name, mac, place in each('net')),
        text='\n'.join(lines))
