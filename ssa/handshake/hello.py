"""Reads what a client offers from its ClientHello (RFC 8446 section 4.1.2). Pure.

OpenSSL negotiates. This is for two things that OpenSSL does not tell: what the two ends do not have in common, and how
long the client wants records to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa.suites import SUITES, TLSVersion
from ssa.tls import (
    CLIENT_HELLO,
    GROUPS,
    MAX_FRAGMENT_LENGTH,
    MESSAGE_HEADER,
    OTHER_VERSIONS,
    RANDOM,
    SIGNALLING_SUITES,
    SIGNATURE_ALGORITHMS,
    SIGNATURES,
    SUPPORTED_GROUPS,
    SUPPORTED_VERSIONS,
    TLS_1_2,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ssa.policy.schema import Policy

_SUITES = {suite.number: suite.name for suite in SUITES.values()}
_VERSIONS = OTHER_VERSIONS | {version.value: version.label for version in TLSVersion}
_READ = 512  # numbers of a list: more than there are
_SHOWN = 8  # names, of a list that a client has sent


@dataclass(frozen=True, slots=True)
class ClientHello:
    """A ClientHello's offers, by the names that the policy uses. A number without a name stands as 0x1234."""

    versions: tuple[str, ...]
    suites: tuple[str, ...]
    groups: tuple[str, ...]
    signatures: tuple[str, ...]

    def lacks(self, policy: Policy) -> tuple[str, str] | None:
        """The first thing that client and policy do not share: a row of REASONS, and the words; or None."""
        versions = [version.label for version in TLSVersion if policy.min_version <= version <= policy.max_version]
        shared = [version for version in versions if version in self.versions]
        modern = TLSVersion.TLSv1_3.label in shared
        allowed = policy.ciphersuites if modern else policy.ciphers
        rows: tuple[tuple[str, str, Iterable[str], Iterable[str]], ...] = (
            ("UNSUPPORTED_VERSION", "versions", self.versions, versions),
            ("NO_COMMON_CIPHER", "cipher suites", self.suites, [suite.name for suite in allowed]),
            ("NO_COMMON_GROUP", "groups", self.groups, policy.groups),
            ("NO_COMMON_SIGNATURE", "signature algorithms", self.signatures, policy.signature_algorithms),
        )
        for reason, what, theirs, ours in rows:
            if not set(theirs) & set(ours):
                return reason, f"{what}: it offers {_few(theirs)}; the policy allows {_few(ours)}"
        return None


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (", ".join(listed[:_SHOWN]) or "none") + more


def parse_untrusted(message: bytes) -> ClientHello:
    """Parse a whole ClientHello message. Raises ValueError for anything else."""
    reader = _Reader(message)
    if reader.number(1) != CLIENT_HELLO or reader.number(3) != len(message) - MESSAGE_HEADER:
        raise ValueError("this is no ClientHello")
    legacy = reader.take(2)
    reader.take(RANDOM)  # random
    reader.block(1)  # session
    suites = reader.block(2)
    reader.block(1)  # compression
    extensions = dict(_extensions_untrusted(reader.block(2) if reader.left else b""))
    return ClientHello(
        versions=_names(_inner(extensions, SUPPORTED_VERSIONS, 1), _VERSIONS) or _up_to(legacy),
        suites=_names(suites, _SUITES),
        groups=_names(_inner(extensions, SUPPORTED_GROUPS, 2), GROUPS),
        signatures=_names(_inner(extensions, SIGNATURE_ALGORITHMS, 2), SIGNATURES),
    )


def largest_untrusted(message: bytes) -> int:
    """The most bytes of content that a client wants in a record (max_fragment_length); 0 where it does not say.

    This is called for each handshake, so it reads nothing else. Raises ValueError for anything but a ClientHello.
    """
    try:
        at = MESSAGE_HEADER + 2 + RANDOM
        at += 1 + message[at]
        at += 2 + int.from_bytes(message[at : at + 2], "big")
        at += 1 + message[at] + 2
    except IndexError:
        raise ValueError("this ends too early") from None
    for kind, content in _extensions_untrusted(message[at:]):
        if kind == MAX_FRAGMENT_LENGTH and len(content) == 1 and 1 <= content[0] <= 4:
            return 1 << 8 + content[0]
    return 0


class _Reader:
    """Takes numbers and blocks from the front of some bytes. Raises ValueError where too few are left."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, size: int) -> bytes:
        if size > len(self.left):
            raise ValueError("this ends too early")
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> bytes:
        """The bytes that follow their length, a number of `size` bytes."""
        return self.take(self.number(size))


def _extensions_untrusted(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield int.from_bytes(data[at : at + 2], "big"), data[at + 4 : end]
        at = end


def _inner(extensions: dict[int, bytes], kind: int, size: int) -> bytes:
    """The list in an extension, without the length before it; empty where there is no such extension."""
    return _Reader(extensions[kind]).block(size) if kind in extensions else b""


def _names(numbers: bytes, known: dict[int, str]) -> tuple[str, ...]:
    found = [int.from_bytes(numbers[at : at + 2], "big") for at in range(0, min(len(numbers), 2 * _READ), 2)]
    return tuple(known.get(number, f"{number:#06x}") for number in found if number not in SIGNALLING_SUITES)


def _up_to(legacy: bytes) -> tuple[str, ...]:
    """The versions of a client that does not send supported_versions: up to its legacy_version, TLS 1.2 at most."""
    highest = min(int.from_bytes(legacy, "big"), TLS_1_2)
    return tuple(name for number, name in _VERSIONS.items() if number <= highest)
