"""What a finished handshake leaves for the kernel: from OpenSSL's secrets to the keys of both directions. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ssa.handshake.records import HEADER
from ssa.ktls.crypto_info import CryptoInfo
from ssa.ktls.key_schedule import TrafficKey, key_block, traffic_key
from ssa.suites import Suite, TLSVersion


class Secrets(dict[str, bytes]):
    """A connection's lines of the key log, by label (draft-ietf-tls-keylogfile). Never shown by `repr`."""

    def add(self, line: bytes) -> None:
        """Take one line: label, client random, secret."""
        label, _, secret = line.split(b" ")
        self[label.decode("ascii")] = bytes.fromhex(secret.decode("ascii"))

    def __repr__(self) -> str:
        return f"<Secrets {sorted(self)}>"


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """Both directions as a client sees them, each with the number of records already spent under its key."""

    suite: Suite
    tx: CryptoInfo
    rx: CryptoInfo

    def received(self, records: int) -> TrafficKeys:
        """The same after so many more records were read."""
        return replace(self, rx=replace(self.rx, sequence=self.rx.sequence + records))


def tls13_keys(suite: Suite, secrets: Secrets) -> TrafficKeys:
    """TLS 1.3's application keys: none of them has been used when the handshake ends."""

    def info(label: str) -> CryptoInfo:
        return CryptoInfo(TLSVersion.TLSv1_3, suite.aead, traffic_key(suite, secrets[label]), sequence=0)

    return TrafficKeys(suite, tx=info("CLIENT_TRAFFIC_SECRET_0"), rx=info("SERVER_TRAFFIC_SECRET_0"))


def tls12_keys(  # noqa: PLR0913 - what RFC 5246 section 6.3 takes
    suite: Suite, master: bytes, client_random: bytes, server_random: bytes, *, sent: list[bytes], received: int
) -> TrafficKeys:
    """TLS 1.2's keys: each side's Finished was sent under them, as a rule in one record.

    `sent` are our records under them: the kernel's nonces go on behind the last that was spent (RFC 5288 section 3).
    `received` is the number of the server's.
    """
    client, server = key_block(suite, master, client_random, server_random)

    def info(key: TrafficKey, sequence: int, explicit_nonce: int) -> CryptoInfo:
        return CryptoInfo(TLSVersion.TLSv1_2, suite.aead, key, sequence, explicit_nonce)

    spent = int.from_bytes(sent[-1][HEADER : HEADER + suite.aead.iv], "big") if suite.aead.explicit else 0
    return TrafficKeys(suite, tx=info(client, len(sent), (spent + 1) % 2**64), rx=info(server, received, 0))
