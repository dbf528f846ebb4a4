"""A client's handshake, sans I/O: whole records in, records out, and one stop in the middle.

Theory of operation. OpenSSL runs over two memory BIOs, and what it wants to send lies in the second until we
take it. That gives the judgement its place: when the peer's certificates are known and OpenSSL has the next
flight ready, the flight is *held*. In TLS 1.3 it carries our Finished, in TLS 1.2 our ClientKeyExchange and
Finished; in both it is the last that the client says, and our own certificate would be in it. Only `admit`,
which wants a `Verified`, lets it go. `refuse` throws it away, and puts the alert in its place: in TLS 1.3
sealed under the client's handshake key, in whose sequence the held flight would have been the first record;
in TLS 1.2 in plain text, as no key is in use yet.

Records are fed one at a time, and none after `done`: what follows the handshake belongs to the kernel.
"""

from __future__ import annotations

import contextlib
import functools
from enum import Enum, auto
from typing import Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL, crypto

from ssa import errors
from ssa.handshake import records
from ssa.handshake.secrets import Secrets, TrafficKeys, tls12_keys, tls13_keys
from ssa.ktls.constants import ALERT, CHANGE_CIPHER_SPEC
from ssa.ktls.key_schedule import traffic_key
from ssa.suites import BY_OPENSSL_NAME, Suite, TLSVersion
from ssa.trust import Verified

_ffi, _lib = _openssl.ffi, _openssl.lib

# DHE-RSA with AES-128-GCM, AES-256-GCM, AES-128-CCM and ChaCha20-Poly1305 (RFC 5288, 6655, 7905)
_COSTLY = frozenset({0x009E, 0x009F, 0xC09E, 0xCCAA})
_PLAIN_ALERT = records.HEADER + 2  # bytes
_FLIGHT = 256 * 1024  # bytes: more than a flight has


class Step(Enum):
    """What the engine waits for."""

    READ = auto()  # the peer's next record
    JUDGE = auto()  # `admit` or `refuse`
    DONE = auto()


class ClientEngine:
    """One handshake as a client; throw it away afterwards."""

    def __init__(self, context: SSL.Context, server_name: str | None, alpn: tuple[str, ...]) -> None:
        """`server_name` is what SNI says (A-labels), None for a peer known by its address (RFC 6066 section 3)."""
        self.step = Step.READ
        self.secrets = Secrets()
        self._admitted = False
        self._finished = False
        self._plain_alert: int | None = None  # the number in the last record, if it was an alert in plain text
        self._costly: bool | None = None
        self._received = 0  # records since ChangeCipherSpec: in TLS 1.2, under the key that the kernel gets
        self._pending = b""  # what OpenSSL wants to send, until it may
        self._sent = b""  # the last flight, for the nonce that its Finished spent
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(self.secrets)
        if server_name is not None:
            self._connection.set_tlsext_host_name(server_name.encode("ascii"))
        if alpn:
            self._connection.set_alpn_protos([name.encode("ascii") for name in alpn])
        self._connection.set_connect_state()

    def start(self) -> bytes:
        """The ClientHello."""
        self._advance()
        return self._take()

    def feed_untrusted(self, record: bytes) -> bytes:
        """One whole record of the peer's; what has to be sent in answer, empty while `step` is JUDGE.

        Raises `ssa.HandshakeError`; then `farewell` is the alert that OpenSSL has for the peer.
        """
        if self.step is not Step.READ:
            raise RuntimeError("a record was fed to an engine that waits for none")
        self._received = 0 if record[0] == CHANGE_CIPHER_SPEC else self._received + 1
        self._plain_alert = record[-1] if record[0] == ALERT and len(record) == _PLAIN_ALERT else None
        self._connection.bio_write(record)
        finished = self._advance()
        if not self._admitted and (finished or (self._pending and self._has_certificate())):
            self._finished = finished
            self.step = Step.JUDGE
            return b""
        return self._release(finished=finished)

    def is_costly_untrusted(self, record: bytes) -> bool:
        """Whether to feed this record may take long: the server chose a suite in which it chooses how long."""
        if self._costly is None and (suite := records.server_hello_suite_untrusted(record)) is not None:
            self._costly = suite in _COSTLY  # of the first ServerHello: no later one may choose another
        return self._costly is not False

    def _has_certificate(self) -> bool:
        return self._connection.get_peer_certificate() is not None

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The peer's certificates as it sent them, DER, its own first."""
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
        if self.version is TLSVersion.TLSv1_2:
            return records.plain_alert(alert)
        suite = self.suite
        key = traffic_key(suite, self.secrets["CLIENT_HANDSHAKE_TRAFFIC_SECRET"])
        return records.seal(suite.aead, key, 0, ALERT, records.fatal_alert(alert))

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
            return tls13_keys(self.suite, self.secrets)
        connection = self._connection
        master, client, server = connection.master_key(), connection.client_random(), connection.server_random()
        if master is None or client is None or server is None:
            raise RuntimeError("OpenSSL has no secrets after a handshake")
        return tls12_keys(self.suite, master, client, server, sent=self._sealed_records(), received=self._received)

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

    def _advance(self) -> bool:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.ZeroReturnError as exc:
            self.step = Step.DONE
            raise errors.error("CONNECTION_CLOSED", "it sent close_notify") from exc
        except SSL.Error as exc:
            self.step = Step.DONE
            raise _explain(exc, self._plain_alert) from exc
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


_ERR_LIB_SSL = 20
_ALERT_OFFSET = 1000  # SSL_AD_REASON_OFFSET: the reason code of a received alert is this and the alert's number


@functools.cache
def _alerts_by_text() -> dict[str, int]:
    """OpenSSL's words for each alert, which is all that an exception has. It knows them once it has been used."""
    code = {number: _ERR_LIB_SSL << 23 | _ALERT_OFFSET + number for number in errors.ALERTS}
    texts = {number: _lib.ERR_reason_error_string(code[number]) for number in code}
    return {_ffi.string(text).decode(): number for number, text in texts.items() if text != _ffi.NULL}


# What an alert most likely means to a client: (row of errors.REASONS, explanation).
_ALERT_MEANINGS: dict[str, tuple[str, str]] = {
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
}


def _explain(exc: SSL.Error, plain_alert: int | None) -> errors.SSAError:
    """The error that an exception of OpenSSL's stands for: the first of its queue says what went wrong."""
    queue: list[tuple[Any, ...]] = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    text = str(queue[0][2]) if queue else str(exc)
    if not text and plain_alert is not None:  # one that is in no standard has no words
        return from_alert(errors.alert_name(plain_alert))
    if text in _alerts_by_text():
        return from_alert(errors.alert_name(_alerts_by_text()[text]))
    return errors.error(_OPENSSL_REASONS.get(text, "PROTOCOL_VIOLATION"), text or "OpenSSL gives no reason")


def from_alert(alert: str) -> errors.SSAError:
    """The error for a fatal alert that the peer sent."""
    reason, meaning = _ALERT_MEANINGS.get(alert, ("PEER_ALERT", ""))
    said = f"it answered with the alert {alert}"
    return errors.error(reason, f"{said}: {meaning}" if meaning else said, alert)
