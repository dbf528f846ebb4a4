"""Every setting of the policy, in one table. Rule 1: no I/O here.

A row of `ROWS` says how the text of a setting becomes its value (`ssa.policy.parsers`), what the default is, which way
is stricter (`ssa.policy.narrowing`), and what enforces it. The documentation, the file system and the TOML file are
made from this table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssa.policy import compliance
from ssa.policy.hosts import narrow_allowed, narrow_denied, parse_hosts_untrusted, show_hosts
from ssa.policy.narrowing import (
    narrow_alpn,
    narrow_bits,
    narrow_client_auth,
    narrow_data_path,
    narrow_depth,
    narrow_list,
    narrow_max_version,
    narrow_min_version,
    narrow_never,
    narrow_seconds,
    narrow_truncation,
    narrow_ttl,
)
from ssa.policy.parsers import (
    CLIENT_AUTHS,
    COERCIONS,
    DATA_PATHS,
    DEFAULT_GROUPS,
    GROUP_NAMES,
    MAX_DEPTH,
    OF_HOSTS,
    OF_LINES,
    SIGNATURE_ALGORITHMS,
    SYSTEM_STORE,
    TRUNCATIONS,
    parse_alpn_untrusted,
    parse_bits_untrusted,
    parse_ciphers_untrusted,
    parse_ciphersuites_untrusted,
    parse_client_auth_untrusted,
    parse_coercion_untrusted,
    parse_data_path_untrusted,
    parse_depth_untrusted,
    parse_groups_untrusted,
    parse_seconds_untrusted,
    parse_signatures_untrusted,
    parse_store_untrusted,
    parse_truncation_untrusted,
    parse_ttl_untrusted,
    parse_version_untrusted,
)
from ssa.policy.pins import narrow_pins, parse_pins_untrusted, show_pins
from ssa.policy.setting import Setting
from ssa.suites import BY_OPENSSL_NAME, SUITES, VERSIONS, Suite, TLSVersion

if TYPE_CHECKING:
    from collections.abc import Iterable


def _show_names(values: Iterable[str]) -> str:
    return "\n".join(values)


def _show_suites(suites: Iterable[Suite]) -> str:
    return "\n".join(suite.name for suite in suites)


def _show_version(version: TLSVersion) -> str:
    return version.label


def _show_seconds(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


ROWS: tuple[Setting[Any], ...] = (
    Setting(
        "min_version",
        "TLSv1.2",
        parse_version_untrusted,
        _show_version,
        narrow_min_version,
        "higher",
        "Lowest protocol version: TLSv1.2 or TLSv1.3. The kernel has no others.",
        enforced="OpenSSL, by the versions of its context; DTLS by OpenSSL too",
        unmet=compliance.unmet_min_version,
        words=tuple(VERSIONS),
    ),
    Setting(
        "max_version",
        "TLSv1.3",
        parse_version_untrusted,
        _show_version,
        narrow_max_version,
        "lower",
        "Highest protocol version: TLSv1.2 or TLSv1.3, not below min_version.",
        enforced="OpenSSL, by the versions of its context",
        unmet=compliance.unmet_max_version,
        words=tuple(VERSIONS),
    ),
    Setting(
        "ciphersuites",
        _show_suites(suite for suite in SUITES.values() if suite.version == TLSVersion.TLSv1_3),
        parse_ciphersuites_untrusted,
        _show_suites,
        narrow_list,
        "fewer",
        "TLS 1.3 cipher suites in order of preference.",
        many=True,
        enforced="OpenSSL, by the offer or choice of suites",
        unmet=compliance.unmet_ciphersuites,
        words=(*SUITES, *BY_OPENSSL_NAME),
    ),
    Setting(
        "ciphers",
        _show_suites(suite for suite in SUITES.values() if suite.version == TLSVersion.TLSv1_2),
        parse_ciphers_untrusted,
        _show_suites,
        narrow_list,
        "fewer",
        "TLS 1.2 cipher suites in order of preference, by IANA's or OpenSSL's names.",
        many=True,
        enforced="OpenSSL, by the offer or choice of suites",
        unmet=compliance.unmet_ciphers,
        words=(*SUITES, *BY_OPENSSL_NAME),
    ),
    Setting(
        "groups",
        _show_names(DEFAULT_GROUPS),
        parse_groups_untrusted,
        _show_names,
        narrow_list,
        "fewer",
        "Key exchange groups in order of preference; in TLS 1.2 also the curves of a server's certificate.",
        many=True,
        enforced="OpenSSL, by the offer or choice of groups",
        unmet=compliance.unmet_groups,
        words=GROUP_NAMES,
    ),
    Setting(
        "signature_algorithms",
        _show_names(SIGNATURE_ALGORITHMS),
        parse_signatures_untrusted,
        _show_names,
        narrow_list,
        "fewer",
        "Signature algorithms accepted in the handshake and in certificates, in order of preference.",
        many=True,
        enforced="OpenSSL in the handshake; `ssa.trust` in certificates",
        unmet=compliance.unmet_signatures,
        words=SIGNATURE_ALGORITHMS,
    ),
    Setting(
        "min_rsa_bits",
        "2048",
        parse_bits_untrusted,
        str,
        narrow_bits,
        "higher",
        "Smallest RSA key in a peer's certificate chain, in bits: 1024 to 16384.",
        enforced="`ssa.trust`, in every certificate of the path",
        unmet=compliance.unmet_bits,
    ),
    Setting(
        "verify_depth",
        str(MAX_DEPTH),
        parse_depth_untrusted,
        str,
        narrow_depth,
        "lower",
        f"Most intermediates between a peer's certificate and its trust anchor: 0 to {MAX_DEPTH}.",
        enforced="`ssa.trust`, when it looks for a path",
        unmet=compliance.unmet_depth,
    ),
    Setting(
        "trust_store",
        SYSTEM_STORE,
        parse_store_untrusted,
        str,
        narrow_never,
        "set by the administrator only",
        "Trust anchors: system, or the absolute path of a PEM file or of a directory of PEM files.",
        enforced="`ssa.trust`: only a path to one of these anchors counts",
        unmet=compliance.unmet_trust,
    ),
    Setting(
        "client_auth",
        CLIENT_AUTHS[0],
        parse_client_auth_untrusted,
        str,
        narrow_client_auth,
        "required, then optional",
        "Certificates of servers' clients: as-program, optional (asked for; a bad one is refused), or required.",
        unmet=compliance.unmet_client_auth,
        words=CLIENT_AUTHS,
        enforced="OpenSSL, which asks for one; `ssa.trust`, which judges it by the trust_store",
    ),
    Setting(
        "pinned_keys",
        "",
        parse_pins_untrusted,
        show_pins,
        narrow_pins,
        "more hosts, fewer keys of each",
        "Public keys that hosts have to prove, a line HOST sha256/BASE64 each: any one of a HOST's. Empty: any key.",
        many=True,
        unmet=compliance.unmet_pins,
        enforced="the worker, on the path that `ssa.trust` has verified, also where a session is resumed",
        separators=OF_LINES,
    ),
    Setting(
        "allowed_hosts",
        "",
        parse_hosts_untrusted,
        show_hosts,
        narrow_allowed,
        "fewer",
        "Hosts that programs may connect to: names, *.names, addresses, networks. Empty: all.",
        many=True,
        unmet=compliance.unmet_allowed,
        enforced="the worker, by the name asked for and the peer's address, before it sends the ClientHello",
        separators=OF_HOSTS,
    ),
    Setting(
        "denied_hosts",
        "",
        parse_hosts_untrusted,
        show_hosts,
        narrow_denied,
        "more",
        "Hosts that programs may not connect to, even if allowed_hosts has them. Empty: none.",
        many=True,
        unmet=compliance.unmet_denied,
        enforced="the worker, by the name asked for and the peer's address, before it sends the ClientHello",
        separators=OF_HOSTS,
    ),
    Setting(
        "alpn",
        "",
        parse_alpn_untrusted,
        _show_names,
        narrow_alpn,
        "fewer",
        "Application protocols to offer (ALPN), in order of preference; programs may narrow them. Empty: each its own.",
        many=True,
        enforced="OpenSSL, by the offer or choice of protocols",
        unmet=compliance.unmet_alpn,
    ),
    Setting(
        "handshake_timeout",
        "30",
        parse_seconds_untrusted,
        _show_seconds,
        narrow_seconds,
        "shorter",
        "Longest time for a handshake, in seconds: a decimal number above 0, up to 3600.",
        enforced="the worker, by a deadline on the whole handshake",
        unmet=compliance.unmet_timeout,
    ),
    Setting(
        "session_ttl",
        "7200",
        parse_ttl_untrusted,
        str,
        narrow_ttl,
        "shorter",
        "Longest time for which a session may be resumed, in seconds: 0 (never) to 604800 (a week).",
        enforced="the cache of client sessions; OpenSSL, by the lifetime in a ticket",
        unmet=compliance.unmet_ttl,
    ),
    Setting(
        "data_path",
        DATA_PATHS[0],
        parse_data_path_untrusted,
        str,
        narrow_data_path,
        "ktls or relay alone",
        "Place of encryption: ktls (the kernel), relay (the daemon), or ktls-or-relay (the kernel if it can).",
        enforced="the worker, when it installs the keys",
        unmet=compliance.unmet_data_path,
        words=DATA_PATHS,
    ),
    Setting(
        "truncation",
        TRUNCATIONS[0],
        parse_truncation_untrusted,
        str,
        narrow_truncation,
        "error",
        "Effect of a stream's end without close_notify on injected programs: as-program (as with `ssl`), or error.",
        enforced="the libraries under `inject`, as the reply tells them",
        unmet=compliance.unmet_truncation,
        words=TRUNCATIONS,
    ),
    Setting(
        "coercion",
        COERCIONS[0],
        parse_coercion_untrusted,
        str,
        narrow_never,
        "set by the administrator only",
        "What ssa cannot do for an unmodified program: strict (refused), or fallback (left to its own TLS library).",
        enforced="`ssa run` and `ssa coerce`, which ask before they leave a program to its own library",
        unmet=compliance.unmet_coercion,
        words=COERCIONS,
    ),
)
