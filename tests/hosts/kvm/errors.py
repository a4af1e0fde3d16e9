# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with an Arm host, each in one sentence."""


class HostError(Exception):
    """An Arm host cannot be made, started or used; the text says why."""


class CommandFailed(HostError):
    """A command on an Arm host ended with another status than 0."""


class Unsuitable(HostError):
    """This machine cannot run an Arm host, as it is."""
