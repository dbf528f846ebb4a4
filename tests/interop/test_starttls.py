"""STARTTLS by ssa.upgrade, as client and as server, and what was slipped in behind the agreement on it."""

import contextlib
import io
import re
import smtplib
import socket
import ssl
import subprocess
import threading
import time

import pytest

import ssa
from tests import mailservers, peers
from tests.examples import examples

EXAMPLES = examples("libraries.md")


def client_class(name):
    """A class of docs/libraries.md."""
    source = EXAMPLES[name].partition("\n\nwith ")[0]
    namespace = {}
    exec(source, namespace)
    return namespace[{"smtplib": "SMTP", "ftplib": "FTP", "imaplib": "IMAP4"}[name]]


# --- as client ------------------------------------------------------------------------------------------------------


def test_what_the_kernel_has(ssad, pki):
    with mailservers.dovecot(pki) as ports, client_class("smtplib")("localhost", ports["smtp"], timeout=10) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls")
        smtp.starttls()
        assert not smtp.does_esmtp  # what was said in plain text is forgotten
        number = smtp.sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ID)
        assert ssad.get(f"sockets/{number}/hostname").strip() == "localhost"
        assert ssad.get(f"sockets/{number}/tx").strip() in ("sw", "unknown")
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        assert smtp.sock.gettimeout() == 10


@pytest.mark.parametrize("name", ["smtplib", "imaplib"])
def test_the_certificate_is_for_another_name(ssad, pki, tmp_path, name):
    elsewhere = peers.PKI(tmp_path)
    elsewhere.cert, elsewhere.key = pki.issue("elsewhere", "elsewhere.test")
    with mailservers.dovecot(elsewhere) as ports:
        port = ports["smtp" if name == "smtplib" else "imap"]
        client = client_class(name)("localhost", port, timeout=10)
        with pytest.raises(ssa.CertificateError) as refused:
            client.starttls()
        assert refused.value.reason == "HOSTNAME_MISMATCH"
        assert client.sock.fileno() == -1  # nothing more can be said in plain text
        client.file.close()


def test_many_data_connections(ssad, pki):
    with mailservers.vsftpd(pki) as (port, files), client_class("ftplib")(timeout=20) as ftp:
        (files / "big").write_bytes(bytes(range(256)) * 4096)
        ftp.connect("localhost", port)
        ftp.login()
        for number in range(3):
            came = io.BytesIO()
            ftp.retrbinary("RETR big", came.write)
            assert came.getvalue() == (files / "big").read_bytes()
            ftp.storbinary(f"STOR in/{number}", came)
        assert sorted(ftp.nlst("in")) == ["in/0", "in/1", "in/2"]
        assert ftp.sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_IDENTITY) == b"localhost"


def test_an_answer_injected_behind_the_agreement(ssad, pki):
    def attacked(connection):
        connection.recv(100)
        connection.sendall(b"220 go\r\n250 injected\r\n")
        connection.recv(100)

    with peers.script(attacked) as port, socket.create_connection(("localhost", port), 10) as sock:
        sock.sendall(b"STARTTLS\r\n")
        line = b"220 go\r\n"
        while len(sock.recv(100, socket.MSG_PEEK)) <= len(line):
            time.sleep(0.01)
        assert sock.recv(len(line)) == line  # as one who reads no more than the line
        with pytest.raises(ssa.HandshakeError) as refused:
            ssa.upgrade(sock, server_hostname="localhost")
    assert refused.value.reason == "PLAINTEXT_PENDING"
    assert "250 injected" in refused.value.strerror


def test_an_answer_that_the_library_has_read_ahead_is_thrown_away(ssad, pki):
    """smtplib reads both lines at once: the second never counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)

    def attacked(connection):
        connection.sendall(b"220 ready\r\n")
        connection.recv(100)
        connection.sendall(b"250-server\r\n250 STARTTLS\r\n")
        connection.recv(100)
        connection.sendall(b"220 go\r\n250 injected\r\n")
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(100)
            tls.sendall(b"250 genuine\r\n")

    with peers.script(attacked) as port:
        client = client_class("smtplib")("localhost", port, timeout=10)
        try:
            client.starttls()
        except ssa.HandshakeError as refused:  # where smtplib had not read that far yet
            assert refused.reason == "PLAINTEXT_PENDING"
        else:
            assert client.noop() == (250, b"genuine")
        finally:
            client.close()


# --- as server ------------------------------------------------------------------------------------------------------


class Mailbox:
    """A small SMTP server that speaks TLS when it is asked to, and takes mail after that only."""

    def __init__(self, pki):
        self.pki = pki
        self.mail = b""
        self.failure = None
        self.heard = []
        self.done = threading.Event()

    def __call__(self, connection):
        try:
            connection.settimeout(20)
            connection.sendall(b"220 small ESMTP\r\n")
            while (line := self.line(connection)).upper() != b"STARTTLS":
                connection.sendall(
                    b"250-small\r\n250 STARTTLS\r\n" if line[:4].upper() == b"EHLO" else b"530 TLS first\r\n"
                )
            connection.sendall(b"220 go\r\n")
            with ssa.upgrade(connection, server_side=True, certificate=self.pki.cert, private_key=self.pki.key) as tls:
                self.serve(tls)
        except OSError as exc:
            self.failure = exc
        finally:
            self.done.set()

    def line(self, connection):
        """A line, and not a byte more."""
        line = b""
        while not line.endswith(b"\r\n"):
            if not (byte := connection.recv(1)):
                raise ConnectionResetError("the client has gone")
            line += byte
        self.heard.append(line.strip())
        return line.strip()

    def serve(self, tls):
        while (line := self.line(tls)).upper() != b"QUIT":
            if line[:4].upper() != b"DATA":
                tls.sendall(b"250 ok\r\n")
                continue
            tls.sendall(b"354 go on\r\n")
            while (line := self.line(tls)) != b".":
                self.mail += line + b"\n"
            tls.sendall(b"250 taken\r\n")
        tls.sendall(b"221 bye\r\n")


@contextlib.contextmanager
def mailbox(pki):
    server = Mailbox(pki)
    with peers.script(server) as port:
        yield server, port


def test_openssl_s_client(ssad, pki):
    with mailbox(pki) as (server, port):
        command = ["openssl", "s_client", "-quiet", "-starttls", "smtp", "-connect", f"localhost:{port}"]
        verify = ["-CAfile", pki.ca, "-verify_return_error", "-verify_hostname", "localhost"]
        said = subprocess.run(
            [*command, *verify], input=b"NOOP\r\nQUIT\r\n", capture_output=True, timeout=30, check=False
        )
        assert server.done.wait(10)
    assert server.failure is None
    assert said.stdout.splitlines()[-1] == b"221 bye"
    assert server.heard[-2:] == [b"NOOP", b"QUIT"]


def test_curl_sends_mail(ssad, pki):
    with mailbox(pki) as (server, port):
        command = ["curl", "-sS", "--ssl-reqd", "--cacert", pki.ca, f"smtp://localhost:{port}", "--max-time", "20"]
        mail = ["--mail-from", "me@example.org", "--mail-rcpt", "you@example.org", "-T", "-"]
        curl = subprocess.run([*command, *mail], input=b"hello\r\n", capture_output=True, timeout=30, check=False)
        assert server.done.wait(10)
    assert (curl.returncode, curl.stderr) == (0, b"")
    assert server.failure is None
    assert server.mail == b"hello\n"


def test_smtplib_of_pythons_ssl(ssad, pki):
    with mailbox(pki) as (server, port), smtplib.SMTP("localhost", port, timeout=20) as smtp:
        smtp.starttls(context=ssl.create_default_context(cafile=pki.ca))
        assert smtp.noop() == (250, b"ok")
    assert server.failure is None


@pytest.mark.parametrize("injected", [b"RCPT TO:<attacker@example.org>\r\n", b"\x15\x03\x01\x00\x02\x01\x00", b"\r\n"])
def test_a_command_injected_behind_the_agreement(ssad, pki, injected):
    with mailbox(pki) as (server, port), socket.create_connection(("localhost", port), 10) as client:
        assert client.recv(100).startswith(b"220")
        client.sendall(b"STARTTLS\r\n" + injected)  # one segment
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(100):
                said += data
        assert server.done.wait(10)
    assert said == b"220 go\r\n"  # and no ServerHello
    assert server.failure.reason == "PLAINTEXT_PENDING"
    assert b"RCPT" not in b"".join(server.heard)
    assert ssad.sockets() == []


def test_a_client_hello_in_the_same_segment(ssad, pki):
    """A client that does not wait for the answer is no attacker: what it sends behind is TLS."""
    context = ssl.create_default_context(cafile=pki.ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with mailbox(pki) as (server, port), socket.create_connection(("localhost", port), 10) as client:
        assert client.recv(100).startswith(b"220")
        client.sendall(b"STARTTLS\r\n" + outgoing.read())
        assert client.recv(8) == b"220 go\r\n"
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(client.recv(16384))
        tls.write(b"QUIT\r\n")
        client.sendall(outgoing.read())
        assert server.done.wait(10)
    assert server.failure is None
    assert server.heard == [b"STARTTLS", b"QUIT"]


def test_an_injected_prefix_of_a_client_hello(ssad, pki):
    """One byte that looks like a record's is not believed: the handshake fails, and no command was taken."""
    with mailbox(pki) as (server, port), socket.create_connection(("localhost", port), 10) as client:
        assert client.recv(100).startswith(b"220")
        client.sendall(b"STARTTLS\r\n\x16RCPT TO:<attacker@example.org>\r\n")
        assert server.done.wait(10)
    assert server.failure.whose_fault == "peer"
    assert not [line for line in server.heard if re.match(rb"RCPT", line)]
