"""Every setting of the policy, in one table, and the immutable `Policy` that has a value for each of them.

Rule 1: no I/O here. Outside, a setting is text: a file of the file system, a key of the TOML file. Inside, it is a
typed value. Its row of `SETTINGS` says how the text becomes the value (`ssa.policy.parsers`), what the default is, and
which way is stricter. The documentation, the file system and the TOML file are made from this table. The text is kept
beside the value: administrators read back what they wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ssa.policy import compliance
from ssa.policy.narrowing import (
    Loosening,
    narrow_alpn,
    narrow_bits,
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
    COERCIONS,
    DATA_PATHS,
    DEFAULT_GROUPS,
    GROUP_NAMES,
    GROUPS,
    MAX_DEPTH,
    MAX_TEXT,
    POST_QUANTUM,
    SIGNATURE_ALGORITHMS,
    SYSTEM_STORE,
    TRUNCATIONS,
    BadValue,
    clean_untrusted,
    closest,
    parse_alpn_untrusted,
    parse_bits_untrusted,
    parse_ciphers_untrusted,
    parse_ciphersuites_untrusted,
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
    quoted,
    split_untrusted,
    tokens_untrusted,
)
from ssa.policy.values import Values
from ssa.suites import BY_OPENSSL_NAME, SUITES, VERSIONS, Suite, TLSVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ssa.policy.compliance import Made

__all__ = [
    "GROUPS",
    "MAX_TEXT",
    "POST_QUANTUM",
    "SETTINGS",
    "SIGNATURE_ALGORITHMS",
    "BadValue",
    "Loosening",
    "Policy",
    "Setting",
    "setting_untrusted",
]

T = TypeVar("T")


# --- values back to text -----------------------------------------------------------------------------------------


def _show_names(values: Iterable[str]) -> str:
    return "\n".join(values)


def _show_suites(suites: Iterable[Suite]) -> str:
    return "\n".join(suite.name for suite in suites)


def _show_version(version: TLSVersion) -> str:
    return version.label


def _show_seconds(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


# --- the table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One row of the table: a setting.

    Attributes:
        default: its text if nobody sets it.
        parse: makes the value from a text from outside; raises `BadValue` only.
        show: makes the text of a value that nobody wrote, such as a narrowed one.
        narrow: takes the policy's value and the request's, and gives the one that counts; raises `Loosening`.
        stricter: the direction that is stricter, in words.
        doc: one line for the manual, with units.
        many: True for a list, whose text has one word a line.
        unmet: says in words how a live connection does not meet a policy's value; an empty text if it does. Every
            setting has one.
        words: all words that the value may have, if they can be listed.
    """

    name: str
    default: str
    parse: Callable[[str], T]
    show: Callable[[T], str]
    narrow: Callable[[T, T], T]
    stricter: str
    doc: str
    many: bool = False
    unmet: Callable[[Made, Values], str] | None = None
    words: tuple[str, ...] = ()

    def is_whole(self, text: str) -> bool:
        """True if more text can add nothing to the value: the value is no list, and its line has ended."""
        return not self.many and "\n" in text.lstrip()

    def check_so_far_untrusted(self, text: str) -> None:
        """Refuse the beginning of a text if no more text can make it a value. Raises `BadValue`.

        The last word may be cut short, unless a separator is behind it.
        """
        clean_untrusted(text)
        whole, last = split_untrusted(text) if self.many else ("", text.strip())
        if self.words and not any(word.startswith(last) for word in self.words):
            self.parse(text)  # its error says what is wrong
        if whole:
            self.parse(whole)

    def text_untrusted(self, text: str) -> str:
        """The text as it will be read back: as it was written, but a list has one word a line."""
        return "\n".join(tokens_untrusted(text)) if self.many else clean_untrusted(text)


_ROWS: tuple[Setting[Any], ...] = (
    Setting(
        "min_version",
        "TLSv1.2",
        parse_version_untrusted,
        _show_version,
        narrow_min_version,
        "higher",
        "Lowest protocol version: TLSv1.2 or TLSv1.3. The kernel has no others.",
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
        unmet=compliance.unmet_trust,
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
        unmet=compliance.unmet_coercion,
        words=COERCIONS,
    ),
)

SETTINGS: dict[str, Setting[Any]] = {row.name: row for row in _ROWS}


def setting_untrusted(name: str) -> Setting[Any]:
    """The row of a setting whose name came from outside. Raises `BadValue`."""
    if name not in SETTINGS:
        raise BadValue(f"{quoted(name)} is not a setting, {closest(name, SETTINGS)}")
    return SETTINGS[name]


# --- the policy ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy(Values):
    """One consistent set of values. Immutable. Two policies with equal values are equal, however they were written."""

    @classmethod
    def default(cls) -> Policy:
        """The policy if the administrator has set nothing."""
        return _DEFAULT

    def text(self, name: str) -> str:
        """The text of a setting as it was written, without a newline at the end. A list has one word a line."""
        return self.texts[name]

    def replace(self, name: str, text: str) -> Policy:
        """A policy with one setting changed. Raises `BadValue`."""
        return self.replace_many({name: text})

    def replace_many(self, texts: Mapping[str, str]) -> Policy:
        """A policy with several settings changed at once: only the result must be consistent. Raises `BadValue`."""
        values: dict[str, Any] = {}
        written: dict[str, str] = {}
        for name, text in texts.items():
            row = setting_untrusted(name)
            try:
                values[name], written[name] = row.parse(text), row.text_untrusted(text)
            except BadValue as bad:
                raise BadValue(f"{name}: {bad}") from None
        return self._with(values, written)

    def unmet(self, made: Made) -> Sequence[str]:
        """The settings that a connection does not meet, with reasons: ``groups: x25519 is not among secp256r1``."""
        found = ((row.name, row.unmet(made, self)) for row in _ROWS if row.unmet)
        return [f"{name}: {words}" for name, words in found if words]

    def check_so_far(self, name: str, text: str) -> Policy | None:
        """Refuse the beginning of a setting's text if no more text can make it valid. Raises `BadValue`.

        Returns the changed policy if the text is a whole value already.
        """
        row = setting_untrusted(name)
        if row.is_whole(text):
            return self.replace(name, text)
        try:
            row.check_so_far_untrusted(text)
        except BadValue as bad:
            raise BadValue(f"{name}: {bad}") from None
        return None

    def with_values(self, values: Mapping[str, Any]) -> Policy:
        """A policy with some typed values replaced, such as those that a request narrowed. `show` makes their text."""
        return self._with(values, {name: SETTINGS[name].show(value) for name, value in values.items()})

    def _with(self, values: Mapping[str, Any], written: Mapping[str, str]) -> Policy:
        changed = replace(self, **values, texts=MappingProxyType({**self.texts, **written}))
        _check(changed)
        return changed


def _check(policy: Policy) -> None:
    """Refuse settings that contradict each other. Raises `BadValue`."""
    if policy.min_version > policy.max_version:
        raise BadValue(
            f"min_version {policy.min_version.label} is above max_version {policy.max_version.label}: "
            "no version would be left"
        )


_DEFAULT = Policy(
    **{row.name: row.parse(row.default) for row in _ROWS},
    texts=MappingProxyType({row.name: row.default for row in _ROWS}),
)
