# SPDX-License-Identifier: Apache-2.0
"""What a user can type: a module for each command."""
