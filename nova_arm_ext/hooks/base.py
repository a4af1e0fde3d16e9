# SPDX-License-Identifier: Apache-2.0
"""The base class of hooks, their report, and what flavor and image ask."""

import abc
import dataclasses
import enum
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from nova_arm_ext import errors
from nova_arm_ext.domain.view import Domain
from nova_arm_ext.facts import Facts


class Order(enum.IntEnum):
    """Where in the list of hooks a hook has to stand."""

    FIRST = 0
    MIDDLE = 1
    LAST = 2
    END = 3


FIRST = Order.FIRST
MIDDLE = Order.MIDDLE
LAST = Order.LAST
#: after all others, wherever it is listed: for a hook that counts what the
#: others made
END = Order.END


class Report:
    """Collects why a hook does what it does."""

    def __init__(self) -> None:
        self.reasons: list[tuple[str, str]] = []
        self.essential: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Report what someone should act on; nova-compute logs a WARNING.

        :param text: a sentence for the operator
        """
        self.warnings.append(text)

    def because(self, place: str, reason: str, *,
                essential: bool = False) -> None:
        """Report one adjustment.

        :param place: where in the document, such as ``os/loader``
        :param reason: a sentence for the operator
        :param essential: without it libvirt or QEMU refuses the guest
        """
        self.reasons.append((place, reason))
        if essential:
            self.essential.append((place, reason))


def extra_specs(domain: Domain, facts: Facts) -> Mapping[str, str]:
    """The flavor's extra specs, for a hook that reads ``arm:*``.

    :returns: those of the facts; if the facts do not have them, as in a
        preview without facts, those in the document's metadata, where Nova 32
        and newer write them
    """
    if facts.guest.extra_specs is not None:
        return facts.guest.extra_specs
    return domain.extra_specs or {}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a flavor or an image asks for.

    :param place: where it does: ``the extra spec arm:sve of the flavor``
    """

    value: str
    place: str
    by_image: bool = False


def asked(domain: Domain, facts: Facts, extra_spec: str,
          values: Collection[str] | None = None, *,
          images_may: Collection[str] | None = None,
          option: str = '') -> Wish | None:
    """What is asked for by the flavor or, where it says nothing, the image.

    :param extra_spec: such as ``arm:sve``; the property of images is then
        ``arm_sve``
    :param values: those that are known; None leaves the check to the caller
    :param images_may: the values that images may ask for; None for all
    :param option: which limits the images, such as
        ``[arm_virtio_mmio] allow_image``
    :returns: None if neither says anything, so that the option decides
    :raises Refused: for an unknown value, or one that images may not ask for
    """
    of_flavor = extra_specs(domain, facts)
    of_image = facts.guest.image_properties or {}
    image_property = extra_spec.replace(':', '_')
    if extra_spec in of_flavor:
        wish = Wish(value=of_flavor[extra_spec],
                    place=f'the extra spec {extra_spec} of the flavor')
    elif image_property in of_image:
        wish = Wish(value=of_image[image_property], by_image=True,
                    place=f'the property {image_property} of the image')
    else:
        return None
    if values is not None and wish.value not in values:
        raise errors.Refused(
            f'{wish.place} is {wish.value[:60]!r}, not one of '
            f'{", ".join(values)}')
    if (wish.by_image and images_may is not None
            and wish.value not in images_may):
        raise errors.Refused(
            f'{wish.place} is {wish.value[:60]!r}, but images may not ask for '
            f'it here ({option}); remove the property, or use a flavor with '
            f'{extra_spec}')
    return wish


class Hook(abc.ABC):
    """One adjustment of an Arm guest's domain document.

    A hook decides from the document, the facts and its own options, and
    changes only the document: no files, no libvirt, no clock, no log. A
    second run changes nothing. What it does not know it leaves as it was. An
    unknown fact (None) never makes it fail.

    It is found by an entry point in the namespace ``nova_arm_ext.hooks``. The
    name of the entry point is the name of the hook, and its options are in
    the group ``[arm_<name>]`` of nova.conf.
    """

    #: the place in the list of hooks: checked, and only END is sorted
    order: ClassVar[Order] = MIDDLE
    #: names of hooks that must be listed before this one if they are enabled
    after: ClassVar[tuple[str, ...]] = ()
    #: its failure always fails the guest's request, whatever
    #: ``[arm] on_hook_failure`` says
    required: ClassVar[bool] = False
    #: options, registered in the hook's group
    opts: ClassVar[Sequence[cfg.Opt]] = ()
    #: the elements that it may change of those that are checked after the
    #: hooks: uuid, name, memory, vcpu, disk, interface, serial, graphics
    changes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, options: Any) -> None:
        """
        :param options: the values of ``opts``, as attributes
        """
        self.options = options

    def applies_to(self, domain: Domain, facts: Facts) -> bool:
        """Whether the hook is for documents like this one."""
        return True

    @abc.abstractmethod
    def adjust(self, domain: Domain, facts: Facts, report: Report) -> None:
        """Change the document in place and report why.

        :raises Refused: when the guest cannot have what it asks for
        """

    def keep(self, domain: Domain, facts: Facts,  # noqa: B027
             report: Report) -> None:
        """Give an existing guest what it had, where `adjust` refused.

        The pipeline calls it instead of ``adjust``, with the document as the
        hook found it, when ``adjust`` refused and the guest exists: Nova
        writes the document of a guest anew each time, so what the hook once
        gave the guest would be gone. ``domain.previous_of_same_arch`` has it.
        A hook that can refuse an existing guest overrides this. Without a
        previous document there is nothing to keep.
        """
