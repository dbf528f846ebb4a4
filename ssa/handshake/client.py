"""A handshake as a client: the offer, the flight that is held, the meaning of the server's alerts, and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from OpenSSL import SSL

from ssa.handshake import records
from ssa.handshake.engine import Engine
from ssa.handshake.negotiation import Negotiation
from ssa.handshake.states import ADMITTED, HELD, Event, State
from ssa.ktls.key_schedule import traffic_key
from ssa.suites import SUITES, TLSVersion
from ssa.tls import (
    APPLICATION_DATA,
    CERTIFICATE,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    HANDSHAKE,
    MESSAGE_HEADER,
    RECORD_HEADER,
)

if TYPE_CHECKING:
    from ssa.handshake.secrets import Role
    from ssa.handshake.session import Session

_COSTLY = frozenset(suite.number for suite in SUITES.values() if suite.is_dhe)


class ClientEngine(Engine):
    """A handshake as a client."""

    role: ClassVar[Role] = "client"
    alert_meanings: ClassVar[dict[str, tuple[str, str]]] = {
        "protocol_version": ("UNSUPPORTED_VERSION", ""),
        "handshake_failure": (
            "PEER_ALERT",
            "it shares no version, cipher suite, group or signature algorithm with the policy, or wants something else",
        ),
        "insufficient_security": ("NO_COMMON_CIPHER", "it demands stronger ciphers"),
        "unrecognized_name": ("PEER_ALERT", "it does not serve this host name"),
        "no_application_protocol": ("PEER_ALERT", "it speaks none of the protocols offered by ALPN"),
        "certificate_required": ("PEER_ALERT", "it demands a client certificate"),
    }

    def __init__(
        self,
        context: SSL.Context,
        server_name: str | None,
        alpn: tuple[str, ...],
        session: Session | None = None,
    ) -> None:
        """`server_name` is what SNI says (A-labels), None for a peer known by its address (RFC 6066 section 3).

        `session` is one of the same context, to be offered.
        """
        super().__init__(context, Negotiation(), State.START)
        self._costly: bool | None = None
        self._offered = session
        self._tickets = 0  # fed to OpenSSL after the handshake
        if session is not None:
            self._connection.set_session(session.native)
        if server_name is not None:
            self._connection.set_tlsext_host_name(server_name.encode("ascii"))
        if alpn:
            self._connection.set_alpn_protos([name.encode("ascii") for name in alpn])
        self._connection.set_connect_state()

    def start(self) -> bytes:
        """The ClientHello."""
        self._expect(Event.START)
        self._advance()
        return self._move(Event.START)

    def is_costly_untrusted(self, record: bytes) -> bool:
        """True until the server has chosen a suite, and then where it chooses in that suite how long we compute."""
        if self._costly is None and (suite := records.server_hello_suite_untrusted(record)) is not None:
            self._costly = suite in _COSTLY  # of the first ServerHello: no later one may choose another
        return self._costly is not False

    def _is_flight_to_hold(self) -> bool:
        """True for any flight but a ClientHello: a server may ask for another one (HelloRetryRequest).

        The question is not "is there a certificate": of a session that was offered there is one from the start, and
        the server may decline the session and send another.
        """
        flight, _ = records.split_untrusted(self._pending)
        return any(not _is_client_hello(record) for record in flight)

    # --- the server's certificates, and our own -----------------------------------------------------------------

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The server's certificates; those that the session was made with where one is resumed."""
        return self._offered.chain if self._offered is not None and self.resumed else super().chain

    @property
    def presented(self) -> int | None:
        """See `Engine.presented`. A server that asked for a certificate is sent one, or an empty list."""
        for record in records.split_untrusted(self._sent)[0]:
            content = self._opened(record)
            if content[:1] == bytes([CERTIFICATE]):
                request = 0 if self.version is TLSVersion.TLSv1_2 else 1 + content[MESSAGE_HEADER]  # its context
                lists = content[MESSAGE_HEADER + request :]
                return int.from_bytes(lists[:3], "big")
            if record[0] != CHANGE_CIPHER_SPEC:
                break
        return None

    def _opened(self, record: bytes) -> bytes:
        """The content of the first record of our last flight; empty where nobody but OpenSSL knows it."""
        if record[0] == HANDSHAKE:
            return record[RECORD_HEADER:]
        label = HELD[self.role, TLSVersion.TLSv1_3].secret
        if record[0] != APPLICATION_DATA or label not in self.secrets:
            return b""
        suite = self.suite
        key = traffic_key(suite, self.secrets[label])
        _, content = records.open_untrusted(suite.aead, key, 0, record) or (0, b"")
        return content

    def _meaning(self, alert: str) -> tuple[str, str]:
        presented = self.presented
        if alert == "handshake_failure" and presented is None and self.state in ADMITTED:
            return "PEER_ALERT", ""  # what they share was settled by then
        if presented is None or alert not in _AGAINST_CERTIFICATES:
            return super()._meaning(alert)
        if presented:
            return "PEER_ALERT", "it does not accept the client certificate that it demanded and was given"
        return "PEER_ALERT", (
            "it demands a client certificate, and the application brought none (TLS_CERTIFICATE_CHAIN, TLS_PRIVATE_KEY)"
        )

    # --- sessions -----------------------------------------------------------------------------------------------

    def resumable(self) -> SSL.Session | None:
        """The session as it stands after the handshake, for another handshake."""
        # OpenSSL takes a session for spoilt when its connection goes without a close_notify, which the kernel sends.
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN)
        return self._connection.get_session()

    def resumable_by_untrusted(self, ticket: bytes) -> SSL.Session | None:
        """The session of a TLS 1.3 ticket that came after the handshake; None where OpenSSL can't make one of it.

        `ticket` is a NewSessionTicket message. It is sealed again, under the server's first key and the number that
        OpenSSL has come to.
        """
        suite = self.suite
        key = traffic_key(suite, self.secrets["SERVER_TRAFFIC_SECRET_0"])
        self._connection.bio_write(records.seal(suite.aead, key, self._tickets, HANDSHAKE, ticket))
        self._tickets += 1
        try:
            self._connection.recv(1)
        except SSL.WantReadError:
            return self.resumable()
        except SSL.Error:
            return None  # a connection that has no more to do with the peer; what is fed to it later fails as well
        return None


def _is_client_hello(record: bytes) -> bool:
    """True for a ClientHello, or the empty ChangeCipherSpec before the second one (RFC 8446 appendix D.4)."""
    kind = record[0]
    return kind == CHANGE_CIPHER_SPEC or (kind == HANDSHAKE and record[RECORD_HEADER] == CLIENT_HELLO)


# Alerts that mean our certificate, or that there is none, where one was demanded (RFC 8446 section 6.2).
_AGAINST_CERTIFICATES = frozenset(
    {
        "handshake_failure",
        "no_certificate",
        "bad_certificate",
        "unsupported_certificate",
        "certificate_revoked",
        "certificate_expired",
        "certificate_unknown",
        "unknown_ca",
        "access_denied",
        "certificate_required",
    }
)
