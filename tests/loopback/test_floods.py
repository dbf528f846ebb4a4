"""Peers and applications that send without end, ten at once: the others are served. No kernel TLS is needed."""

import contextlib
import multiprocessing
import socket
import time

import pytest

import ssa
from ssa.protocol import wire
from ssa.suites import TLSVersion
from ssa.tls import ALERT, HANDSHAKE
from tests import peers
from tests.interop.raw import Raw, context
from tests.peers import Daemon

PEERS = 10
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def running(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(running, monkeypatch):
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


@contextlib.contextmanager
def ten(act, *arguments):
    """As many processes do something, all at once, until the end of the block."""
    ready, begin = FORK.Semaphore(0), FORK.Event()
    processes = [FORK.Process(target=act, args=(ready, begin, *arguments), daemon=True) for _ in range(PEERS)]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            assert ready.acquire(timeout=15)
        begin.set()
        time.sleep(0.1)
        yield
        assert all(process.is_alive() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def handshakes(port, count=7):
    """How long those of another take, the one in the middle."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        ssa.create_connection(("localhost", port), timeout=10).close()
        took.append(time.monotonic() - began)
    return sorted(took)[count // 2]


def key_updates(raw, number):
    return b"".join(raw.key_update(requested=bool(n % 2)) for n in range(number))


def hello_requests(raw, number):
    return b"".join(raw.seal(bytes(4), HANDSHAKE) for _ in range(number))


def warnings(raw, number):
    return b"".join(raw.seal(b"\1\x5a", ALERT) for _ in range(number))


def single_bytes(raw, number):
    return b"".join(raw.seal(b"x") for _ in range(number))


RECORDS = {
    "KeyUpdates": (TLSVersion.TLSv1_3, key_updates),
    "requests for a hello": (TLSVersion.TLSv1_2, hello_requests),
    "warnings": (TLSVersion.TLSv1_2, warnings),
    "warnings in TLS 1.3": (TLSVersion.TLSv1_3, warnings),
    "records of one byte": (TLSVersion.TLSv1_3, single_bytes),
}


def flood_a_listener(ready, begin, port, pki, kind):
    version, make = RECORDS[kind]
    sock = socket.create_connection(("127.0.0.1", port))
    raw = Raw(sock, context(pki, version, server=False), server=False)
    records = make(raw, 4000)
    ready.release()
    begin.wait()
    with contextlib.suppress(OSError):
        sock.sendall(records)
    time.sleep(60)


@pytest.mark.parametrize("kind", RECORDS)
def test_a_relayed_peers_records(ssad, pki, kind):
    with (
        ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as server,
        peers.openssl(pki) as (other, _),
        ten(flood_a_listener, server.getsockname()[1], pki, kind),
    ):
        assert handshakes(other) < 0.25
    assert "Traceback" not in ssad.log


def flood_the_options(ready, begin, run_dir):
    """A listener's owner who has ever more to say about its options."""
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon.connect(str(run_dir / "ssad.sock"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.send_fds(daemon, [wire.pack(wire.Listen())], [server.fileno()])
    assert wire.parse_untrusted(daemon.recv(65536), wire.Reply).reason is None
    ready.release()
    begin.wait()
    packets = [wire.pack(wire.Listen(disabled=("TLS_AES_128_GCM_SHA256",))), b"junk"]
    with contextlib.suppress(OSError):
        while True:
            for packet in packets:
                daemon.send(packet)


def flood_requests(ready, begin, run_dir):
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon.connect(str(run_dir / "ssad.sock"))
    ready.release()
    begin.wait()
    while True:
        daemon.send(b"junk")
        daemon.recv(65536)


def flood_connections(ready, begin, run_dir):
    ready.release()
    begin.wait()
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
            daemon.connect(str(run_dir / "ssad.sock"))


@pytest.mark.parametrize("act", [flood_the_options, flood_requests, flood_connections])
def test_applications(ssad, pki, act):
    directory = ssad.mount / "credentials" / "www"
    directory.mkdir(exist_ok=True)
    (directory / "certificate").write_bytes(pki.cert.read_bytes())
    (directory / "key").write_bytes(pki.key.read_bytes())
    with peers.openssl(pki) as (other, _), ten(act, ssad.run_dir):
        assert handshakes(other) < 0.25
    assert "Traceback" not in ssad.log
