# SPDX-License-Identifier: Apache-2.0
"""`nova-arm-ext preview`: domain XML, facts, formats, exit status."""

import json
import os
import pty
import socket
import subprocess
import time

import fixtures

from tests.unit.cmd import base

BOMB = ('<!DOCTYPE domain [<!ENTITY a "aaaaaaaaaa">' + ''.join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">'
    for a, b in zip('abcdefgh', 'bcdefghi', strict=True))
    + ']><domain>&i;</domain>')
EXTERNAL = ('<!DOCTYPE domain [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
            '<domain><name>&a;</name></domain>')


#: Seconds; what takes so long hangs. How quick it is no test decides.
ENDLESS = 60


class FormatsTest(base.CommandTestCase):

    def test_diff_shows_what_each_hook_changes_and_why(self):
        ran = self.preview()

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        lines = ran.stdout.splitlines()
        self.assertIn('# libvirt_compat: changes the XML', lines)
        self.assertTrue([line for line in lines if line.startswith(
            '#   features/ioapic: ')], lines)
        self.assertIn('--- before libvirt_compat', lines)
        self.assertIn('-    <ioapic driver="kvm"/>', lines)
        self.assertIn('# uefi: changes nothing', lines)

    def test_xml_is_the_document_alone(self):
        ran = self.preview('--format', 'xml')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertEqual(base.UNCHANGED, ran.stdout)

    def test_json_holds_everything(self):
        ran = self.preview('--format', 'json', '--timings')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertTrue(ran.json['changed'])
        self.assertEqual(base.UNCHANGED.strip(), ran.json['xml'].strip())
        compat, uefi, *_, ports = ran.json['hooks']
        self.assertEqual(('libvirt_compat', True, None),
                         (compat['name'], compat['changed'],
                          compat['failure']))
        self.assertEqual('features/ioapic', compat['reasons'][0]['place'])
        self.assertIn('libvirt', compat['reasons'][0]['reason'])
        self.assertIn('-    <ioapic driver="kvm"/>\n', compat['diff'])
        self.assertGreater(compat['milliseconds'], 0)
        self.assertEqual(('uefi', False, '', []),
                         (uefi['name'], uefi['changed'], uefi['diff'],
                          uefi['reasons']))
        self.assertIn('8 root ports, 7 of them free',
                      ports['reasons'][0]['reason'])

    def test_two_runs_have_the_same_bytes(self):
        for form in ('diff', 'xml', 'json', 'yaml'):
            self.assertEqual(self.preview('-f', form).out,
                             self.preview('-f', form).out)

    def test_output_is_stable_when_put_in_again(self):
        once = self.preview('--format', 'xml').out

        again = self.run_command(
            'preview', '--facts', self.facts, '--format', 'xml',
            '--exit-code', stdin=once)

        self.assertEqual((0, once), (again.status, again.out))


class ExitCodeTest(base.CommandTestCase):

    def test_changed_is_one_if_asked_for(self):
        for form in ('diff', 'xml', 'json'):
            self.assertEqual(
                1, self.preview('--exit-code', '--format', form).status)
            self.assertEqual(0, self.preview('--format', form).status)

    def test_unchanged_is_zero(self):
        self.document = self.file('same.xml', base.UNCHANGED)

        ran = self.preview('--exit-code')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertNotIn('\n@@', ran.stdout)


class DocumentTest(base.CommandTestCase):

    def test_standard_input_is_read_where_no_file_is_named(self):
        expected = self.preview()

        for arguments in ((), ('-',)):
            self.assertEqual(expected.stdout, self.run_command(
                'preview', '--facts', self.facts, *arguments,
                stdin=base.DOCUMENT.encode()).stdout)

    def test_other_architectures_come_back_as_the_same_bytes(self):
        for document in (base.X86.encode(),
                         b"<?xml version='1.0' encoding='ISO-8859-1'?>\n"
                         + base.X86.replace('m1.arm', 'm\xfc').encode(
                             'latin-1'),
                         base.X86.encode('utf-16')):
            self.document = self.file('x86.xml', document)

            ran = self.preview('--format', 'xml', '--exit-code')

            self.assertEqual((0, document, ''),
                             (ran.status, ran.out, ran.stderr))

    def test_other_architectures_are_told_so(self):
        self.document = self.file('x86.xml', base.X86)

        ran = self.preview()

        self.assertEqual(0, ran.status)
        self.assertIn('x86_64\n# not an Arm guest', ran.stdout)

    def test_other_machines_are_told_so(self):
        for machine, said in (
                ('machine="sbsa-ref"', '# the machine is sbsa-ref: most'),
                ('', '# no machine is named: most')):
            self.document = self.file('other.xml', (
                f'<domain type="qemu"><os><type arch="aarch64" {machine}>hvm'
                f'</type></os><cpu mode="maximum"/></domain>'))

            ran = self.preview()

            self.assertEqual(0, ran.status)
            self.assertIn(f'\n{said} hooks work only on the machine virt\n',
                          ran.stdout)

    def test_encodings_are_the_parsers_business(self):
        text = base.DOCUMENT.replace('m1.arm', 'm\xfc.arm')
        for document in (
                text.encode('utf-8-sig'), text.encode('utf-16'),
                b"<?xml version='1.0' encoding='ISO-8859-1'?>\n"
                + text.encode('latin-1')):
            self.document = self.file('encoded.xml', document)

            ran = self.preview('--format', 'xml')

            self.assertEqual((0, ''), (ran.status, ran.stderr))
            self.assertEqual(base.UNCHANGED.replace('m1.arm', 'm\xfc.arm'),
                             ran.stdout.lstrip('\ufeff'))

    def test_what_is_no_domain_is_one_line(self):
        for content, part in (
                ('', 'is not XML'), ('<domain>', 'is not XML'),
                (b'\xff\xfe\x00\x01', 'is not XML'), (b'\0', 'is not XML'),
                ('<network/>', '<network>'),
                # whether the parser or we notice it first depends on libxml2
                (BOMB, 'the domain document'),
                (EXTERNAL, 'document type declaration')):
            self.document = self.file('bad.xml', content)

            self.assert_fails(self.preview(), self.document, part)
            self.assert_fails(
                self.run_command('preview', stdin=content.encode()
                                 if isinstance(content, str) else content),
                'standard input: ', part)

    def test_file_that_cannot_be_read(self):
        self.document = '/nonexistent/domain.xml'
        self.assert_fails(self.preview(), "'/nonexistent/domain.xml'",
                          'No such file')

        self.document = str(self.directory)
        self.assert_fails(self.preview(), repr(str(self.directory)),
                          'Is a directory')

        self.document = 'nul\0byte'
        self.assert_fails(self.preview(), 'null byte')


class FactsTest(base.CommandTestCase):

    def known(self, *arguments):
        """The facts that the hooks got."""
        ran = self.preview('--format', 'json', *arguments)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        return ran.json['facts']

    def test_no_facts_at_all_are_enough(self):
        self.facts = self.file('facts.json', '{}')

        ran = self.preview('--format', 'json')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIsNone(ran.json['facts']['host']['arch'])
        self.assertEqual(f'from {self.facts}', ran.json['facts_origin'])

    def test_extra_specs_are_those_of_the_document(self):
        self.assertEqual({'arm:free_pcie_root_ports': '7'},
                         self.known()['guest']['extra_specs'])

    def test_extra_specs_of_the_facts_win(self):
        self.facts = self.file('facts.json', {
            **base.FACTS, 'guest': {'extra_specs': {'a': 'b'}}})

        self.assertEqual({'a': 'b'}, self.known()['guest']['extra_specs'])

    def test_previous_document_is_heeded(self):
        previous = base.UNCHANGED.replace(
            '<target dev="vda" bus="virtio"/>',
            '<target dev="vda" bus="virtio"/>\n      <address type="pci" '
            'domain="0x0000" bus="0x00" slot="0x09" function="0x0"/>')
        self.facts = self.file('facts.json', {
            **base.FACTS, 'guest': {'previous': previous}})

        ran = self.preview('--format', 'json')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('slot="0x09"', ran.json['xml'])

    def test_previous_document_that_is_broken(self):
        self.facts = self.file('facts.json', {
            **base.FACTS, 'guest': {'previous': '<domain'}})

        self.assert_fails(self.preview(), 'previous document', 'not XML')

    def test_wrong_facts_are_one_line(self):
        for content, *parts in (
                ('', 'not JSON'), ('{', 'not JSON'), (b'\xff', 'not JSON'),
                ('[]', 'facts is []', 'not an object'),
                ('{"format": 7}', 'facts/format is 7'),
                ('{"host": {"arch": 5}}', 'facts/host/arch is 5',
                 'not a string'),
                ('{"host": {"libvirt_version": "nine"}}',
                 'facts/host/libvirt_version is "nine"'),
                ('{"guest": {"extra_specs": {"a": []}}}',
                 'facts/guest/extra_specs/a is []'),
                (b' ' * (50 * 1024 * 1024), 'larger than')):
            self.facts = self.file('bad.json', content)

            self.assert_fails(self.preview(), self.facts, *parts)

    def test_facts_are_wrong_even_where_they_are_not_needed(self):
        self.document = self.file('x86.xml', base.X86)
        self.facts = self.file('bad.json', '{"host": 1}')

        self.assert_fails(self.preview(), 'facts/host is 1')

    def test_facts_and_document_cannot_share_standard_input(self):
        self.assert_fails(self.run_command('preview', '--facts', '-'),
                          'standard input')


class ConfigurationTest(base.CommandTestCase):

    def with_config(self, *contents):
        """Preview with configuration files."""
        arguments = []
        for number, content in enumerate(contents):
            arguments += ['--config-file',
                          self.file(f'{number}.conf', content)]
        return self.preview(*arguments)

    def test_options_of_hooks_are_heeded(self):
        ran = self.with_config(
            '[arm_libvirt_compat]\ndisabled_rules = ioapic\n')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertNotIn('-    <ioapic', ran.stdout)

    def test_last_file_wins_and_strange_groups_are_passed_over(self):
        ran = self.with_config('[arm]\nhooks = nosuch\n',
                               '[libvirt]\nvirt_type = kvm\n[arm]\nhooks =\n')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertNotIn('libvirt_compat', ran.stdout)

    def test_unknown_hook(self):
        self.assert_fails(self.with_config('[arm]\nhooks = nosuch\n'),
                          '[arm] hooks', "'nosuch'", 'not installed')

    def test_option_out_of_range(self):
        for option, value in (('hook_warn_ms', '-3'),
                              ('check_schema', 'perhaps'),
                              ('on_hook_failure', 'panic')):
            self.assert_fails(
                self.with_config(f'[arm]\n{option} = {value}\n'),
                f'[arm] {option}')

    def test_file_that_is_no_configuration(self):
        for content, part in ((b'\xff\xfe', 'UTF-8'), ('garbage\n', '0.conf'),
                              (b'\n' * 5000000, 'more than')):
            self.assert_fails(self.with_config(content), part)

    def test_file_that_cannot_be_read(self):
        for file, part in (('/nonexistent/nova.conf', 'No such file'),
                           (str(self.directory), 'Is a directory')):
            self.assert_fails(self.preview('--config-file', file),
                              repr(file), part)

    def test_what_nova_compute_would_log_is_told(self):
        schema = self.file('broken.rng', '<grammar')

        ran = self.with_config(f'[arm]\nschema = {schema}\n')

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn(
            f'# nova-compute would log: WARNING The libvirt schema {schema}',
            ran.stdout)


class LibvirtTest(base.CommandTestCase):
    """Without --facts the local libvirt is used."""

    def hanging(self):
        """A libvirt that accepts a call and never answers."""
        path = str(self.directory / 'socket')
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()
        server.setblocking(False)
        self.useFixture(fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', f'qemu+unix:///system?socket={path}'))
        return server

    def test_its_answer_is_used(self):
        self.useFixture(fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', 'test:///default'))

        ran = self.run_command('preview', '--format', 'json', self.document)

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertEqual('from libvirt at test:///default',
                         ran.json['facts_origin'])
        self.assertEqual('i686', ran.json['facts']['host']['arch'])

    def test_its_answer_arrives_where_standard_input_is_closed(self):
        done = subprocess.run(
            ['/bin/sh', '-c', 'exec "$@" <&-', 'sh',
             *self.command('preview', '--format', 'json', self.document)],
            capture_output=True,
            env=self.environment(LIBVIRT_DEFAULT_URI='test:///default'))

        self.assertEqual((0, b''), (done.returncode, done.stderr))
        self.assertEqual('from libvirt at test:///default',
                         json.loads(done.stdout)['facts_origin'])

    def test_none_is_no_error_and_is_told(self):
        ran = self.run_command('preview', self.document)

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('# host facts: unknown, because libvirt at qemu',
                      ran.stdout)

    def test_one_that_hangs_is_not_waited_for(self):
        self.hanging()
        self.useFixture(fixtures.MonkeyPatch(
            'nova_arm_ext.cmd.commands.preview.PATIENCE', 0.5))
        started = time.monotonic()

        ran = self.run_command('preview', '--format', 'json', self.document)

        self.assertLess(time.monotonic() - started, ENDLESS)
        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('does not answer within 0.5 s',
                      ran.json['facts_origin'])
        self.assertIsNone(ran.json['facts']['host']['arch'])

    def test_whole_command_ends_soon_after_the_deadline(self):
        self.hanging()
        started = time.monotonic()

        ran = self.run_process('preview', self.document)

        self.assertEqual((0, ''), (ran.status, ran.stderr))
        self.assertIn('does not answer within 3 s', ran.stdout)
        self.assertLess(time.monotonic() - started, ENDLESS)

    def test_nobody_is_asked_when_facts_are_given(self):
        server = self.hanging()

        ran = self.preview()

        self.assertEqual(0, ran.status)
        self.assertRaises(BlockingIOError, server.accept)

    def test_nobody_is_asked_about_other_architectures(self):
        server = self.hanging()

        ran = self.run_command('preview', stdin=base.X86.encode())

        self.assertEqual(0, ran.status)
        self.assertRaises(BlockingIOError, server.accept)


class ColourTest(base.CommandTestCase):

    def on_terminal(self, **environment):
        """The output of a preview on a terminal."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = subprocess.Popen(
            self.command('preview', '--facts', self.facts, self.document),
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
            env=self.environment(**environment))
        os.close(theirs)
        written = b''
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:
            pass     # Linux: the other end is closed
        _, err = process.communicate(timeout=30)
        self.assertEqual((0, b''), (process.returncode, err))
        return written.decode()

    def test_terminal_has_colours(self):
        written = self.on_terminal(TERM='xterm')

        self.assertIn('\033[31m-    <ioapic driver="kvm"/>\033[0m', written)

    def test_no_color_is_respected(self):
        self.assertNotIn('\033', self.on_terminal(TERM='xterm', NO_COLOR='1'))

    def test_dumb_terminal_has_none(self):
        self.assertNotIn('\033', self.on_terminal(TERM='dumb'))

    def test_file_has_none(self):
        self.assertNotIn('\033', self.preview().stdout)

    def test_document_cannot_steer_the_terminal(self):
        self.document = self.file('evil.xml', base.DOCUMENT.replace(
            '<ioapic driver="kvm"/>', '<ioapic driver="\x9b31m"/>'))

        written = self.on_terminal(TERM='xterm')

        self.assertNotIn('\x9b', written)
        self.assertIn('driver="\\x9b31m"', written)


class SameAsFactsTest(base.CommandTestCase):

    def test_facts_read_what_json_shows(self):
        shown = self.preview('--format', 'json').json
        self.facts = self.file('again.json', json.dumps(shown['facts']))

        again = self.preview('--format', 'json').json

        self.assertEqual(shown['facts'], again['facts'])
        self.assertEqual(shown['xml'], again['xml'])
