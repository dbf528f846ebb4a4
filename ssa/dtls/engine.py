"""A DTLS session, sans I/O: datagrams in, datagrams out, and the same stop in the middle of the handshake as in TLS.

Theory of operation. All that `ssa.handshake.engine` says holds: OpenSSL over memory BIOs, its flight held until the
peer was judged. What DTLS 1.2 adds OpenSSL does too: it puts fragments together, sends a flight again when its timer
is due or the peer repeats its own, drops what was forged, replayed, or is of another session.
Three
things are left to us:

* A memory BIO knows no datagrams. What comes in is fed one at a time, and read to its end; what goes out are records,
  which are packed into datagrams as large as the path takes.
* Nobody rings when OpenSSL's timer is due: `patience` says how long to wait, `retransmit` is for then.
* The session does not end with the handshake: there is no kernel to hand it to.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ssa import errors
from ssa.dtls import records
from ssa.handshake.engine import ClientEngine, Engine, ServerEngine, Step
from ssa.suites import TLSVersion
from ssa.tls import MAX_CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.trust import Verified

_LEAST = 548  # bytes of a datagram that every IPv4 host takes, without IP's and UDP's headers (RFC 1122 section 3.3.2)
_DOUBTS = 2  # flights unanswered, until datagrams are suspected to be too large (RFC 6347 section 4.1.1.1)
_MOST = 1472  # bytes: what Ethernet carries; a handshake gains nothing by more


class DatagramEngine(Engine):
    """What both roles add. Not ended by the handshake: `open_untrusted` and `seal` are for what follows."""

    closed = False  # by the peer's close_notify
    _unanswered = 0
    _size = _MOST

    @property
    def version(self) -> TLSVersion:
        """DTLS 1.2 is TLS 1.2, over datagrams."""
        return TLSVersion.TLSv1_2

    @property
    def presented(self) -> None:
        """Not looked for: DTLS's records and fragments are others."""
        return

    @property
    def costs(self) -> int:
        """The bytes that a record adds to its content."""
        return self._size - self._connection.get_cleartext_mtu()

    def fit(self, size: int) -> None:
        """From now on a handshake's datagrams are at most so large."""
        self._size = max(_LEAST, min(size, _MOST))
        self._connection.set_ciphertext_mtu(self._size)

    def packed(self, flight: bytes) -> list[bytes]:
        """A flight as datagrams."""
        return records.packed(flight, self._size)

    # --- the handshake ------------------------------------------------------------------------------------------

    def feed_untrusted(self, record: bytes) -> bytes:
        """One datagram of the peer's; otherwise as `Engine.feed_untrusted`."""
        if self.step is not Step.READ:
            raise RuntimeError("a datagram was fed to a handshake that waits for none")
        self._take_in(record)
        finished = self._advance()
        if self._pending or finished:
            self._unanswered = 0
        if not self._admitted and self._is_last_flight(finished=finished):
            self._finished = finished
            self.step = Step.JUDGE
            return b""
        return self._release(finished=finished)

    def is_costly_untrusted(self, record: bytes) -> bool:  # noqa: ARG002 - none of the suites is
        """Never: what a server could make last is not offered over datagrams."""
        return False

    def patience(self) -> float | None:
        """Seconds until `retransmit` is due; None where the other end has to."""
        seconds: float | None = self._connection.DTLSv1_get_timeout()
        return seconds

    def retransmit(self) -> bytes:
        """The last flight again; smaller pieces of it when no answer came to large ones."""
        self._unanswered += 1
        if self._unanswered == _DOUBTS:
            self.fit(_LEAST)
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as exc:
            raise errors.error("HANDSHAKE_TIMEOUT", "no answer to any flight") from exc
        return self._outgoing()

    def refuse(self, alert: str) -> bytes:
        """The peer is refused: the alert, in plain text as all that is held, in place of the flight."""
        self._take()
        self.step = Step.DONE
        return records.plain_alert(alert)

    def farewell(self) -> bytes:
        """As `Engine.farewell`."""
        return b"".join(list(records.split(self._take()))[-1:])

    def _is_last_flight(self, *, finished: bool) -> bool:
        return finished

    # --- what follows it ------------------------------------------------------------------------------------------

    def open_untrusted(self, datagram: bytes) -> tuple[list[bytes], bytes]:
        """What the peer sent in a datagram, if it sent it: a content for each record; and what has to be answered.

        An empty datagram asks for what has come together with the end of the handshake. Raises `ssa.SSAError` when the
        session has failed; when the peer has ended it, `closed` is true.
        """
        if not self._admitted:
            raise RuntimeError("data is read from a peer that was admitted only")
        self._take_in(datagram)
        contents: list[bytes] = []
        try:
            while True:
                contents.append(self._connection.read(MAX_CONTENT))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.closed = True
        except SSL.Error as exc:
            raise self._explain(exc) from exc
        return contents, self._outgoing()

    def seal(self, content: bytes) -> bytes:
        """The datagram that carries a content, of 1 to `MAX_CONTENT` bytes. Raises `ssa.SSAError`."""
        try:
            self._connection.write(content)
        except SSL.Error as exc:
            raise self._explain(exc) from exc
        return self._outgoing()

    def end(self) -> bytes:
        """Our close_notify."""
        with contextlib.suppress(SSL.Error):  # of a session that has failed
            self._connection.shutdown()
        return self._outgoing()

    def _take_in(self, datagram: bytes) -> None:
        if datagram:  # there are empty ones, and a BIO takes none
            self._connection.bio_write(datagram)

    def _outgoing(self) -> bytes:
        try:
            return self._connection.bio_read(2**18)
        except SSL.WantReadError:  # its word for an empty BIO
            return b""


class DatagramClient(DatagramEngine, ClientEngine):
    """A client's session."""

    def __init__(self, context: SSL.Context, server_name: str | None, alpn: tuple[str, ...], size: int) -> None:
        """`size` is what `fit` takes, the others are as for `ClientEngine`."""
        super().__init__(context, server_name, alpn)
        self.fit(size)

    def _is_last_flight(self, *, finished: bool) -> bool:
        return finished or any(not records.hello_untrusted(record) for record in records.split(self._pending))


class DatagramServer(DatagramEngine, ServerEngine):
    """A server's session. It begins by `listen`, which keeps nothing of who cannot be reached."""

    def __init__(
        self,
        context: SSL.Context,
        choose: Callable[[str | None], SSL.Context],
        alpn: tuple[str, ...],
        ask_certificate: bool,  # noqa: FBT001 - as for `ServerEngine`
        size: int,
    ) -> None:
        """`size` is what `fit` takes, the others are as for `ServerEngine`."""
        super().__init__(context, choose, alpn, ask_certificate)
        self.fit(size)

    def listen_untrusted(self, datagram: bytes, cookies: tuple[bytes, ...]) -> tuple[bool, bytes]:
        """A first datagram, and the cookies of where it came from: whether it has one of them, and the answer.

        When it has, the session is that client's, and `start` goes on. Otherwise nothing has changed.
        Raises `ssa.HandshakeError`; then this engine is of no further use.
        """
        self._negotiation.cookies = cookies
        self._take_in(datagram)
        try:
            self._connection.DTLSv1_listen()
        except SSL.WantReadError:
            return False, self._outgoing()
        except SSL.Error as exc:
            raise self._explain(exc) from exc
        return True, b""

    def start(self) -> bytes:
        """The answer to the client's hello. Raises as `feed_untrusted`."""
        self._advance()
        self._check_name()
        return self._take()

    def feed_untrusted(self, record: bytes) -> bytes:
        """As `DatagramEngine.feed_untrusted`."""
        answer = DatagramEngine.feed_untrusted(self, record)
        self._check_name()
        return answer

    def _check_name(self) -> None:
        if (refusal := self._negotiation.refusal) is not None:
            # OpenSSL has gone on with another certificate: its answer stays here.
            self._pending = records.plain_alert(refusal.alert or "internal_error")
            self.step = Step.DONE
            raise refusal

    def admit(self, verified: Verified) -> bytes:
        """As `Engine.admit`."""
        return Engine.admit(self, verified)
