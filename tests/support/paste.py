# SPDX-License-Identifier: Apache-2.0
"""Where Nova's functional tests find the API's paste configuration."""

import functools
import importlib.metadata

import fixtures


@functools.cache
def locate() -> str:
    """The path of the file that is installed with Nova.

    Searched only once, because Nova has thousands of files.
    """
    files = importlib.metadata.files('nova') or ()
    return str(next(file for file in files
                    if file.name == 'api-paste.ini').locate())


class InstalledPaste(fixtures.Fixture):
    """Let Nova's tests run with an installed Nova.

    They expect the file in a source tree.
    """

    def _setUp(self) -> None:
        from nova.tests.fixtures import conf
        original = conf.ConfFixture.setUp

        def set_up(fixture: conf.ConfFixture) -> None:
            original(fixture)
            fixture.conf.set_default('api_paste_config', locate(),
                                     group='wsgi')

        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.conf.ConfFixture.setUp', set_up))
