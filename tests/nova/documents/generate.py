# SPDX-License-Identifier: Apache-2.0
"""Domain XML that the installed Nova generates for every kind of guest.

``python -m tests.nova.documents.generate DIRECTORY`` writes, for each host and
kind, ``HOST/KIND.xml`` (Nova's unchanged XML), ``HOST/KIND.json`` (the facts
of the guest), and ``index.json``, which also has Nova's error if Nova refuses
the guest.

Nothing of the driver is replaced: its ``_get_guest_xml`` runs completely.
Nova's own LibvirtFixture stands for the Arm host. It needs its own process,
because Nova's test base patches threads and forbids the real libvirt.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import argparse
import contextlib
import dataclasses
import importlib.metadata
import inspect
import json
import pathlib
import typing
import unittest
import uuid
from collections.abc import Iterator
from collections.abc import Sequence
from unittest import mock

import nova.conf
from nova import context
from nova import exception
from nova import objects
from nova.network import model as network_model
from nova.objects import fields
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt import block_device as driver_block_device
from nova.virt import fake
from nova.virt.libvirt import blockinfo
from nova.virt.libvirt import config
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import imagebackend

from tests.nova.documents import kinds

CONF = nova.conf.CONF

_IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'
_RESCUE_IMAGE = '76fa36fc-c930-4bf3-8c8a-ea2a2420deb6'
_KVM_AND_TCG = ('kvm', 'qemu')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HostKind:
    """A compute host for Nova and the extension."""

    arch: str
    virt_type: str
    virt_types: dict[str, tuple[str, ...]]
    image: dict[str, str] = dataclasses.field(default_factory=dict)


HOSTS = {
    kinds.AARCH64_KVM: HostKind(
        arch='aarch64', virt_type='kvm',
        virt_types={'aarch64': _KVM_AND_TCG, 'armv7l': _KVM_AND_TCG}),
    kinds.AARCH64_TCG: HostKind(
        arch='aarch64', virt_type='qemu',
        virt_types={'aarch64': ('qemu',), 'armv7l': ('qemu',)}),
    # What an image must say for Nova to emulate aarch64 on another host.
    kinds.ON_X86: HostKind(
        arch='x86_64', virt_type='qemu',
        virt_types={'aarch64': ('qemu',), 'armv7l': ('qemu',),
                    'x86_64': _KVM_AND_TCG},
        image={'hw_architecture': 'x86_64',
               'hw_emulation_architecture': 'aarch64',
               'hw_machine_type': 'virt',
               'hw_firmware_type': 'uefi'}),
    kinds.X86_64: HostKind(
        arch='x86_64', virt_type='kvm',
        virt_types={'aarch64': ('qemu',), 'armv7l': ('qemu',),
                    'x86_64': _KVM_AND_TCG}),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Domain XML, or Nova's error."""

    document: str | None = None
    refusal: str | None = None


@contextlib.contextmanager
def _option(group: str, name: str, value: object) -> Iterator[None]:
    section = None if group == 'DEFAULT' else group
    place = CONF if section is None else CONF[section]
    before = place[name]
    CONF.set_override(name, value, section)
    try:
        yield
    finally:
        CONF.set_override(name, before, section)


def image_properties(host: HostKind, kind: kinds.Kind) -> dict[str, str]:
    """The image's properties, with those for emulation on this host."""
    properties = dict(host.image) | dict(kind.image)
    if host.image and 'hw_architecture' in kind.image:
        properties['hw_architecture'] = host.arch
        properties['hw_emulation_architecture'] = kind.image['hw_architecture']
        if 'hw_firmware_type' not in kind.image:
            del properties['hw_firmware_type']
    return properties


class Build(nova.test.NoDBTestCase):
    """The domain XML of one host, generated in Nova's own test environment."""

    def __init__(self, host: str, asked: Sequence[kinds.Kind], version: int,
                 hv_version: int, previous: pathlib.Path | None) -> None:
        super().__init__('build')
        self._previous = previous
        self._host = HOSTS[host]
        self._asked = asked
        self._version = version
        self._hv_version = hv_version
        # With an underscore: Nova deletes a finished test's public attributes.
        self._outcomes: dict[str, Outcome] = {}

    def setUp(self) -> None:
        super().setUp()
        # Nothing is read or written there; it only stands in the documents.
        self.flags(instances_path='/var/lib/nova/instances')
        self.flags(nfs_mount_point_base='/var/lib/nova/mnt', group='libvirt')
        # No image file stands behind the documents.
        self.stub_out('nova.virt.libvirt.imagebackend.Image.'
                      'resolve_driver_format',
                      imagebackend.Image._get_driver_format)
        libvirt = self.useFixture(nova_fixtures.LibvirtFixture())
        self.useFixture(nova_fixtures.CGroupsFixture())
        libvirt.mock_uname.return_value = fakelibvirt.os_uname(
            'Linux', '', '5.4.0-0-generic', '', self._host.arch)
        pages = [fakelibvirt.create_mempages([(4, 2 ** 21), (2048, 4096)])
                 for _ in range(2)]
        connection = fakelibvirt.Connection(
            'qemu:///system', version=self._version,
            hv_version=self._hv_version,
            host_info=fakelibvirt.HostInfo(
                cpu_nodes=2, cpu_cores=8, kB_mem=2 ** 25, mempages=pages))
        self.stub_out('nova.virt.libvirt.host.Host.get_connection',
                      lambda host: connection)
        self.flags(virt_type=self._host.virt_type, group='libvirt')

    def build(self) -> None:
        for kind in self._asked:
            self._kind = kind
            with contextlib.ExitStack() as stack:
                for (group, name), value in kind.flags.items():
                    stack.enter_context(_option(group, name, value))
                try:
                    outcome = Outcome(document=self._document())
                except exception.NovaException as e:
                    outcome = Outcome(refusal=f'{type(e).__name__}: {e}')
            self._outcomes[kind.name] = outcome

    def outcomes(self) -> dict[str, Outcome]:
        """The outcome of each kind; errors of the test are raised."""
        result = unittest.TestResult()
        self.run(result)
        for _, text in result.errors + result.failures:
            raise RuntimeError(f'{self._kind.name}: {text}')
        return self._outcomes

    def _document(self) -> str:
        kind = self._kind
        ctxt = context.get_admin_context()
        driver = libvirt_driver.LibvirtDriver(fake.FakeVirtAPI(), False)
        instance = self._instance()
        image = self._image_meta()
        block_devices = self._block_devices(ctxt, instance)
        rescue = None
        disk_info_extra: dict[str, typing.Any] = {}
        if kind.rescue:
            rescue = {'image_id': _RESCUE_IMAGE, 'kernel_id': None,
                      'ramdisk_id': None}
            disk_info_extra = {'rescue': True}
        if kind.rescue == 'stable':
            disk_info_extra['rescue_image_meta'] = (
                objects.ImageMeta.from_dict({
                    'id': _RESCUE_IMAGE, 'disk_format': 'qcow2',
                    'properties': {'hw_rescue_device': 'disk',
                                   'hw_rescue_bus': 'scsi'}}))
        disk_info = blockinfo.get_disk_info(
            CONF.libvirt.virt_type, instance, image, block_devices,
            **disk_info_extra)
        more: dict[str, typing.Any] = {}
        if kind.share:
            more['share_info'] = self._shares(instance)
        if self._previous is not None:
            more |= self._old_guest(self._previous / f'{kind.name}.xml')
        with mock.patch.object(
                driver_block_device.DriverVolumeBlockDevice, 'save'):
            return driver._get_guest_xml(
                ctxt, instance, self._network(), disk_info, image,
                rescue=rescue, block_device_info=block_devices, **more)

    @staticmethod
    def _old_guest(place: pathlib.Path) -> dict[str, typing.Any]:
        """The existing guest as Nova 33 and later pass it in a hard reboot."""
        known = inspect.signature(
            libvirt_driver.LibvirtDriver._get_guest_xml).parameters
        if 'old_guest' not in known or not place.exists():
            return {}
        old_guest = config.LibvirtConfigGuest()
        old_guest.parse_str(place.read_text())
        return {'old_guest': old_guest}

    def _identity(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, self._kind.name))

    def _image(self) -> dict[str, typing.Any]:
        return {'id': _IMAGE, 'disk_format': self._kind.disk_format,
                'properties': image_properties(self._host, self._kind)}

    def _image_meta(self) -> objects.ImageMeta:
        return objects.ImageMeta.from_dict(self._image())

    def _instance(self) -> objects.Instance:
        kind = self._kind
        identity = self._identity()
        flavor = objects.Flavor(
            id=2, name='m1.arm', flavorid='2', memory_mb=kind.memory_mb,
            vcpus=kind.vcpus, root_gb=10, swap=512 if kind.swap else 0,
            ephemeral_gb=20 if kind.ephemeral else 0, rxtx_factor=1.0,
            vcpu_weight=None, extra_specs=dict(kind.extra_specs))
        metadata = {'image_disk_format': kind.disk_format,
                    'image_base_image_ref': _IMAGE}
        metadata.update(
            (f'image_{name}', value) for name, value
            in image_properties(self._host, kind).items())
        if kind.tpm:
            metadata['vtpm_secret_uuid'] = identity
        instance = objects.Instance(
            id=1, uuid=identity, display_name=kind.name, flavor=flavor,
            new_flavor=None, old_flavor=None, instance_type_id=2,
            launched_at=None,
            image_ref='' if kind.boots_from_volume else _IMAGE,
            kernel_id=_IMAGE if kind.kernel else None,
            ramdisk_id=_IMAGE if kind.kernel else None,
            os_type=kind.os_type, system_metadata=metadata,
            config_drive='True' if kind.config_drive else '',
            vm_mode=None, vm_state=None, task_state=None, vcpu_model=None,
            project_id='project', user_id='user', host='host', node='host',
            ephemeral_key_uuid=None, trusted_certs=None, resources=None,
            migration_context=None, info_cache=None, cleaned=False,
            root_gb=10, ephemeral_gb=flavor.ephemeral_gb, vcpus=kind.vcpus,
            memory_mb=kind.memory_mb, numa_topology=self._numa(),
            pci_devices=self._pci_devices(identity),
            pci_requests=self._pci_requests(identity))
        return instance

    def _numa(self) -> objects.InstanceNUMATopology | None:
        kind = self._kind
        if not kind.numa_nodes:
            return None
        share = kind.vcpus // kind.numa_nodes
        return objects.InstanceNUMATopology(cells=[
            objects.InstanceNUMACell(
                id=node, cpuset=set(range(node * share, (node + 1) * share)),
                pcpuset=set(), memory=kind.memory_mb // kind.numa_nodes,
                pagesize=kind.page_kib)
            for node in range(kind.numa_nodes)])

    def _pci_devices(self, identity: str) -> objects.PciDeviceList:
        if not self._kind.pci_device:
            return objects.PciDeviceList()
        return objects.PciDeviceList(objects=[objects.PciDevice(
            id=1, address='0000:81:00.0', vendor_id='10de',
            product_id='2342', dev_type=fields.PciDeviceType.STANDARD,
            status=fields.PciDeviceStatus.ALLOCATED, compute_node_id=1,
            instance_uuid=identity, request_id=_IMAGE, extra_info={})])

    def _pci_requests(self, identity: str) -> objects.InstancePCIRequests:
        requests = []
        if self._kind.pci_device:
            requests = [objects.InstancePCIRequest(
                count=1, alias_name='gpu', request_id=_IMAGE,
                spec=[{'vendor_id': '10de'}])]
        return objects.InstancePCIRequests(
            instance_uuid=identity, requests=requests)

    def _network(self) -> network_model.NetworkInfo:
        vifs = [self._vif(number) for number
                in range(1, self._kind.interfaces + 1)]
        return network_model.NetworkInfo(vifs)

    def _vif(self, number: int) -> network_model.VIF:
        kind = self._kind
        identity = str(uuid.uuid5(uuid.NAMESPACE_DNS, f'port-{number}'))
        network = network_model.Network(
            id=str(uuid.uuid5(uuid.NAMESPACE_DNS, f'net-{number}')),
            bridge='br-int', label=f'net-{number}', mtu=1450,
            subnets=[network_model.Subnet(
                cidr=f'10.0.{number}.0/28', version=4,
                ips=[network_model.FixedIP(
                    address=f'10.0.{number}.4')])])
        common: dict[str, typing.Any] = {
            'id': identity, 'network': network, 'active': True,
            'address': f'fa:16:3e:00:00:{number:02x}',
            'devname': f'tap{identity[:11]}'}
        if kind.sriov:
            return network_model.VIF(
                type=network_model.VIF_TYPE_HW_VEB,
                vnic_type=network_model.VNIC_TYPE_DIRECT,
                profile={'pci_slot': f'0000:06:00.{number}',
                         'pci_vendor_info': '15b3:101e'},
                details={'vlan': '101'}, **common)
        if kind.vhostuser:
            return network_model.VIF(
                type=network_model.VIF_TYPE_VHOSTUSER,
                details={'vhostuser_mode': 'server',
                         'vhostuser_socket': f'/run/vhost{number}',
                         'vhostuser_ovs_plug': True},
                ovs_interfaceid=identity, **common)
        return network_model.VIF(
            type=network_model.VIF_TYPE_OVS, ovs_interfaceid=identity,
            details={'port_filter': True, 'ovs_hybrid_plug': False,
                     'bridge_name': 'br-int'}, **common)

    def _block_devices(
            self, ctxt: context.RequestContext, instance: objects.Instance,
    ) -> dict[str, typing.Any] | None:
        kind = self._kind
        if not kind.volumes:
            return None
        volumes = []
        for number in range(kind.volumes):
            identity = str(uuid.uuid5(uuid.NAMESPACE_DNS, f'vol-{number}'))
            first = kind.boots_from_volume and number == 0
            volumes.append(objects.BlockDeviceMapping(
                ctxt, id=number + 1, instance_uuid=instance.uuid,
                source_type='volume', destination_type='volume',
                device_name=None, disk_bus=None, device_type=None,
                boot_index=0 if first else -1, guest_format=None,
                delete_on_termination=False, volume_id=identity,
                volume_size=1, attachment_id=identity, no_device=False,
                snapshot_id=None, image_id=None, tag=None,
                volume_type=None, connection_info=json.dumps({
                    'driver_volume_type': 'rbd', 'serial': identity,
                    'data': {'name': f'volumes/volume-{identity}',
                             'hosts': ['192.0.2.201', '192.0.2.202'],
                             'ports': ['6789', '6789'],
                             'auth_enabled': False}})))
        return {
            'root_device_name': None, 'ephemerals': [], 'swap': None,
            'block_device_mapping': driver_block_device.convert_volumes(
                volumes)}

    def _shares(self, instance: objects.Instance) -> list[typing.Any]:
        return [objects.ShareMapping(
            id=1, uuid=_IMAGE, instance_uuid=instance.uuid,
            share_id=_RESCUE_IMAGE, status='active', tag='share',
            export_location='192.0.2.210:/share', share_proto='NFS')]


def number(version: str) -> int:
    """``9.0.0`` as libvirt counts it."""
    major, minor, micro = (int(part) for part in version.split('.'))
    return 1_000_000 * major + 1000 * minor + micro


def facts(host: str, kind: kinds.Kind, libvirt: str,
          qemu: str) -> dict[str, typing.Any]:
    """The facts of this guest."""

    described = HOSTS[host]
    return {
        'format': 1,
        'host': {
            'arch': described.arch,
            'libvirt_version': libvirt,
            'qemu_version': qemu,
            'virt_types': {arch: list(types) for arch, types
                           in described.virt_types.items()},
            'aarch32_el1': None,
            'firmware': None,
        },
        'guest': {
            'extra_specs': dict(kind.extra_specs),
            'image_properties': image_properties(described, kind),
            'previous': None,
        },
    }


def generate(directory: pathlib.Path, libvirt: str, qemu: str,
             previous: pathlib.Path | None) -> None:
    """Write all domain XML, facts, and the index."""
    release = int(importlib.metadata.version('nova').split('.')[0])
    by_host: dict[str, list[kinds.Kind]] = {}
    for host, kind in kinds.of_release(release):
        by_host.setdefault(host, []).append(kind)
    index = []
    for host, asked in by_host.items():
        outcomes = Build(
            host, asked, number(libvirt), number(qemu),
            previous and previous / host).outcomes()
        (directory / host).mkdir(parents=True, exist_ok=True)
        for kind in asked:
            outcome = outcomes[kind.name]
            index.append({'host': host, 'kind': kind.name,
                          'refusal': outcome.refusal})
            if outcome.document is None:
                continue
            place = directory / host / kind.name
            place.with_name(f'{kind.name}.xml').write_text(outcome.document)
            place.with_name(f'{kind.name}.json').write_text(json.dumps(
                facts(host, kind, libvirt, qemu), indent=2))
    (directory / 'index.json').write_text(json.dumps(
        {'release': release, 'guests': index}, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('directory', type=pathlib.Path)
    parser.add_argument('--libvirt', default='9.0.0', metavar='VERSION')
    parser.add_argument('--qemu', default='7.2.22', metavar='VERSION')
    parser.add_argument('--previous', type=pathlib.Path, metavar='DIRECTORY')
    asked = parser.parse_args()
    generate(asked.directory, asked.libvirt, asked.qemu, asked.previous)


if __name__ == '__main__':
    main()
