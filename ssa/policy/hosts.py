"""Patterns of hosts: names, wildcards, addresses and networks. Rule 1: no I/O here.

A wildcard ``*.example.com`` stands for every name below example.com, however deep, and not for example.com. An address
is the network of that one address. Of two wildcards or two networks either one holds the other, or they share nothing:
so the common part of two lists is a list again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

from ssa.names import is_dns_name, normalise
from ssa.policy.narrowing import Loosening
from ssa.policy.parsers import OF_HOSTS, BadValue, quoted, refuse_duplicates, tokens_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ssa.names import Host

_WILD = "*."
_MAPPED = IPv6Network("::ffff:0:0/96")  # addresses of IPv4 in IPv6 (RFC 4291 section 2.5.5.2)
_LOOKS_LIKE_ADDRESS = re.compile(r"[0-9./]+|[0-9A-Fa-f.:/]*:[0-9A-Fa-f.:/]*")


@dataclass(frozen=True, slots=True)
class Peer:
    """A host that a program connects to: the name that it asked for, and the address that it is connected to."""

    name: Host
    address: IPv4Address | IPv6Address | None

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """The address, and the one that was asked for in place of a name."""
        asked = () if isinstance(self.name, str) else (self.name,)
        return tuple(_plain(one) for one in (self.address, *asked) if one is not None)

    def __str__(self) -> str:
        return str(self.name) if self.address in {None, self.name} else f"{self.name} ({self.address})"


def peer(hostname: str, address: str) -> Peer:
    """The peer of a host name and of an address as the socket tells it, which may have a zone."""
    connected = normalise(address)
    return Peer(normalise(hostname), None if isinstance(connected, str) else connected)


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A DNS name, or with `below` all names below it."""

    name: str
    below: bool = False

    def __str__(self) -> str:
        return f"{_WILD}{self.name}" if self.below else self.name

    def has(self, name: str) -> bool:
        """True for a name that the pattern stands for."""
        return name.endswith(f".{self.name}") if self.below else name == self.name

    def holds(self, other: Pattern) -> bool:
        """True if every host of the other pattern is one of this pattern's."""
        if not isinstance(other, NamePattern):
            return False
        return self == other or (self.below and other.name.endswith(f".{self.name}"))

    def meets(self, peer: Peer) -> bool:
        """True if the peer was asked for by a name that the pattern stands for."""
        return isinstance(peer.name, str) and self.has(peer.name)

    def touches(self, peer: Peer) -> bool:
        """True if the peer has anything of the pattern's."""
        return self.meets(peer)


@dataclass(frozen=True, slots=True)
class Network:
    """An address, or a network of addresses."""

    network: IPv4Network | IPv6Network

    def __str__(self) -> str:
        whole = self.network.prefixlen == self.network.max_prefixlen
        return str(self.network.network_address if whole else self.network)

    def _has(self, address: IPv4Address | IPv6Address) -> bool:
        return address in self.network

    def holds(self, other: Pattern) -> bool:
        """True if every address of the other pattern is one of this pattern's."""
        if not isinstance(other, Network) or other.network.version != self.network.version:
            return False
        return self._has(other.network[0]) and self._has(other.network[-1])

    def meets(self, peer: Peer) -> bool:
        """True if the peer is connected to from an address of the network, whatever was asked for."""
        return peer.address is not None and self._has(_plain(peer.address))

    def touches(self, peer: Peer) -> bool:
        """True if the peer is at an address of the network, or was asked for by one."""
        return any(map(self._has, peer.addresses))


Pattern = NamePattern | Network


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An address of IPv4 that is written in IPv6 as the former: the kernel shows such a peer to a socket of IPv6."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


# --- what the settings say ---------------------------------------------------------------------------------------


def refusal(allowed: tuple[Pattern, ...], peer: Peer) -> str:
    """The reason for which a peer is not among the hosts that are allowed; empty if it is, or if there is no list."""
    if not allowed or any(pattern.meets(peer) for pattern in allowed):
        return ""
    return f"{peer} is not among {_few(allowed)}"


def denial(denied: tuple[Pattern, ...], peer: Peer) -> str:
    """The pattern of the hosts that are denied to which a peer belongs, in words; empty if there is none."""
    found = next((pattern for pattern in denied if pattern.touches(peer)), None)
    return "" if found is None else f"{peer} is denied by {found}"


def _few(patterns: tuple[Pattern, ...]) -> str:
    shown = ", ".join(map(str, patterns[:_SHOWN]))
    return shown if len(patterns) <= _SHOWN else f"{shown} and {len(patterns) - _SHOWN} more"


_SHOWN = 4


def narrow_allowed(policy: tuple[Pattern, ...], asked: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    """The hosts that both lists have. There has to be one; an empty list allows all."""
    if not policy or not asked:
        return asked or policy
    common = tuple(one for one in policy if _held(one, asked)) + tuple(one for one in asked if _held(one, policy))
    if not common:
        raise Loosening(f"{_few(asked)} asked for, the policy allows {_few(policy)}")
    return tuple(dict.fromkeys(common))


def narrow_denied(policy: tuple[Pattern, ...], asked: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    """The hosts that either list has."""
    return tuple(dict.fromkeys((*policy, *asked)))


def _held(pattern: Pattern, by: Iterable[Pattern]) -> bool:
    return any(other.holds(pattern) for other in by)


# --- text from outside -------------------------------------------------------------------------------------------


def parse_hosts_untrusted(text: str) -> tuple[Pattern, ...]:
    """A list of hosts, which may be empty."""
    tokens = tokens_untrusted(text, OF_HOSTS)
    patterns = tuple(map(pattern_untrusted, tokens))
    refuse_duplicates(patterns, tokens)
    return patterns


def show_hosts(patterns: Iterable[Pattern]) -> str:
    """The text of a list of hosts."""
    return "\n".join(map(str, patterns))


def pattern_untrusted(token: str) -> Pattern:
    """One pattern. Raises `BadValue`."""
    if _LOOKS_LIKE_ADDRESS.fullmatch(token):
        return Network(_network_untrusted(token))
    name = token.removeprefix(_WILD).lower().removesuffix(".")
    if not is_dns_name(name) or _is_number(name.rpartition(".")[2]):
        raise BadValue(
            f"{quoted(token)} is no host, expected a name such as www.example.com (an international one as A-labels, "
            "xn--...), *.example.com, an address or a network such as 10.0.0.0/8"
        )
    return NamePattern(name, below=token.startswith(_WILD))


def _is_number(label: str) -> bool:
    """True for a last label with which a name would be an address in a form of inet_aton(3), as in `ssa.names`."""
    return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", label) is not None


def _network_untrusted(token: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(token)
    except ValueError as bad:
        raise BadValue(f"{quoted(token)} is no network{_hint_untrusted(token)}") from bad
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        base = network.network_address.ipv4_mapped
        return IPv4Network((int(base or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def _hint_untrusted(token: str) -> str:
    try:
        meant = ip_network(token, strict=False)
    except ValueError:
        return ", expected an address, or one with the length of its prefix, such as 192.0.2.0/24 or 2001:db8::/32"
    return f": it has bits behind its prefix, did you mean {meant}?"
