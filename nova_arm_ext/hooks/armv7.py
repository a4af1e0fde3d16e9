# SPDX-License-Identifier: Apache-2.0
"""32-bit ARMv7 guests on AArch64 hosts: with KVM where the cores can."""

from lxml import etree
from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext.domain import cpu
from nova_arm_ext.domain import previous
from nova_arm_ext.domain import tree
from nova_arm_ext.domain.firmware import Os
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report

#: The CPU of an emulated guest. It is QEMU's default for the 32-bit ``virt``
#: machine, so naming it changes no guest.
EMULATED_CPU = 'cortex-a15'
#: 32-bit CPUs of the ``virt`` machine. All others (max, cortex-a57) are 64-bit
#: in qemu-system-aarch64, which libvirt uses on AArch64 hosts.
_CPUS = (EMULATED_CPU, 'cortex-a7')


class Armv7(base.Hook):
    """Run a 32-bit guest with KVM if the host's cores can, or emulate it.

    Nova emulates every guest whose architecture is not the host's, and names
    no CPU for it. On an AArch64 host whose cores run AArch32 at EL1 the guest
    gets KVM and the host's CPU; libvirt then adds ``aarch64=off`` itself. On
    other hosts it is emulated with a 32-bit CPU. An existing guest keeps its
    domain type and its CPU. SVE is switched off for a guest with KVM where the
    host has it, because KVM refuses it for 32-bit guests. On 32-bit hosts the
    hook does nothing.

    Before (Nova 34, AArch64 host with KVM)::

        <domain type='qemu'>
          <os>
            <type arch='armv7l' machine='virt'>hvm</type>
          <cpu match='exact'>
            <topology sockets='2' cores='1' threads='1'/>

    After, on cores that run AArch32 at EL1::

        <domain type='kvm'>
          <os>
            <type arch='armv7l' machine='virt'>hvm</type>
          <cpu mode='host-passthrough' match='exact'>
            <topology sockets='2' cores='1' threads='1'/>

    After, on others::

        <domain type='qemu'>
          <os>
            <type arch='armv7l' machine='virt'>hvm</type>
          <cpu mode='custom' match='exact'>
            <model>cortex-a15</model>
            <topology sockets='2' cores='1' threads='1'/>
    """

    after = ('libvirt_compat', 'uefi')
    opts = (
        cfg.StrOpt(
            'accel',
            default='prefer_kvm',
            choices=[
                ('kvm', 'Only KVM. If it is known that the host cannot, the '
                        'instance is refused, and Nova tries another host. '
                        'If KVM could not be asked, it is tried.'),
                ('prefer_kvm', 'KVM if it is known that the host can, '
                               'otherwise emulation.'),
                ('tcg', 'Always emulation.')],
            help="""
How new 32-bit instances (``hw_architecture=armv7l``) run on this host. KVM can
run them on AArch64 hosts whose cores have AArch32 at EL1 (Cortex-A53, A57,
A72). Many server cores do not have it (Neoverse N1). nova-compute asks the
kernel (KVM_CAP_ARM_EL1_32BIT, through /dev/kvm). With KVM an instance has the
host's CPU; emulated instances have a Cortex-A15 and are much slower. The
default is ``prefer_kvm`` because an instance then starts on every host.
Existing instances keep what they have. This host offers KVM for armv7l to the
scheduler if it is known that KVM can run them and this is not ``tcg``.
"""),
    )

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        return (domain.arch == 'armv7l' and domain.is_virt
                and facts.host.arch != 'armv7l')

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        had = previous.of_same_board(domain)
        if had is not None:
            self._keep(domain, had, facts, report)
        elif self._takes_kvm(domain, facts):
            self._give_kvm(domain, report)
        elif domain.virt_type != 'kvm' or facts.host.arch is not None:
            # a document for KVM stays if the host is unknown
            self._emulate(domain, facts, report)
        self._settle_features(domain, facts, report)
        self._drop_acpi(domain, report)

    def keep(self, domain: Domain, facts: Facts, report: Report) -> None:
        if previous.of_same_board(domain) is not None:
            self.adjust(domain, facts, report)

    def _takes_kvm(self, domain: Domain, facts: Facts) -> bool:
        """Whether a new guest is to run with KVM.

        :raises Refused: if it has to and this host cannot
        """
        accel = self.options.accel
        if accel == 'tcg':
            return False
        host = facts.host
        able = host.aarch32_el1
        why = "this host's cores do not run AArch32 at EL1"
        if host.arch not in (None, 'aarch64'):
            able, why = False, f'this is an {host.arch} host'
        elif (host.virt_types is not None
              and 'kvm' not in host.virt_types.get('armv7l', ())):
            able, why = False, 'libvirt on this host offers no KVM for them'
        if accel == 'prefer_kvm':
            return able is True
        if able is False:
            raise errors.Refused(
                f'32-bit instances (armv7l) run only with KVM here '
                f'([arm_armv7] accel = kvm), but {why}; boot the instance on '
                f'a host with the trait CUSTOM_ARM_AARCH32_EL1',
                this_host=True)
        return able is True or host.arch == 'aarch64'

    @staticmethod
    def _give_kvm(domain: Domain, report: Report) -> None:
        if domain.virt_type != 'kvm':
            domain.virt_type = 'kvm'
            report.because('domain/@type', "the host's cores run 32-bit "
                                           'guests with KVM')
        # without it libvirt names no CPU, and QEMU's default is one that KVM
        # cannot run (libvirt 9.0.0 and 11.3.0)
        if cpu.choose(domain, 'host-passthrough', None):
            report.because('cpu', 'libvirt turns the host CPU into a 32-bit '
                                  'one (aarch64=off) where it is passed '
                                  'through', essential=True)

    @staticmethod
    def _emulate(domain: Domain, facts: Facts, report: Report) -> None:
        if domain.virt_type != 'qemu':
            domain.virt_type = 'qemu'
            report.because('domain/@type', 'it is not known that this host '
                                           'can run 32-bit guests with KVM',
                           essential=_needs_emulation(facts))
        if (cpu.mode(domain) == 'custom' and cpu.model(domain) in _CPUS):
            return
        if cpu.choose(domain, 'custom', EMULATED_CPU):
            report.because('cpu', 'emulated 32-bit guests have a '
                                  f'{EMULATED_CPU}')

    @staticmethod
    def _keep(domain: Domain, had: Domain, facts: Facts,
              report: Report) -> None:
        if had.virt_type and domain.virt_type != had.virt_type:
            domain.virt_type = had.virt_type
            report.because('domain/@type', 'the guest had this type before',
                           essential=(had.virt_type != 'kvm'
                                      and _needs_emulation(facts)))
        mode, model = cpu.mode(had), cpu.model(had)
        if mode == 'custom' and model is None:
            return       # it had QEMU's default
        if cpu.choose(domain, mode, model):
            report.because('cpu', 'the guest had this CPU before')

    @staticmethod
    def _settle_features(domain: Domain, facts: Facts,
                         report: Report) -> None:
        found = domain.element.findall('cpu/feature')
        off = []
        if _has_sve(domain, facts):
            off = [feature for feature in found
                   if feature.get('name') == 'sve'
                   and feature.get('policy') == 'disable'][:1]
            if not off:
                etree.SubElement(domain.child('cpu'), 'feature',
                                 policy='disable', name='sve')
                report.because(
                    'cpu/feature', "the host's CPU has SVE, and KVM runs no "
                                   '32-bit guest with it', essential=True)
        gone = [feature for feature in found if feature not in off]
        for feature in gone:
            tree.detach(feature)
        if gone:
            report.because(
                'cpu/feature', 'libvirt knows only features of 64-bit Arm '
                               'CPUs (sve, pauth), which a 32-bit one lacks')

    @staticmethod
    def _drop_acpi(domain: Domain, report: Report) -> None:
        found = domain.element.findall('features/acpi')
        if found and not Os.of(domain).has_uefi:
            for acpi in found:
                tree.detach(acpi)
            report.because('features/acpi', 'only UEFI can pass the tables '
                                            'to the guest; without it the '
                                            'guest gets a device tree')


def _needs_emulation(facts: Facts) -> bool:
    """Whether 32-bit guests may need emulation here."""
    return facts.host.aarch32_el1 is not True


def _has_sve(domain: Domain, facts: Facts) -> bool:
    """Whether the guest would get the SVE of the host's CPU."""
    host_cpu = facts.host.cpu
    return (domain.virt_type == 'kvm'
            and cpu.mode(domain) == 'host-passthrough'
            and host_cpu is not None and host_cpu.has_sve is True)
