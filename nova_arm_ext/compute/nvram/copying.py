# SPDX-License-Identifier: Apache-2.0
"""Copies the variable stores of running guests now and then.

This is a task of its own. Nova's periodic update of resources holds the lock
that every claim of an instance waits for, so it is not done there.
"""

import time
from typing import Any

import nova.conf
from nova import context
from nova import exception
from nova import objects
from nova.compute import power_state
from nova.compute import vm_states
from oslo_log import log as logging
from oslo_service import loopingcall

from nova_arm_ext.compute import definition
from nova_arm_ext.compute.extras import extra
from nova_arm_ext.compute.nvram import places
from nova_arm_ext.compute.nvram import store
from nova_arm_ext.compute.nvram.copies import Copies

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF

#: Seconds after the start of nova-compute, at most, until the first copies.
FIRST = 60


class Copying:
    """The task that copies the stores of this host's running guests.

    :param host: Nova's Host object
    """

    def __init__(self, host: Any, stores: store.Stores, copies: Copies,
                 definitions: definition.Definitions) -> None:
        self._host = host
        self._stores = stores
        self._copies = copies
        self._definitions = definitions
        # the state of each store when it was copied, by uuid
        self._copied: dict[str, Any] = {}
        self._task: Any = None

    def start(self) -> None:
        """Begin, if ``[arm_nvram] copy_interval`` says so."""
        interval = CONF.arm_nvram.copy_interval
        if not self._copies.are_kept or not interval:
            return
        self._task = loopingcall.FixedIntervalLoopingCall(self.copy_all)
        self._task.start(interval=interval,
                         initial_delay=min(interval, FIRST),
                         stop_on_exception=False)

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.stop()
            self._task = None

    def copy_all(self) -> None:
        """Copy the stores of all guests that Nova says are on this host.

        What fails for one guest is logged, and the others are copied.
        """
        copied: dict[str, Any] = {}
        for instance in objects.InstanceList.get_by_host(
                context.get_admin_context(), CONF.host,
                expected_attrs=['flavor', 'system_metadata']):
            with extra('Copying the variable store', instance):
                state = self._copy(instance)
                if state is not None:
                    copied[instance.uuid] = state
            # another greenlet's turn
            time.sleep(0)
        self._copied = copied

    def _copy(self, instance: Any) -> Any:
        """Copy the store of one guest, if it has changed.

        :returns: the state of the file that was copied, now or earlier
        """
        if not _is_settled(instance) or not self._definitions.is_arm(instance):
            return None
        try:
            power = self._host.get_guest(instance).get_power_state(self._host)
        except exception.InstanceNotFound:
            return None
        if power != power_state.RUNNING:
            # one that is paused may be within a write
            return None
        guest = self._definitions.guest(instance)
        if guest is None or places.is_rescue(guest):
            return None
        place = self._stores.place(guest)
        if place is None:
            return None
        state = store.state(place)
        if (state == self._copied.get(instance.uuid)
                # storage that comes back can be empty
                and self._copies.load(instance.uuid) is not None):
            return state
        kept = self._copies.save(
            instance.uuid, place, guest,
            still=lambda: self._is_still_here(instance))
        return state if kept else None

    @staticmethod
    def _is_still_here(instance: Any) -> bool:
        """Whether a guest was neither deleted nor taken elsewhere."""
        try:
            instance.refresh()
        except exception.InstanceNotFound:
            return False
        return _is_settled(instance)


def _is_settled(instance: Any) -> bool:
    """Whether a guest is here, and nothing is being done to it."""
    return (instance.host == CONF.host and instance.task_state is None
            and instance.vm_state == vm_states.ACTIVE)
