"""One handshake, sans I/O: whole records in, records out, and one stop in the middle for the verdict.

Theory of operation. OpenSSL runs over two memory BIOs, and what it wants to send lies in the second until we take it.
So a flight can be held: when all that the peer says of itself is known and OpenSSL has the next flight ready, the
engine gives nothing out. `admit`, which wants a `Verified`, lets the flight go. `refuse` throws it away and gives an
alert out in its place. The table of the states, and which flight it is, are in `ssa.handshake.states`.

Records are fed one at a time, and none after the handshake: what follows belongs to the kernel.

`ClientEngine` is in `ssa.handshake.client`, `ServerEngine` in `ssa.handshake.server`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL, crypto

from ssa import errors
from ssa.handshake import quick, records
from ssa.handshake.reasons import alert_of, error_of, step_of, text_of
from ssa.handshake.secrets import tls12_keys, tls13_keys
from ssa.handshake.states import HELD, STREAM, Event, Leaves, State, Table, follow
from ssa.ktls.key_schedule import traffic_key
from ssa.suites import BY_OPENSSL_NAME, Suite, TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, RECORD_HEADER
from ssa.trust import Verified

if TYPE_CHECKING:
    from ssa.handshake.hello import ClientHello
    from ssa.handshake.negotiation import Negotiation
    from ssa.handshake.secrets import Role, Secrets, TrafficKeys

_lib = _openssl.lib

_PLAIN_ALERT = RECORD_HEADER + 2  # bytes
_ALERTS = frozenset({ALERT, APPLICATION_DATA})  # the types of a record that an alert can be in, in TLS 1.3 under a key


class Engine(ABC):
    """The common part of both roles of a handshake."""

    role: ClassVar[Role]
    table: ClassVar[Table] = STREAM
    # What an alert of the peer's most likely means: (row of errors.REASONS, explanation).
    alert_meanings: ClassVar[dict[str, tuple[str, str]]]

    def __init__(self, context: SSL.Context, negotiation: Negotiation, state: State) -> None:
        self.state = state
        self._negotiation = negotiation
        self._step = ""  # OpenSSL's name for where it was before its last step
        self._received_alert: int | None = None  # the alert's number, if the last record was one in plain text
        self._received = 0  # records since ChangeCipherSpec: in TLS 1.2, under the key that the kernel gets
        self._pending = b""  # what OpenSSL wants to send, until it may
        self._sent = b""  # the last flight: in TLS 1.2 its end is protected by the key that the kernel gets
        self._released = b""  # the flight that was held
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(negotiation)

    # --- what happens -------------------------------------------------------------------------------------------

    def start(self) -> bytes:
        """A client's first flight, before the peer has said anything; a server has none."""
        return b""

    def feed_untrusted(self, record: bytes) -> bytes:
        """Take one whole record of the peer's. Returns what has to be sent in answer, nothing while a flight is held.

        Raises `ssa.HandshakeError`, and `ssa.CertificateError` for a certificate that OpenSSL cannot read; then
        `farewell` is the alert that OpenSSL has for the peer.
        """
        self._expect(Event.MORE)
        self._note_untrusted(record)
        self._take_in(record)
        return self._move(self._advance())

    def admit(self, verified: Verified) -> bytes:
        """Admit the peer: the verdict is good. Returns the flight that was held."""
        if not isinstance(verified, Verified):
            raise TypeError("only a verdict of ssa.trust admits a peer")
        self._released = self._move(Event.ADMIT)
        return self._released

    def refuse(self, alert: str) -> bytes:
        """End the handshake. Returns the record of that alert, in place of what was held."""
        self._move(Event.REFUSE)
        self._pending = b""
        return self._alert(alert)

    def farewell(self) -> bytes:
        """After a failure: the alert that OpenSSL has for the peer, if it has one.

        The alert is the last record of what is pending. A record that ends one flight and then goes wrong can leave our
        answer to the flight before the alert. Nobody has judged the peer by then, so the answer is not sent.
        """
        return self._alert_among(records.split_untrusted(self._take())[0]) if self.state is State.FAILED else b""

    def _alert_among(self, flight: list[bytes]) -> bytes:
        return b"".join(record for record in flight[-1:] if record[0] in _ALERTS)

    def keys(self) -> TrafficKeys:
        """The keys of both directions, as they stand right behind the handshake."""
        self._move(Event.KEYS)
        if self.version is TLSVersion.TLSv1_3:
            return tls13_keys(self.suite, self.secrets, self.role, sent=self._sent_under_application_key())
        return self._tls12_keys()

    def stream(self) -> SSL.Connection:
        """OpenSSL's connection right behind the handshake, for the relay, which goes on with it.

        Nothing of the stream is in it yet: it was fed the handshake's records only, and what it had to send has left.
        """
        self._move(Event.KEYS)
        return self._connection

    # --- what is known ------------------------------------------------------------------------------------------

    @abstractmethod
    def is_costly_untrusted(self, record: bytes) -> bool:
        """True if feeding this record may take long, as the peer chooses the cost of the computation (DHE)."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The peer's certificates as it sent them, DER, its own first; none from a client that was not asked."""
        # As OpenSSL has them: what another parser makes of them is for ssa.trust to find out.
        chain = self._connection.get_peer_cert_chain() or ()
        return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain)

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
        """Of a server: the name that the client asked for (SNI); empty where it asked for none."""
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
        """True where an earlier session was resumed, and so no certificate was sent this time."""
        return bool(_lib.SSL_session_reused(self._connection._ssl))  # noqa: SLF001 - pyOpenSSL does not bind it

    @property
    def hello(self) -> ClientHello | None:
        """Of a server: what the client offers; None where that is not known."""
        return None

    @property
    def largest(self) -> int:
        """The most bytes of content that a record of ours may have; 0 for as many as TLS allows."""
        return 0

    @property
    def at(self) -> str:
        """The step of the handshake, or the one at which it failed, for a person."""
        state = self._openssl_state()
        return step_of(self._step if state == "error" else state)

    @property
    def presented(self) -> int | None:
        """Of a client: the bytes of certificates that it sent when it was asked for one; None if it was not asked."""
        return None

    def from_alert(self, alert: str) -> errors.SSAError:
        """The error for a fatal alert that the peer sent."""
        reason, meaning = self._meaning(alert)
        said = f"it answered with the alert {alert}"
        return errors.error(reason, f"{said}: {meaning}" if meaning else said, alert)

    def _meaning(self, alert: str) -> tuple[str, str]:
        return self.alert_meanings.get(alert, ("PEER_ALERT", ""))

    # --- the steps ----------------------------------------------------------------------------------------------

    def _move(self, event: Event) -> bytes:
        """Go to the table's next state. Returns the flight, if one may leave now."""
        self.state, leaves = follow(self.table, self.state, event)
        return self._take() if leaves is Leaves.FLIGHT else b""

    def _expect(self, event: Event) -> None:
        """Raise `Impossible` if the table lacks the event in this state. Called before anything is done for it."""
        follow(self.table, self.state, event)

    def _note_untrusted(self, record: bytes) -> None:
        """Remember what OpenSSL does not tell of a record."""
        self._received = 0 if record[0] == CHANGE_CIPHER_SPEC else self._received + 1
        self._received_alert = record[-1] if record[0] == ALERT and len(record) == _PLAIN_ALERT else None

    def _take_in(self, record: bytes) -> None:
        self._connection.bio_write(record)

    def _advance(self) -> Event:
        """Let OpenSSL go on. Returns what came of it: MORE, READY or FINISHED. Raises `ssa.SSAError`."""
        self._step = self._openssl_state()
        try:
            finished = quick.is_finished(self._connection)
        except SSL.ZeroReturnError as exc:
            raise self._failed(errors.error("CONNECTION_CLOSED", "it sent close_notify")) from exc
        except errors.SSAError:  # from a callback of ours
            self._move(Event.FAIL)
            raise
        except SSL.Error as exc:
            raise self._failed(self._explain(exc)) from exc
        finally:
            self._collect()
        if (refusal := self._negotiation.refusal) is not None:
            # OpenSSL has gone on with another certificate: its answer is not sent.
            self._pending = self._plain_alert(refusal.alert or "internal_error")
            raise self._failed(refusal)
        if finished:
            return Event.FINISHED
        return Event.READY if self.state is State.READING and self._is_flight_to_hold() else Event.MORE

    def _is_flight_to_hold(self) -> bool:
        """True where OpenSSL, which has not finished, has the flight ready that answers all the peer's own."""
        return False

    def _failed(self, failure: errors.SSAError) -> errors.SSAError:
        self._move(Event.FAIL)
        return failure

    def _collect(self) -> None:
        self._pending += quick.take_out(self._connection)

    def _take(self) -> bytes:
        flight, self._pending = self._pending, b""
        if flight:
            self._sent = flight
        return flight

    def _openssl_state(self) -> str:
        return self._connection.get_state_string().decode("ascii", "replace")

    def _explain(self, exc: SSL.Error) -> errors.SSAError:
        """The error that an exception of OpenSSL's stands for."""
        alert = alert_of(exc)
        if alert is None and self._received_alert is not None and not text_of(exc):
            alert = errors.alert_name(self._received_alert)
        return error_of(exc) if alert is None else self.from_alert(alert)

    # --- under which key ----------------------------------------------------------------------------------------

    def _alert(self, name: str) -> bytes:
        """The record of a fatal alert, under the key that protects by now what we send, if there is one.

        Once only: OpenSSL, which knows nothing of it, would give the next record the same number.
        """
        label = HELD[self.role, TLSVersion.TLSv1_3].secret
        if label in self.secrets:
            suite = self.suite
            key = traffic_key(suite, self.secrets[label])
            return records.seal(suite.aead, key, 0, ALERT, records.fatal_alert(name))
        if self.version is TLSVersion.TLSv1_2 and self._sealed_records():
            return records.seal_tls12(self._tls12_keys().tx, ALERT, records.fatal_alert(name))
        return self._plain_alert(name)

    def _plain_alert(self, name: str) -> bytes:
        return records.plain_alert(name)

    def _sent_under_application_key(self) -> int:
        """TLS 1.3: how many records behind our Finished we have sent by the end of the handshake."""
        return 0

    def _tls12_keys(self) -> TrafficKeys:
        connection = self._connection
        master, client, server = connection.master_key(), connection.client_random(), connection.server_random()
        if master is None or client is None or server is None:
            raise RuntimeError("OpenSSL has no secrets after a handshake")
        sent, received = self._sealed_records(), self._received
        return tls12_keys(self.suite, master, client, server, self.role, sent=sent, received=received)

    def _sealed_records(self) -> list[bytes]:
        """Our records behind ChangeCipherSpec in TLS 1.2, of the last flight: the Finished, as a rule in one."""
        flight, _ = records.split_untrusted(self._sent)
        kinds = [record[0] for record in flight]
        return flight[kinds.index(CHANGE_CIPHER_SPEC) + 1 :] if CHANGE_CIPHER_SPEC in kinds else []
