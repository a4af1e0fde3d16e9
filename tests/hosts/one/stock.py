# SPDX-License-Identifier: Apache-2.0
"""Nova's own driver without the attribute that libvirt 8.6 to 9.1 refuses.

It stands for the time before nova-arm-ext was installed.
"""

import re
import typing

from nova.virt.libvirt import driver


class StockDriver(driver.LibvirtDriver):
    """LibvirtDriver without `<loader secure=...>` for auto-selection."""

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        super().__init__(*args, **kwargs)
        # Nova looks for UEFI firmware of the host's own architecture, even
        # if the guest has another.
        self._host._supports_uefi = True

    def _get_guest_xml(self, *args: typing.Any, **kwargs: typing.Any) -> str:
        xml = super()._get_guest_xml(*args, **kwargs)
        return re.sub(r'\s*<loader secure=[\'"]no[\'"]\s*/>', '', xml)
