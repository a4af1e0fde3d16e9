# SPDX-License-Identifier: Apache-2.0
"""A thin typed view on libvirt domain documents; it knows no policy."""
