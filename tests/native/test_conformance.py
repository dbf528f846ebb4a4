"""One suite for all libraries: the cases of conformance.json, played by the Python library and by libssa."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ssa
from ssa.ktls.probe import probe
from ssa.suites import TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, HANDSHAKE
from tests import datagrams, peers
from tests.interop import raw
from tests.native.conftest import PATHS

HERE = Path(__file__).parent
CASES = json.loads((HERE / "conformance.json").read_text())


class Peer:
    """A server, or a client of the case's listener, and what it has seen."""

    def __init__(self):
        self.seen = None
        self.told = threading.Event()

    def until_the_end(self, tls, answer):
        """Read to the end, and note down how the stream ended."""
        try:
            while data := tls.recv(65536):
                if answer:
                    tls.sendall(data)
            self.seen = "end"
            with contextlib.suppress(OSError):
                tls.unwrap()
        except ConnectionResetError:
            self.seen = "reset"
        except ssl.SSLError as exc:
            self.seen = "cut" if "UNEXPECTED_EOF" in str(exc) or isinstance(exc, ssl.SSLEOFError) else str(exc)
        finally:
            self.told.set()


def echo(peer, tls, tcp):
    peer.until_the_end(tls, answer=True)


def reads(peer, tls, tcp):
    peer.until_the_end(tls, answer=False)


def greets(peer, tls, tcp):
    tls.sendall(b"hello")
    with contextlib.suppress(OSError):
        tls.unwrap()


def cuts(peer, tls, tcp):
    tls.sendall(b"hello")
    tcp = socket.socket(fileno=tls.detach())
    tcp.shutdown(socket.SHUT_WR)
    with tcp:
        while tcp.recv(65536):
            pass


def talks(peer, tls):
    tls.sendall(b"hello")
    peer.seen = tls.recv(100).decode()
    with contextlib.suppress(OSError):
        tls.unwrap()
    peer.told.set()


def plain(connection):
    connection.sendall(b"220 mail.example ESMTP, and no TLS at all\r\n")
    connection.recv(10000)


def alerts(pki, connection):
    """A fatal alert in the middle of the stream (RFC 8446 section 6.2)."""
    peer = raw.Raw(connection, raw.context(pki, TLSVersion.TLSv1_3, server=True), server=True)
    peer.send(peer.seal(b"hello"), peer.seal(bytes([2, 40]), ALERT))
    while connection.recv(10000):
        pass


def updates(peer, ours):
    """KeyUpdates between data, one behind the other and two at once."""
    ours.send(ours.seal(b"one"), ours.key_update(), ours.seal(b"two"), ours.key_update(), ours.key_update())
    ours.send(ours.seal(b"six"))
    time.sleep(0.05)
    ours.send(ours.key_update())
    ours.send(ours.seal(b"", padding=3))
    ours.send(ours.seal(b"\1\0", ALERT))


def asks(peer, ours):
    """KeyUpdates that ask for one: the answer comes before the next data (RFC 8446 section 4.6.3)."""
    ours.send(ours.seal(b"before"), ours.key_update(requested=True), ours.seal(b"behind"))
    told = []
    while not told or told[-1][0] != APPLICATION_DATA:
        told.append(ours.read())
    peer.seen = "update, data" if [kind for kind, _ in told] == [HANDSHAKE, APPLICATION_DATA] else str(told)
    ours.send(ours.seal(told[-1][1]), ours.seal(b"\1\0", ALERT))


TICKET = bytes([4]) + (21).to_bytes(3, "big") + bytes(4) + bytes(4) + b"\1n" + b"\0\7ticket!" + b"\0\0"


def tickets(peer, ours):
    """Session tickets between data, and one in three pieces."""
    ours.send(ours.seal(b"one"), ours.seal(TICKET, HANDSHAKE), ours.seal(b"two"), ours.seal(TICKET * 2, HANDSHAKE))
    ours.send(ours.seal(TICKET[:3], HANDSHAKE), ours.seal(TICKET[3:9], HANDSHAKE), ours.seal(TICKET[9:], HANDSHAKE))
    ours.send(ours.seal(b"three"), ours.seal(b"\1\0", ALERT))


def asks_a_sender(peer, ours):
    """A peer whose request nobody reads: a program that only sends finds it all the same, within 2 MiB."""
    ours.send(ours.key_update(requested=True))
    size = 0
    while size < 4 * 2**20:
        kind, content = ours.read()
        size += len(content) if kind == APPLICATION_DATA else 0
    peer.seen = "answered" if ours.updates else "not answered"


def slowly(peer, ours):
    """Records a byte at a time."""
    for byte in ours.seal(b"slowly") + ours.seal(b" but surely") + ours.seal(END, ALERT):
        ours.send(bytes([byte]))


def empties(peer, ours):
    """Records without data, which are no end, also before one that is no data."""
    empty = ours.seal(b"")
    ours.send(empty, ours.seal(b""), ours.seal(b"one"), ours.seal(b""), ours.seal(TICKET, HANDSHAKE), ours.seal(b""))
    ours.send(ours.seal(b"two"), ours.seal(b""), ours.seal(b""))
    time.sleep(0.05)
    ours.send(ours.seal(b""), ours.seal(b"three"), ours.seal(b""), ours.seal(END, ALERT))


def greatest(peer, ours):
    """Records as long as they can be, and the same data with padding."""
    ours.send(*(ours.seal(bytes(range(256)) * 64) for _ in range(4)))
    ours.send(*(ours.seal(bytes(range(256)), padding=padding) for padding in (0, 1, 255, 16384 - 256)))
    ours.send(ours.seal(b"", padding=100), ours.seal(END, ALERT))


def small(peer, ours):
    ours.send(*(ours.seal(bytes([number % 256])) for number in range(2048)), ours.seal(END, ALERT))


def ends_early(peer, ours):
    """An end that data follows; and it reads on (RFC 8446 section 6.1)."""
    ours.send(ours.seal(b"last words"), ours.seal(END, ALERT), ours.seal(b"nobody may hear this"))
    peer.seen = ours.read_data().decode()


def forges(peer, ours):
    genuine, forged, behind = (bytearray(ours.seal(word)) for word in (b"genuine", b"forged", b"behind"))
    forged[-1] ^= 1
    ours.send(genuine, forged, behind)


def cuts_a_record(peer, ours):
    ours.send(ours.seal(b"first"), ours.seal(b"second")[:-1])
    ours.sock.shutdown(socket.SHUT_WR)


def resets(peer, ours):
    ours.send(ours.seal(b"first"))
    ours.read_data()
    ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    ours.sock.close()


def cancels(peer, ours):
    """user_canceled only announces the end."""
    ours.send(ours.seal(b"before"), ours.seal(b"\1\x5a", ALERT), ours.seal(END, ALERT))


def babbles(peer, ours):
    """A message that no stream of TLS 1.3 has."""
    ours.send(ours.seal(b"before"), ours.seal(b"\x14\0\0\0", HANDSHAKE), ours.seal(b"behind"))


def warns(peer, ours):
    """A warning of TLS 1.2's, which is passed over."""
    ours.send(ours.seal(b"\1\x70", ALERT), ours.seal(b"behind"), ours.seal(END, ALERT))


END = b"\1\0"  # close_notify
RAW = {
    "updates": updates,
    "asks": asks,
    "tickets": tickets,
    "asks a sender": asks_a_sender,
    "slowly": slowly,
    "empties": empties,
    "greatest": greatest,
    "small": small,
    "ends early": ends_early,
    "forges": forges,
    "cuts a record": cuts_a_record,
    "resets": resets,
    "cancels": cancels,
    "babbles": babbles,
    "warns": warns,
}
OF_TLS12 = {"warns"}


def stalls(connection):
    while connection.recv(10000):
        pass


def meet(pki, connection, peer, name):
    version = TLSVersion.TLSv1_2 if name in OF_TLS12 else TLSVersion.TLSv1_3
    ours = raw.Raw(connection, raw.context(pki, version, server=True), server=True)
    try:
        RAW[name](peer, ours)
        peer.told.set()
        while connection.recv(65536):
            pass
    finally:
        peer.told.set()


@contextlib.contextmanager
def server(pki, peer, name):
    if name in ("plain", "stalls"):
        with peers.script(globals()[name]) as port:
            yield port
    elif name == "none":
        yield 1
    elif name in RAW:
        with peers.script(lambda connection: meet(pki, connection, peer, name)) as port:
            yield port
    elif name == "dtls":
        with datagrams.gnutls_server(pki) as (port, _):
            yield port
    elif name == "alerts":
        with peers.script(lambda connection: alerts(pki, connection)) as port:
            yield port
    else:
        with tls_server(pki, peer, name) as port:
            yield port


@contextlib.contextmanager
def tls_server(pki, peer, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if name == "tls12":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if name == "alpn":
        context.set_alpn_protocols(["http/1.1"])

    def serve(connection):
        try:
            tls = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
        except OSError:
            peer.seen = "refused"
            peer.told.set()
            return
        with tls:
            SERVERS.get(name, echo)(peer, tls, connection)

    with peers.script(serve) as port:
        yield port


SERVERS = {"greets": greets, "cuts": cuts, "reads": reads}


@pytest.fixture(scope="module")
def words(pki, tmp_path_factory):
    """What the words with a dollar stand for, but the port."""
    directory = tmp_path_factory.mktemp("words")
    file = directory / "pattern"
    file.write_bytes((bytes(range(256)) * 1172)[:300000])
    other = peers.PKI(directory / "other")
    return {
        "$file": str(file),
        "$cert": str(pki.cert),
        "$key": str(pki.key),
        "$ca": str(pki.ca),
        "$ca_text": pki.ca.read_text(),
        "$other_ca": str(other.ca),
        "$other_key": str(other.key),
    }


def replaced(value, words):
    if isinstance(value, list):
        return [replaced(part, words) for part in value]
    return words.get(value, value) if isinstance(value, str) else value


def client(pki, peer, port, kind):
    if kind == "datagrams":
        with ssa.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect(("localhost", port))
            sock.send(b"hello")
            peer.seen = sock.recv(100).decode()
        peer.told.set()
        return
    context = ssl.create_default_context(cafile=pki.ca)
    context.set_alpn_protocols(["http/1.1"])
    tcp = socket.create_connection(("127.0.0.1", port))
    with context.wrap_socket(tcp, server_hostname="localhost") as tls:
        talks(peer, tls)


class Players:
    """A process for each library, which plays one case after the other."""

    def __init__(self, libssa, environment):
        self._environments = {"library": environment, "socket": environment | {"LD_PRELOAD": str(libssa)}}
        self._running = {}

    def process(self, player):
        if player not in self._running:
            self._running[player] = subprocess.Popen(
                [sys.executable, HERE / "player.py", player],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | self._environments[player],
                text=True,
                bufsize=1,
            )
        return self._running[player]

    def end(self, player):
        with self._running.pop(player) as process:
            process.stdin.close()


@pytest.fixture(scope="module")
def players(running, libssa):
    made = Players(libssa, running.environment)
    yield made
    for player in list(made._running):
        made.end(player)


def play(case, process, words, pki, peer):
    """Play a case's steps: their results."""
    steps = [replaced(step[0], words) for step in case["steps"]]
    process.stdin.write(json.dumps(steps) + "\n")
    while line := process.stdout.readline():
        told = json.loads(line)
        if "results" in told:
            return told["results"]
        threading.Thread(target=client, args=(pki, peer, told["port"], case["client"]), daemon=True).start()
        process.stdin.write("\n")
    raise AssertionError(f"the player ended with {process.wait()}")


def fits(case, player, path):
    """True where a case is about this library, this data path, and what this kernel can do with keys."""
    change = path == "relay" or probe().rekey
    keys = {"change": change, "stay": not change}.get(case.get("keys"), True)
    return case.get("only", player) == player and case.get("path", path) == path and keys


PLAYS = [
    pytest.param(case, player, path, id=f"{case['name']}-{player}-{path}")
    for path in PATHS
    for case in CASES
    for player in ("library", "socket")
    if fits(case, player, path)
]


@pytest.mark.parametrize(("case", "player", "path"), PLAYS)
@pytest.mark.usefixtures("ssad")
def test_conformance(case, player, pki, words, players):
    peer = Peer()
    with server(pki, peer, case.get("peer", "none")) as port:
        words |= {"$port": port}
        results = play(case, players.process(player), words, pki, peer)
        if case.get("ends"):
            players.end(player)
        for (call, *expected), result in zip(case["steps"], results, strict=True):
            if expected and expected[0] is not None:
                assert result == replaced(expected[0], words), call
            elif not expected:
                assert not isinstance(result, dict), (call, result)
        if "sees" in case:
            assert peer.told.wait(10)
            assert peer.seen in case["sees"]
