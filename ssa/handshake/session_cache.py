"""The cache of client sessions: to which server one is offered again, for how long, and how often. Pure.

Theory of operation. A server that resumes a session sends no certificate: the client trusts it because of the
certificate that it sent when the session was made. So a session stands for a verdict, and is offered only where all
that this verdict depended on is equal (`Server`). The caller judges the chain of the session again, under the policy of
that moment. The server's address does not matter, as the verdict is on its name. A server behind several addresses
shares its ticket keys, or declines the session.

`session_ttl` counts from the handshake in which the server sent its certificate, not from the latest ticket: a session
that was resumed is no younger for it. The lifetime that the server gives a ticket counts from the ticket.

Each session is offered once (RFC 8446 appendix C.4). A session of TLS 1.2, where that gains nothing, is put back after
the handshake. So in both versions a session with which a handshake fails is gone.

A TLS 1.3 server sends its tickets at any time after the handshake. For a bare descriptor the daemon reads them before
the hand-over (`ssa.handshake.tickets`). For other sockets the application's library reads them and passes them on;
until then the cache keeps the engine, which makes a session of a ticket, for some seconds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.bindings._rust import _openssl

from ssa import errors
from ssa.handshake.session import Session
from ssa.suites import TLSVersion
from ssa.tls import MESSAGE_HEADER, NEW_SESSION_TICKET

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from OpenSSL import SSL

    from ssa.handshake.client import ClientEngine
    from ssa.trust import TrustStore

_ffi, _lib = _openssl.ffi, _openssl.lib

_SERVERS = 256
_EACH = 4  # sessions of a server: for as many connections that are made at once
_ENGINES = 64  # that are kept for tickets
_WAIT = 20  # seconds: a client asks, a server answers, and the tickets are before the answer
_LONGEST_TICKET = 8 * 1024  # bytes: one can have a chain of certificates in it
_LONGEST_LIFE = 7 * 24 * 3600  # seconds (RFC 8446 section 4.6.1)


class Server(NamedTuple):
    """The key of the cache: a session is offered again only where all of this is equal."""

    uid: int  # whose application asks: no user learns by resumption whom another one visits
    hostname: str
    port: int
    context: SSL.Context  # versions, suites, groups, our own certificate; OpenSSL demands it too
    alpn: tuple[str, ...]
    anchors: TrustStore | None  # the application's own


def _boot_time() -> float:
    """A clock that goes on while the machine sleeps, and that nobody can set back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SessionCache:
    """The sessions of the servers that were used last, and the engines that wait for tickets."""

    def __init__(self, clock: Callable[[], float] = _boot_time) -> None:
        self.clock = clock
        self._servers: OrderedDict[Server, list[Session]] = OrderedDict()
        self._waiting: OrderedDict[int, tuple[float, Harvest]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._servers.values()))

    def resume(self, server: Server, ttl: int, trusts: Callable[[tuple[bytes, ...]], bool]) -> Resumption:
        """Begin a handshake with a server. The result has the session to offer, if there is one that `trusts` accepts.

        A session may be resumed for `ttl` seconds. 0 means that none is offered, and none will be kept.
        """
        session, now = self._take(server, ttl, trusts) if ttl else (None, 0.0)
        return Resumption(self, server, ttl, session, now)

    def _take(
        self, server: Server, ttl: int, trusts: Callable[[tuple[bytes, ...]], bool]
    ) -> tuple[Session | None, float]:
        """A session, if there is one, and the time."""
        shelf = self._servers.get(server)
        if shelf is None:
            return None, 0.0
        now = self.clock()
        shelf[:] = [session for session in shelf if session.expires > now]
        for session in reversed(shelf.copy()):
            if now - session.proven < ttl:
                shelf.remove(session)
                if trusts(session.chain):
                    return session, now
        return None, now

    def keep(self, server: Server, session: Session, now: float | None = None) -> None:
        """Keep a session of a server, in place of its oldest one where there are too many; `now` is the time."""
        shelf = self._servers.setdefault(server, [])
        shelf.append(session)
        del shelf[:-_EACH]
        self._servers.move_to_end(server)
        now = self.clock() if now is None else now
        while self._servers and (len(self._servers) > _SERVERS or self._is_over(next(iter(self._servers)), now)):
            self._servers.popitem(last=False)

    def _is_over(self, server: Server, now: float) -> bool:
        return all(session.expires <= now for session in self._servers[server])

    def forget(self, server: Server) -> None:
        """Drop what there is of a server: it has declined a session, or the handshake failed."""
        self._servers.pop(server, None)

    def wait(self, number: int, harvest: Harvest) -> None:
        """Let an engine wait for the tickets of a live socket."""
        now = self.clock()
        self._waiting[number] = now + _WAIT, harvest
        while len(self._waiting) > _ENGINES or next(iter(self._waiting.values()))[0] <= now:
            self._waiting.popitem(last=False)

    def tickets_untrusted(self, number: int, messages: bytes) -> bool:
        """Take the tickets that a live socket's application has read. False if no engine waits for them."""
        end, harvest = self._waiting.get(number, (0, None))
        if harvest is None or end <= self.clock():
            self._waiting.pop(number, None)
            return False
        if harvest.reap_untrusted(messages) >= _EACH:
            del self._waiting[number]
        return True


class Proof(NamedTuple):
    """The chain that the server sent, when it was, and until when that counts."""

    chain: tuple[bytes, ...]
    proven: float
    expires: float


class Harvest:
    """Makes sessions of the tickets of one connection."""

    def __init__(self, cache: SessionCache, server: Server, engine: ClientEngine, proof: Proof) -> None:
        self._cache = cache
        self._server = server
        self._engine = engine
        self._proof = proof
        self._reaped = 0
        self._latest: Any = None

    def reap_untrusted(self, messages: bytes) -> int:
        """Keep the sessions of NewSessionTicket messages. Returns how many messages there have been in all."""
        for message in split_tickets_untrusted(messages)[: _EACH - self._reaped]:
            self._reaped += 1
            self.keep(self._engine.resumable_by_untrusted(message))
        return self._reaped

    def glean(self, connection: SSL.Connection) -> SSL.Session | None:
        """The session that OpenSSL has made of the latest ticket; None if that was returned before.

        For the relay, where OpenSSL goes on with the connection. Called in the thread that serves it.
        """
        if self._reaped >= _EACH or _lib.SSL_get_session(connection._ssl) == self._latest:  # noqa: SLF001 - by far cheaper
            return None
        if (native := connection.get_session()) is None:
            return None
        self._reaped += 1
        self._latest = native._session  # noqa: SLF001 - to compare with what OpenSSL has next
        return native

    def keep(self, native: SSL.Session | None) -> None:
        """Keep a session, if the server allows it to be resumed."""
        lifetime = 0 if native is None else self._lifetime(native)
        if native is None or not lifetime:
            return
        now = self._cache.clock()
        expires = min(self._proof.expires, now + lifetime)
        self._cache.keep(self._server, Session(native, self._proof.chain, self._proof.proven, expires), now)

    def _lifetime(self, native: SSL.Session) -> int:
        """The seconds for which the server allows the session to be resumed; 0 if it does not."""
        told = facts(encoded(native))
        if not told.identifier:
            return 0
        if not told.lifetime and self._engine.version is TLSVersion.TLSv1_2:  # we decide (RFC 5077 section 3.3)
            return _LONGEST_LIFE
        return min(told.lifetime, _LONGEST_LIFE)


class Resumption:
    """The sessions of one handshake. As a context manager it drops those of its server where the handshake fails."""

    def __init__(self, cache: SessionCache, server: Server, ttl: int, session: Session | None, now: float) -> None:
        self.server = server
        self.session = session  # that is offered
        # Seconds since the server sent the certificate of the session that is offered; 0 without a session.
        self.age = 0.0 if session is None else now - session.proven
        self.tickets = b""  # NewSessionTicket messages that were read before the hand-over
        self._cache = cache
        self._ttl = ttl

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.session is not None and isinstance(exc, errors.SSAError):
            self._cache.forget(self.server)

    def harvest(self, chain: tuple[bytes, ...], engine: ClientEngine) -> Harvest | None:
        """After the handshake: the `Harvest` that makes sessions of the tickets; None if no session is kept.

        `chain` is the chain that was judged.
        """
        if self.session is not None and not engine.resumed:
            self._cache.forget(self.server)
        if not self._ttl:
            return None
        proven = self.session.proven if self.session is not None and engine.resumed else self._cache.clock()
        return Harvest(self._cache, self.server, engine, Proof(chain, proven, proven + self._ttl))

    def keep(self, number: int, chain: tuple[bytes, ...], engine: ClientEngine) -> None:
        """After the handshake of the live socket `number`: keep its sessions, or wait for their tickets.

        `chain` is the chain that was judged.
        """
        harvest = self.harvest(chain, engine)
        if harvest is None:
            return
        if engine.version is TLSVersion.TLSv1_2:
            harvest.keep(engine.resumable())
        elif self.tickets:
            harvest.reap_untrusted(self.tickets)
        else:
            self._cache.wait(number, harvest)


# --- what servers send --------------------------------------------------------------------------------------------


def split_tickets_untrusted(messages: bytes) -> list[bytes]:
    """Split NewSessionTicket messages. Returns none where there is anything else among them, or one is too long."""
    tickets = []
    at = 0
    while at < len(messages):
        end = at + MESSAGE_HEADER + int.from_bytes(messages[at + 1 : at + MESSAGE_HEADER], "big")
        if messages[at] != NEW_SESSION_TICKET or end > len(messages) or end - at > _LONGEST_TICKET:
            return []
        tickets.append(messages[at:end])
        at = end
    return tickets


def encoded(native: SSL.Session) -> bytes:
    """A session in OpenSSL's ASN.1 form."""
    session = native._session  # noqa: SLF001 - pyOpenSSL does not bind it
    length = _lib.i2d_SSL_SESSION(session, _ffi.NULL)
    buffer = _ffi.new("unsigned char[]", length)
    _lib.i2d_SSL_SESSION(session, _ffi.new("unsigned char **", buffer))
    return bytes(_ffi.buffer(buffer, length))


class Facts(NamedTuple):
    """Fields of a session that OpenSSL gives in its ASN.1 form only."""

    identifier: bytes  # empty where the session can't be resumed
    lifetime: int  # seconds, as the server has said; 0 if it has not


def facts(der: bytes) -> Facts:
    """Read OpenSSL's SSL_SESSION structure (ssl/ssl_asn1.c)."""
    _, body, _ = _element(der)
    identifier, lifetime = b"", 0
    for index, (tag, value) in enumerate(_elements(body)):
        if index == _SESSION_ID:
            identifier = value
        elif tag == _LIFETIME:
            lifetime = int.from_bytes(_element(value)[1], "big")
    return Facts(identifier, lifetime)


_SESSION_ID = 3  # behind version, TLS version and cipher
_LIFETIME = 0xA9  # tlsext_tick_lifetime_hint [9] EXPLICIT


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        tag, value, data = _element(data)
        found.append((tag, value))
    return found


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER: its tag, its value, and the bytes behind it."""
    length, at = data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    return data[0], data[at : at + length], data[at + length :]
