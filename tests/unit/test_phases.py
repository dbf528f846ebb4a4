"""The table of a socket's phases: every phase, every call, for streams and datagrams."""

import errno
import socket

import pytest

import ssa
from ssa.library import phases
from ssa.library.dtlssocket import DTLSSocket
from ssa.library.option_values import Settings
from ssa.library.phases import (
    ACCEPT,
    AS_FAILED,
    BORROWED,
    BROKEN,
    CONNECT,
    CONNECTING,
    DATAGRAMS,
    DETACH,
    DUP,
    FAILED,
    FINISH,
    FRESH,
    GATHERING,
    GO,
    LISTEN,
    LISTENING,
    LIVE,
    PLAIN,
    READ,
    REFUSALS,
    SERVE_ALL,
    SET,
    STREAM,
    TRANSFER,
    UPGRADE,
    WORDS,
)

CALLS = {
    CONNECT: [lambda sock: sock.connect(("127.0.0.1", 9))],
    UPGRADE: [lambda sock: sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_UPGRADE, 1), lambda s: s.upgrade(server_side=True)],
    LISTEN: [lambda sock: sock.listen()],
    ACCEPT: [lambda sock: sock.accept()],
    SET: [
        lambda sock: sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_ALPN, b"h2"),
        lambda sock: sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REQUEST_PEER_AUTH, 1),
    ],
    READ: [
        lambda sock: sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_CHOSEN_CIPHER),
        lambda sock: sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_CONN, 16),
    ],
    TRANSFER: [
        lambda sock: sock.recv(1),
        lambda sock: sock.recv_into(bytearray(1)),
        lambda sock: sock.recvmsg_into([bytearray(1)]),
        lambda sock: sock.send(b"x"),
        lambda sock: sock.sendall(b"x"),
        lambda sock: sock.sendmsg([b"x"]),
    ],
    DETACH: [lambda sock: sock.detach()],
    DUP: [lambda sock: sock.dup()],
}
KINDS = {ssa.TLSSocket: STREAM, DTLSSocket: DATAGRAMS}
ROWS = [(kind, phase, call) for kind, table in KINDS.items() for phase in table for call in CALLS]


@pytest.fixture
def made():
    """Makes a socket object in a phase. Its number is a pair's end on which nothing comes."""
    ends = []

    def make(kind, phase):
        number, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock = kind.adopt(number.detach(), socket.AF_INET, Settings(), phase)
        sock.setblocking(False)
        if phase == BROKEN:
            sock._open_file.broken = OSError(errno.EBADMSG, "a forged record")
        ends.extend((sock, other))
        return sock

    yield make
    for sock in ends:
        if hasattr(sock, "_phase"):
            sock._phase = FRESH  # there is no daemon to be told of an end
        sock.close()


@pytest.mark.parametrize("table", KINDS.values(), ids=["stream", "datagrams"])
def test_each_row_has_each_call(table):
    assert set(REFUSALS) == set(CALLS) == set(range(9))
    for phase, row in table.items():
        assert phase in WORDS
        assert len(row) == len(REFUSALS)
        for said in row:
            assert said in {GO, FINISH, SERVE_ALL, AS_FAILED} or said in errno.errorcode


def test_each_phase_has_words_and_a_socket_that_has_it():
    assert set(WORDS) == set(STREAM) | set(DATAGRAMS)
    assert set(STREAM) == set(WORDS) - {GATHERING}
    assert set(DATAGRAMS) == set(WORDS) - {PLAIN, BROKEN}
    assert LIVE == 0  # what the calls on a live socket test


def test_data_passes_in_no_other_phase():
    assert [phase for phase, row in STREAM.items() if row[TRANSFER] == GO] == [LIVE]
    assert {phase for phase, row in DATAGRAMS.items() if row[TRANSFER] == GO} == {LIVE, GATHERING}


def test_an_option_that_would_never_count_is_refused():
    assert {phase for phase, row in STREAM.items() if row[SET] == GO} == {FRESH, PLAIN, LISTENING}
    assert {phase for phase, row in DATAGRAMS.items() if row[SET] == GO} == {FRESH, LISTENING}


@pytest.mark.parametrize(("kind", "phase", "call"), ROWS)
def test_the_table_decides(made, kind, phase, call):
    said = KINDS[kind][phase][call]
    for make_call in CALLS[call]:
        sock = made(kind, phase)
        if said <= 0:
            assert sock._check(call) == said
            continue
        with pytest.raises(OSError) as caught:
            make_call(sock)
        assert caught.value.errno == said
        assert caught.value.strerror
        if (kind, call) != (DTLSSocket, UPGRADE):  # no phase has that
            assert WORDS[phase] in caught.value.strerror


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", [CONNECT, TRANSFER])
def test_what_is_under_way_is_looked_at_first(made, kind, call):
    for make_call in CALLS[call]:
        with pytest.raises(BlockingIOError) as caught:
            make_call(made(kind, CONNECTING))
        assert caught.value.errno == {CONNECT: errno.EALREADY, TRANSFER: errno.EAGAIN}[call]


def test_what_has_failed_fails_in_the_same_words(made):
    for make_call in CALLS[TRANSFER]:
        with pytest.raises(OSError, match="a forged record") as caught:
            make_call(made(ssa.TLSSocket, BROKEN))
        assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize(("kind", "phase"), [(kind, phase) for kind, table in KINDS.items() for phase in table])
def test_of_a_closed_socket_nothing_else_counts(made, kind, phase):
    for make_call in (make_call for call, made_by in CALLS.items() if call != DETACH for make_call in made_by):
        sock = made(kind, phase)
        if phase == LIVE:
            continue  # there the system call itself says so
        sock._phase = FRESH
        sock.close()
        sock._phase = phase
        with pytest.raises(OSError) as caught:
            make_call(sock)
        assert caught.value.errno == errno.EBADF


def test_why_a_handshake_failed_is_said_with_each_refusal(made):
    sock = made(ssa.TLSSocket, FAILED)
    sock._error = "certificate is for another name"
    with pytest.raises(OSError, match="its handshake failed: certificate is for another name"):
        sock.connect(("127.0.0.1", 9))


def test_a_listener_of_another_program_names_it(made):
    with pytest.raises(OSError, match="another program has made it") as caught:
        made(ssa.TLSSocket, BORROWED).setsockopt(ssa.IPPROTO_TLS, ssa.TLS_ALPN, b"h2")
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_datagram_socket_is_no_stream():
    """It has the calls of a socket, and none of a TLS stream's own."""
    assert not issubclass(DTLSSocket, ssa.TLSSocket)
    own = {name for cls in ssa.TLSSocket.__mro__ for name in vars(cls) if "ssa.library" in cls.__module__}
    common = {name for cls in DTLSSocket.__mro__ for name in vars(cls) if "ssa.library" in cls.__module__}
    only_streams = own - common
    assert {"adopt_relayed", "_read_on", "_send_parts", "_serve_what_is_due", "_turns", "_path"} <= only_streams
    assert phases.STREAM is ssa.TLSSocket._calls


@pytest.mark.parametrize("wrap", ["TLSStream", "from_stdlib_socket", "TLSListener"])
def test_trio_takes_no_datagram_socket(wrap):
    import ssa.trio

    with ssa.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(TypeError, match="not of a DTLSSocket"):
        getattr(ssa.trio, wrap)(sock)
