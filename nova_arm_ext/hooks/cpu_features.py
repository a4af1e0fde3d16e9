# SPDX-License-Identifier: Apache-2.0
"""SVE, pointer authentication and the GIC, as the flavor or image asks."""

import re
from collections.abc import Callable

from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext.cpu import Cpu
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.facts import format_version
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report
from nova_arm_ext.hooks.base import Wish

#: The extra specs, in the order in which they are read.
SVE = 'arm:sve'
SVE_VECTOR_LENGTH = 'arm:sve_vector_length'
PAUTH = 'arm:pauth'
GIC_VERSION = 'arm:gic_version'

#: libvirt 10.6 is the first that knows pauth (NEWS); older ones answer
#: "unknown CPU feature: pauth" when the guest is started.
_PAUTH_UNKNOWN_BEFORE = (10, 6, 0)

#: The features that this hook sets.
_OURS = re.compile(r'pauth|sve\d*').fullmatch

_ON_OFF = ('on', 'off')
#: in bits: cpu_map/arm_features.xml in libvirt 9.0 to 12.5
_LENGTHS = tuple(str(bits) for bits in range(128, 2049, 128))
#: The values that can be asked for.
VALUES = {SVE: _ON_OFF, SVE_VECTOR_LENGTH: _LENGTHS, PAUTH: _ON_OFF,
          GIC_VERSION: ('2', '3', 'host')}


class CpuFeatures(base.Hook):
    """Give a guest the CPU features and the GIC that are asked for.

    If nothing is asked for, the guest stays as it is: with KVM it has all
    features of the host. What the host is known to lack is refused, and Nova
    tries another host. Nova itself handles ``hw:pmu``.

    Before, with ``arm:sve_vector_length=256``, ``arm:pauth=off``::

        <cpu mode='host-passthrough' match='exact'>
          <topology sockets='2' cores='1' threads='1'/>

    After::

        <cpu mode='host-passthrough' match='exact'>
          <topology sockets='2' cores='1' threads='1'/>
          <feature policy='require' name='sve'/>
          <feature policy='require' name='sve256'/>
          <feature policy='disable' name='pauth'/>
    """

    after = ('libvirt_compat', 'armv7')
    opts = (
        cfg.BoolOpt(
            'images_may_ask',
            default=True,
            help="""
Whether images may ask for CPU features and the GIC version, with the
properties ``arm_sve``, ``arm_sve_vector_length``, ``arm_pauth`` and
``arm_gic_version``. They cannot ask for more than the host has. The extra
specs ``arm:sve``, ``arm:sve_vector_length``, ``arm:pauth`` and
``arm:gic_version`` of the flavor take precedence. If this is false, an
instance whose image asks is refused.
"""),
    )

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        return domain.is_virt

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        wishes = self._wishes(domain, facts)
        if not wishes:
            return
        cpu = Cpu()
        if domain.virt_type == 'kvm':
            cpu = facts.host.cpu or cpu
        self._sve(domain, cpu, wishes, report)
        if PAUTH in wishes:
            version = facts.host.libvirt_version
            if version is not None and not _knows_pauth(facts):
                raise errors.Refused(
                    f'{wishes[PAUTH].place} is {wishes[PAUTH].value}, and '
                    f'libvirt {format_version(version)} does not know pauth; '
                    f'boot the instance on a host with a newer libvirt',
                    this_host=True)
            self._switch(domain, 'pauth', wishes[PAUTH], cpu.has_pauth,
                         report)
        if GIC_VERSION in wishes:
            self._gic(domain, cpu, wishes[GIC_VERSION], report)

    def keep(self, domain: Domain, facts: Facts, report: Report) -> None:
        had = previous.of_same_board(domain)
        if had is None:
            return
        why = 'as the guest had it before'
        if _has_features(domain) and _has_features(had):
            for element in had.element.iterfind('cpu/feature'):
                name = element.get('name', '')
                if _OURS(name) and (name != 'pauth' or _knows_pauth(facts)):
                    self._set(domain, name, element.get('policy', 'require'),
                              why, report)
        gic = had.element.find('features/gic')
        if gic is not None and gic.get('version'):
            self._set_gic(domain, gic.get('version'), why, report)

    def _wishes(self, domain: Domain, facts: Facts) -> dict[str, Wish]:
        """What is asked for, by extra spec.

        :raises Refused: for what cannot be asked for, or not by an image
        """
        wishes = {
            name: base.asked(
                domain, facts, name, values,
                images_may=None if self.options.images_may_ask else (),
                option='[arm_cpu_features] images_may_ask')
            for name, values in VALUES.items()}
        return {name: wish for name, wish in wishes.items()
                if wish is not None}

    def _sve(self, domain: Domain, cpu: Cpu, wishes: dict[str, Wish],
             report: Report) -> None:
        length = wishes.get(SVE_VECTOR_LENGTH)
        wish = wishes.get(SVE, length)
        if wish is None:
            return
        if length is not None and wish.value == 'off':
            raise errors.Refused(
                f'{length.place} is {length.value}, but {wish.place} is off; '
                f'only SVE has a vector length')
        self._switch(domain, 'sve', Wish(
            value='off' if wish.value == 'off' else 'on', place=wish.place),
            cpu.has_sve, report)
        if length is None:
            return
        if (cpu.sve_lengths is not None
                and int(length.value) not in cpu.sve_lengths):
            raise _lacking(f'{length.place} is {length.value}',
                           'its SVE vectors have '
                           + ', '.join(map(str, cpu.sve_lengths)) + ' bits',
                           f'CUSTOM_ARM_SVE_{length.value}')
        self._set(domain, f'sve{length.value}', 'require',
                  f'as {length.place} asks', report)
        # the longest one that is left would count
        self._drop(domain, re.compile(r'sve\d+').fullmatch,
                   f'sve{length.value}')

    def _switch(self, domain: Domain, feature: str, wish: Wish,
                there: bool | None, report: Report) -> None:
        """Turn a feature on or off.

        :param there: whether the host has it; None where that is unknown
        """
        on = wish.value == 'on'
        capable = domain.arch == 'aarch64' and _has_features(domain)
        if not capable or there is False:
            if not on:
                return       # QEMU has no switch for a missing feature
            if domain.arch != 'aarch64':
                raise errors.Refused(
                    f'{wish.place} asks for {feature}, which 32-bit guests '
                    f'cannot have')
            if not capable:
                raise errors.Refused(
                    f'{wish.place} asks for {feature}, but the instance has '
                    f'neither the CPU of the host nor the maximum that QEMU '
                    f'can emulate ([libvirt] cpu_mode)')
            raise _lacking(f'{wish.place} asks for {feature}',
                           'its cores or its KVM do not have it',
                           {'sve': 'HW_CPU_AARCH64_SVE'}.get(
                               feature, 'CUSTOM_ARM_PAUTH'))
        why = f'as {wish.place} asks'
        if on:
            self._set(domain, feature, 'require', why, report)
        else:
            self._set(domain, feature, 'disable', why, report)
            if feature == 'sve':
                # libvirt refuses vector lengths without it
                self._drop(domain, re.compile(r'sve\d+').fullmatch)

    @staticmethod
    def _set(domain: Domain, feature: str, policy: str, why: str,
             report: Report) -> None:
        cpu = domain.child('cpu')
        for element in cpu.iterfind('feature'):
            if element.get('name') == feature:
                break
        else:
            element = etree.SubElement(cpu, 'feature', policy='',
                                       name=feature)
        if element.get('policy') != policy:
            element.set('policy', policy)
            report.because(f'cpu/feature[{feature}]', f'{policy}d, {why}')

    @staticmethod
    def _drop(domain: Domain, doomed: Callable[[str], object],
              but: str | None = None) -> None:
        for element in domain.element.findall('cpu/feature'):
            name = element.get('name', '')
            if doomed(name) and name != but:
                tree.detach(element)

    @classmethod
    def _gic(cls, domain: Domain, cpu: Cpu, wish: Wish,
             report: Report) -> None:
        if wish.value == 'host' and domain.virt_type != 'kvm':
            raise errors.Refused(
                f'{wish.place} is host, but the instance is emulated; ask '
                f'for 2 or 3')
        if (wish.value != 'host' and cpu.gic_versions is not None
                and int(wish.value) not in cpu.gic_versions):
            raise _lacking(f'{wish.place} is {wish.value}',
                           'it offers only GIC '
                           + ', '.join(map(str, cpu.gic_versions)),
                           f'CUSTOM_ARM_GIC_V{wish.value}')
        if wish.value == '2' and (domain.vcpus or 0) > 8:
            raise errors.Refused(
                f'{wish.place} is 2, but an instance with GIC version 2 can '
                f'have at most 8 vCPUs, not {domain.vcpus}; ask for version 3 '
                f'or for fewer vCPUs')
        cls._set_gic(domain, wish.value, f'as {wish.place} asks', report)

    @staticmethod
    def _set_gic(domain: Domain, version: str, why: str,
                 report: Report) -> None:
        features = domain.child('features')
        gic = features.find('gic')
        if gic is None:
            gic = etree.SubElement(features, 'gic')
        if gic.get('version') != version:
            gic.set('version', version)
            report.because('features/gic/@version', why)


def _knows_pauth(facts: Facts) -> bool:
    """Whether libvirt knows pointer authentication, also if it is unknown
    which libvirt that is."""
    version = facts.host.libvirt_version
    return version is None or version >= _PAUTH_UNKNOWN_BEFORE


def _has_features(domain: Domain) -> bool:
    """Whether QEMU can switch features of this guest's CPU."""
    cpu = domain.element.find('cpu')
    if cpu is None:
        return False
    mode = cpu.get('mode', 'custom')
    return (mode in ('host-passthrough', 'maximum')
            or (mode == 'custom' and cpu.findtext('model') == 'max'))


def _lacking(what: str, why: str, trait: str) -> errors.Refused:
    return errors.Refused(
        f'{what}, but this host cannot: {why}; let the flavor require the '
        f'trait {trait}', this_host=True)
