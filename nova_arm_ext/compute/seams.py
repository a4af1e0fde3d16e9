# SPDX-License-Identifier: Apache-2.0
"""Checks the methods of Nova that the driver calls or overrides.

Most of them are private, so a release of Nova may change them without notice.
If Nova no longer called one, instances would silently not be adjusted.
Therefore they are checked when nova-compute starts.
"""

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

from nova import version
from nova.compute import utils as compute_utils
from nova.pci import utils as pci_utils
from nova.virt.libvirt import driver
from nova.virt.libvirt import guest
from nova.virt.libvirt import host
from nova.virt.libvirt import utils as libvirt_utils
from oslo_log import log as logging

LOG = logging.getLogger(__name__)

#: The first and the last release that the tests run with.
TESTED = (29, 34)

#: The methods that the driver calls: the number of arguments that it gives by
#: position (including self), and the names of the others. The ones that it
#: overrides need not be listed.
CALLED: tuple[tuple[Any, str, int, tuple[str, ...]], ...] = (
    (driver.LibvirtDriver, '_check_emulation_arch', 2, ()),
    (driver.LibvirtDriver, '_cleanup_remote_migration', 5, ()),
    (driver.LibvirtDriver, '_get_guest_config_sysinfo', 2, ()),
    (host.Host, '_wrap_libvirt_proxy', 2, ()),
    (host.Host, 'get_canonical_machine_type', 3, ()),
    (host.Host, 'get_capabilities', 1, ()),
    (host.Host, 'get_connection', 1, ()),
    (host.Host, 'get_guest', 2, ()),
    (host.Host, 'list_all_devices', 1, ('flags',)),
    (host.Host, 'list_guests', 1, ('only_running',)),
    (host.Host, 'write_instance_config', 2, ()),
    (guest.Guest, 'get_power_state', 2, ()),
    (guest.Guest, 'get_xml_desc', 1, ('dump_inactive', 'dump_sensitive')),
    (guest.Guest, 'has_persistent_configuration', 1, ()),
    (compute_utils, 'EventReporter', 4, ('graceful_exit',)),
    (libvirt_utils, 'copy_image', 2, ('host',)),
    (libvirt_utils, 'get_instance_path', 1, ()),
    (libvirt_utils, 'get_machine_type', 1, ()),
    (pci_utils, 'get_ifname_by_pci_address', 1, ('pf_interface',)),
    (pci_utils, 'get_mac_by_pci_address', 1, ()),
    (pci_utils, 'get_vf_num_by_pci_address', 1, ()),
)


def release() -> str:
    """The release of Nova that is installed."""
    found: str = version.version_string()
    return found


def check(ours: type[driver.LibvirtDriver]) -> list[str]:
    """Find what the driver needs and this release of Nova does not have.

    A WARNING is logged if the release has not been tested.

    :param ours: the extension's driver
    :returns: a sentence for each method that is missing, has other arguments
        or is no longer called
    """
    found = release()
    faults = [f'Nova {found} {fault}; install a release of nova-arm-ext '
              f'that supports this Nova' for fault in _faults(ours)]
    first, last = TESTED
    if not first <= int(found.partition('.')[0]) <= last:
        LOG.warning(
            'nova-arm-ext is tested with Nova %d to %d, and this is Nova %s. '
            '%s Nothing else was checked: try it with test instances first.',
            first, last, found,
            'Some methods that it needs are missing or different.'
            if faults else
            'All methods that it needs exist, with the expected arguments.')
    return faults


def _faults(ours: type[driver.LibvirtDriver]) -> Iterator[str]:
    # not by its name, which tests of Nova bind to other classes
    [novas] = ours.__bases__
    used = set(_names_in(novas))
    for name, arguments in overridden(ours):
        fault = _unlike(novas, name, arguments)
        if not fault and name.startswith('_') and name not in used:
            # a public one is called by nova-compute
            fault = f'does not call {_named(novas, name)} any more'
        if fault:
            yield f'{fault}, which nova-arm-ext overrides'
    for owner, name, count, keywords in CALLED:
        fault = _not_callable(owner, name, count, keywords)
        if fault:
            yield f'{fault}, which nova-arm-ext calls'


def overridden(ours: type[driver.LibvirtDriver]
               ) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each method that overrides one of Nova's, and its arguments.

    The driver has no other methods.
    """
    for name, method in vars(ours).items():
        if inspect.isfunction(method) and not name.startswith('__'):
            # not the signature, which may be copied from Nova's method
            code = method.__code__
            yield name, code.co_varnames[1:code.co_argcount]


def _named(owner: Any, name: str) -> str:
    return f'{owner.__name__.rpartition(".")[2]}.{name}'


def _unlike(owner: Any, name: str, arguments: tuple[str, ...]) -> str:
    """What is wrong with a method that is overridden; empty if nothing.

    The names of arguments are compared too, because Nova may use them.
    """
    method = getattr(owner, name, None)
    if not callable(method):
        return f'has no {_named(owner, name)}'
    known = inspect.signature(method).parameters.values()
    names = [one.name for one in known][1:]
    if (tuple(names[:len(arguments)]) == arguments
            or any(one.kind is one.VAR_POSITIONAL for one in known)):
        return ''
    return (f'has {_named(owner, name)}({", ".join(names)}), where '
            f'({", ".join(arguments)}, ...) is expected')


def _not_callable(owner: Any, name: str, count: int,
                  keywords: tuple[str, ...]) -> str:
    method = getattr(owner, name, None)
    if not callable(method):
        return f'has no {_named(owner, name)}'
    try:
        inspect.signature(method).bind(
            *[None] * count, **dict.fromkeys(keywords))
    except TypeError as e:
        return f'has {_named(owner, name)} with other arguments ({e})'
    return ''


def _names_in(owner: type) -> Iterator[str]:
    """All names in the code of a class and its base classes."""
    for one in owner.__mro__:
        for method in vars(one).values():
            for function in _functions_in(method):
                code = getattr(inspect.unwrap(function), '__code__', None)
                if code is not None:
                    yield from _names_in_code(code)


def _functions_in(method: Any) -> Iterator[Any]:
    """The functions in an attribute of a class."""
    if isinstance(method, property):
        yield from (method.fget, method.fset, method.fdel)
    elif isinstance(method, functools.partial | functools.partialmethod):
        yield method.func
    else:
        yield method


def _names_in_code(code: types.CodeType) -> Iterator[str]:
    """The names in code, including its inner functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in_code(constant)
