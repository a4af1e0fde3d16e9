# SPDX-License-Identifier: Apache-2.0
"""Loads metadata definitions into Glance; runs where Glance is installed.

    python metadefs_in_glance.py FOLDER NAMESPACES

The first folder is for Glance's SQLite database. The second one has a JSON
file per namespace. They are loaded like ``glance-manage db_load_metadefs``,
deleted, and posted like ``glance md-namespace-import``. The API's answer for
each namespace is printed both times.
"""

import json
import os
import pathlib
import subprocess
import sys
import typing
import urllib.parse

CONF = '''\
[DEFAULT]
enabled_backends = fs:file
worker_self_reference_url = http://127.0.0.1
use_stderr = True
[database]
connection = sqlite:///{folder}/glance.sqlite
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = {folder}/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[paste_deploy]
flavor = keystone
config_file = {folder}/glance-api-paste.ini
'''

#: The headers of Keystone's middleware, which is not used.
HEADERS = {
    'X-Identity-Status': 'Confirmed', 'X-User-Id': 'admin',
    'X-Project-Id': 'admin', 'X-Roles': 'admin,member,reader'}


def manage(conf: pathlib.Path, *arguments: str) -> None:
    subprocess.run(
        [pathlib.Path(sys.prefix, 'bin/glance-manage'), '--config-file', conf,
         *arguments], check=True, stdout=sys.stderr)


def main(folder: pathlib.Path, namespaces: pathlib.Path) -> None:
    conf = folder / 'glance-api.conf'
    conf.write_text(CONF.format(folder=folder))
    paste = pathlib.Path(sys.prefix, 'etc/glance/glance-api-paste.ini')
    (folder / paste.name).write_text(
        paste.read_text().replace(' authtoken ', ' '))
    manage(conf, 'db_sync')
    manage(conf, 'db_load_metadefs', str(namespaces))

    os.environ['OS_GLANCE_CONFIG_DIR'] = str(folder)
    import webob
    from glance.common import wsgi_app
    app = wsgi_app.init_app()

    def ask(method: str, name: str = '', body: bytes = b'') -> typing.Any:
        answer = webob.Request.blank(
            f'/v2/metadefs/namespaces/{urllib.parse.quote(name)}'.rstrip('/'),
            method=method, headers=HEADERS, body=body,
            content_type='application/json').get_response(app)
        if answer.status_code >= 300:
            raise RuntimeError(f'{method} {name}: {answer.status}\n'
                               f'{answer.text}')
        return answer.json if answer.body else None

    files = {path.name: path.read_bytes()
             for path in namespaces.glob('*.json')}
    names = {file: json.loads(text)['namespace']
             for file, text in files.items()}
    said = {'loaded': {file: ask('GET', name)
                       for file, name in names.items()}}
    for file, text in files.items():
        ask('DELETE', names[file])
        ask('POST', body=text)
    said['posted'] = {file: ask('GET', name) for file, name in names.items()}
    print(json.dumps(said))


if __name__ == '__main__':
    main(*map(pathlib.Path, sys.argv[1:]))
