# SPDX-License-Identifier: Apache-2.0
"""The probe guest: a small Arm system that reports its hardware."""

from tests.guest.build import cache_folder
from tests.guest.build import cached
from tests.guest.build import ensure
from tests.guest.build import Guest
from tests.guest.build import INGREDIENTS
from tests.guest.build import MissingTools
from tests.guest.report import Report
from tests.guest.report import reports
from tests.guest.report import uptimes

__all__ = ('INGREDIENTS', 'Guest', 'MissingTools', 'Report', 'cache_folder',
           'cached', 'ensure', 'reports', 'uptimes')
