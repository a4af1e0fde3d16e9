# SPDX-License-Identifier: Apache-2.0
"""What several suites use and no test is in."""
