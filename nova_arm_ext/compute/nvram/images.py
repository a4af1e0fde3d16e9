# SPDX-License-Identifier: Apache-2.0
"""Variable stores that images carry, sealed with a secret of the hosts."""

import os
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

_MAX_KEY = 4096

#: Characters that Nova keeps of an image property in system_metadata.
CUT = 255


class Carried(NamedTuple):
    """A store that an image carries."""

    packed: bytes
    secure_boot: bool    #: whether it is one of firmware for Secure Boot


def load_key(conf: Any) -> bytes | None:
    """The secret in ``[arm_nvram] image_key_file``.

    :returns: None without such a file
    :raises ConfigurationError: when it cannot be read, can be read by others
        or is too short
    """
    path = conf.arm_nvram.image_key_file
    if not path:
        return None
    place = f'[arm_nvram] image_key_file {path}'
    try:
        with open(path, 'rb') as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(_MAX_KEY).strip()
    except OSError as e:
        raise errors.ConfigurationError([f'{place}: {e.strerror}']) from e
    if mode & 0o007:
        raise errors.ConfigurationError([
            f'{place} has the permissions {mode & 0o777:o}; take those of '
            f'all others from it (chmod 0640)'])
    if len(key) < varstore.MIN_KEY:
        raise errors.ConfigurationError([
            f'{place} has {len(key)} bytes, and a secret needs '
            f'{varstore.MIN_KEY} (head -c 32 /dev/urandom | base64)'])
    return key


class Images:
    """The stores in images.

    :param conf: parsed configuration
    :param stores: reads the stores that snapshots carry
    :param key: the secret; None if images carry no stores
    """

    def __init__(self, conf: Any, stores: Stores, key: bytes | None) -> None:
        self._conf = conf
        self._stores = stores
        self._key = key

    @property
    def carry_stores(self) -> bool:
        """Whether images carry stores."""
        return self._key is not None

    def sealed(self, instance: Any, guest: view.Domain, *,
               secure_boot: bool) -> str | None:
        """The store of a guest as the property of an image.

        :param secure_boot: whether its firmware is for Secure Boot
        :returns: None if there is none that can be carried, with a WARNING
        """
        if self._key is None:
            return None
        try:
            place = self._stores.own(instance, guest)
            if place is None:
                return None
            packed = self._stores.pack(place, guest)
            if packed is not None:
                return varstore.seal(packed, self._key,
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
        if self._key is None or not value:
            return None
        if len(str(value)) == CUT:
            # the API itself makes snapshots of volumes, with what Nova keeps
            LOG.warning(
                'Image %s has only the beginning of UEFI variables in its '
                'property %s, and carries none: it was made of an instance '
                'that boots from a volume', image, nvram.STORE_PROPERTY)
            return None
        try:
            return Carried(*varstore.unseal(str(value), self._key))
        except errors.Damaged as e:
            reason = (f'The UEFI variables in the property '
                      f'{nvram.STORE_PROPERTY} of image {image} cannot be '
                      f'used: {e}')
            if self._conf.arm_nvram.on_damage != 'fresh':
                raise StoreNotUsable(reason=(
                    f'{reason}. Remove the property from the image')) from e
            LOG.warning('%s', reason)
            return None
