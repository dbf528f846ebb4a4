"""Pinned keys: which keys a host has to prove, besides all that its certificates have to. Rule 1: no I/O here.

A line ``HOST sha256/BASE64`` names the hash of a public key (SubjectPublicKeyInfo, DER), as in RFC 7469. A HOST is met
by one of its keys anywhere in the path that was verified: in the host's own certificate, in an intermediate or in the
anchor. If several HOSTs stand for a host (itself and a wildcard), each has to be met.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa.names import normalise
from ssa.policy.hosts import Network, Pattern, Peer, pattern_untrusted
from ssa.policy.narrowing import Loosening
from ssa.policy.parsers import OF_LINES, BadValue, quoted, refuse_duplicates, tokens_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable

_HASH = "sha256/"
_LINE = re.compile(r"(\S+) +(\S+)")
_SIZE = 32  # bytes of a SHA-256


@dataclass(frozen=True, slots=True)
class Pin:
    """One key of a host, or of the hosts below a name."""

    host: Pattern
    digest: bytes

    def __str__(self) -> str:
        return f"{self.host} {show_digest(self.digest)}"


def show_digest(digest: bytes) -> str:
    """The text of a key's hash."""
    return _HASH + base64.b64encode(digest).decode("ascii")


def by_host(pins: Iterable[Pin], hostname: str | None = None) -> dict[Pattern, tuple[bytes, ...]]:
    """The hashes by pattern: of all patterns, or of those that stand for a host name."""
    found: dict[Pattern, tuple[bytes, ...]] = {}
    peer = None if hostname is None else Peer(normalise(hostname), None)
    for pin in pins:
        if peer is None or pin.host.touches(peer):
            found[pin.host] = (*found.get(pin.host, ()), pin.digest)
    return found


def unpinned(pins: tuple[Pin, ...], hostname: str, path: Iterable[bytes]) -> str:
    """The pattern of a host of which no key is among the hashes of a path's keys; empty if there is none."""
    wanted = by_host(pins, hostname) if pins else {}
    have = set(path) if wanted else set()
    return next((str(host) for host, digests in wanted.items() if have.isdisjoint(digests)), "")


def narrow_pins(policy: tuple[Pin, ...], asked: tuple[Pin, ...]) -> tuple[Pin, ...]:
    """The keys that both lists have of a host; all keys of a host that only one list has."""
    ours, theirs = by_host(policy), by_host(asked)
    if lost := [host for host in ours.keys() & theirs.keys() if set(ours[host]).isdisjoint(theirs[host])]:
        raise Loosening(f"the policy pins none of the keys asked for of {lost[0]}")
    kept = [pin for pin in policy if pin.host not in theirs or pin.digest in theirs[pin.host]]
    return (*kept, *(pin for pin in asked if pin.host not in ours))


def parse_pins_untrusted(text: str) -> tuple[Pin, ...]:
    """Pins, one a line; none may be empty."""
    lines = tokens_untrusted(text, OF_LINES)
    pins = tuple(map(_pin_untrusted, lines))
    refuse_duplicates(pins, lines)
    return pins


def show_pins(pins: Iterable[Pin]) -> str:
    """The text of a list of pins."""
    return "\n".join(map(str, pins))


def _pin_untrusted(line: str) -> Pin:
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadValue(f"{quoted(line)} is no pin, expected HOST {_HASH}BASE64")
    host = pattern_untrusted(found[1])
    if isinstance(host, Network) and host.network.num_addresses > 1:
        raise BadValue(f"{quoted(found[1])} is a network, keys are pinned for a name, *.name or one address")
    return Pin(host, _digest_untrusted(found[2]))


def _digest_untrusted(word: str) -> bytes:
    encoded = word.removeprefix(_HASH)
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    if encoded == word or len(digest) != _SIZE or show_digest(digest) != word:
        raise BadValue(
            f"{quoted(word)} is no key's hash, expected {_HASH} and the 44 characters of Base64 of a SHA-256 of the "
            "SubjectPublicKeyInfo"
        )
    return digest
