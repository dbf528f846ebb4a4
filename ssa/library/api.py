"""The functions that make socket objects: `ssa.socket`, `create_connection`, `create_server`, `upgrade`."""

from __future__ import annotations

import socket as stdlib

from ssa.library import deadlines, eyeballs
from ssa.library.connecting import looked_up
from ssa.library.connection import DaemonConnection
from ssa.library.option_values import Settings, protocol_names
from ssa.library.phases import LIVE, PLAIN
from ssa.library.tlssocket import TLSSocket
from ssa.protocol.options import IPPROTO_TLS
from ssa.protocol.wire import Connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
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

    With the type SOCK_DGRAM it is a `ssa.library.dtlssocket.DTLSSocket`, which has the calls of a datagram socket.
    With `fileno` it is a socket that another process made, or a connected plain socket for TLS_UPGRADE.

    Raises OSError EPROTONOSUPPORT, EAFNOSUPPORT for other kinds of sockets, and what `socket.socket` does.
    """
    if type & stdlib.SOCK_DGRAM:  # a bit that SOCK_STREAM has not
        from ssa.library.dtlssocket import DTLSSocket  # late: few programs use datagrams

        # The return type is what nearly all programs ask for: they need no cast then.
        return DTLSSocket(family, type, proto, fileno)  # type: ignore[return-value] # see the line above
    return TLSSocket(family, type, proto, fileno)


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
        server_hostname: the name that the certificate has to be for, if it is not the host of the address.
        certificate: the own certificate and its chain, for a server that asks: PEM, or the path of a PEM file.
        private_key: its key.
        trusted: trust anchors that the server has to satisfy besides the administrator's.

    Raises what `connect_tls` does.
    """
    seconds = stdlib.getdefaulttimeout() if timeout is _GLOBAL_DEFAULT else timeout
    deadline = deadlines.after(seconds)
    host, port = address
    settings = Settings.of(
        alpn=None if alpn is None else protocol_names(alpn), certificates=certificate, keys=private_key, trusted=trusted
    )
    with (
        DaemonConnection(deadline) as daemon,
        eyeballs.connect(looked_up(host), port, deadline=deadline, source_address=source_address) as sock,
    ):
        request = Connect(
            server_hostname or host, timeout_ms=deadlines.milliseconds_left(deadline), control=1, **settings.request()
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
    """A listening TLS socket, as `socket.create_server` makes one for TCP. `accept` returns completed handshakes only.

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
        server_hostname: serve this name only, and refuse clients that ask for another.
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
            alpn=None if alpn is None else protocol_names(alpn),
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

    The descriptor keeps its number; the given socket object is detached from it. Plain text from the peer that follows
    the agreement on TLS is refused (PLAINTEXT_PENDING): an attacker could have put it there. A program that has read
    such text into a buffer of its own has to discard it itself.

    On a non-blocking socket the handshake is under way when this returns: the descriptor is writable when it is done,
    and SO_ERROR tells how it went.

    Args:
        sock: a connected TCP socket.
        server_hostname: of a client: the name that the certificate has to be for; None: the address it is connected to.
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
    """A TLSSocket that owns a connected plain socket's descriptor, to be upgraded. Raises what `upgrade` does."""
    family, timeout = sock.family, sock.gettimeout()
    made = TLSSocket.adopt(sock.detach(), family, Settings(), PLAIN)
    made.settimeout(timeout)
    try:
        made.tell(
            hostname=server_hostname,
            alpn=None if alpn is None else protocol_names(alpn),
            certificates=certificate,
            keys=private_key,
            trusted=trusted,
        )
    except BaseException:
        made.close()
        raise
    return made
