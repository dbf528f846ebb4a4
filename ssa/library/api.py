"""What applications call."""

from __future__ import annotations

import os
import socket as stdlib
import time

from ssa.ktls import control
from ssa.ktls.constants import SO_COOKIE
from ssa.ktls.post_handshake import Broken
from ssa.library import datapath, eyeballs
from ssa.library.connecting import looked_up
from ssa.library.connection import DaemonConnection
from ssa.library.control_records import fail
from ssa.library.deadlines import milliseconds_left
from ssa.library.fdswap import Borrowed
from ssa.library.option_values import Settings
from ssa.library.phases import LIVE, PLAIN
from ssa.library.sharing import Turns
from ssa.library.tlssocket import TLSSocket
from ssa.protocol.options import IPPROTO_TLS
from ssa.protocol.wire import Connect
from ssa.tls import is_protocol_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Blob = bytes | str | os.PathLike[str]  # PEM, or the path of a PEM file

_GLOBAL_DEFAULT: Any = stdlib._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]  # noqa: SLF001 - its own default


def socket(
    family: int = stdlib.AF_INET,
    type: int = stdlib.SOCK_STREAM,  # noqa: A002 - as socket.socket has it
    proto: int = IPPROTO_TLS,
    fileno: int | None = None,
) -> TLSSocket:
    """A TLS socket, to connect or to listen: `socket.socket` with the protocol IPPROTO_TLS. See `ssa.TLSSocket`.

    With `fileno`, one that another process made, or a connected plain socket for TLS_UPGRADE. With the type SOCK_DGRAM
    it speaks DTLS: see `ssa.library.dtlssocket.DTLSSocket`.
    """
    if type & stdlib.SOCK_DGRAM:  # a bit that SOCK_STREAM has not
        from ssa.library.dtlssocket import DTLSSocket  # late: few programs use datagrams

        # Typed as what nearly all programs ask for.
        return DTLSSocket(family, type, proto, fileno)  # type: ignore[return-value] # as the line above says
    return TLSSocket(family, type, proto, fileno)


def connect_tls(
    host: str,
    port: int | str,
    *,
    timeout: float | None = None,
    alpn: Sequence[str] | None = None,
    source_address: tuple[str, int] | None = None,
) -> int:
    """Connect to a TLS server and return a plain, blocking descriptor whose records the kernel protects.

    The server is verified under the administrator's policy: there is no way to connect without. `os.read`,
    `os.write`, `sendfile` and their like work on the descriptor as on any other; `ssa.recv` and `ssa.close`
    do besides what TLS demands at the end of a stream.

    Args:
        host: a host name, in any script, or an IP address. Its certificate has to be for it.
        port: a number or a service's name.
        timeout: seconds for the TCP connection and the handshake together; the policy's timeout holds too.
        alpn: application protocols to offer, the preferred one first (RFC 7301).
        source_address: the local address and port to connect from.

    Raises:
        ValueError: a timeout or a protocol name that is none.
        ConnectionRefusedError: no daemon runs, or the server refuses the connection.
        OSError: the connection fails, as in `socket.create_connection`.
        ssa.CertificateError: the server's certificate was refused.
        ssa.HandshakeError: the handshake failed; `ssa.HandshakeTimeout` (a TimeoutError) if it took too long.
        ssa.PolicyError: the policy does not allow what was asked.
    """
    deadline = _deadline(timeout)
    protocols = None if alpn is None else _protocols(alpn)
    with (
        DaemonConnection(deadline) as daemon,
        eyeballs.connect(looked_up(host), port, deadline=deadline, source_address=source_address) as sock,
    ):
        _, passed = daemon.ask_for_tls(Connect(host, protocols, milliseconds_left(deadline)), sock)
        fd = passed[0] if passed else sock.detach()
        _bare[fd] = _Bare(fd, shared=False)
        return fd


_FOREVER = 2**21  # seconds, 24 days: what poll(2) can wait


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:  # a NaN is not
        raise ValueError("timeout has to be a number of seconds, 0 or more")
    return time.monotonic() + min(timeout, _FOREVER)


def _protocols(alpn: Sequence[str]) -> tuple[str, ...]:
    if isinstance(alpn, str):
        raise TypeError(f"alpn has to be a list of protocol names, as [{alpn!r}]")
    for name in alpn:
        if not is_protocol_name(name):
            raise ValueError(f"alpn: {name!r} is no protocol name: 1 to 255 ASCII characters (RFC 7301)")
    return tuple(alpn)


def create_connection(  # noqa: PLR0913 - as socket.create_connection, and what TLS adds
    address: tuple[str, int | str],
    timeout: float | None = _GLOBAL_DEFAULT,
    source_address: tuple[str, int] | None = None,
    *,
    alpn: Sequence[str] | None = None,
    server_hostname: str | None = None,
    certificate: Blob | None = None,
    private_key: Blob | None = None,
    trusted: Blob | None = None,
) -> TLSSocket:
    """Connect to a TLS server, as `socket.create_connection` does to a TCP server.

    The server is verified under the administrator's policy to be `server_hostname`, or the host of the address. The
    timeout is for all of it together, and then that of the socket.

    Args:
        address: (host name or IP address, port).
        timeout: seconds; None waits as long as it takes. Not given: what `socket.setdefaulttimeout` says.
        source_address: the local address and port to connect from.
        alpn: application protocols to offer, the preferred one first (RFC 7301).
        server_hostname: whom the certificate has to be for, where that is not the host of the address.
        certificate: the own certificate and its chain, for a server that asks: PEM, or the path of a PEM file.
        private_key: its key.
        trusted: trust anchors that the server has to satisfy besides the administrator's.

    Raises what `connect_tls` does.
    """
    seconds = stdlib.getdefaulttimeout() if timeout is _GLOBAL_DEFAULT else timeout
    deadline = _deadline(seconds)
    host, port = address
    settings = Settings.of(
        alpn=None if alpn is None else _protocols(alpn), certificates=certificate, keys=private_key, trusted=trusted
    )
    with (
        DaemonConnection(deadline) as daemon,
        eyeballs.connect(looked_up(host), port, deadline=deadline, source_address=source_address) as sock,
    ):
        request = Connect(
            server_hostname or host, timeout_ms=milliseconds_left(deadline), control=1, **settings.request()
        )
        reply, passed = daemon.ask_for_tls(request, sock, settings.descriptors())
        settings = settings.having(hostname=server_hostname or host)
        if passed:
            made = TLSSocket.adopt_relayed(passed[0], sock.dup(), settings, reply)
        else:
            family = sock.family
            made = TLSSocket.adopt(sock.detach(), family, settings, LIVE, reply)
    made.settimeout(seconds)
    return made


def create_server(  # noqa: PLR0913 - as socket.create_server, and what TLS adds
    address: tuple[str, int],
    *,
    family: int = stdlib.AF_INET,
    type: int = stdlib.SOCK_STREAM,  # noqa: A002 - as above
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    certificate: Blob | Sequence[Blob] | None = None,
    private_key: Blob | Sequence[Blob] | None = None,
    server_hostname: str | None = None,
    alpn: Sequence[str] | None = None,
    request_peer_auth: bool = False,
    trusted: Blob | None = None,
) -> TLSSocket:
    """A listening TLS socket, as `socket.create_server` makes one for TCP: what `accept` gives is ready.

    Without a certificate of its own it serves the administrator's (/ssa/credentials), chosen by the name that the
    client asks for.

    Args:
        address: (host or "", port).
        family: AF_INET or AF_INET6.
        type: SOCK_STREAM for TLS, SOCK_DGRAM for DTLS.
        backlog: connections, ready or not, that may wait to be accepted.
        reuse_port: allow other listeners on the same port (SO_REUSEPORT).
        dualstack_ipv6: take IPv4 connections too, on AF_INET6.
        certificate: the own certificate with its chain: PEM, or the path of a PEM file; several for RSA beside ECDSA.
        private_key: the key of each.
        server_hostname: serve this name only, and refuse who asks for another.
        alpn: application protocols in order of preference; a client that offers only others is refused.
        request_peer_auth: refuse clients that present no certificate which the policy trusts.
        trusted: trust anchors that a client has to satisfy besides the administrator's.

    Raises what `socket.create_server` does, and `ssa.SSAError`: NO_CREDENTIALS (ENOKEY), KEY_MISMATCH (EINVAL).
    """
    sock = socket(family, type)
    try:
        sock.tell(
            certificates=certificate,
            keys=private_key,
            trusted=trusted,
            alpn=None if alpn is None else _protocols(alpn),
            server_name=server_hostname,
            peer_auth=1 if request_peer_auth else None,
        )
        if type == stdlib.SOCK_STREAM:  # of datagrams it would let others take the port
            sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT, 1)
        if family == stdlib.AF_INET6:
            sock.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 0 if dualstack_ipv6 else 1)
        try:
            sock.bind(address)
        except OSError as exc:
            raise OSError(exc.errno, f"{exc.strerror} (while attempting to bind on address {address!r})") from None
        with sock.unwatched():
            sock.listen(128 if backlog is None else backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def upgrade(  # noqa: PLR0913 - as for the others
    sock: stdlib.socket,
    *,
    server_hostname: str | None = None,
    server_side: bool = False,
    alpn: Sequence[str] | None = None,
    certificate: Blob | Sequence[Blob] | None = None,
    private_key: Blob | Sequence[Blob] | None = None,
    trusted: Blob | None = None,
) -> TLSSocket:
    """Make a connected plain socket a TLS socket (STARTTLS), as `ssl.SSLContext.wrap_socket` does.

    The descriptor stays what it is; the given socket object is detached from it. What the peer has sent in plain text
    behind the agreement on TLS is refused (PLAINTEXT_PENDING): an attacker could have put it there. What the program
    itself has read ahead, it has to throw away itself.

    On a non-blocking socket the handshake is under way when this returns: the descriptor is writable when it is done,
    and SO_ERROR tells how it went.

    Args:
        sock: a connected TCP socket.
        server_hostname: a client's: whom the certificate has to be for; None: the address it is connected to.
        server_side: be the server.
        alpn: as for `create_connection` and `create_server`, as the others below.
        certificate: the own certificate.
        private_key: its key.
        trusted: trust anchors that the peer has to satisfy besides the administrator's.

    Raises `ssa.SSAError`; then the connection is at its end, and the descriptor closed.
    """
    made = upgradable(sock, server_hostname, alpn, certificate, private_key, trusted)
    try:
        made.upgrade(server_side=server_side)
    except BlockingIOError:
        return made
    except BaseException:
        made.close()
        raise
    return made


def upgradable(  # noqa: PLR0913, PLR0917 - as above
    sock: stdlib.socket,
    server_hostname: str | None,
    alpn: Sequence[str] | None,
    certificate: Blob | Sequence[Blob] | None,
    private_key: Blob | Sequence[Blob] | None,
    trusted: Blob | None,
) -> TLSSocket:
    """Take over a connected plain socket, with what `upgrade` was told. Raises as that does."""
    family, timeout = sock.family, sock.gettimeout()
    made = TLSSocket.adopt(sock.detach(), family, Settings(), PLAIN)
    made.settimeout(timeout)
    try:
        made.tell(
            hostname=server_hostname,
            alpn=None if alpn is None else _protocols(alpn),
            certificates=certificate,
            keys=private_key,
            trusted=trusted,
        )
    except BaseException:
        made.close()
        raise
    return made


def recv(fd: int, size: int) -> bytes:
    """Read up to `size` bytes from a descriptor of `connect_tls`; ``b""`` when the peer has ended the stream.

    Raises:
        ConnectionAbortedError: the stream was cut without TLS's close_notify: what came may not be all (RFC 8446, 6.1).
        OSError: EPROTO for an alert of the peer's or what else breaks the protocol, EBADMSG for a forged record,
            EMSGSIZE for one that is too long or none: these end the connection, and `send` raises them too. Else as
            recv(2).
    """
    with Borrowed(fd) as sock:
        state = _state(fd)
        state.check(sock)
        try:
            return datapath.of(sock).recv(sock, size, state.asked)
        except Broken as exc:
            raise state.fail(sock, exc) from None


def send(fd: int, data: bytes) -> int:
    """Write to a descriptor of `connect_tls`; the number of bytes written.

    Before that, and after each 1 MiB, it changes the key (KeyUpdate) where that is due: the peer has asked for it, or
    the key has served for long enough. Threads, and processes that come of a fork(2), take turns.

    Raises OSError as the system call does; EKEYEXPIRED where the key has served its time, and cannot be changed; what
    has ended the connection, as `recv`.
    """
    state = _state(fd)
    size = memoryview(data).nbytes
    if size <= _PART:
        return _send_part(fd, state, data)
    view, sent = memoryview(data).cast("B"), 0
    with state.turns.turn:
        while sent < size and sent % _PART == 0:
            try:
                sent += _send_part(fd, state, view[sent : sent + _PART])
            except OSError:
                if not sent:
                    raise
                break  # what was sent is told first, and the next call meets this again
    return sent


def _send_part(fd: int, state: _Bare, data: bytes | memoryview) -> int:
    with state.turns.turn, Borrowed(fd) as sock:
        state.check(sock)
        if state.answer_due or state.sendable < 0:
            state.sendable = _renew_key(fd, state, sock)
        try:
            sent = sock.send(data, stdlib.MSG_NOSIGNAL)
        except OSError as exc:
            raise _cannot_send(state, sock, exc) from None
        state.sendable -= 1 + (sent >> 10)
        return sent


def _cannot_send(state: _Bare, sock: stdlib.socket, exc: OSError) -> OSError:
    """The error to raise for one of send(2)'s."""
    path = datapath.of(sock)
    if isinstance(exc, (BrokenPipeError, ConnectionResetError)):
        return path.why_closed(sock, exc)
    broken = path.unreadable(exc.errno)
    return exc if broken is None else state.fail(sock, broken)


def _renew_key(fd: int, state: _Bare, sock: stdlib.socket) -> int:
    answer, state.answer_due = state.answer_due, False  # before, as another thread may read of the next one meanwhile
    try:
        return datapath.of(sock).renew_key(sock, None if os.get_blocking(fd) else 0, answer=answer)
    except OSError:
        state.answer_due |= answer
        raise


def close(fd: int) -> None:
    """Tell the peer that the stream ends here (close_notify), and close the descriptor.

    Where what was written before fills the send buffer, the daemon says it, and keeps the connection until the peer has
    all; without a daemon there is a second to wait for room. A connection that has failed gets no close_notify.

    A peer that has gone already needs no telling: the descriptor is closed in any case.
    """
    state = _state(fd)
    try:
        with Borrowed(fd) as sock:
            path, failed = datapath.of(sock), state.has_failed(sock)
            if not failed and control.aborts(sock):
                path.abort(sock)
            else:
                path.end(sock, has_failed=failed)
    finally:
        _bare.pop(fd, None)
        os.close(fd)


_PART = 2**20  # bytes that are sent between two looks at whether the key has to change


class _Bare:
    """What is remembered of a bare descriptor, by its number.

    Others may close it, and the number be another socket's: then what is here makes no difference but a look, or a
    KeyUpdate, that was not due. A failure counts for its own socket only.
    """

    __slots__ = ("__weakref__", "_failure", "_fd", "answer_due", "sendable", "turns")

    def __init__(self, fd: int, *, shared: bool) -> None:
        self._fd = fd
        self.sendable = -1  # what may be sent before the next look at the key, in `key_lifetime.STRIDE`'s unit
        self.answer_due = False  # the peer waits for a KeyUpdate
        self._failure: tuple[bytes, OSError] | None = None  # of which socket, and what
        self.turns = Turns(shared=shared)
        self.turns.of(self)

    def fileno(self) -> int:
        return self._fd

    def asked(self) -> None:
        """The peer has asked for a KeyUpdate."""
        self.answer_due = True

    def fail(self, sock: stdlib.socket, broken: Broken) -> OSError:
        """The connection has failed: end it, tell the peer, and remember why. The error to raise."""
        self._failure = _cookie(sock), OSError(broken.errno, broken.strerror)
        fail(sock, broken)
        return OSError(broken.errno, broken.strerror)

    def has_failed(self, sock: stdlib.socket) -> bool:
        return self._failure is not None and self._failure[0] == _cookie(sock)

    def check(self, sock: stdlib.socket) -> None:
        """Raise the OSError that has ended the connection."""
        if self._failure is not None and self.has_failed(sock):
            raise OSError(self._failure[1].errno, self._failure[1].strerror)


def _cookie(sock: stdlib.socket) -> bytes:
    return sock.getsockopt(stdlib.SOL_SOCKET, SO_COOKIE, 8)


_bare: dict[int, _Bare] = {}


def _state(fd: int) -> _Bare:
    """What is remembered of a descriptor. One that `connect_tls` has not made here may be shared already."""
    return _bare.get(fd) or _bare.setdefault(fd, _Bare(fd, shared=True))
