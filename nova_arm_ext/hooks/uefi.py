# SPDX-License-Identifier: Apache-2.0
"""UEFI firmware that exists on this host, and a variable store for it."""

import fnmatch

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import packages
from nova_arm_ext.domain.firmware import Os
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts
from nova_arm_ext.facts import Firmware
from nova_arm_ext.facts import format_version
from nova_arm_ext.facts import Version
from nova_arm_ext.hooks import base
from nova_arm_ext.hooks.base import Report

#: Older ones do not keep what they select in the inactive document of a guest
#: (libvirt NEWS 9.2.0), and read only raw files.
SELECTION_PERSISTS = (9, 2, 0)

#: libvirt's nvram/@templateFormat (NEWS)
_TEMPLATE_FORMAT_SINCE = (10, 10, 0)


class Uefi(base.Hook):
    """Give the guest UEFI firmware, and keep the one that it has.

    A guest boots with UEFI unless it has a kernel of its own. libvirt 9.2 and
    newer select the firmware, because they keep what they select. On an older
    one the hook names the first fitting firmware of the host's descriptors,
    with the template of its variable store. An existing guest keeps its
    loader, template and store.

    Before (libvirt older than 9.2)::

        <os firmware='efi'>
          <firmware>
            <feature name='secure-boot' enabled='no'/>
          </firmware>
          <type arch='aarch64' machine='virt'>hvm</type>

    After::

        <os>
          <type arch='aarch64' machine='virt'>hvm</type>
          <loader readonly='yes' type='pflash'
                  secure='no'>/usr/share/AAVMF/AAVMF_CODE.fd</loader>
          <nvram template='/usr/share/AAVMF/AAVMF_VARS.fd'/>
    """

    after = ('libvirt_compat',)

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        return domain.is_virt

    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        os = Os.of(domain)
        previous = domain.previous_of_same_arch
        had = None if previous is None else Os.of(previous)
        if _has_varstore(domain, os, had, report):
            return
        self._ask_by_features(os, report)
        if had is not None and self._keeps(os, had, domain, facts):
            successor = (self._fitting(os, domain, facts, had)
                         if facts.guest.loader_is_gone else None)
            if successor is None:
                self._keep(os, had, domain, facts, report)
                self._complete(os, facts, report)
            else:
                os.copy_from(had, 'nvram')
                reason = (f'{had.loader} no longer exists, and '
                          f'{successor.loader} has the same features')
                self._name(os, successor, report, reason)
                report.warn(f'the firmware {reason}')
        elif self._needs(os, had, domain, facts):
            self._give(os, had, domain, facts, report)
        self._make_readable(os, had, domain, facts, report)
        self._place(os, domain, facts, report)
        if had is None and os.has_uefi:
            _check_memory(domain)

    def keep(self, domain: Domain, facts: Facts, report: Report) -> None:
        os = Os.of(domain)
        previous = domain.previous_of_same_arch
        had = None if previous is None else Os.of(previous)
        if had is None or _has_varstore(domain, os, had, report):
            return
        if not had.has_uefi:
            return
        self._ask_by_features(os, report)
        if had.names_uefi:
            self._keep(os, had, domain, facts, report)
            self._complete(os, facts, report)
        elif not os.selects_uefi or (os.feature('secure-boot')
                                     != had.feature('secure-boot')):
            os.selection = 'efi'
            os.copy_from(had, 'nvram', 'loader', 'firmware')
            report.because('os/firmware', 'as the guest had it before')
        self._place(os, domain, facts, report)

    @staticmethod
    def _ask_by_features(os: Os, report: Report) -> None:
        """Ask for Secure Boot in the way that libvirt accepts on Arm.

        It allows ``loader/@secure`` only for q35, where it means SMM.
        """
        if os.loader_secure is not True:
            return
        if os.names_uefi:
            # Nova 29 to 32 name one for the feature, even if it does not exist
            os.drop('loader', 'nvram')
            os.selection = 'efi'
        elif os.is_stateless:
            del os.loader_secure
        else:
            os.drop('loader')
        os.drop('firmware')
        asked = etree.SubElement(os.element, 'firmware')
        for name in ('enrolled-keys', 'secure-boot'):
            etree.SubElement(asked, 'feature', enabled='yes', name=name)
        report.because('os/firmware', 'Secure Boot is asked for by features, '
                                      'because libvirt allows loader/@secure '
                                      'only for q35', essential=True)

    @staticmethod
    def _keeps(os: Os, had: Os, domain: Domain,
               facts: Facts) -> bool:
        """Whether the guest keeps the firmware that it had.

        :raises Refused: if it is not known whether that has the Secure Boot
            that is asked for
        """
        if not had.names_uefi:
            return False
        if domain.kernel and not os.has_uefi and not os.has_loader:
            return False     # it now boots its own kernel without UEFI
        if 'optional' in ((facts.guest.extra_specs or {}).get(
                'os:secure_boot'), (facts.guest.image_properties or {}).get(
                'os_secure_boot')):
            # Nova writes what the host has; the user did not ask for it
            return True
        wanted = os.feature('secure-boot')
        has = facts.host.firmware_at(had.loader)
        # the request may have changed, such as by a resize to a flavor with
        # os:secure_boot
        if wanted is None:
            return True
        if has is not None:
            return has.secure_boot == wanted
        if (wanted and facts.host.firmware and not facts.guest.loader_is_gone
                and had.feature('secure-boot') is not True):
            raise errors.Refused(
                f'the instance asks for Secure Boot, and it is not known '
                f'whether its firmware {had.loader} has it, because no '
                f'descriptor of this host names that; rebuild the instance, '
                f'or install a descriptor for it', this_host=True)
        return True

    @classmethod
    def _keep(cls, os: Os, had: Os, domain: Domain, facts: Facts,
              report: Report) -> None:
        secure = os.loader_secure
        if secure is None:
            secure = os.feature('secure-boot')
        before = repr(os)
        libvirt = facts.host.libvirt_version
        persists = libvirt is None or libvirt >= SELECTION_PERSISTS
        if not (persists and os.selects_uefi and os.names_uefi
                and os.loader == had.loader):
            # otherwise it is what libvirt itself has stored
            del os.selection
            os.drop('firmware')
            os.copy_from(had, 'nvram', 'loader')
            if os.loader_secure is None and secure is False:
                # Nova 33 and 34 compare it before they pin the loader
                os.loader_secure = False
        if libvirt is not None:
            _drop_newer(os, libvirt)
        path = cls._path(os, domain, facts)
        if path is not None:
            os.nvram = path
        if repr(os) != before:
            report.because('os/loader', 'loader, template and variable store '
                                        'that the guest had before')

    @staticmethod
    def _needs(os: Os, had: Os | None, domain: Domain, facts: Facts) -> bool:
        """Whether the guest needs firmware that has to be found."""
        if os.has_uefi:
            return True
        # Nova 33 and 34 leave a loader without a path when the document of a
        # stopped guest did not name one (libvirt older than 9.2)
        if os.has_loader and not os.loader:
            return True
        if domain.kernel or os.loader:
            return False
        is_32_bit = domain.arch != 'aarch64'
        if is_32_bit and had is not None:
            return had.has_uefi
        asked = (facts.guest.image_properties or {}).get('hw_firmware_type')
        if asked == 'bios' and not (had and had.has_uefi):
            kind = 'a 32-bit' if is_32_bit else 'an AArch64'
            raise errors.Refused(
                f"image property hw_firmware_type is 'bios', but {kind} "
                f"instance without a kernel of its own boots only with UEFI; "
                f"set it to 'uefi' or remove it from the image")
        if is_32_bit and facts.host.firmware is None:
            raise errors.Refused(
                'a 32-bit instance boots a kernel of its own or with UEFI, '
                'but this one has neither, and it is not known whether this '
                'host has UEFI for it; set hw_firmware_type of the image to '
                "'uefi', or its kernel_id")
        return True

    def _give(self, os: Os, had: Os | None, domain: Domain, facts: Facts,
              report: Report) -> None:
        if os.names_uefi:
            self._complete(os, facts, report)
            return
        if not os.selects_uefi:
            os.selection = 'efi'
            if not os.is_stateless:
                os.drop('loader')
            if had is not None and had.element.find('firmware') is not None:
                os.copy_from(had, 'firmware', 'nvram')
            elif os.feature('secure-boot') is None:
                asked = etree.SubElement(os.element, 'firmware')
                etree.SubElement(asked, 'feature', enabled='no',
                                 name='secure-boot')
            report.because('os/@firmware', 'the guest can boot only with '
                                           'UEFI')
        libvirt = facts.host.libvirt_version
        if facts.host.firmware is None:
            return
        fitting = self._fitting(os, domain, facts)
        if fitting is None:
            has = f'; it has {had.loader}' if had and had.loader else ''
            other = (' or set kernel_id of its image'
                     if domain.arch == 'armv7l' and not domain.kernel else '')
            raise errors.Refused(
                f'this host has no UEFI firmware for {domain.arch} instances'
                f'{" with Secure Boot" if os.feature("secure-boot") else ""}'
                f' on machine {domain.machine}{has}; install it '
                f'({_packages(domain)}) or boot the instance on another '
                f'host{other}', this_host=True)
        if had is not None and had.names_uefi:
            report.warn(
                f'the firmware {had.loader} is not one with'
                f'{"" if fitting.secure_boot else "out"} Secure Boot, as the '
                f'instance now asks, and is replaced by {fitting.loader}')
        if not fitting.described:
            reason = ('libvirt cannot select it, because no descriptor of '
                      'this host names it')
        elif libvirt is None:
            return
        elif os.is_stateless:
            reason = ('firmware without a variable store, which libvirt does '
                      'not select itself')
        elif libvirt >= SELECTION_PERSISTS:
            return
        else:
            reason = (f'libvirt {format_version(libvirt)} does not keep what '
                      f'it selects when a guest is stopped, so the firmware '
                      f'is named')
        self._name(os, fitting, report, reason)

    @classmethod
    def _make_readable(cls, os: Os, had: Os | None, domain: Domain,
                       facts: Facts, report: Report) -> None:
        """Name raw firmware instead of qcow2 that this libvirt cannot read.

        Nova 29 to 32 name the first firmware of the descriptors. libvirt
        before 9.2 opens it as raw whatever it is, and QEMU fails.

        :raises Refused: where there is no raw one with the same features
        """
        libvirt = facts.host.libvirt_version
        if (libvirt is None or libvirt >= SELECTION_PERSISTS
                or not os.names_uefi):
            return
        named = facts.host.firmware_at(os.loader)
        if named is None or named.loader_format == 'raw':
            return
        raw = cls._fitting(os, domain, facts, had, named.secure_boot)
        version = format_version(libvirt)
        if raw is None:
            raise errors.Refused(
                f'libvirt {version} reads only raw firmware, and this host '
                f'has no raw one like {named.loader}; install it '
                f'({_packages(domain)}) or boot the instance on another '
                f'host', this_host=True)
        cls._name(os, raw, report, (
            f'libvirt {version} reads only raw firmware, and {named.loader} '
            f'is {named.loader_format}'), essential=True)

    @staticmethod
    def _fitting(os: Os, domain: Domain, facts: Facts,
                 had: Os | None = None, secure: bool | None = None
                 ) -> Firmware | None:
        """The first firmware of the host that fits this guest.

        :param had: what the guest had before; the firmware has to work with
            its variable store
        :param secure: whether it has to have Secure Boot; None to look into
            the documents
        """
        if secure is None:
            secure = os.feature('secure-boot')
        if secure is None and had is not None:
            secure = had.feature('secure-boot')
        secure = secure is True
        libvirt = facts.host.libvirt_version
        raw_only = libvirt is not None and libvirt < SELECTION_PERSISTS
        arch = domain.arch
        machine = domain.machine or ''
        return next((
            firmware for firmware in facts.host.firmware or ()
            if firmware.arch == arch and firmware.secure_boot == secure
            and (firmware.enrolled_keys or not secure)
            and (firmware.loader_format == 'raw' or not raw_only)
            and (had is None or had.is_stateless
                 or firmware.template_format == (had.nvram_format or 'raw'))
            and _matches(machine, firmware.machines)), None)

    @staticmethod
    def _name(os: Os, firmware: Firmware, report: Report, reason: str, *,
              essential: bool = False) -> None:
        stateless = os.is_stateless
        secure = os.loader_secure
        if secure is None:
            secure = os.feature('secure-boot')
        store = os.nvram
        del os.selection
        os.drop('firmware', 'loader', 'nvram')
        loader = etree.Element('loader', readonly='yes', type='pflash')
        loader.text = firmware.loader
        if secure is False:
            loader.set('secure', 'no')
        if firmware.loader_format != 'raw':
            loader.set('format', firmware.loader_format)
        if stateless:
            loader.set('stateless', 'yes')
            os.insert(loader)
        else:
            nvram_element = etree.Element('nvram', template=firmware.template)
            nvram_element.text = store
            os.insert(loader, nvram_element)
        report.because('os/loader', reason, essential=essential)

    @staticmethod
    def _complete(os: Os, facts: Facts, report: Report) -> None:
        """Name the template too: Nova cannot read a store without one."""
        if os.nvram_template or os.is_stateless:
            return
        firmware = facts.host.firmware_at(os.loader)
        if firmware is not None:
            os.nvram_template = firmware.template
            report.because('os/nvram/@template',
                           'Nova cannot read a variable store without a '
                           'template')

    @classmethod
    def _place(cls, os: Os, domain: Domain, facts: Facts,
               report: Report) -> None:
        path = cls._path(os, domain, facts)
        if path is not None and os.nvram != path:
            os.nvram = path
            report.because('os/nvram', "the guest's variable store is beside "
                                       'its other files, named by its uuid')

    @classmethod
    def _path(cls, os: Os, domain: Domain, facts: Facts) -> str | None:
        """The path of the variable store; None if it is not to be set."""
        path = facts.guest.nvram
        if (path is None or not os.has_uefi or os.is_stateless
                or not os.nvram_is_file):
            return None
        template = os.nvram_template
        if template is None:
            libvirt = facts.host.libvirt_version
            if (not os.selects_uefi or libvirt is None
                    or libvirt < SELECTION_PERSISTS):
                # Nova 33 and 34 fail on a path without a template
                return None
            fitting = cls._fitting(os, domain, facts)
            template = fitting.template if fitting else None
        return nvram.with_suffix(path, template)


def _has_varstore(domain: Domain, os: Os, had: Os | None,
                  report: Report) -> bool:
    """Leave a guest its variables that QEMU keeps; Nova knows no such store.

    :returns: whether there is one; nothing else is then to be done
    """
    if os.has_varstore:
        return True
    if (had is None or not had.has_varstore
            or (domain.kernel and not os.has_uefi)):
        return False
    os.drop('nvram')
    os.selection = had.selection
    os.copy_from(had, 'varstore', 'loader', 'firmware')
    report.because('os/varstore', 'firmware and variable store that the '
                                  'guest had before', essential=True)
    return True


def _drop_newer(os: Os, libvirt: Version) -> None:
    """Remove attributes that a newer libvirt has written and this one does
    not know.
    """
    if libvirt < SELECTION_PERSISTS:
        del os.loader_format
        del os.nvram_format
    if libvirt < _TEMPLATE_FORMAT_SINCE:
        del os.nvram_template_format


#: KiB: with 96 MiB the firmware hangs after its first line, with 128 MiB it
#: boots (AAVMF 2022.11)
_LEAST_MEMORY = 128 * 1024


def _check_memory(domain: Domain) -> None:
    """
    :raises Refused: if a new guest has too little memory for UEFI
    """
    memory = domain.memory_kib
    if memory is not None and memory < _LEAST_MEMORY:
        raise errors.Refused(
            f'the instance has {memory // 1024} MiB of memory, but UEFI '
            f'needs {_LEAST_MEMORY // 1024} MiB; use a flavor with more, or '
            f'an image with a kernel (kernel_id)')


def _packages(domain: Domain) -> str:
    """The packages with UEFI firmware for this guest, in words."""
    return packages.everywhere(
        packages.UEFI_32 if domain.arch == 'armv7l' else packages.UEFI_64)


def _matches(machine: str, globs: tuple[str, ...]) -> bool:
    """Whether a machine is one of those that a descriptor names."""
    # the alias is the newest of its versions
    names = ('virt', 'virt-0') if machine == 'virt' else (machine,)
    return any(fnmatch.fnmatchcase(name, glob)
               for name in names for glob in globs)
