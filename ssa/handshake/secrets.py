"""What a finished handshake leaves for the kernel: from OpenSSL's secrets to the keys of both directions. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ssa.ktls.crypto_info import CryptoInfo
from ssa.ktls.key_schedule import TrafficKey, key_block, traffic_key
from ssa.suites import Suite, TLSVersion
from ssa.tls import RECORD_HEADER


class Secrets(dict[str, bytes]):
    """A connection's lines of the key log, by label (draft-ietf-tls-keylogfile). Never shown by `repr`."""

    def add(self, line: bytes) -> None:
        """Take one line: label, client random, secret."""
        label, _, secret = line.split(b" ")
        self[label.decode("ascii")] = bytes.fromhex(secret.decode("ascii"))

    def __repr__(self) -> str:
        return f"<Secrets {sorted(self)}>"


Role = Literal["client", "server"]  # ours


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """Both directions as we see them, each with the number of records already spent under its key."""

    suite: Suite
    tx: CryptoInfo
    rx: CryptoInfo

    def received(self, records: int) -> TrafficKeys:
        """The same after so many more records were read."""
        return replace(self, rx=replace(self.rx, sequence=self.rx.sequence + records))


# the labels of the application traffic secrets, ours first
_LABELS: dict[Role, tuple[str, str]] = {
    "client": ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"),
    "server": ("SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"),
}


def application_secrets(secrets: Secrets, role: Role) -> tuple[bytes, bytes]:
    """TLS 1.3's application traffic secrets: of what we send, and of what we receive."""
    ours, theirs = _LABELS[role]
    return secrets[ours], secrets[theirs]


def tls13_keys(suite: Suite, secrets: Secrets, role: Role, *, sent: int) -> TrafficKeys:
    """TLS 1.3's application keys. When the handshake ends, only a server's tickets have been `sent` under them."""

    def info(secret: bytes, sequence: int) -> CryptoInfo:
        return CryptoInfo(TLSVersion.TLSv1_3, suite.aead, traffic_key(suite, secret), sequence)

    ours, theirs = application_secrets(secrets, role)
    return TrafficKeys(suite, tx=info(ours, sent), rx=info(theirs, 0))


def tls12_keys(  # noqa: PLR0913 - what RFC 5246 section 6.3 takes
    suite: Suite,
    master: bytes,
    client_random: bytes,
    server_random: bytes,
    role: Role,
    *,
    sent: list[bytes],
    received: int,
) -> TrafficKeys:
    """TLS 1.2's keys: each side's Finished was sent under them, as a rule in one record.

    `sent` are our records under them: the kernel's nonces go on behind the last that was spent (RFC 5288 section 3).
    `received` is the number of the peer's.
    """
    client, server = key_block(suite, master, client_random, server_random)
    ours, theirs = (client, server) if role == "client" else (server, client)

    def info(key: TrafficKey, sequence: int, explicit_nonce: int) -> CryptoInfo:
        return CryptoInfo(TLSVersion.TLSv1_2, suite.aead, key, sequence, explicit_nonce)

    spent = int.from_bytes(sent[-1][RECORD_HEADER : RECORD_HEADER + suite.aead.iv], "big") if suite.aead.explicit else 0
    return TrafficKeys(suite, tx=info(ours, len(sent), (spent + 1) % 2**64), rx=info(theirs, received, 0))
