"""The examples of docs/libraries.md, run as they stand there against real servers."""

import ast
import socket
import subprocess
import sys
import threading
import xmlrpc.server

import pytest

import ssa
from tests import mailservers, peers
from tests.examples import at, examples

EXAMPLES = examples("libraries.md")
CLIENTS = ("http.client", "urllib.request", "requests", "asyncio", "Programs that know nothing of ssa")


def run(name, port, **options):
    options.setdefault("cwd", "/tmp")
    source = at(EXAMPLES[name], port)
    command = [sys.executable, "-W", "error", "-c", source]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def printed(result):
    assert result.stderr == ""
    return result.stdout.strip()


def test_every_example_is_run():
    elsewhere = {"xmlrpc.client", "smtplib", "imaplib", "ftplib", "socketserver", "http.server"}
    assert EXAMPLES.keys() == {*CLIENTS, *elsewhere}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_of_nginx(ssad, pki, tmp_path, name):
    with peers.nginx(pki, tmp_path) as port:
        result = run(name, port)
        answer = ast.literal_eval(printed(result))
        assert answer.endswith(b"hello from nginx\n")
        ssad.set("trust_store", "system")
        refused = run(name, port)
        assert "UNKNOWN_CA" in refused.stderr
        assert refused.stdout == ""


def test_xmlrpc(ssad, pki):
    class Server(xmlrpc.server.SimpleXMLRPCServer):
        def server_bind(self):
            self.socket.close()
            self.socket = ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key)
            self.server_address = self.socket.getsockname()

        def server_activate(self):
            pass

    with Server(("127.0.0.1", 0), logRequests=False) as server:
        server.register_function(int.__add__, "add")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            assert printed(run("xmlrpc.client", server.server_address[1])) == "5"
        finally:
            server.shutdown()
            thread.join()


ANSWERS = {b"EHLO": b"250 relay", b"DATA": b"354 go on", b"QUIT": b"221 bye"}


class Relay:
    """An SMTP server that takes one message: where dovecot's submission service sends it on to."""

    def __init__(self):
        self.message = b""

    def __call__(self, connection):
        with connection.makefile("rwb") as file:
            file.write(b"220 relay ESMTP\r\n")
            file.flush()
            for line in file:
                word = line[:4].upper()
                file.write(ANSWERS.get(word, b"250 ok") + b"\r\n")
                file.flush()
                if word == b"DATA":
                    while (line := file.readline()) not in (b".\r\n", b""):
                        self.message += line
                    file.write(b"250 taken\r\n")
                    file.flush()


def test_smtplib(ssad, pki):
    relay = Relay()
    with peers.script(relay) as onward, mailservers.dovecot(pki, onward) as ports:
        assert printed(run("smtplib", ports["smtp"])) == ""
    assert relay.message.endswith(b"\r\n\r\nover ssa\r\n")


def test_imaplib(ssad, pki):
    with mailservers.dovecot(pki) as ports:
        assert printed(run("imaplib", ports["imap"])) == "b'over ssa\\r\\n'"


def test_ftplib(ssad, pki):
    with mailservers.vsftpd(pki) as (port, files):
        assert printed(run("ftplib", port)) == "b'over ssa\\n'"
        assert (files / "in" / "hello").read_bytes() == b"over ssa\n"


@pytest.fixture
def served(ssad, pki, request):
    """An example of a server, running; its port."""
    port = peers.free_port()
    source = EXAMPLES[request.param].replace('("", 8443)', f'("127.0.0.1", {port})')
    (pki.directory / "hello").write_text("hello\n")
    quiet = {"stderr": subprocess.DEVNULL, "cwd": pki.directory}
    with peers.program(sys.executable, "-c", source, port=port, **quiet):
        yield port


@pytest.mark.parametrize("served", ["socketserver"], indirect=True)
def test_socketserver(served):
    with ssa.create_connection(("localhost", served), timeout=10) as sock:
        sock.sendall(b"shout\n")
        assert sock.makefile("rb").read() == b"SHOUT\n"


@pytest.mark.parametrize("served", ["http.server"], indirect=True)
def test_http_server(served, pki):
    with socket.create_connection(("127.0.0.1", served)):  # a client that says nothing is in nobody's way
        url = f"https://localhost:{served}/hello"
        curl = ["curl", "-sS", "--max-time", "20", "--cacert", pki.ca, url]
        answer = subprocess.run(curl, capture_output=True, timeout=30, check=False)
    assert (answer.stdout, answer.stderr) == (b"hello\n", b"")
