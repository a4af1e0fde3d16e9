# SPDX-License-Identifier: Apache-2.0
"""What every hook promises, as tests for each hook's test class.

::

    class MineContractTest(contract.HookContract, base.TestCase):

        def make_hook(self):
            return mine.Mine(options)

The domain XML is that of the golden cases, which Nova generated.
"""

import contextlib
import dataclasses
import inspect
import sys
import threading
from collections.abc import Iterator

from lxml import etree

from nova_arm_ext import errors
from nova_arm_ext import facts
from nova_arm_ext.domain import view
from nova_arm_ext.hooks import base as hooks
from nova_arm_ext.pipeline.run import Pipeline
from tests.data import golden

_FOREIGN = 'https://example.org/not-known-to-anybody'
#: the elements that get comments and foreign elements
_HOMES = ('.', 'metadata', 'os', 'features', 'cpu', 'devices')


class HookContract:
    """A mixin for a testtools.TestCase with a FakeLogger in ``self.log``."""

    def make_hook(self) -> hooks.Hook:
        """A fresh hook with its default options."""
        raise NotImplementedError

    def documents(self) -> Iterator[tuple[str, facts.Facts]]:
        """Domain XML of Arm guests, with and without facts."""
        for case in golden.cases():
            xml = golden.before(case)
            if view.Domain.parse(xml).is_arm:
                yield xml, golden.known(case)
                yield xml, facts.Facts()

    def adjusted(self, xml: str, known: facts.Facts, method: str = 'adjust'
                 ) -> tuple[str, list[tuple[str, str]]] | None:
        """The domain XML after the hook, and its reasons; None if it refuses.

        :param method: ``adjust``, or ``keep``, which must not refuse
        """
        hook = self.make_hook()
        domain = view.Domain.parse(xml, known.guest.previous)
        report = hooks.Report()
        try:
            if hook.applies_to(domain, known):
                getattr(hook, method)(domain, known, report)
        except errors.Refused:
            return None
        return domain.to_xml(), report.reasons

    def test_contract_it_works_with_and_without_facts(self) -> None:
        made = [self.adjusted(xml, known)
                for xml, known in self.documents()]

        self.assertNotEqual([], [one for one in made if one is not None])

    def test_contract_a_second_run_changes_nothing(self) -> None:
        for xml, known in self.documents():
            once = self.adjusted(xml, known)
            if once is not None:
                self.assertEqual((once[0], []), self.adjusted(once[0], known))

    def test_contract_an_existing_guest_keeps_what_the_hook_gave(self) -> None:
        hook = self.make_hook()
        if 'Refused' not in inspect.getsource(
                sys.modules[type(hook).__module__]):
            self.assertIs(hooks.Hook.keep, type(hook).keep)
            return
        for xml, known in self.documents():
            made = self.adjusted(xml, known)
            if made is None:
                continue
            again = facts.Facts(host=known.host, guest=dataclasses.replace(
                known.guest, previous=made[0]))
            adjusted = self.adjusted(xml, again)
            if adjusted is not None:
                self.assertEqual(adjusted[0],
                                 self.adjusted(xml, again, 'keep')[0])

    def test_contract_the_same_goes_in_the_same_comes_out(self) -> None:
        for xml, known in self.documents():
            before = known.to_json()

            first = self.adjusted(xml, known)

            self.assertEqual(first, self.adjusted(xml, known))
            self.assertEqual(before, known.to_json())

    def test_contract_whatever_it_changes_it_says_why(self) -> None:
        for xml, known in self.documents():
            made = self.adjusted(xml, known)
            if made is not None:
                changed = made[0] != view.Domain.parse(xml).to_xml()
                self.assertEqual(changed, bool(made[1]), made[1])
                for place, reason in made[1]:
                    self.assertTrue(place.strip() and reason.strip())

    def test_contract_it_changes_what_it_declares(self) -> None:
        alone = Pipeline([('alone', self.make_hook())])
        for xml, known in self.documents():
            made = self.adjusted(xml, known)
            if made is not None:
                view.Domain.parse(made[0])
                # raises when the hook changes what it does not declare
                self.assertIsNone(
                    alone.run(xml, known).reports[-1].failure)

    def test_contract_comments_and_foreign_elements_survive(self) -> None:
        for xml, known in self.documents():
            document = etree.fromstring(xml)
            for path in _HOMES:
                home = document.find(path)
                if home is not None:
                    home.insert(0, etree.Comment('kept'))
                    home.append(etree.Comment('kept'))
                    home.append(etree.Element(f'{{{_FOREIGN}}}kept'))

            made = self.adjusted(
                etree.tostring(document, encoding='unicode'), known)

            if made is not None:
                self.assertEqual(_strangers(document),
                                 _strangers(etree.fromstring(made[0])))

    def test_contract_it_does_not_log(self) -> None:
        for xml, known in self.documents():
            self.adjusted(xml, known)

        self.assertEqual('', self.log.output)  # type: ignore[attr-defined]

    def test_contract_it_touches_nothing_but_the_document(self) -> None:
        documents = list(self.documents())
        self.adjusted(*documents[0])     # late imports happen here

        with _watched() as seen:
            for xml, known in documents:
                self.adjusted(xml, known)

        self.assertEqual([], seen)

    def test_contract_it_has_a_place_in_the_list(self) -> None:
        hook = self.make_hook()

        self.assertIsInstance(hook.order, hooks.Order)
        self.assertIsInstance(hook.after, tuple)
        self.assertIn(bool(hook.required), (True, False))
        self.assertTrue((type(hook).__doc__ or '').strip())


def _strangers(document: etree._Element) -> list[str]:
    return sorted(
        [f'{node.getparent().tag}: comment'
         for node in document.iter(etree.Comment)]
        + [f'{node.getparent().tag}: element'
           for node in document.iter(f'{{{_FOREIGN}}}*')])


#: events of sys.audit that a hook must not cause
_OUTSIDE = ('open', 'os.', 'socket.', 'subprocess.', 'shutil.', 'tempfile.',
            'ctypes.', 'fcntl.')
_watching: dict[int, list[str]] = {}


def _audit(event: str, arguments: object) -> None:
    seen = _watching.get(threading.get_ident())
    if seen is not None and event.startswith(_OUTSIDE):
        seen.append(f'{event} {arguments!r}')


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """The system calls of this thread in the block."""
    # an audit hook cannot be removed, so there is only one
    if not _audit.__dict__.setdefault('installed', False):
        sys.addaudithook(_audit)
        _audit.__dict__['installed'] = True
    seen = _watching[threading.get_ident()] = []
    try:
        yield seen
    finally:
        del _watching[threading.get_ident()]
