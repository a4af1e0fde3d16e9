# SPDX-License-Identifier: Apache-2.0
"""Variable stores that images carry, sealed with a secret of the hosts."""

import contextlib
import contextvars
import os
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from oslo_log import log as logging

from nova_arm_ext import errors
from nova_arm_ext import nvram
from nova_arm_ext import varstore
from nova_arm_ext.compute.nvram.store import StoreNotUsable
from nova_arm_ext.compute.nvram.store import Stores
from nova_arm_ext.domain import view

LOG = logging.getLogger(__name__)

#: Bytes that are read of the file with the secrets.
_MAX_KEYS = 4096

#: Characters that Nova keeps of an image property in system_metadata.
CUT = varstore.MIN_PROPERTY - 1

#: The uuid of the image that this thread or greenlet is making.
_making: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    'nova_arm_ext_image', default=None)


class Carried(NamedTuple):
    """A store that an image carries."""

    packed: bytes
    secure_boot: bool    #: whether it is one of firmware for Secure Boot


def load_keys(conf: Any) -> tuple[bytes, ...]:
    """The secrets in ``[arm_nvram] image_key_file``, one per line.

    :returns: none without such a file
    :raises ConfigurationError: when it cannot be read, can be read by others,
        or has a secret that is too short, or none
    """
    path = conf.arm_nvram.image_key_file
    if not path:
        return ()
    place = f'[arm_nvram] image_key_file {path}'
    try:
        with open(path, 'rb') as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = [line.strip() for line
                     in file.read(_MAX_KEYS).splitlines()]
    except OSError as e:
        raise errors.ConfigurationError([f'{place}: {e.strerror}']) from e
    if mode & 0o007:
        raise errors.ConfigurationError([
            f'{place} has the permissions {mode & 0o777:o}; take those of '
            f'all others from it (chmod 0640)'])
    keys = tuple(filter(None, lines))
    shortest = min(map(len, keys), default=0)
    if shortest < varstore.MIN_KEY:
        raise errors.ConfigurationError([
            f'{place}: a line has {shortest} bytes, and a secret needs '
            f'{varstore.MIN_KEY} (head -c 32 /dev/urandom | base64)'])
    return keys


class Images:
    """The stores in images.

    :param conf: parsed configuration
    :param stores: reads the stores that snapshots carry
    :param keys: the secrets: the first one seals, and each one opens; none
        if images carry no stores
    """

    def __init__(self, conf: Any, stores: Stores,
                 keys: tuple[bytes, ...]) -> None:
        self._conf = conf
        self._stores = stores
        self._keys = keys

    @property
    def carry_stores(self) -> bool:
        """Whether images carry stores."""
        return bool(self._keys)

    @staticmethod
    @contextlib.contextmanager
    def making(image: str) -> Iterator[None]:
        """Nova makes an image of a guest.

        :param image: its uuid
        """
        token = _making.set(image)
        try:
            yield
        finally:
            _making.reset(token)

    def sealed(self, instance: Any, guest: view.Domain, *,
               secure_boot: bool) -> str | None:
        """The store of a guest as the property of the image that Nova makes.

        :param secure_boot: whether its firmware is for Secure Boot
        :returns: None if there is none that can be carried, with a WARNING
        """
        image = _making.get()
        if not self._keys or image is None:
            return None
        try:
            place = self._stores.own(instance, guest)
            if place is None:
                return None
            packed = self._stores.pack(place, guest)
            if packed is not None:
                return varstore.seal(packed, self._keys[0], image,
                                     secure_boot=secure_boot)
            why = 'it is not there'
        except (errors.Damaged, errors.Busy, StoreNotUsable, OSError) as e:
            why = str(e)
        LOG.warning('The snapshot does not carry the UEFI variables of this '
                    'guest: %s', why, instance=instance)
        return None

    def carried(self, image: str, properties: Any) -> Carried | None:
        """The store that an image carries.

        :param image: its uuid
        :param properties: its properties
        :returns: None if it carries none, or none that can be used, with a
            WARNING, where ``[arm_nvram] on_damage`` says to start all the
            same
        :raises StoreNotUsable: when it does not say so
        """
        value = properties.get(nvram.STORE_PROPERTY)
        if not self._keys or not value:
            return None
        if len(str(value)) == CUT:
            # the API itself makes snapshots of volumes, with what Nova keeps
            LOG.warning(
                'Image %s has only the beginning of UEFI variables in its '
                'property %s, and carries none: it was made of an instance '
                'that boots from a volume', image, nvram.STORE_PROPERTY)
            return None
        try:
            return Carried(*varstore.unseal(str(value), self._keys, image))
        except errors.Damaged as e:
            reason = (f'The UEFI variables in the property '
                      f'{nvram.STORE_PROPERTY} of image {image} cannot be '
                      f'used: {e}')
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise StoreNotUsable(reason=(
                    f'{reason}. Remove the property from the image')) from e
            LOG.warning('%s', reason)
            return None
