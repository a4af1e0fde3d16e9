# SPDX-License-Identifier: Apache-2.0
"""What meets Nova and libvirt: only this package imports nova or does I/O."""
