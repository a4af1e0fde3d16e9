# SPDX-License-Identifier: Apache-2.0
"""The list of hooks: load it, run it, guard and validate what it makes.

::

    plugins      which hooks are installed and enabled, with their options
    run          one document's way through them
    reports      what each of them did
    guard        what no hook may change unless it declares to
    validation   whether the hooks made a valid document invalid
"""
