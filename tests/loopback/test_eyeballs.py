"""Happy Eyeballs on real sockets: only what the resolver says is ours to choose."""

import contextlib
import errno
import os
import socket
import time

import pytest

from ssa.library import eyeballs
from tests import needs

V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def resolves(monkeypatch):
    """Make every name resolve to these addresses, in this order."""

    def set_up(*ends):
        found = [
            (V6 if ":" in host else V4, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)) for host, port in ends
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    return set_up


@contextlib.contextmanager
def black_hole():
    """A port that answers nothing: its queue is full."""
    with socket.socket() as server, contextlib.ExitStack() as queue:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            sock = queue.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        time.sleep(0.05)
        yield server.getsockname()


@contextlib.contextmanager
def refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def connect(timeout=5.0, **options):
    deadline = time.monotonic() + timeout
    return eyeballs.connect(b"name", 1, deadline=deadline, source_address=options.get("source"))


def test_families_take_turns():
    infos = [(family, socket.SOCK_STREAM, 6, "", n) for n, family in enumerate([V6, V6, V6, V4, V4])]
    assert [info[4] for info in eyeballs.interleave(infos)] == [0, 3, 1, 4, 2]


@needs.ipv6
def test_an_address_that_never_answers_costs_a_quarter_of_a_second(resolves):
    with black_hole() as hole, socket.create_server(("::1", 0), family=V6) as server:
        resolves(hole, server.getsockname()[:2])
        began = time.monotonic()
        with connect() as sock:
            assert sock.family == V6
            assert sock.gettimeout() is None
        assert eyeballs.ATTEMPT_DELAY * 0.9 < time.monotonic() - began < 1.5


@needs.ipv6
def test_a_refused_address_costs_nothing(resolves):
    with refused() as nobody, socket.create_server(("::1", 0), family=V6) as server:
        resolves(nobody, server.getsockname()[:2])
        began = time.monotonic()
        connect().close()
        assert time.monotonic() - began < eyeballs.ATTEMPT_DELAY


def test_the_deadline_holds_for_all_attempts_together(resolves):
    with black_hole() as first, black_hole() as second:
        resolves(first, second)
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            connect(timeout=0.6)
        assert caught.value.errno == errno.ETIMEDOUT
        assert 0.5 < time.monotonic() - began < 2


def test_everything_refused(resolves):
    with refused() as first, refused() as second:
        resolves(first, second)
        with pytest.raises(ConnectionRefusedError):
            connect()


def test_an_address_of_a_family_that_is_not_here_says_less(resolves, monkeypatch):
    """Where IPv6 is turned off, the resolver may name ::1 all the same."""
    with refused() as nobody:
        resolves(nobody, ("2001:db8::1%nowhere", 1))
        connect_ex = socket.socket.connect_ex
        absent = lambda sock, end: errno.EADDRNOTAVAIL if sock.family == V6 else connect_ex(sock, end)  # noqa: E731 - one line says it
        monkeypatch.setattr(socket.socket, "connect_ex", absent)
        with pytest.raises(ConnectionRefusedError):
            connect()


def test_the_source_address_chooses_the_family(resolves):
    """An address of the other family cannot be bound to it, and is passed over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        resolves(("::1", port), ("127.0.0.1", port))
        with connect(source=("127.0.0.9", 0)) as sock:
            assert sock.getsockname()[0] == "127.0.0.9"


def test_losers_are_closed(resolves):
    with black_hole() as hole, socket.create_server(("127.0.0.1", 0)) as server:
        resolves(hole, server.getsockname())
        before = len(os.listdir("/proc/self/fd"))
        with connect():
            assert len(os.listdir("/proc/self/fd")) == before + 1
