# SPDX-License-Identifier: Apache-2.0
"""The probe guest: a small AArch64 system that says what it sees."""

from tests.guest.build import ensure
from tests.guest.build import Guest
from tests.guest.build import MissingTools
from tests.guest.report import Report
from tests.guest.report import reports

__all__ = ('Guest', 'MissingTools', 'Report', 'ensure', 'reports')
