"""A DTLS session, sans I/O: datagrams in, datagrams out, and the same stop for the verdict as in TLS.

Theory of operation. `ssa.handshake.engine` has the theory of OpenSSL over memory BIOs, and of the flight that is held
until the peer is judged. OpenSSL does what DTLS 1.2 adds: it puts fragments together, sends a flight again when its
timer is due or the peer repeats its own, and drops what was forged, replayed, or is of another session.

Three things are left to us:

* A memory BIO knows no datagrams. What comes in is fed one at a time, and read to its end; what goes out are records,
  which are packed into datagrams as large as the path takes.
* OpenSSL has a timer and no clock: `patience` says how long to wait, and `retransmit` is called then.
* The session does not end with the handshake: there is no kernel to hand it to.

The tables of the states are in `ssa.dtls.states`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, ClassVar

from OpenSSL import SSL

from ssa import errors
from ssa.dtls import records
from ssa.dtls.states import CLIENT, LIVE, SERVER
from ssa.handshake.client import ClientEngine
from ssa.handshake.engine import Engine
from ssa.handshake.server import ServerEngine
from ssa.handshake.states import Event, State, Table
from ssa.suites import TLSVersion
from ssa.tls import MAX_CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable

_LEAST = 548  # bytes of a datagram that every IPv4 host takes, without IP's and UDP's headers (RFC 1122 section 3.3.2)
_DOUBTS = 2  # flights unanswered, until datagrams are suspected to be too large (RFC 6347 section 4.1.1.1)
_MOST = 1472  # bytes: what Ethernet carries; a handshake gains nothing by more


class DatagramEngine(Engine):
    """The common part of both roles of a session. After the handshake there are `open_untrusted` and `seal`."""

    _unanswered = 0
    _size = _MOST

    @property
    def version(self) -> TLSVersion:
        """DTLS 1.2 is TLS 1.2, over datagrams."""
        return TLSVersion.TLSv1_2

    @property
    def presented(self) -> None:
        """None: it is not looked for in the records and fragments of DTLS."""
        return

    @property
    def closed(self) -> bool:
        """True where the peer has ended the session with a close_notify."""
        return self.state is State.CLOSED

    @property
    def costs(self) -> int:
        """The bytes that a record adds to its content."""
        return self._size - self._connection.get_cleartext_mtu()

    def fit(self, size: int) -> None:
        """Limit a handshake's datagrams to so many bytes from now on."""
        self._size = max(_LEAST, min(size, _MOST))
        self._connection.set_ciphertext_mtu(self._size)

    def packed(self, flight: bytes) -> list[bytes]:
        """A flight as datagrams."""
        return records.packed(flight, self._size)

    # --- the handshake ------------------------------------------------------------------------------------------

    def is_costly_untrusted(self, record: bytes) -> bool:  # noqa: ARG002 - of the suites of DTLS none is
        """False: the suites in which the peer could make it last are not offered over datagrams."""
        return False

    def patience(self) -> float | None:
        """Seconds until `retransmit` is due; None where OpenSSL's timer does not run."""
        seconds: float | None = self._connection.DTLSv1_get_timeout()
        return seconds

    def retransmit(self) -> bytes:
        """The last flight, to be sent again; in smaller pieces if no answer came to large ones.

        Raises `ssa.HandshakeTimeout` when OpenSSL has sent it often enough.
        """
        self._expect(Event.RETRANSMIT)
        self._unanswered += 1
        if self._unanswered == _DOUBTS:
            self.fit(_LEAST)
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as exc:
            raise self._failed(errors.error("HANDSHAKE_TIMEOUT", "no answer to any flight")) from exc
        self._collect()
        return self._move(Event.RETRANSMIT)

    def farewell(self) -> bytes:
        """See `Engine.farewell`; of DTLS's records."""
        return self._alert_among(list(records.split(self._take()))) if self.state is State.FAILED else b""

    def _note_untrusted(self, record: bytes) -> None:
        """Do nothing: the keys and their record numbers stay with OpenSSL."""

    def _take_in(self, record: bytes) -> None:
        if record:  # there are empty datagrams, and a BIO takes none
            self._connection.bio_write(record)

    def _advance(self) -> Event:
        event = super()._advance()
        if self._pending or event is Event.FINISHED:
            self._unanswered = 0
        return event

    def _alert(self, name: str) -> bytes:
        """The record of a fatal alert, in plain text like every flight that is held in DTLS 1.2."""
        return self._plain_alert(name)

    def _plain_alert(self, name: str) -> bytes:
        return records.plain_alert(name)

    # --- what follows it ------------------------------------------------------------------------------------------

    def open_untrusted(self, datagram: bytes) -> tuple[list[bytes], bytes]:
        """Open a datagram of the peer's. Returns the content of each record, and what has to be answered.

        Records that are not the peer's have no content. An empty datagram asks for what came in the last datagram of
        the handshake. Raises `ssa.SSAError` when the session has failed. When the peer has ended it, `closed` is true.
        """
        self._expect(Event.DATA)
        self._take_in(datagram)
        contents: list[bytes] = []
        event = Event.DATA
        try:
            while True:
                contents.append(self._connection.read(MAX_CONTENT))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            event = Event.CLOSE
        except SSL.Error as exc:
            raise self._failed(self._explain(exc)) from exc
        finally:
            self._collect()
        return contents, self._move(event)

    def seal(self, content: bytes) -> bytes:
        """The datagram that carries a content, of 1 to `ssa.tls.MAX_CONTENT` bytes. Raises `ssa.SSAError`."""
        self._expect(Event.SEAL)
        try:
            self._connection.write(content)
        except SSL.Error as exc:
            raise self._failed(self._explain(exc)) from exc
        self._collect()
        return self._move(Event.SEAL)

    def end(self) -> bytes:
        """End the session. Returns our close_notify; nothing where the handshake is not done."""
        self._expect(Event.END)
        self._pending = b""  # of a handshake: a flight that is held
        if self.state in LIVE:
            with contextlib.suppress(SSL.Error):  # of a session that fails just now
                self._connection.shutdown()
            self._collect()
        return self._move(Event.END)


class DatagramClient(DatagramEngine, ClientEngine):
    """A client's session."""

    table: ClassVar[Table] = CLIENT

    def __init__(self, context: SSL.Context, server_name: str | None, alpn: tuple[str, ...], size: int) -> None:
        """`size` is what `fit` takes, the others are those of `ClientEngine`."""
        super().__init__(context, server_name, alpn)
        self.fit(size)

    def _is_flight_to_hold(self) -> bool:
        return any(not records.hello_untrusted(record) for record in records.split(self._pending))


class DatagramServer(DatagramEngine, ServerEngine):
    """A server's session. It begins by `listen_untrusted`, which keeps nothing of clients that cannot be reached."""

    first: ClassVar[State] = State.START
    table: ClassVar[Table] = SERVER

    def __init__(  # noqa: PLR0913 - the terms of a handshake, and what `fit` takes
        self,
        context: SSL.Context,
        choose: Callable[[str | None], SSL.Context],
        alpn: tuple[str, ...],
        ask_certificate: bool,  # noqa: FBT001 - the terms of a handshake, in the order of `ServerEngine`
        size: int,
        *,
        optional: bool = False,
    ) -> None:
        """`size` is what `fit` takes, the others are those of `ServerEngine`."""
        super().__init__(context, choose, alpn, ask_certificate, optional=optional)
        self.fit(size)

    def listen_untrusted(self, datagram: bytes, cookies: tuple[bytes, ...]) -> tuple[bool, bytes]:
        """Take a first datagram. `cookies` are those of the address that it came from.

        Returns true if the datagram has one of the cookies: the session is that client's, and `start` goes on.
        Otherwise returns the answer, which has a cookie, and nothing has changed.
        Raises `ssa.HandshakeError`; then this engine is of no further use.
        """
        self._expect(Event.LISTEN)
        self._negotiation.cookies = cookies
        self._take_in(datagram)
        try:
            self._connection.DTLSv1_listen()
        except SSL.WantReadError:
            self._collect()
            return False, self._move(Event.LISTEN)
        except SSL.Error as exc:
            raise self._failed(self._explain(exc)) from exc
        return True, self._move(Event.GREET)

    def start(self) -> bytes:
        """The answer to the client's hello. Raises as `feed_untrusted`."""
        self._expect(Event.START)
        self._advance()
        return self._move(Event.START)
