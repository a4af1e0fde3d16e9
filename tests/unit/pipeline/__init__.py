# SPDX-License-Identifier: Apache-2.0
"""The pipeline, room by room."""
