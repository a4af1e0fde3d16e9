# SPDX-License-Identifier: Apache-2.0
"""The configuration files of everything that runs on the hosts."""

import pathlib
import sys

CTL = '10.77.0.1'
HOSTS = {'host1': '10.77.0.11', 'host2': '10.77.0.12'}

#: The services; each name is also that of a socket.
PORTS = {'nova': 8774, 'placement': 8778, 'glance': 9292, 'neutron': 9696}

#: Nova's folder on each host: one that each Debian has and does not use.
STATE = '/srv/nova'
INSTANCES = f'{STATE}/instances'
#: A folder that both hosts always share.
COPIES = '/srv/copies'

Values = dict[str, dict[str, object]]


def text(values: Values) -> str:
    return '\n'.join(
        f'[{group}]\n' + ''.join(
            f'{name} = {value}\n' for name, value in options.items())
        for group, options in values.items())


def database(name: str) -> str:
    return f'mysql+pymysql://nova:nova@{CTL}/{name}?charset=utf8'


DATABASES = ('nova_api', 'nova_cell0', 'nova', 'placement', 'glance')
#: MariaDB runs it line by line when it starts.
DATABASE_SQL = '\n'.join((
    *(f'CREATE DATABASE {name} CHARACTER SET utf8;' for name in DATABASES),
    "CREATE USER 'nova'@'%' IDENTIFIED BY 'nova';",
    "GRANT ALL ON *.* TO 'nova'@'%';", ''))

RABBIT = 'loopback_users = none\n'


def _url(service: str) -> str:
    return f'http://{CTL}:{PORTS[service]}'


def _nova() -> Values:
    return {
        'DEFAULT': {
            'transport_url': f'rabbit://guest:guest@{CTL}:5672/',
            'use_stderr': True,
            # The tests tell Nova when a host has lost its power.
            'report_interval': 4,
            'service_down_time': 60,
        },
        'placement': {'auth_type': 'none',
                      'endpoint_override': _url('placement')},
        'neutron': {'auth_type': 'none',
                    'endpoint_override': _url('neutron')},
        'glance': {'api_servers': _url('glance')},
    }


def control(folder: pathlib.Path) -> str:
    """nova.conf of the API, the conductor and the scheduler."""
    values = _nova()
    values['DEFAULT']['state_path'] = folder
    return text(values | {
        'database': {'connection': database('nova')},
        'api_database': {'connection': database('nova_api')},
        'wsgi': {'api_paste_config': folder / 'api-paste.ini'},
        'conductor': {'workers': 1},
        'scheduler': {'workers': 1,
                      'discover_hosts_in_cells_interval': 4},
        'oslo_concurrency': {'lock_path': folder / 'locks'},
    })


def compute(host: str, conf: pathlib.Path, driver: str,
            options: Values) -> str:
    """nova.conf of a compute host, without a database.

    :param options: of the driver, in addition
    """
    privsep = f'{sys.executable} -m oslo_privsep.daemon --config-file {conf}'
    values = _nova()
    values['DEFAULT'] |= {
        'compute_driver': driver,
        'host': host,
        'my_ip': HOSTS[host],
        'state_path': STATE,
        'instances_path': INSTANCES,
        'force_raw_images': False,
        # Only for a guest that hangs; others stop at once.
        'shutdown_timeout': 10,
        'allow_resize_to_same_host': False,
        'shelved_offload_time': 0,
    }
    values |= {
        'libvirt': {
            'virt_type': 'qemu',
            'images_type': 'qcow2',
            'live_migration_scheme': 'ssh',
            'live_migration_inbound_addr': HOSTS[host],
        },
        'vnc': {'server_listen': '0.0.0.0'},
        'nova_sys_admin': {'helper_command': privsep},
        'privsep_osbrick': {'helper_command': privsep},
        'oslo_concurrency': {'lock_path': f'{STATE}/locks'},
        'os_brick': {'lock_path': f'{STATE}/locks'},
    }
    for group, own in options.items():
        values[group] = values.get(group, {}) | own
    return text(values)


PLACEMENT = text({
    'DEFAULT': {'use_stderr': True},
    'api': {'auth_strategy': 'noauth2'},
    'placement_database': {'connection': database('placement'),
                           'sync_on_startup': True},
})


def glance(folder: pathlib.Path) -> str:
    def store(name: str) -> dict[str, object]:
        return {'filesystem_store_datadir': folder / name}

    return text({
        'DEFAULT': {'enabled_backends': 'fs:file', 'use_stderr': True,
                    'worker_self_reference_url': _url('glance')},
        'database': {'connection': database('glance')},
        'glance_store': {'default_backend': 'fs'},
        'fs': store('images'),
        'os_glance_staging_store': store('staging'),
        'os_glance_tasks_store': store('tasks'),
        'paste_deploy': {'flavor': 'keystone',
                         'config_file': folder / 'glance-api-paste.ini'},
        'oslo_concurrency': {'lock_path': folder / 'locks'},
    })


def without_authtoken(paste: pathlib.Path) -> str:
    """A paste configuration that trusts the headers of a request."""
    return paste.read_text().replace(' authtoken ', ' ')


SSHD = """\
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/key.pub
PermitRootLogin yes
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
"""

SSH = """\
Host *
IdentityFile /etc/ssh/key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""

HOSTS_FILE = '127.0.0.1 localhost\n' + ''.join(
    f'{address} {name}\n' for name, address in {'ctl': CTL, **HOSTS}.items())
