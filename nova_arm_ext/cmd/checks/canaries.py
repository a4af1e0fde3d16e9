# SPDX-License-Identifier: Apache-2.0
"""Domains of several kinds that are defined and undefined at once."""

import functools
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import opts
from nova_arm_ext.cmd import failure
from nova_arm_ext.cmd import host
from nova_arm_ext.cmd.checks.base import fault
from nova_arm_ext.cmd.checks.base import Finding
from nova_arm_ext.cmd.checks.base import not_applicable
from nova_arm_ext.cmd.checks.base import ok
from nova_arm_ext.cmd.checks.base import Surroundings
from nova_arm_ext.pipeline.run import Pipeline

PREFIX = 'nova-arm-ext-doctor-'

#: The domain XML of Nova 34, before the hooks.
_DOCUMENT = '''\
<domain type="{virt_type}">
  <uuid>{uuid}</uuid>
  <name>{name}</name>
  <memory>1048576</memory>
  <vcpu>1</vcpu>
  <os{selection}>
    <type arch="{arch}" machine="virt">hvm</type>
    {firmware}
    <boot dev="hd"/>
  </os>
  <features>
    <acpi/>
    <apic/>
    {features}
  </features>
  {cpu}
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="raw"/>
      <source file="/nonexistent/{name}"/>
      <target dev="vda" bus="virtio"/>
    </disk>
    <interface type="ethernet">
      <mac address="fa:16:3e:00:00:01"/>
      <model type="virtio"/>
    </interface>
    <serial type="pty"/>
    <graphics type="vnc" autoport="yes" listen="127.0.0.1"/>
    <video>
      <model type="virtio"/>
    </video>
    <input type="tablet" bus="usb"/>
    <memballoon model="virtio"/>
    <rng model="virtio">
      <backend model="random">/dev/urandom</backend>
    </rng>
    {devices}
  </devices>
</domain>
'''

_LOADER = '<loader secure="no"/>'
_SECURE_BOOT = ('<firmware><feature enabled="yes" name="secure-boot"/>'
                '<feature enabled="yes" name="enrolled-keys"/></firmware>')
_NO_SECURE_BOOT = ('<firmware><feature enabled="no" name="secure-boot"/>'
                   '</firmware>' + _LOADER)

#: What is special about each kind: parts of the XML, extra specs.
KINDS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    'UEFI': ({}, {}),
    'Secure Boot': ({'firmware': _SECURE_BOOT}, {}),
    'vIOMMU': ({'features': '<ioapic driver="qemu"/>',
                'devices': '<iommu model="smmuv3"><driver intremap="on" '
                           'caching_mode="on" iotlb="on" aw_bits="48"/>'
                           '</iommu>'}, {}),
    'ARMv7': ({'arch': 'armv7l'}, {}),
    'many root ports': ({}, {'arm:free_pcie_root_ports': '100'}),
    'all on virtio-mmio': ({}, {'arm:virtio_transport': 'mmio'}),
}


def define_test(place: Surroundings) -> Iterator[Finding]:
    """Whether libvirt accepts each kind of instance after the hooks."""
    known = place.survey.host
    try:
        hooks = Pipeline.load(place.conf, checks=opts.CHECKS)
    except errors.ConfigurationError:
        yield not_applicable('unknown, because options are not valid')
        return
    made: dict[str, str] = {}
    for kind in KINDS:
        try:
            made[kind] = _made(kind, known, hooks, place.virt_type)
        except errors.Refused as e:
            if kind == 'UEFI':
                yield fault(f'{kind}: {e}',
                            'no AArch64 instance can be created')
            else:
                yield not_applicable(f'{kind}: {e}')
        except errors.ArmExtError as e:
            yield fault(f'{kind}: {e}', 'instances of this kind fail')
    try:
        said = host.answer(
            place.uri, place.patience,
            functools.partial(_define, documents=tuple(made.values())),
            read_only=False)
    except failure.Failure as e:
        yield fault(str(e), f'run "virsh list --all", and undefine any domain '
                            f'{PREFIX}... that is left')
        return
    for kind, error in zip(made, said, strict=True):
        if error is None:
            yield ok(f'{kind}: libvirt defines it')
        else:
            yield fault(f'{kind}: {error}',
                        'instances of this kind cannot be created on this '
                        'host')


def _made(kind: str, known: facts.Host, hooks: Pipeline,
          virt_type: str) -> str:
    """The domain XML of one kind, after the hooks."""
    parts, extra_specs = KINDS[kind]
    arch = parts.get('arch', 'aarch64')
    identity = str(uuid.uuid4())
    with_kvm = (virt_type == 'kvm' and arch == known.arch
                and 'kvm' in (known.virt_types or {}).get(arch, ()))
    document = _DOCUMENT.format_map({
        'arch': arch, 'uuid': identity, 'name': PREFIX + identity,
        'virt_type': 'kvm' if with_kvm else 'qemu',
        'selection': ' firmware="efi"', 'firmware': _NO_SECURE_BOOT,
        'features': '', 'devices': '',
        'cpu': '<cpu mode="host-passthrough"/>' if with_kvm else
               '<cpu match="exact"><model>cortex-a57</model></cpu>'
               if arch == 'aarch64' else '', **parts})
    return hooks.run(document, facts.Facts(
        host=known, guest=facts.Guest(
            extra_specs=extra_specs, image_properties={
                'hw_firmware_type': 'uefi'}))).xml


def _define(connection: Any, documents: Sequence[str]) -> list[str | None]:
    """Define and undefine each; libvirt's errors. Runs in the child."""
    import libvirt
    said: list[str | None] = []
    for document in documents:
        try:
            domain = connection.defineXML(document)
        except libvirt.libvirtError as e:
            said.append(str(e))
            continue
        # it was never started, so it has no variable store to remove
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        said.append(None)
    return said
