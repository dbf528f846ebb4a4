"""One handshake, sans I/O: whole records in, records out, and one stop in the middle.

Theory of operation. OpenSSL runs over two memory BIOs, and what it wants to send lies in the second until we
take it. That gives the judgement its place: when all that the peer says of itself is known and OpenSSL has the last
flight ready, the flight is *held*. Only `admit`, which wants a `Verified`, lets it go; `refuse` throws it away, and
puts the alert in its place. What is held, and how the alert is protected:

    client, TLS 1.3   our certificate and Finished        sealed under the client's handshake key, record 0
    client, TLS 1.2   ClientKeyExchange and Finished      plain text: no key is in use yet
    server, TLS 1.3   session tickets                     sealed under the server's application key, record 0
    server, TLS 1.2   session ticket and Finished         plain text

A server has sent its own certificate and, in TLS 1.3, its Finished before; but no application data can follow them,
as nobody has the keys yet.

Records are fed one at a time, and none after `done`: what follows the handshake belongs to the kernel.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL, crypto

from ssa import errors
from ssa.handshake import records
from ssa.handshake.hello import ClientHello, largest_untrusted, parse_untrusted
from ssa.handshake.refusal import step_of
from ssa.handshake.secrets import Role, Secrets, TrafficKeys, tls12_keys, tls13_keys
from ssa.ktls.key_schedule import traffic_key
from ssa.suites import BY_OPENSSL_NAME, SUITES, Suite, TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, CERTIFICATE, CHANGE_CIPHER_SPEC, CLIENT_HELLO, HANDSHAKE, RECORD_HEADER
from ssa.trust import Verified

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.handshake.session_cache import Session

_ffi, _lib = _openssl.ffi, _openssl.lib

_COSTLY = frozenset(suite.number for suite in SUITES.values() if suite.is_dhe)
_PLAIN_ALERT = RECORD_HEADER + 2  # bytes
_FLIGHT = 256 * 1024  # bytes: more than a flight has


class Step(Enum):
    """What the engine waits for."""

    READ = auto()  # the peer's next record
    JUDGE = auto()  # `admit` or `refuse`
    DONE = auto()


@dataclass(slots=True)
class Negotiation:
    """What OpenSSL's callbacks, which belong to a context, need of one connection: its app data."""

    secrets: Secrets = field(default_factory=Secrets)
    alpn: tuple[bytes, ...] = ()  # a server's, in order of preference
    choose: Callable[[str | None], SSL.Context] | None = None  # a server's: by SNI
    server_name: str | None = None  # what the client asked for
    refusal: errors.SSAError | None = None  # a callback can't raise it
    cookies: tuple[bytes, ...] = ()  # a server's over datagrams: those that are good, the one to give out first


class Engine(ABC):
    """What both roles have in common. An engine makes one handshake: throw it away afterwards."""

    role: ClassVar[Role]
    # What an alert of the peer's most likely means: (row of errors.REASONS, explanation).
    alert_meanings: ClassVar[dict[str, tuple[str, str]]]

    def __init__(self, context: SSL.Context, negotiation: Negotiation) -> None:
        self.step = Step.READ
        self._negotiation = negotiation
        self._admitted = False
        self._finished = False
        self._state = ""  # OpenSSL's, before what it does now
        self._plain_alert: int | None = None  # the number in the last record, if it was an alert in plain text
        self._received = 0  # records since ChangeCipherSpec: in TLS 1.2, under the key that the kernel gets
        self._pending = b""  # what OpenSSL wants to send, until it may
        self._sent = b""  # the last flight: in TLS 1.2 its end is protected by the key that the kernel gets
        self._spent = 0  # records behind our Finished: in TLS 1.3, under the key that the kernel gets
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(negotiation)

    def start(self) -> bytes:
        """What is to be sent before the peer has said anything."""
        return b""

    def feed_untrusted(self, record: bytes) -> bytes:
        """One whole record of the peer's; what has to be sent in answer, empty while `step` is JUDGE.

        Raises `ssa.HandshakeError`, and `ssa.CertificateError` for a certificate that OpenSSL cannot read; then
        `farewell` is the alert that OpenSSL has for the peer.
        """
        if self.step is not Step.READ:
            raise RuntimeError("a record was fed to an engine that waits for none")
        self._received = 0 if record[0] == CHANGE_CIPHER_SPEC else self._received + 1
        self._plain_alert = record[-1] if record[0] == ALERT and len(record) == _PLAIN_ALERT else None
        self._connection.bio_write(record)
        finished = self._advance()
        if not self._admitted and self._is_last_flight(finished=finished):
            self._finished = finished
            self.step = Step.JUDGE
            return b""
        return self._release(finished=finished)

    @abstractmethod
    def is_costly_untrusted(self, record: bytes) -> bool:
        """Whether to feed this record may take long, because the peer chooses how long."""

    @abstractmethod
    def _is_last_flight(self, *, finished: bool) -> bool:
        """Whether what OpenSSL wants to send is the flight that is held."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The peer's certificates as it sent them, DER, its own first; none from a client that was not asked."""
        # As OpenSSL has them: what another parser makes of them is for ssa.trust to find out.
        chain = self._connection.get_peer_cert_chain() or ()
        return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain)

    def admit(self, verified: Verified) -> bytes:
        """The peer is who it should be: the held flight."""
        if not isinstance(verified, Verified):
            raise TypeError("only a verdict of ssa.trust admits a peer")
        self._admitted = True
        return self._release(finished=self._finished)

    def refuse(self, alert: str) -> bytes:
        """The peer is refused: the alert, in place of the held flight."""
        self._take()
        self.step = Step.DONE
        return self.alert(alert)

    def alert(self, name: str) -> bytes:
        """The record of a fatal alert, under the key that protects by now what we send, if there is one."""
        if self._held_under in self.secrets:
            suite = self.suite
            key = traffic_key(suite, self.secrets[self._held_under])
            return records.seal(suite.aead, key, 0, ALERT, records.fatal_alert(name))
        return self._alert_of_openssl() if self._admitted else records.plain_alert(name)

    def _alert_of_openssl(self) -> bytes:
        """What OpenSSL says to application data where there can be none (unexpected_message).

        Behind a Finished of TLS 1.2's only OpenSSL has the key and the number of the record.
        """
        self._connection.bio_write(bytes([APPLICATION_DATA]) + b"\x03\x03\0\1\0")
        with contextlib.suppress(errors.SSAError):
            self._advance()
        return self.farewell()

    _held_under: ClassVar[str]  # in TLS 1.3: the label of the secret that protects the flight that is held

    def farewell(self) -> bytes:
        """What OpenSSL has to say after an error: the alert, the last record of what is pending; or nothing.

        A record that ends one flight and then goes wrong can leave our answer to the flight before the alert: nobody
        has judged the peer, so that stays here.
        """
        flight, _ = records.split_untrusted(self._take())
        return b"".join(flight[-1:])

    def keys(self) -> TrafficKeys:
        """The keys of both directions, as they stand right behind the handshake."""
        if not self._admitted or self.step is not Step.DONE:
            raise RuntimeError("keys exist for a peer that was admitted, after the handshake only")
        if self.version is TLSVersion.TLSv1_3:
            return tls13_keys(self.suite, self.secrets, self.role, sent=self._spent)
        connection = self._connection
        master, client, server = connection.master_key(), connection.client_random(), connection.server_random()
        if master is None or client is None or server is None:
            raise RuntimeError("OpenSSL has no secrets after a handshake")
        sent, received = self._sealed_records(), self._received
        return tls12_keys(self.suite, master, client, server, self.role, sent=sent, received=received)

    def stream(self) -> SSL.Connection:
        """OpenSSL's connection right behind the handshake, for who goes on with it in the kernel's place.

        Nothing of the stream is in it yet: it was fed the handshake's records only, and what it had to send has left.
        """
        if not self._admitted or self.step is not Step.DONE or self._pending:
            raise RuntimeError("a stream exists for a peer that was admitted, after the handshake only")
        return self._connection

    @property
    def secrets(self) -> Secrets:
        """The secrets as far as they are known."""
        return self._negotiation.secrets

    @property
    def version(self) -> TLSVersion:
        """The negotiated version."""
        return TLSVersion(self._connection.get_protocol_version())

    @property
    def suite(self) -> Suite:
        """The negotiated cipher suite."""
        return BY_OPENSSL_NAME[self._connection.get_cipher_name() or "none"]

    @property
    def group(self) -> str:
        """The group of the key exchange; empty where there is no name for it."""
        return self._connection.get_group_name() or ""

    @property
    def alpn(self) -> str:
        """The negotiated application protocol; empty for none."""
        protocol: bytes = self._connection.get_alpn_proto_negotiated()
        return protocol.decode("ascii", "replace")

    @property
    def server_name(self) -> str:
        """To a server: the name that the client asked for (SNI); empty when it did not say."""
        return self._negotiation.server_name or ""

    @property
    def context(self) -> SSL.Context:
        """The context that the handshake went on with: of a server, the one for the name that was asked for."""
        return self._connection.get_context()

    @property
    def own_certificate(self) -> bytes:
        """A server's certificate, DER: of those in its context, the one that was chosen for the client."""
        certificate = self._connection.get_certificate()
        return b"" if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)

    @property
    def resumed(self) -> bool:
        """Whether an earlier session was resumed, and so no certificate was sent this time."""
        return bool(_lib.SSL_session_reused(self._connection._ssl))  # noqa: SLF001 - pyOpenSSL does not bind it

    @property
    def hello(self) -> ClientHello | None:
        """To a server: what the client offers, once that is known."""
        return None

    @property
    def largest(self) -> int:
        """How many bytes the content of a record that we send may have at most; 0 for as many as TLS allows."""
        return 0

    @property
    def at(self) -> str:
        """The step of the handshake, or the one at which it failed, for a person."""
        state = self._connection.get_state_string().decode("ascii", "replace")
        return step_of(self._state if state == "error" else state)

    @property
    def presented(self) -> int | None:
        """How many bytes of certificates we have sent when we were asked for one; None where we were not."""
        return None

    def _advance(self) -> bool:
        self._state = self._connection.get_state_string().decode("ascii", "replace")
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.ZeroReturnError as exc:
            self.step = Step.DONE
            raise errors.error("CONNECTION_CLOSED", "it sent close_notify") from exc
        except errors.SSAError:  # from a callback of ours
            self.step = Step.DONE
            raise
        except SSL.Error as exc:
            self.step = Step.DONE
            raise self._explain(exc) from exc
        else:
            return True
        finally:
            with contextlib.suppress(SSL.WantReadError):  # its word for an empty BIO
                self._pending += self._connection.bio_read(_FLIGHT)

    def _release(self, *, finished: bool) -> bytes:
        self.step = Step.DONE if finished else Step.READ
        return self._take()

    def _take(self) -> bytes:
        flight, self._pending = self._pending, b""
        if flight:
            self._sent = flight
        return flight

    def _sealed_records(self) -> list[bytes]:
        """Our records behind ChangeCipherSpec in TLS 1.2: the Finished, as a rule in one."""
        flight, _ = records.split_untrusted(self._sent)
        kinds = [record[0] for record in flight]
        return flight[kinds.index(CHANGE_CIPHER_SPEC) + 1 :]

    def _explain(self, exc: SSL.Error) -> errors.SSAError:
        """The error that an exception of OpenSSL's stands for: the first of its queue says what went wrong."""
        queue: list[tuple[Any, ...]] = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
        text = str(queue[0][2]) if queue else str(exc)
        if not text and self._plain_alert is not None:  # one that is in no standard has no words
            return self.from_alert(errors.alert_name(self._plain_alert))
        if text in _alerts_by_text():
            return self.from_alert(errors.alert_name(_alerts_by_text()[text]))
        if queue and str(queue[0][0]) in _OF_CERTIFICATES:
            return errors.error("BAD_CERTIFICATE", f"it cannot be read: {text}")
        return errors.error(_OPENSSL_REASONS.get(text, "PROTOCOL_VIOLATION"), text or "OpenSSL gives no reason")

    def from_alert(self, alert: str) -> errors.SSAError:
        """The error for a fatal alert that the peer sent."""
        reason, meaning = self._meaning(alert)
        said = f"it answered with the alert {alert}"
        return errors.error(reason, f"{said}: {meaning}" if meaning else said, alert)

    def _meaning(self, alert: str) -> tuple[str, str]:
        return self.alert_meanings.get(alert, ("PEER_ALERT", ""))


class ClientEngine(Engine):
    """A handshake as a client."""

    role = "client"
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
    _held_under = "CLIENT_HANDSHAKE_TRAFFIC_SECRET"

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
        super().__init__(context, Negotiation())
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
        self._advance()
        return self._take()

    def is_costly_untrusted(self, record: bytes) -> bool:
        """Whether the server chose a suite in which it chooses how long we compute."""
        if self._costly is None and (suite := records.server_hello_suite_untrusted(record)) is not None:
            self._costly = suite in _COSTLY  # of the first ServerHello: no later one may choose another
        return self._costly is not False

    @property
    def presented(self) -> int | None:
        """As `Engine.presented`. A server that asked for a certificate is sent one, or an empty list."""
        for record in records.split_untrusted(self._sent)[0]:
            content = self._opened(record)
            if content[:1] == bytes([CERTIFICATE]):
                lists = content[4:] if self.version is TLSVersion.TLSv1_2 else content[4 + 1 + content[4] :]
                return int.from_bytes(lists[:3], "big")
            if record[0] != CHANGE_CIPHER_SPEC:
                break
        return None

    def _opened(self, record: bytes) -> bytes:
        """The content of the first record of our last flight; empty where nobody but OpenSSL knows it."""
        if record[0] == HANDSHAKE:
            return record[RECORD_HEADER:]
        if record[0] != APPLICATION_DATA or self._held_under not in self.secrets:
            return b""
        suite = self.suite
        key = traffic_key(suite, self.secrets[self._held_under])
        _, content = records.open_untrusted(suite.aead, key, 0, record) or (0, b"")
        return content

    def _meaning(self, alert: str) -> tuple[str, str]:
        presented = self.presented
        if alert == "handshake_failure" and presented is None and self._admitted:
            return "PEER_ALERT", ""  # what they share was settled by then
        if presented is None or alert not in _AGAINST_CERTIFICATES:
            return super()._meaning(alert)
        if presented:
            return "PEER_ALERT", "it does not accept the client certificate that it demanded and was given"
        return "PEER_ALERT", (
            "it demands a client certificate, and the application brought none (TLS_CERTIFICATE_CHAIN, TLS_PRIVATE_KEY)"
        )

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The server's certificates; those that the session was made with where one is resumed."""
        return self._offered.chain if self._offered is not None and self.resumed else super().chain

    def resumable(self) -> SSL.Session | None:
        """The session as it stands after the handshake, for another one."""
        # OpenSSL takes a session for spoilt when its connection goes without a close_notify, which is the kernel's.
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN)
        return self._connection.get_session()

    def resumable_by_untrusted(self, ticket: bytes) -> SSL.Session | None:
        """The session of a TLS 1.3 ticket that came after the handshake; None where OpenSSL can't make one of it.

        Whoever read the ticket has its content, a NewSessionTicket message: it is sealed again, under the server's
        first key and the number that OpenSSL has come to.
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

    def _is_last_flight(self, *, finished: bool) -> bool:
        """Whatever is no ClientHello: a server may ask for another one (HelloRetryRequest), and knows nothing by it.

        Not "whether there is a certificate": of a session that was offered there is one from the start, and the
        server may decline the session and send another.
        """
        flight, _ = records.split_untrusted(self._pending)
        return finished or any(not _is_client_hello(record) for record in flight)


def _is_client_hello(record: bytes) -> bool:
    """Or the empty ChangeCipherSpec before the second one (RFC 8446 appendix D.4)."""
    kind = record[0]
    return kind == CHANGE_CIPHER_SPEC or (kind == HANDSHAKE and record[RECORD_HEADER] == CLIENT_HELLO)


class ServerEngine(Engine):
    """A handshake as a server."""

    role = "server"
    alert_meanings: ClassVar[dict[str, tuple[str, str]]] = {
        "protocol_version": ("UNSUPPORTED_VERSION", ""),
        "unknown_ca": ("PEER_ALERT", "it does not trust this server's certificate"),
        "bad_certificate": ("PEER_ALERT", "it does not accept this server's certificate"),
        "certificate_unknown": ("PEER_ALERT", "it does not accept this server's certificate"),
        "certificate_expired": ("PEER_ALERT", "it finds this server's certificate expired"),
    }
    _held_under = "SERVER_TRAFFIC_SECRET_0"

    def __init__(
        self,
        context: SSL.Context,
        choose: Callable[[str | None], SSL.Context],
        alpn: tuple[str, ...],
        ask_certificate: bool,  # noqa: FBT001 - a term like the others
    ) -> None:
        """`choose` says with what to go on for the name that the client asks for, or raises `ssa.SSAError`."""
        protocols = tuple(name.encode("ascii") for name in alpn)
        super().__init__(context, Negotiation(alpn=protocols, choose=choose))
        self._hello = b""  # the message, as far as it has come
        if ask_certificate:
            # Whatever it is, it is taken here: ssa.trust judges it.
            self._connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _take_any)
        self._connection.set_accept_state()

    def feed_untrusted(self, record: bytes) -> bytes:
        """As `Engine.feed_untrusted`."""
        if record[0] == HANDSHAKE and not self._has_hello:
            self._hello += record[RECORD_HEADER:]
        answer = super().feed_untrusted(record)
        if (refusal := self._negotiation.refusal) is not None:
            # OpenSSL has gone on with another certificate: its answer stays here.
            self._pending = records.plain_alert(refusal.alert or "internal_error")
            self.step = Step.DONE
            raise refusal
        return answer

    @property
    def _has_hello(self) -> bool:
        return len(self._hello) >= 4 + int.from_bytes(self._hello[1:4], "big") if self._hello else False

    @property
    def hello(self) -> ClientHello | None:
        """What the client offers; None as long as it has not said so in a way that is understood."""
        try:
            return parse_untrusted(self._hello)
        except ValueError:
            return None

    @property
    def largest(self) -> int:
        """As `Engine.largest`: OpenSSL agrees to max_fragment_length, and never to record_size_limit (RFC 8449)."""
        return largest_untrusted(self._hello)

    def is_costly_untrusted(self, record: bytes) -> bool:  # noqa: ARG002 - the client has no say in it
        """Never: we choose the group and our key."""
        return False

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The client's certificates; OpenSSL keeps its own one apart from the others at this end."""
        leaf = self._connection.get_peer_certificate()
        return () if leaf is None else (crypto.dump_certificate(crypto.FILETYPE_ASN1, leaf), *super().chain)

    def _is_last_flight(self, *, finished: bool) -> bool:
        return finished

    def admit(self, verified: Verified) -> bytes:
        """The client is who it should be, or may be anybody: the session tickets, or in TLS 1.2 our Finished."""
        held = super().admit(verified)
        self._spent = len(records.split_untrusted(held)[0])
        return held


def _take_any(*_: object) -> bool:
    return True


def serve_name(connection: SSL.Connection) -> None:
    """OpenSSL's callback for SNI: go on with what is chosen for the name."""
    negotiation: Negotiation = connection.get_app_data()
    name = connection.get_servername()
    negotiation.server_name = None if name is None else name.decode("ascii", "replace")
    try:
        if negotiation.choose is not None:
            connection.set_context(negotiation.choose(negotiation.server_name))
    except errors.SSAError as exc:
        negotiation.refusal = exc


def select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """OpenSSL's callback for ALPN: ours decides the order (RFC 7301 section 3.2)."""
    ours = connection.get_app_data().alpn
    if not ours:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    chosen = next((name for name in ours if name in offered), None)
    if chosen is None:
        raise errors.error("NO_COMMON_PROTOCOL", ", ".join(errors.printable(repr(name), 40) for name in offered[:8]))
    return chosen


def give_cookie(connection: SSL.Connection) -> bytes:
    """OpenSSL's callback: the cookie for the client that a datagram claims to be from."""
    cookie: bytes = connection.get_app_data().cookies[0]
    return cookie


def take_cookie(connection: SSL.Connection, cookie: bytes) -> bool:
    """OpenSSL's callback: whether the client shows a cookie that was given to it."""
    return any(hmac.compare_digest(cookie, good) for good in connection.get_app_data().cookies)


_ERR_LIB_SSL = 20
_ALERT_OFFSET = 1000  # SSL_AD_REASON_OFFSET: the reason code of a received alert is this and the alert's number


@functools.cache
def _alerts_by_text() -> dict[str, int]:
    """OpenSSL's words for each alert, which is all that an exception has. It knows them once it has been used."""
    code = {number: _ERR_LIB_SSL << 23 | _ALERT_OFFSET + number for number in errors.ALERTS}
    texts = {number: _lib.ERR_reason_error_string(code[number]) for number in code}
    return {_ffi.string(text).decode(): number for number, text in texts.items() if text != _ffi.NULL}


def alert_of(exc: SSL.Error) -> str | None:
    """The fatal alert of the peer's that an exception of OpenSSL's stands for, if it does."""
    queue = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    number = _alerts_by_text().get(str(queue[0][2])) if queue else None
    return None if number is None else errors.alert_name(number)


_OPENSSL_REASONS: dict[str, str] = {
    "unsupported protocol": "UNSUPPORTED_VERSION",
    "wrong ssl version": "UNSUPPORTED_VERSION",
    "inappropriate fallback": "UNSUPPORTED_VERSION",
    "wrong cipher returned": "NO_COMMON_CIPHER",
    "unknown cipher returned": "NO_COMMON_CIPHER",
    "no shared cipher": "NO_COMMON_CIPHER",
    "dh key too small": "WEAK_KEY",
    "wrong version number": "NOT_TLS",
    "record too small": "PROTOCOL_VIOLATION",
    "packet length too long": "RECORD_OVERFLOW",
    "data length too long": "RECORD_OVERFLOW",
    "encrypted length too long": "RECORD_OVERFLOW",
    "peer did not return a certificate": "NO_CERTIFICATE",
    "http request": "NOT_TLS",
    "no suitable key share": "NO_COMMON_GROUP",
    "no suitable groups": "NO_COMMON_GROUP",
    "no shared groups": "NO_COMMON_GROUP",
    "wrong curve": "NO_COMMON_GROUP",
    "bad key share": "NO_COMMON_GROUP",
    "unsupported elliptic curve": "NO_COMMON_GROUP",
    "no suitable signature algorithm": "NO_COMMON_SIGNATURE",
    "no shared signature algorithms": "NO_COMMON_SIGNATURE",
    "wrong signature type": "NO_COMMON_SIGNATURE",
}
_OF_CERTIFICATES = frozenset({"asn1 encoding routines", "x509 certificate routines"})  # OpenSSL's libraries

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
