# SPDX-License-Identifier: Apache-2.0
"""What the doctor looks at, with a fault planted for each thing it finds."""
