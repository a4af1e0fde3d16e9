# SPDX-License-Identifier: Apache-2.0
"""The checks of the doctor, with a planted fault for each finding."""
