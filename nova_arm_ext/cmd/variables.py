# SPDX-License-Identifier: Apache-2.0
"""The content of a variable store, in words.

The list of variables is read here; virt-firmware reads boot options, device
paths and signature lists. Guests can write anything into a variable: a value
that cannot be read is a fault of that variable only. Only values of known
variables are shown, because others may hold a password or a seed.
"""

import re
import shutil
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from nova_arm_ext import packages
from nova_arm_ext import varstore
from nova_arm_ext.cmd.failure import Failure
from nova_arm_ext.cmd.failure import one_line

GLOBAL = uuid.UUID('8be4df61-93ca-11d2-aa0d-00e098032b8c')
SECURITY = uuid.UUID('d719b2cb-3d3a-4596-a3bc-dad00e67656f')
ENABLE = uuid.UUID('f0a30bc7-af08-4556-99c4-001009c93a44')
SHIM = uuid.UUID('605dab50-e046-4300-abb6-3dd810dd8b23')
X509 = uuid.UUID('a5c059a1-94e4-4aa7-87b5-ab155c2bf072')
SHA256 = uuid.UUID('c1c41626-504c-4092-aca9-41f936934328')

#: The variables that hold signatures, in the order of their use.
SIGNATURES = (('PK', GLOBAL), ('KEK', GLOBAL), ('db', SECURITY),
              ('dbx', SECURITY), ('MokList', SHIM), ('MokListX', SHIM))

ATTRIBUTES = ((1, 'NV'), (2, 'BS'), (4, 'RT'), (8, 'HR'), (0x10, 'AW'),
              (0x20, 'AT'), (0x40, 'APPEND'))

_ACTIVE = 1     # LOAD_OPTION_ACTIVE
#: Bytes; longer boot options are not read. Real ones have some hundred bytes.
_MAX_OPTION = 16 * 1024

_BOOT = re.compile('Boot[0-9A-F]{4}')


def raw(data: bytes) -> bytes:
    """The raw flash in a store, which may be a qcow2 image.

    :param data: a valid store
    :raises Failure: when it is qcow2 and qemu-img is missing or fails
    """
    if not data.startswith(varstore.QCOW2):
        return data
    tool = shutil.which('qemu-img')
    if tool is None:
        raise Failure(f'the store is a qcow2 image: to show it, install '
                      f'qemu-img ({packages.everywhere(packages.QEMU_IMG)})')
    with tempfile.TemporaryDirectory(prefix='nova-arm-ext-') as folder:
        image, flash = f'{folder}/image', f'{folder}/flash'
        with open(image, 'wb') as file:
            file.write(data)
        # no shell, and the names of the files are ours
        done = subprocess.run(  # noqa: S603
            [tool, 'convert', '-f', 'qcow2', '-O', 'raw', image, flash],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors='replace')
        if done.returncode:
            raise Failure(f'qemu-img cannot read it: {done.stderr}')
        with open(flash, 'rb') as file:
            return file.read()


def describe(data: bytes) -> dict[str, Any]:
    """The content of a store, for JSON.

    :param data: a valid raw store
    :raises Failure: when virt-firmware is not installed
    """
    _virt_firmware()
    found = varstore.variables(data)
    values = {(one.name, one.guid): one.data for one in found}
    keys = {name: _signatures(values[name, guid])
            for name, guid in SIGNATURES if (name, guid) in values}
    platform_key = bool(values.get(('PK', GLOBAL)))
    switch = values.get(('SecureBootEnable', ENABLE), b'\1')
    return {
        'blank': varstore.is_blank(data),
        'secure_boot': {
            # if the firmware supports Secure Boot; the variable SecureBoot
            # itself is never stored
            'enabled': platform_key and switch != b'\0',
            'setup_mode': not platform_key,
            'keys': keys},
        'boot': _boot(values),
        'variables': [_variable(one) for one in sorted(
            found, key=lambda one: (one.name, str(one.guid)))]}


def _virt_firmware() -> None:
    try:
        import virt.firmware.efi.bootentry
        import virt.firmware.efi.guids
        import virt.firmware.efi.siglist  # noqa: F401
    except ImportError as e:
        raise Failure(
            f'showing variables needs virt-firmware ({e}): pip install '
            f"'nova-arm-ext[nvram]'") from e


def _variable(one: varstore.Variable) -> dict[str, Any]:
    from virt.firmware.efi import guids
    known = str(guids.name(str(one.guid)))
    return {
        'name': one_line(one.name), 'guid': str(one.guid),
        'vendor': (known.removeprefix('guid:') if known.startswith('guid:')
                   else None),
        'attributes': [word for bit, word in ATTRIBUTES
                       if one.attributes & bit],
        'size': len(one.data)}


def _boot(values: Mapping[tuple[str, uuid.UUID], bytes]) -> dict[str, Any]:
    """Boot order and boot options; first those in the boot order."""
    order = _numbers(values.get(('BootOrder', GLOBAL), b''))
    options = sorted(name[4:] for name, guid in values
                     if guid == GLOBAL and _BOOT.fullmatch(name))
    timeout = values.get(('Timeout', GLOBAL), b'')
    return {
        'order': order,
        'next': next(iter(_numbers(values.get(('BootNext', GLOBAL), b''))),
                     None),
        'timeout': (struct.unpack('<H', timeout)[0] if len(timeout) == 2
                    else None),
        'options': [
            {'number': number, 'in_order': number in order,
             **_option(values[f'Boot{number}', GLOBAL])}
            for number in sorted(options, key=lambda number: (
                order.index(number) if number in order else len(order)))]}


def _numbers(data: bytes) -> list[str]:
    return [f'{number:04X}' for number, in struct.iter_unpack(
        '<H', data[:len(data) // 2 * 2])]


def _option(data: bytes) -> dict[str, Any]:
    """Description and device path of a boot option."""
    from virt.firmware.efi import bootentry
    try:
        if len(data) > _MAX_OPTION:
            raise ValueError(f'it has {len(data)} bytes')
        option = bootentry.BootEntry(data=data)
        return {'active': bool(option.attr & _ACTIVE),
                'description': one_line(str(option.title)),
                'path': one_line(str(option.devicepath)),
                'data_size': len(option.optdata or b''), 'fault': None}
    except Exception as e:
        # the library has no error class for values that it cannot read
        return {'active': None, 'description': None, 'path': None,
                'data_size': None, 'fault': _fault(e)}


def _signatures(data: bytes) -> dict[str, Any]:
    """Certificates and hashes of a signature database."""
    from virt.firmware.efi import siglist
    certificates: list[str] = []
    hashes = others = 0
    fault = None
    try:
        for kind, one, count in _lists(data):
            if kind == SHA256:
                hashes += count
            elif kind == X509:
                [parsed] = siglist.EfiSigDB(one)
                certificates.append(_subject(parsed.x509))
            else:
                others += count
    except Exception as e:
        fault = _fault(e)
    return {'certificates': certificates, 'sha256': hashes, 'others': others,
            'fault': fault}


def _lists(data: bytes) -> list[tuple[uuid.UUID, bytes, int]]:
    """The lists of a signature database: kind, bytes, number of signatures.

    virt-firmware does not end when a signature has size 0.

    :raises ValueError: when the sizes do not fit together
    """
    found = []
    place = 0
    while place < len(data):
        if place + 28 > len(data):
            raise ValueError(f'it ends inside a list at byte {place}')
        kind, size, header, each = struct.unpack_from('<16sIII', data, place)
        if (each <= 16 or size < 28 + header or place + size > len(data)
                or (size - 28 - header) % each):
            raise ValueError(f'the list at byte {place} has sizes that do '
                             f'not fit')
        found.append((uuid.UUID(bytes_le=kind), data[place:place + size],
                      (size - 28 - header) // each))
        place += size
    return found


def _subject(certificate: Any) -> str:
    if certificate is None:
        return '(a certificate that cannot be read)'
    from cryptography.x509.oid import NameOID
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return one_line(names[0].value if names
                    else certificate.subject.rfc4514_string())


def _fault(error: Exception) -> str:
    return one_line(f'it cannot be read: {error or type(error).__name__}')


def to_text(found: Mapping[str, Any]) -> str:
    """The same as text."""
    lines = []
    secure, boot = found['secure_boot'], found['boot']
    if found['blank']:
        lines.append('Nothing has been written to this store yet.')
    lines.append('Secure Boot: ' + (
        'on, if the firmware supports it' if secure['enabled'] else
        'off, in setup mode: there is no platform key (PK)'
        if secure['setup_mode'] else 'off, although there are keys'))
    for name, keys in secure['keys'].items():
        lines.append(f'  {name}: {_counted(keys)}')
    lines.append('Boot order: ' + (' '.join(boot['order']) or 'none'))
    if boot['next']:
        lines.append(f'Next boot: {boot["next"]}')
    if boot['timeout'] is not None:
        lines.append(f'Timeout: {boot["timeout"]} s')
    for option in boot['options']:
        notes = [word for word, true in (
            ('inactive', option['active'] is False),
            ('not in the boot order', not option['in_order'])) if true]
        lines.append(
            f'  {option["number"]} '
            + (option['fault'] or f'{option["description"]}: '
               f'{option["path"]}')
            + (f' ({", ".join(notes)})' if notes else ''))
    lines.append('Variables:' if found['variables'] else 'Variables: none')
    for one in found['variables']:
        lines.append(f'  {one["name"]}  {one["vendor"] or one["guid"]}  '
                     f'{"+".join(one["attributes"])}  {one["size"]} bytes')
    return ''.join(line + '\n' for line in lines)


def _counted(keys: Mapping[str, Any]) -> str:
    parts: Sequence[str] = [part for part in (
        ', '.join(keys['certificates']),
        f'{keys["sha256"]} hashes' if keys['sha256'] else '',
        f'{keys["others"]} other signatures' if keys['others'] else '',
        keys['fault'] or '') if part]
    return '; '.join(parts) or 'empty'
