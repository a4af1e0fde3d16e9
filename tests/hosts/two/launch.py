# SPDX-License-Identifier: Apache-2.0
"""The processes on the hosts, by name; each imports only what it needs.

There is no Keystone: the launcher of a web application adds the headers of
Keystone's middleware, so that all policies apply.
"""

import collections.abc
import importlib
import json
import pathlib
import sys
import threading
import typing

App = collections.abc.Callable[..., typing.Any]

_HEADERS = {
    'HTTP_X_IDENTITY_STATUS': 'Confirmed',
    'HTTP_X_USER_ID': 'a' * 32,
    'HTTP_X_USER_NAME': 'admin',
    'HTTP_X_USER_DOMAIN_ID': 'default',
    'HTTP_X_PROJECT_ID': 'b' * 32,
    'HTTP_X_PROJECT_NAME': 'admin',
    'HTTP_X_PROJECT_DOMAIN_ID': 'default',
    'HTTP_X_ROLES': 'admin,manager,member,reader,service',
    'HTTP_X_SERVICE_CATALOG': '[]',
    # Placement's noauth2 takes a user's name as token.
    'HTTP_X_AUTH_TOKEN': 'admin',
}


def _nova() -> App:
    from nova.wsgi import osapi_compute
    return osapi_compute.application


def _placement() -> App:
    from placement.wsgi import api
    return api.application


def _glance() -> App:
    from glance.common import wsgi_app
    return wsgi_app.init_app()


def _neutron() -> App:
    """The part of Neutron that Nova needs for guests without a network."""

    def answer(environ: dict[str, typing.Any],
               start_response: App) -> list[bytes]:
        name = environ['PATH_INFO'].rstrip('/').rpartition('/')[2]
        body: object = {name: []} if name else {
            'versions': [{'id': 'v2.0', 'status': 'CURRENT', 'links': []}]}
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps(body).encode()]

    return answer


_APPS = {'nova': _nova, 'placement': _placement, 'glance': _glance,
         'neutron': _neutron}


def web(name: str, port: str, path: str) -> None:
    """A web application, for its host's network and for a socket file."""
    import waitress
    # The applications would read the arguments as their options.
    sys.argv = [name]
    app = _APPS[name]()

    def identified(environ: dict[str, typing.Any],
                   start_response: App) -> typing.Any:
        return app(environ | _HEADERS, start_response)

    threading.Thread(target=waitress.serve, args=(identified,), daemon=True,
                     kwargs={'listen': f'*:{port}'}).start()
    waitress.serve(identified, unix_socket=path)


def libvirt(folder: str) -> None:
    """Start libvirt's daemons, which keep running."""
    from tests.hosts.one import host
    host.start(pathlib.Path(folder))


def compute(*arguments: str) -> None:
    from nova.cmd import compute as command
    from nova.virt import libvirt as drivers

    from tests.hosts.one import stock
    from tests.hosts.two import steps

    steps.watch()
    # Nova imports its driver by a name below nova.virt.
    drivers.StockDriver = stock.StockDriver
    _call(command.main, 'nova-compute', *arguments)


def command(module: str, *arguments: str) -> None:
    """The console script of a module of Nova's or Glance's."""
    _call(importlib.import_module(module).main, module, *arguments)


def _call(main: App, *arguments: str) -> None:
    sys.argv = list(arguments)
    sys.exit(main())


if __name__ == '__main__':
    {'web': web, 'libvirt': libvirt, 'compute': compute,
     'command': command}[sys.argv[1]](*sys.argv[2:])
