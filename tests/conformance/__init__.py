# SPDX-License-Identifier: Apache-2.0
"""Nova's own tests of its driver, with the extension's driver."""
