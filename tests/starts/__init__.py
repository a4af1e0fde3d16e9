# SPDX-License-Identifier: Apache-2.0
"""Every kind of guest, started by each libvirt that is supported.

``tools/matrix`` runs it: Nova's domain XML is adjusted with the facts of a
Debian suite in a root folder (``tools/root``), and the libvirt and QEMU of
that suite start it, paused.
"""
