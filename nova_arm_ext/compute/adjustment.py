# SPDX-License-Identifier: Apache-2.0
"""Runs the hooks on the domain XML that Nova generates."""

import importlib.metadata
import types
from collections.abc import Callable
from typing import Any

from nova import exception
from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext import provenance
from nova_arm_ext.compute import definition
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import host_facts
from nova_arm_ext.compute import operation
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram.life import Life
from nova_arm_ext.domain import firmware
from nova_arm_ext.domain import view
from nova_arm_ext.pipeline import plugins
from nova_arm_ext.pipeline.run import Pipeline

LOG = logging.getLogger(__name__)

#: The version of this package, read only once because that is slow.
VERSION = importlib.metadata.version('nova-arm-ext')


class GuestNotAdjusted(exception.NovaException):
    """The pipeline failed for a guest; the API shows why."""

    msg_fmt = '%(reason)s'


class Adjustment:
    """Runs the enabled hooks for the driver.

    :param hooks: the enabled hooks
    :param sysinfo: returns Nova's LibvirtConfigGuestSysinfo of an instance
    """

    def __init__(self, hooks: Pipeline,
                 facts_of_host: host_facts.HostFacts,
                 definitions: definition.Definitions, life: Life,
                 sysinfo: Callable[[Any], Any]) -> None:
        self.pipeline = hooks
        self._host_facts = facts_of_host
        self._definitions = definitions
        self._life = life
        self._sysinfo = sysinfo
        self._record = provenance.Record(
            version=VERSION, options=provenance.digest(hooks))

    def announce(self, conf: Any) -> None:
        """Log once what runs here: version, hooks in order, what is off.

        :param conf: Nova's configuration
        """
        installed = {point.name for point in importlib.metadata.entry_points(
            group=plugins.NAMESPACE)}
        off = sorted(installed.difference(self.pipeline.hooks))
        off += [f'[{group}] {name}' for group, name in (
            ('arm_nvram', 'store'), ('arm_nvram', 'image_key_file'),
            ('arm_pci', 'enabled')) if not conf[group][name]]
        LOG.info('nova-arm-ext %s runs these hooks for Arm instances: %s. '
                 'Not enabled: %s', VERSION,
                 ', '.join(self.pipeline.hooks) or 'none',
                 ', '.join(off) or 'nothing')

    def adjusted(self, xml: str, instance: Any, image_meta: Any) -> str:
        """The domain XML after the hooks.

        :param xml: from Nova's driver
        :returns: the same string for a guest that is not Arm
        :raises InvalidInput: no host can provide what was requested
        :raises GuestNotAdjusted: a hook failed, or this host cannot provide
            what was requested and the scheduler may try another one
        """
        doing = operation.on(instance)
        try:
            return self.pipeline.run(
                xml, lambda: self._facts(instance, image_meta),
                existing=doing is not None and doing.existing,
                previous=None if doing is None else doing.guest,
                record=LOG.isEnabledFor(logging.DEBUG),
                finish=lambda domain, reports: provenance.write(
                    domain, self._record.of(reports))).xml
        except errors.Refused as e:
            if e.this_host:
                # not InvalidInput, so that the scheduler tries another host
                raise GuestNotAdjusted(reason=str(e)) from e
            raise exception.InvalidInput(reason=str(e)) from e
        except errors.ArmExtError as e:
            raise GuestNotAdjusted(reason=str(e)) from e

    def check_flavor(self, instance: Any, flavor: Any) -> None:
        """Refuse a resize that the hooks refuse, before the disks are moved.

        On the other host the guest is one that exists, so that nothing is
        refused any more.

        :param flavor: the new one
        :raises InstanceFaultRollback: with InvalidInput; the instance stays
            as it is
        """
        refusal = None
        with extra('Asking whether the new flavor is refused', instance):
            if flavor.flavorid != instance.flavor.flavorid:
                found = self._refusal(instance, flavor,
                                      instance.system_metadata)
                # another host may be able to
                refusal = None if found and found.this_host else found
                if str(refusal) == str(self._refusal(
                        instance, instance.flavor,
                        instance.system_metadata)):
                    # the guest runs with that already
                    refusal = None
        _roll_back(refusal)

    def check_image(self, instance: Any) -> None:
        """Refuse a rebuild that the hooks refuse, before disks are removed.

        Only what the new image asks of the hooks is looked at. Nova has
        noted it with the instance (API.rebuild, 29 to 34).

        :raises InstanceFaultRollback: with InvalidInput; the instance stays
            as it is
        """
        refusal = None
        with extra('Asking whether the new image is refused', instance):
            metadata = instance.system_metadata
            refusal = self._refusal(instance, instance.flavor, metadata)
            if refusal and str(refusal) == str(self._refusal(
                    instance, instance.flavor,
                    {name: value for name, value in metadata.items()
                     if not name.startswith('image_arm_')})):
                # the domain XML of the old image, or the flavor, asks for it
                refusal = None
        _roll_back(refusal)

    def _refusal(self, instance: Any, flavor: Any, metadata: Any
                 ) -> errors.Refused | None:
        """Why a new guest could not have a flavor and an image.

        The present domain XML is adjusted for it; the result is not used.

        :param metadata: Nova's system_metadata of the instance
        """
        document = self._definitions.of(instance)
        if document is None or view.arm_guest(document) is None:
            return None
        asked = types.SimpleNamespace(flavor=flavor, system_metadata=metadata)
        try:
            self.pipeline.run(document, facts.Facts(
                host=self._host_facts.now(),
                guest=gather.guest(asked, previous=document)), existing=False)
        except errors.Refused as e:
            return e
        return None

    def _facts(self, instance: Any, image_meta: Any) -> facts.Facts:
        doing = operation.on(instance)
        if doing is None:
            # a resize on one host: the domain is still there
            previous = self._definitions.of(instance)
            guest, path = view.arm_guest(previous), None
        else:
            previous, guest = doing.previous, doing.guest
            path = self._life.store_path(instance, doing)
        host = self._host_facts.now()
        loader = None if guest is None else firmware.Os.of(guest).loader
        gone = None
        if loader:
            host = gather.knowing(host, loader)
            gone = self._loader_is_gone(instance, loader, host)
        return facts.Facts(
            host=host,
            guest=gather.guest(instance, image_meta, previous,
                               self._sysinfo(instance), path, gone))

    @staticmethod
    def _loader_is_gone(instance: Any, loader: str,
                        host: facts.Host) -> bool | None:
        gone = gather.loader_is_gone(loader, host.firmware)
        if gone:
            LOG.warning(
                "The instance's firmware %s is not on this host any more. "
                'Another firmware with the same features is used, if there is '
                'one; the INFO line of this instance names it',
                loader, instance=instance)
        return gone


def _roll_back(refusal: errors.Refused | None) -> None:
    """End an operation in which nothing has been done yet, if it is refused.
    """
    if refusal is not None:
        raise exception.InstanceFaultRollback(
            inner_exception=exception.InvalidInput(reason=str(refusal)))
