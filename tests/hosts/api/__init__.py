# SPDX-License-Identifier: Apache-2.0
"""Nova's own tests of whole servers, with the extension's driver."""
