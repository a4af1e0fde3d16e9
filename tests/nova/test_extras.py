# SPDX-License-Identifier: Apache-2.0
"""Nothing of ours fails Nova's work.

Each operation of Nova's runs once, and what of ours is called beside Nova's
own method is written down. Then it runs again for each of these calls and each
kind of error, with that call failing: the outcome must be Nova's own.
"""

# Nova's test packages patch threads as they are imported and must come first.
import nova.tests.unit

import nova.test  # isort: skip

import collections
import contextlib
import dataclasses
import errno
import functools
import itertools
import sys
from collections.abc import Callable
from unittest import mock

import greenlet
import libvirt
import nova.conf
import oslo_messaging
from nova import exception
from nova.compute import power_state
from nova.compute import task_states
from nova.virt.libvirt import guest as libvirt_guest
from nova.virt.libvirt import host as libvirt_host

from nova_arm_ext import errors
from nova_arm_ext import varstore
from nova_arm_ext.compute import extras
from nova_arm_ext.compute import gather
from nova_arm_ext.compute import nvram_stores
from nova_arm_ext.compute.nvram import files
from nova_arm_ext.compute.nvram import privileged
from nova_arm_ext.domain import view
from tests.nova.nvram import base

CONF = nova.conf.CONF


def failing_libvirt():
    return libvirt.libvirtError('internal error: whatever')


#: What a call can raise.
ERRORS = [
    *(functools.partial(OSError, number, 'injected') for number in (
        errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EIO, errno.EACCES)),
    failing_libvirt,
    functools.partial(oslo_messaging.MessagingTimeout, 'injected'),
    functools.partial(errors.Damaged, 'injected'),
    functools.partial(errors.Busy, 'injected'),
    functools.partial(exception.InternalError, 'injected'),
    functools.partial(Exception, 'injected'),
]

#: The calls that can fail: files, privsep, libvirt, RPC and third parties.
CALLS = [
    *((files, name) for name in (
        'read', 'read_sound', 'state', 'exists', 'write_atomic', 'put_aside',
        'remove', 'remove_all')),
    *((privileged, name) for name in ('checked_and_packed',
                                      'check_and_write')),
    (libvirt_host.Host, 'get_guest'),
    (libvirt_host.Host, 'list_guests'),
    (libvirt_host.Host, 'get_connection'),
    (libvirt_host.Host, 'get_capabilities'),
    (libvirt_host.Host, 'write_instance_config'),
    (libvirt_guest.Guest, 'get_xml_desc'),
    (nvram_stores.Directory, 'save'),
    (nvram_stores.Directory, 'load'),
    (nvram_stores.Directory, 'remove'),
    (gather, 'host'),
    (varstore, 'seal'),
    (view, 'arm_guest'),
]


class NovaFails(Exception):
    """Nova's own method fails."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something that nova-compute has the driver do.

    :param prepare: makes the guest as it is before
    :param run: calls our driver, and has Nova's method be another
    :param method: Nova's method
    :param before: whether what runs before Nova's method is an extra, too
    """

    prepare: Callable
    run: Callable
    method: str
    before: bool = False


class _Watch:
    """Counts the calls of a phase, and has one of them fail."""

    def __init__(self, failing=None, number=0, error=None):
        self.calls = collections.Counter()
        self.failing, self.number, self.error = failing, number, error
        self.counts = False
        self.failed = False

    def patched(self, place, name):
        real = getattr(place, name)

        @functools.wraps(real)
        def call(*args, **kwargs):
            caller = sys._getframe(1).f_globals.get('__name__', '')
            if (not self.counts or 'nova_arm_ext' not in caller
                    # there Nova asks, and gets what libvirt says
                    or (caller.endswith('.stand_ins')
                        and name == 'get_guest')):
                return real(*args, **kwargs)
            key = f'{place.__name__}.{name}'
            self.calls[key] += 1
            if (key, self.calls[key]) == (self.failing, self.number):
                self.failed = True
                raise self.error()
            return real(*args, **kwargs)

        return mock.patch.object(place, name, call)


class ExtrasTest(base.StoresTestCase):

    def setUp(self):
        super().setUp()
        (self.root / 'copies').mkdir(mode=0o700)
        key = self.root / 'key'
        key.write_text('k' * 40)
        key.chmod(0o600)
        self.flags(store='directory', directory=str(self.root / 'copies'),
                   image_key_file=str(key), group='arm_nvram')
        self.load_stores()
        self.stub_out('nova.objects.Instance.image_meta', self.image)
        self.stub_out('nova.virt.libvirt.guest.Guest.get_power_state',
                      lambda guest, host: power_state.RUNNING)
        patched = self.nova('_check_emulation_arch', lambda *args: self.arch)
        patched.start()
        self.addCleanup(patched.stop)

    # -- Operations ----------------------------------------------------------

    def novas(self, name, result):
        """Nova's method: what follows it is watched."""
        def method(nova_driver, *args, **kwargs):
            self.watch.counts = True
            if name == '_cleanup':
                nova_driver._undefine_domain(self.instance)
                self.domains.clear()
            if isinstance(result, Exception):
                raise result
            return result
        return self.nova(name, method)

    def operations(self):
        spawn, adopt = self.spawn, self.adopt
        both = (spawn, adopt)
        run = self.call
        for prepare in both:
            yield Operation(prepare, run('power_off', self.instance),
                            'power_off')
            yield Operation(prepare, run('attach_volume', None, None,
                                         self.instance), 'attach_volume')
            yield Operation(prepare, run('attach_interface', None,
                                         self.instance), 'attach_interface')
            yield Operation(
                prepare, run('detach_volume', None, None, self.instance,
                             '/dev/vdb'), 'detach_volume', before=True)
            yield Operation(
                prepare, run('detach_interface', None, self.instance,
                             {'address': '52:54:00:00:00:09'}),
                'detach_interface', before=True)
            yield Operation(prepare, self.snapshot,
                            '_create_snapshot_metadata')
            yield Operation(prepare, run(
                'post_live_migration_at_source', None, self.instance),
                'post_live_migration_at_source')
            yield Operation(prepare, run(
                'post_live_migration_at_destination', None, self.instance),
                'post_live_migration_at_destination')
            yield Operation(prepare, run(
                'rollback_live_migration_at_destination', None,
                self.instance), 'rollback_live_migration_at_destination')
            yield Operation(prepare, run(
                'check_can_live_migrate_destination', None, self.instance,
                {'cpu_info': '{}'}), 'check_can_live_migrate_destination',
                before=True)
            yield Operation(prepare, run('_create_guest', None, 'xml',
                                         self.instance), '_create_guest')
            yield Operation(prepare, run('finish_migration', None, None,
                                         self.instance), 'finish_migration')
            yield Operation(prepare, run(
                'finish_revert_migration', None, self.instance),
                'finish_revert_migration')
            yield Operation(prepare, run('_hard_reboot', None, self.instance),
                            '_hard_reboot')
            yield Operation(prepare, run('rescue', None, self.instance),
                            'rescue')
            yield Operation(prepare, run('unrescue', None, self.instance),
                            'unrescue')
            for leaving in (self.deleting, self.leaving, self.staying):
                yield Operation(
                    lambda prepare=prepare, leaving=leaving:
                    (prepare(), leaving()),
                    run('_cleanup', None, self.instance, None,
                        cleanup_instance_disks=leaving == self.deleting),
                    '_cleanup')
        yield Operation(spawn, run('init_host', 'a'), 'init_host')
        yield Operation(spawn, run('_get_instance_capabilities'),
                        '_get_instance_capabilities')
        yield Operation(spawn, run('_update_host_specific_capabilities'),
                        '_update_host_specific_capabilities')
        yield Operation(spawn, run('update_provider_tree', mock.MagicMock(),
                                   'node'), 'update_provider_tree')
        yield Operation(spawn, run('_get_cpu_info'), '_get_cpu_info')
        yield Operation(spawn, run('reboot', None, self.instance, None,
                                   'SOFT'), 'reboot', before=True)

    def call(self, name, *args, **kwargs):
        return lambda: getattr(self.driver, name)(*args, **kwargs)

    def snapshot(self):
        with self.driver._life.snapshotting('image'):
            return self.driver._create_snapshot_metadata(
                self.image, self.instance)

    def deleting(self):
        self.instance.task_state = task_states.DELETING

    def leaving(self):
        self.instance.host = 'b'

    def staying(self):
        self.instance.task_state = task_states.POWERING_ON

    # -- The walk ------------------------------------------------------------

    def outcome(self, operation, result, watch):
        """What comes of an operation: what it returns, or raises."""
        self.reset()
        self.watch = _Watch()
        operation.prepare()
        self.watch = watch
        self.driver._facts.forget()
        with contextlib.ExitStack() as stack:
            for place, name in CALLS:
                stack.enter_context(watch.patched(place, name))
            stack.enter_context(self.novas(operation.method, result))
            watch.counts = operation.before
            try:
                return 'returns', operation.run()
            except Exception as e:
                return 'raises', type(e), str(e)

    def reset(self):
        """As if nothing had happened yet."""
        for path in sorted(self.root.rglob('*'), reverse=True):
            if path.is_dir() and path.name not in (
                    'a', 'a-libvirt', 'copies'):
                path.rmdir()
            elif path.is_file() and path.name not in (
                    'AAVMF_VARS.fd', 'key'):
                path.unlink()
        self.domains.clear()
        self.notes.clear()
        self.instance.update({'host': 'a', 'task_state': None,
                              'launched_at': None, 'system_metadata': {
                                  'image_hw_machine_type': 'virt'}})
        self.store = self.folder / base.STORE

    def results(self, method):
        """Nova's method works, and fails."""
        works = {'_create_snapshot_metadata': lambda: {'properties': {}},
                 '_get_instance_capabilities': lambda: [
                     ('armv7l', 'kvm', 'hvm'), ('aarch64', 'kvm', 'hvm')],
                 '_get_cpu_info': lambda: {'arch': 'aarch64'}}
        return works.get(method, lambda: None), lambda: NovaFails('of Nova')

    def test_the_outcome_is_nova_s_own(self):
        injected = collections.Counter()
        for operation in self.operations():
            for result in self.results(operation.method):
                seen = _Watch()
                right = self.outcome(operation, result(), seen)
                for key, times in seen.calls.items():
                    for number in range(1, times + 1):
                        for error in ERRORS:
                            watch = _Watch(key, number, error)
                            found = self.outcome(operation, result(), watch)
                            self.assertTrue(
                                watch.failed, (operation.method, key, number))
                            injected[operation.method] += 1
                            self.assert_same(operation, right, found,
                                             (key, number, error()))
        print(f'{sum(injected.values())} calls were made to fail, and '
              f"Nova's outcome stood each time: {dict(injected)}",
              file=sys.stderr)
        self.assertGreater(sum(injected.values()), 300)

    def assert_same(self, operation, right, found, what):
        # what an image and a host are told of beside Nova's may be missing
        self.assertEqual(right[0], found[0], (operation.method, what, found))
        if right[0] == 'raises':
            self.assertEqual(right, found, (operation.method, what))

    def test_a_migration_is_refused_before_anything_is_done(self):
        """And the instance is not set to ERROR."""
        refused = 0
        migrate = Operation(
            self.spawn, self.call('migrate_disk_and_power_off', None,
                                  self.instance, 'b', None, None),
            'migrate_disk_and_power_off', before=True)
        seen = _Watch()
        self.outcome(migrate, NovaFails('of Nova'), seen)
        for key, times in seen.calls.items():
            for number, error in itertools.product(range(1, times + 1),
                                                   ERRORS):
                found = self.outcome(migrate, NovaFails('of Nova'),
                                     _Watch(key, number, error))
                self.assertEqual('raises', found[0])
                self.assertIn(found[1], (
                    NovaFails, exception.InstanceFaultRollback),
                    (key, number, error()))
                refused += found[1] is exception.InstanceFaultRollback
        self.assertGreater(refused, 20)

    def test_what_ends_a_thread_passes(self):
        for end in (greenlet.GreenletExit, SystemExit, KeyboardInterrupt):
            def block(end=end):
                with extras.extra('Trying this'):
                    raise end

            self.assertRaises(end, block)
