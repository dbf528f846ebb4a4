"""From OpenSSL's secrets to the traffic keys of both directions, as the kernel takes them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ssa.ktls.crypto_info import CryptoInfo
from ssa.ktls.key_schedule import TrafficKey, key_block, traffic_key
from ssa.suites import Suite, TLSVersion
from ssa.tls import RECORD_HEADER


class Secrets(dict[str, bytes]):
    """The secrets in a connection's key log, by label (draft-ietf-tls-keylogfile). `repr` shows the labels alone."""

    def add(self, line: bytes) -> None:
        """Take one line: label, client random, secret."""
        label, _, secret = line.split(b" ")
        self[label.decode("ascii")] = bytes.fromhex(secret.decode("ascii"))

    def __repr__(self) -> str:
        return f"<Secrets {sorted(self)}>"


Role = Literal["client", "server"]  # ours


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """The keys for sending and receiving, each with the number of records that it has protected already."""

    suite: Suite
    tx: CryptoInfo
    rx: CryptoInfo

    def received(self, records: int) -> TrafficKeys:
        """These keys, after so many more records were received."""
        return replace(self, rx=replace(self.rx, sequence=self.rx.sequence + records))


# the labels of the application traffic secrets, ours first
_LABELS: dict[Role, tuple[str, str]] = {
    "client": ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"),
    "server": ("SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"),
}


def application_secrets(secrets: Secrets, role: Role) -> tuple[bytes, bytes]:
    """TLS 1.3's application traffic secrets: the one for sending, and the one for receiving."""
    ours, theirs = _LABELS[role]
    return secrets[ours], secrets[theirs]


def tls13_keys(suite: Suite, secrets: Secrets, role: Role, *, sent: int) -> TrafficKeys:
    """TLS 1.3's application keys. `sent` records are protected by them already: a server's session tickets."""

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
    """TLS 1.2's keys. They have protected the Finished of each side, as a rule in one record.

    `sent` are our records under them. The kernel goes on behind the last nonce in them (RFC 5288 section 3).
    `received` is the number of the peer's records under them.
    """
    client, server = key_block(suite, master, client_random, server_random)
    ours, theirs = (client, server) if role == "client" else (server, client)

    def info(key: TrafficKey, sequence: int, explicit_nonce: int) -> CryptoInfo:
        return CryptoInfo(TLSVersion.TLSv1_2, suite.aead, key, sequence, explicit_nonce)

    spent = int.from_bytes(sent[-1][RECORD_HEADER : RECORD_HEADER + suite.aead.iv], "big") if suite.aead.explicit else 0
    return TrafficKeys(suite, tx=info(ours, len(sent), (spent + 1) % 2**64), rx=info(theirs, received, 0))
