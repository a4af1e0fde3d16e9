# SPDX-License-Identifier: Apache-2.0
"""Reads the host's CPU, and compares it with those of other hosts."""

import ctypes
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable
from collections.abc import MutableMapping
from typing import Any

from lxml import etree
from oslo_log import log as logging

from nova_arm_ext import cpu
from nova_arm_ext.compute.binding import libvirt

LOG = logging.getLogger(__name__)

KVM = '/dev/kvm'

#: linux/kvm.h
CAP_EL1_32BIT = 93
_CAP_SVE = 170
_CAP_PTRAUTH_ADDRESS = 171
_CHECK_EXTENSION = 0xAE03

#: linux/prctl.h
_SVE_SET_VL = 50
_SVE_GET_VL = 51
_SVE_VL_LEN_MASK = 0xffff
_SVE_SET_VL_ONEXEC = 1 << 18
#: The architecture's longest and shortest vectors, in bytes.
_SVE_LONGEST, _SVE_SHORTEST = 256, 16

#: The key in the ``cpu_info`` of a compute node, beside Nova's own keys. Nova
#: 29 to 34 store it as text, send it to the destination of a live migration,
#: and show it to administrators in os-hypervisors.
KEY = 'arm'


def read(connection: Any, *, aarch32_el1: bool | None, root: str = '/',
         device: str = KVM) -> cpu.Cpu:
    """The CPU of this AArch64 host.

    :param connection: a libvirt connection to this host
    :param aarch32_el1: whether KVM can run AArch32 at EL1
    :param root: the folder with ``proc`` and ``sys``
    :param device: the device of KVM
    :returns: None for each value that is unknown
    """
    found = cpu.parse_cpuinfo(_text(pathlib.Path(root, 'proc/cpuinfo')))
    features = found.features
    if features is not None:
        # KVM gives guests no SME (Linux up to 6.17), and QEMU memory tagging
        # only where the machine has mte=on, which neither libvirt nor Nova
        # asks for
        features = frozenset(one for one in features
                             if not one.startswith(('sme', 'mte')))
        # only if KVM says no; without an answer the feature is kept
        if kvm_can('give guests SVE', _CAP_SVE, device) is False:
            features = frozenset(
                one for one in features if not one.startswith('sve'))
        if kvm_can('give guests pointer authentication',
                   _CAP_PTRAUTH_ADDRESS, device) is False:
            features -= cpu.PAUTH
    lengths = None
    if features is not None:
        lengths = _sve_lengths() if 'sve' in features else ()
    return dataclasses.replace(
        found, features=features, sve_lengths=lengths,
        cores=_cores(pathlib.Path(root)) or found.cores,
        aarch32_el1=aarch32_el1, gic_versions=_gic_versions(connection),
        page_size=os.sysconf('SC_PAGESIZE'),
        kernel='.'.join(os.uname().release.split('.')[:2]))


def kvm_can(what: str, capability: int, device: str = KVM) -> bool | None:
    """Ask KVM for a capability.

    :param what: in words, for the log
    :returns: None if there is no KVM, as in some containers
    """
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        LOG.info('Whether KVM can %s is unknown: %s', what, e)
        return None
    try:
        return fcntl.ioctl(kvm, _CHECK_EXTENSION, capability) > 0
    except OSError as e:
        LOG.warning('Whether KVM can %s is unknown: %s does not answer: %s',
                    what, device, e)
        return None
    finally:
        os.close(kvm)


def into_cpu_info(cpu_info: MutableMapping[str, Any], known: cpu.Cpu) -> None:
    """Put a host's CPU into the ``cpu_info`` of its compute node."""
    cpu_info[KEY] = known.to_data()


def from_cpu_info(cpu_info: str | None) -> cpu.Cpu:
    """The CPU of the host whose compute node has this ``cpu_info``.

    :param cpu_info: JSON. With Nova's own driver it has no such key, and
        before a compute node is up it is empty.
    """
    try:
        data = json.loads(cpu_info or '{}')
    except ValueError:
        return cpu.Cpu()
    return cpu.Cpu.from_data(data.get(KEY) if isinstance(data, dict)
                             else None)


def refusal(source: cpu.Cpu, destination: cpu.Cpu, how: str,
            instance: Any) -> str | None:
    """Why a guest with KVM cannot be migrated live, None if it can.

    Differences that do not prevent the migration are logged.

    :param how: the value of ``[arm_cpu] compare``
    :param instance: the guest, for the log
    """
    if how == 'off':
        return None
    found = cpu.compare(source, destination)
    reasons = cpu.refused(found, how)
    if reasons:
        return (f'the CPU of this host differs from that of the source '
                f'([{cpu.GROUP}] {cpu.COMPARE} = {how}): '
                + '; '.join(one.text for one in reasons))
    if found:
        LOG.warning('The CPU of this host differs from the source\'s: %s',
                    '; '.join(one.text for one in found), instance=instance)
    return None


def check_mode(host: Any, mode: str | None) -> None:
    """Refuse a value of ``[libvirt] cpu_mode`` that KVM does not have here.

    :param host: Nova's Host object
    :raises InvalidCPUInfo: nova-compute then does not start
    """
    if mode in (None, 'none'):
        return
    offered = offered_modes(host.get_connection())
    if offered is not None and mode not in offered:
        raise _invalid(
            f'[libvirt] cpu_mode is {mode}, and libvirt supports '
            f'{", ".join(sorted(offered)) or "none"} for AArch64 '
            f'guests with KVM on this host')


def check_model(host: Any, model: str) -> None:
    """Refuse one of ``[libvirt] cpu_models`` that KVM does not have here.

    :param host: Nova's Host object
    :raises InvalidCPUInfo: nova-compute then does not start
    """
    offered = offered_modes(host.get_connection())
    if offered is not None and model not in offered.get('custom', ()):
        raise _invalid(
            f'libvirt does not offer the CPU model {model} for AArch64 '
            f'guests with KVM on this host; without [libvirt] cpu_mode guests '
            f'get the CPU of the host')


def _invalid(reason: str) -> Exception:
    # imported here: the command asks for facts also without Nova
    from nova import exception
    return exception.InvalidCPUInfo(reason=reason)


def offered_modes(connection: Any) -> dict[str, frozenset[str]] | None:
    """The CPU modes that libvirt supports for KVM, and the models of each.

    :returns: None if libvirt does not say
    """
    capabilities = _domain_capabilities(connection)
    modes = None if capabilities is None else capabilities.find('cpu')
    if modes is None:
        return None
    return {mode.get('name'): frozenset(
                model.text for model in mode.iterfind('model')
                if model.get('usable') != 'no')
            for mode in modes.iterfind('mode')
            if mode.get('supported') == 'yes'}


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(errors='replace')
    except OSError as e:
        LOG.info('%s cannot be read: %s', path, e)
        return ''


def _cores(root: pathlib.Path) -> tuple[cpu.Core, ...] | None:
    """The cores, from their registers; an offline core has an empty file."""
    found = set()
    for folder in root.glob(
            'sys/devices/system/cpu/cpu[0-9]*/regs/identification'):
        midr, revidr = (_register(folder / name)
                        for name in ('midr_el1', 'revidr_el1'))
        if midr is not None:
            found.add(cpu.Core(midr, -1 if revidr is None else revidr))
    return tuple(sorted(found)) or None


def _register(path: pathlib.Path) -> int | None:
    try:
        return int(_text(path), 16)
    except ValueError:
        return None


def _sve_lengths() -> tuple[int, ...] | None:
    """The SVE vector lengths in bits that programs of this host can choose.

    KVM gives guests the same lengths (sve_max_virtualisable_vl in Linux). The
    kernel is asked which length it would use after the next execve. This does
    not change the vectors of this thread, and is undone afterwards.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    now = prctl(_SVE_GET_VL, 0, 0, 0, 0)
    if now < 0:
        LOG.warning('The SVE vector lengths are unknown: %s',
                    os.strerror(ctypes.get_errno()))
        return None
    found = []
    length = _SVE_LONGEST
    while length >= _SVE_SHORTEST:
        # the kernel answers with the next shorter length that it supports
        answer = prctl(_SVE_SET_VL, length | _SVE_SET_VL_ONEXEC, 0, 0, 0)
        length = answer & _SVE_VL_LEN_MASK if answer >= 0 else 0
        if not length or length * 8 in found:
            break
        found.append(length * 8)
        length -= _SVE_SHORTEST
    prctl(_SVE_SET_VL, now & ~_SVE_SET_VL_ONEXEC, 0, 0, 0)
    return tuple(sorted(found)) or None


def _gic_versions(connection: Any) -> tuple[int, ...] | None:
    capabilities = _domain_capabilities(connection)
    gic = None if capabilities is None else capabilities.find('features/gic')
    if gic is None or gic.get('supported') != 'yes':
        return None
    values: Iterable[str | None] = (
        value.text for value in gic.iterfind('enum[@name="version"]/value'))
    return tuple(sorted(int(value) for value in values
                        if value and value.isdecimal())) or None


def _domain_capabilities(connection: Any) -> Any:
    """libvirt's capabilities of AArch64 guests with KVM; None if unknown."""
    try:
        return etree.fromstring(connection.getDomainCapabilities(
            None, 'aarch64', 'virt', 'kvm', 0))
    except libvirt.libvirtError as e:
        LOG.info('The capabilities of AArch64 guests with KVM are unknown: %s',
                 e)
        return None
