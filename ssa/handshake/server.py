"""A handshake as a server: the ClientHello, the client's certificate, and the meaning of its alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from OpenSSL import SSL, crypto

from ssa.handshake import records
from ssa.handshake.engine import Engine
from ssa.handshake.hello import ClientHello, largest_untrusted, parse_untrusted
from ssa.handshake.negotiation import Negotiation, take_any_certificate
from ssa.handshake.states import State
from ssa.tls import HANDSHAKE, MESSAGE_HEADER, RECORD_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.handshake.secrets import Role


class ServerEngine(Engine):
    """A handshake as a server."""

    role: ClassVar[Role] = "server"
    first: ClassVar[State] = State.READING
    alert_meanings: ClassVar[dict[str, tuple[str, str]]] = {
        "protocol_version": ("UNSUPPORTED_VERSION", ""),
        "unknown_ca": ("PEER_ALERT", "it does not trust this server's certificate"),
        "bad_certificate": ("PEER_ALERT", "it does not accept this server's certificate"),
        "certificate_unknown": ("PEER_ALERT", "it does not accept this server's certificate"),
        "certificate_expired": ("PEER_ALERT", "it finds this server's certificate expired"),
    }

    def __init__(
        self,
        context: SSL.Context,
        choose: Callable[[str | None], SSL.Context],
        alpn: tuple[str, ...],
        ask_certificate: bool,  # noqa: FBT001 - the four arguments are the terms of a handshake, in their order
        *,
        optional: bool = False,
    ) -> None:
        """`choose` returns the context for the name that the client asks for, or raises `ssa.SSAError`.

        `optional`: a client that is asked for a certificate may have none.
        """
        protocols = tuple(name.encode("ascii") for name in alpn)
        super().__init__(context, Negotiation(alpn=protocols, choose=choose), self.first)
        self._hello = b""  # the message, as far as it has come
        if ask_certificate:
            needed = 0 if optional else SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            self._connection.set_verify(SSL.VERIFY_PEER | needed, take_any_certificate)
        self._connection.set_accept_state()

    def is_costly_untrusted(self, record: bytes) -> bool:  # noqa: ARG002 - the client has no say in it
        """False: we choose the group and our key."""
        return False

    def _note_untrusted(self, record: bytes) -> None:
        super()._note_untrusted(record)
        if record[0] == HANDSHAKE and not self._has_hello:
            self._hello += record[RECORD_HEADER:]

    @property
    def _has_hello(self) -> bool:
        if not self._hello:
            return False
        return len(self._hello) >= MESSAGE_HEADER + int.from_bytes(self._hello[1:MESSAGE_HEADER], "big")

    @property
    def hello(self) -> ClientHello | None:
        """The client's ClientHello; None until it has come whole, and if it cannot be parsed."""
        try:
            return parse_untrusted(self._hello)
        except ValueError:
            return None

    @property
    def largest(self) -> int:
        """See `Engine.largest`: OpenSSL agrees to max_fragment_length, and never to record_size_limit (RFC 8449)."""
        return largest_untrusted(self._hello)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The client's certificates; OpenSSL keeps its own one apart from the others at this end."""
        leaf = self._connection.get_peer_certificate()
        return () if leaf is None else (crypto.dump_certificate(crypto.FILETYPE_ASN1, leaf), *super().chain)

    def _sent_under_application_key(self) -> int:
        """The session tickets, which are the flight that was held."""
        return len(records.split_untrusted(self._released)[0])
