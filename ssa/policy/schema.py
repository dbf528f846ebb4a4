"""Every setting of the policy, in one table, and the immutable `Policy` that is made of them.

Rule 1: no I/O here. A setting is text on the outside (a file of the file system, a key of the TOML file) and a
typed value on the inside; its row of `SETTINGS` says how one becomes the other, what the default is, and which
way is stricter. The documentation, the file system and the TOML file are all made from this table.

Text comes from outside, so the parsers are named ``*_untrusted`` and raise `BadValue` only. The text is kept
beside the value: what an administrator wrote is what they read back.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ssa.suites import BY_OPENSSL_NAME, SUITES, VERSIONS, Suite, TLSVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

MAX_TEXT = 4096  # bytes of one value: a page, as in sysfs


class BadValue(ValueError):
    """A setting's text was refused. The message says what is wrong with it and what was expected."""


class Loosening(ValueError):
    """A request asked for less than the policy demands. The message says what the policy allows."""


# --- words -------------------------------------------------------------------------------------------------------

SYSTEM_STORE = "system"
DATA_PATHS: tuple[str, ...] = ("ktls-or-relay", "ktls", "relay")

# Canonical name (RFC 8446's, as OpenSSL takes it): the other names it goes by.
GROUPS: dict[str, tuple[str, ...]] = {
    "X25519MLKEM768": (),
    "x25519": ("X25519",),
    "secp256r1": ("P-256", "prime256v1"),
    "secp384r1": ("P-384",),
    "secp521r1": ("P-521",),
    "x448": ("X448",),
    "SecP256r1MLKEM768": (),
    "SecP384r1MLKEM1024": (),
    "ffdhe2048": (),
    "ffdhe3072": (),
    "ffdhe4096": (),
    "ffdhe6144": (),
    "ffdhe8192": (),
}
# The hybrid is offered, not put first: its key share makes a ClientHello of 1.5 kB out of one of 0.3 kB and costs
# both ends together 0.2 ms, and a server that does not know it answers with a HelloRetryRequest, one more round trip.
_DEFAULT_GROUPS = ("x25519", "X25519MLKEM768", "secp256r1", "secp384r1")

# RFC 8446, section 4.2.3, without SHA-1. In order of the default policy.
SIGNATURE_ALGORITHMS: tuple[str, ...] = (
    "ecdsa_secp256r1_sha256",
    "ed25519",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "ed448",
    "rsa_pss_rsae_sha256",
    "rsa_pss_pss_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_pss_sha384",
    "rsa_pss_rsae_sha512",
    "rsa_pss_pss_sha512",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
)


def _quoted(text: str) -> str:
    """What was written, for a message: one line, printable, not endless."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:76]}...{shown[0]}"


def _closest(word: str, words: Iterable[str]) -> str:
    """What was probably meant, or the whole vocabulary."""
    known = list(words)
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.75)
    return f"did you mean {by_folded[near[0]]}?" if near else f"expected one of: {', '.join(known)}"


# --- parsers of text from outside --------------------------------------------------------------------------------

_SEPARATORS = re.compile(r"[\n ,:]+")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_CONTROL = re.compile(r"[^\n\x20-\x7e]")


def clean_untrusted(text: str) -> str:
    """The text without what surrounds it: printable ASCII and newlines, no longer than `MAX_TEXT`."""
    if len(text) > MAX_TEXT:
        raise BadValue(f"{len(text)} characters are too long, the limit is {MAX_TEXT}")
    stripped = text.strip(" \t\r\n")
    odd = _CONTROL.search(stripped)
    if odd:
        raise BadValue(f"character {odd.group()!a} is not allowed, expected printable ASCII")
    return stripped


def tokens_untrusted(text: str) -> tuple[str, ...]:
    """The words of a list: separated by newlines, spaces, commas or colons, none of them twice."""
    tokens = tuple(filter(None, _SEPARATORS.split(clean_untrusted(text))))
    _refuse_duplicates(tokens, tokens)
    return tokens


def _refuse_duplicates(values: tuple[Any, ...], tokens: tuple[str, ...]) -> None:
    """Refuse a list in which two words mean the same thing."""
    first: dict[Any, str] = {}
    for value, token in zip(values, tokens, strict=True):
        if value in first:
            same = "" if first[value] == token else f": it is the same as {_quoted(first[value])}"
            raise BadValue(f"{_quoted(token)} is there twice{same}")
        first[value] = token


def _word_untrusted(text: str) -> str:
    """A value of one line."""
    word = clean_untrusted(text)
    if "\n" in word:
        raise BadValue(f"{_quoted(word)} is more than one line, expected one value")
    return word


def _parse_version_untrusted(text: str) -> TLSVersion:
    word = _word_untrusted(text)
    if word in VERSIONS:
        return VERSIONS[word]
    reason = ": the kernel has no other versions" if re.fullmatch(r"(?i)(SSL|TLS|DTLS)v?[0-9.]+", word) else ""
    raise BadValue(f"{_quoted(word)} is not supported{reason}, expected {' or '.join(VERSIONS)}")


def _list_untrusted(text: str, resolve: Callable[[str], T]) -> tuple[T, ...]:
    """A list with at least one word, each of them resolved, none of them twice under another name."""
    tokens = tokens_untrusted(text)
    if not tokens:
        raise BadValue("the list is empty, expected at least one name")
    values = tuple(resolve(token) for token in tokens)
    _refuse_duplicates(values, tokens)
    return values


def _suite(version: TLSVersion, belongs: str) -> Callable[[str], Suite]:
    """Resolve a suite's name, IANA's or OpenSSL's, for the list of one protocol version."""
    names = [suite.name for suite in SUITES.values() if suite.version == version]

    def resolve(token: str) -> Suite:
        suite = SUITES.get(token) or BY_OPENSSL_NAME.get(token)
        if suite is None:
            hint = _closest(token, [*names, *(SUITES[name].openssl for name in names)])
            raise BadValue(f"{_quoted(token)} is not a {version.label} suite that the kernel can do, {hint}")
        if suite.version != version:
            raise BadValue(f"{_quoted(token)} is a {suite.version.label} suite, it belongs in {belongs}")
        return suite

    return resolve


def _name(what: str, names: Mapping[str, str]) -> Callable[[str], str]:
    """Resolve a name, or another name of it, to the canonical one."""

    def resolve(token: str) -> str:
        if token not in names:
            raise BadValue(f"{_quoted(token)} is not a {what} that is known here, {_closest(token, names)}")
        return names[token]

    return resolve


_GROUP_NAMES = {alias: name for name, aliases in GROUPS.items() for alias in (name, *aliases)}
_resolve_ciphersuite = _suite(TLSVersion.TLSv1_3, "ciphers")
_resolve_cipher = _suite(TLSVersion.TLSv1_2, "ciphersuites")
_resolve_group = _name("group", _GROUP_NAMES)
_resolve_signature = _name("signature algorithm", {name: name for name in SIGNATURE_ALGORITHMS})


def _parse_ciphersuites_untrusted(text: str) -> tuple[Suite, ...]:
    return _list_untrusted(text, _resolve_ciphersuite)


def _parse_ciphers_untrusted(text: str) -> tuple[Suite, ...]:
    return _list_untrusted(text, _resolve_cipher)


def _parse_groups_untrusted(text: str) -> tuple[str, ...]:
    return _list_untrusted(text, _resolve_group)


def _parse_signatures_untrusted(text: str) -> tuple[str, ...]:
    return _list_untrusted(text, _resolve_signature)


def _parse_alpn_untrusted(text: str) -> tuple[str, ...]:
    tokens = tokens_untrusted(text)
    for token in tokens:
        if len(token) > 255:
            raise BadValue(f"{_quoted(token)} has {len(token)} bytes, a protocol's name has 1 to 255 (RFC 7301)")
    return tokens


def _parse_bits_untrusted(text: str) -> int:
    word = _word_untrusted(text)
    if not re.fullmatch(r"[0-9]{1,9}", word) or not 1024 <= int(word) <= 16384:
        raise BadValue(f"{_quoted(word)} is not a key size, expected a whole number of bits, 1024 to 16384")
    return int(word)


def _parse_seconds_untrusted(text: str) -> float:
    word = _word_untrusted(text)
    if not _DECIMAL.fullmatch(word) or not 0 < float(word) <= 3600:
        raise BadValue(f"{_quoted(word)} is not a time, expected seconds as a decimal number above 0, up to 3600")
    return float(word)


def _parse_store_untrusted(text: str) -> str:
    word = _word_untrusted(text)
    if word != SYSTEM_STORE and not word.startswith("/"):
        raise BadValue(f"{_quoted(word)} is no trust store, expected {SYSTEM_STORE} or an absolute path")
    return word


def _parse_data_path_untrusted(text: str) -> str:
    word = _word_untrusted(text)
    if word not in DATA_PATHS:
        raise BadValue(f"{_quoted(word)} is not a data path, {_closest(word, DATA_PATHS)}")
    return word


# --- values back to text -----------------------------------------------------------------------------------------


def _show_names(values: Iterable[str]) -> str:
    return "\n".join(values)


def _show_suites(suites: Iterable[Suite]) -> str:
    return "\n".join(suite.name for suite in suites)


def _show_version(version: TLSVersion) -> str:
    return version.label


def _show_seconds(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


# --- how a request narrows a setting ------------------------------------------------------------------------------


def _narrow_min_version(policy: TLSVersion, asked: TLSVersion) -> TLSVersion:
    if asked < policy:
        raise Loosening(f"{asked.label} asked for, the policy's minimum is {policy.label}")
    return asked


def _narrow_max_version(policy: TLSVersion, asked: TLSVersion) -> TLSVersion:
    if asked > policy:
        raise Loosening(f"{asked.label} asked for, the policy's maximum is {policy.label}")
    return asked


def _narrow_bits(policy: int, asked: int) -> int:
    if asked < policy:
        raise Loosening(f"{asked} bits asked for, the policy's minimum is {policy}")
    return asked


def _narrow_seconds(policy: float, asked: float) -> float:
    # Not a demand: a caller says how long it will wait, so one that would wait longer loosens nothing.
    return min(policy, asked)


def _narrow_list(policy: tuple[T, ...], asked: tuple[T, ...]) -> tuple[T, ...]:
    common = tuple(value for value in policy if value in asked)
    if not common:
        raise Loosening("the policy allows nothing of what was asked for")
    return common


def _narrow_alpn(policy: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    if not policy or not asked:
        return asked or policy
    common = tuple(name for name in asked if name in policy)
    if not common:
        raise Loosening(f"{', '.join(asked)} asked for, the policy allows {', '.join(policy)}")
    return common


def _narrow_data_path(policy: str, asked: str) -> str:
    if policy not in (asked, DATA_PATHS[0]):
        raise Loosening(f"{asked} asked for, the policy allows {policy}")
    return asked


def _narrow_never(policy: str, asked: str) -> str:
    if asked != policy:
        raise Loosening(f"{_quoted(asked)} asked for, only the administrator sets this")
    return policy


# --- the table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One row: a setting's name, its text when nobody set it, and what can be done with it.

    Attributes:
        parse: text from outside to value; raises `BadValue` only.
        show: value to text, for a value that nobody wrote (a narrowed one).
        narrow: the policy's value and the request's to the one that counts; raises `Loosening`.
        stricter: which way is stricter, in words.
        many: the value is a list, one word a line.
        doc: one line, with units.
    """

    name: str
    default: str
    parse: Callable[[str], T]
    show: Callable[[T], str]
    narrow: Callable[[T, T], T]
    stricter: str
    doc: str
    many: bool = False

    def text_untrusted(self, text: str) -> str:
        """The text as it will be read back: as written, one word of a list a line."""
        return "\n".join(tokens_untrusted(text)) if self.many else clean_untrusted(text)


_ROWS: tuple[Setting[Any], ...] = (
    Setting(
        "min_version",
        "TLSv1.2",
        _parse_version_untrusted,
        _show_version,
        _narrow_min_version,
        "higher",
        "Lowest protocol version: TLSv1.2 or TLSv1.3. The kernel has no others.",
    ),
    Setting(
        "max_version",
        "TLSv1.3",
        _parse_version_untrusted,
        _show_version,
        _narrow_max_version,
        "lower",
        "Highest protocol version: TLSv1.2 or TLSv1.3, not below min_version.",
    ),
    Setting(
        "ciphersuites",
        _show_suites(suite for suite in SUITES.values() if suite.version == TLSVersion.TLSv1_3),
        _parse_ciphersuites_untrusted,
        _show_suites,
        _narrow_list,
        "fewer",
        "TLS 1.3 cipher suites in order of preference.",
        many=True,
    ),
    Setting(
        "ciphers",
        _show_suites(suite for suite in SUITES.values() if suite.version == TLSVersion.TLSv1_2),
        _parse_ciphers_untrusted,
        _show_suites,
        _narrow_list,
        "fewer",
        "TLS 1.2 cipher suites in order of preference, by IANA's names or OpenSSL's.",
        many=True,
    ),
    Setting(
        "groups",
        _show_names(_DEFAULT_GROUPS),
        _parse_groups_untrusted,
        _show_names,
        _narrow_list,
        "fewer",
        "Key exchange groups in order of preference.",
        many=True,
    ),
    Setting(
        "signature_algorithms",
        _show_names(SIGNATURE_ALGORITHMS),
        _parse_signatures_untrusted,
        _show_names,
        _narrow_list,
        "fewer",
        "Signature algorithms accepted in the handshake and in certificates, in order of preference.",
        many=True,
    ),
    Setting(
        "min_rsa_bits",
        "2048",
        _parse_bits_untrusted,
        str,
        _narrow_bits,
        "higher",
        "Smallest RSA key in a peer's certificate chain, in bits: 1024 to 16384.",
    ),
    Setting(
        "trust_store",
        SYSTEM_STORE,
        _parse_store_untrusted,
        str,
        _narrow_never,
        "set by the administrator only",
        "Where the trust anchors are: system, or the absolute path of a PEM file or of a directory of them.",
    ),
    Setting(
        "alpn",
        "",
        _parse_alpn_untrusted,
        _show_names,
        _narrow_alpn,
        "fewer",
        "Application protocols allowed (ALPN), in order of preference. Empty: whatever the application asks for.",
        many=True,
    ),
    Setting(
        "handshake_timeout",
        "30",
        _parse_seconds_untrusted,
        _show_seconds,
        _narrow_seconds,
        "shorter",
        "Longest time for a handshake, in seconds: a decimal number above 0, up to 3600.",
    ),
    Setting(
        "data_path",
        DATA_PATHS[0],
        _parse_data_path_untrusted,
        str,
        _narrow_data_path,
        "one of the two",
        "Who does the record crypto: ktls (the kernel), relay (the daemon), or ktls-or-relay (the kernel if it can).",
    ),
)

SETTINGS: dict[str, Setting[Any]] = {row.name: row for row in _ROWS}


def setting_untrusted(name: str) -> Setting[Any]:
    """The row of a setting named from outside."""
    if name not in SETTINGS:
        raise BadValue(f"{_quoted(name)} is not a setting, {_closest(name, SETTINGS)}")
    return SETTINGS[name]


# --- the policy ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """One consistent set of values. Immutable; equal and hashed by value, not by how it was written.

    There is one field a row of `SETTINGS`, and `texts`: each of them as it was written.
    """

    min_version: TLSVersion
    max_version: TLSVersion
    ciphersuites: tuple[Suite, ...]
    ciphers: tuple[Suite, ...]
    groups: tuple[str, ...]
    signature_algorithms: tuple[str, ...]
    min_rsa_bits: int
    trust_store: str
    alpn: tuple[str, ...]
    handshake_timeout: float
    data_path: str
    texts: Mapping[str, str] = field(compare=False, repr=False)

    @classmethod
    def default(cls) -> Policy:
        """The policy of a machine whose administrator has set nothing."""
        return _DEFAULT

    def text(self, name: str) -> str:
        """A setting as it was written, one word of a list a line, without a newline at the end."""
        return self.texts[name]

    def replace(self, name: str, text: str) -> Policy:
        """The policy with one setting changed; `BadValue` says why not."""
        return self.replace_many({name: text})

    def replace_many(self, texts: Mapping[str, str]) -> Policy:
        """The policy with several settings changed at once: only the outcome has to be consistent."""
        values: dict[str, Any] = {}
        written: dict[str, str] = {}
        for name, text in texts.items():
            row = setting_untrusted(name)
            try:
                values[name], written[name] = row.parse(text), row.text_untrusted(text)
            except BadValue as bad:
                raise BadValue(f"{name}: {bad}") from None
        return self._with(values, written)

    def with_values(self, values: Mapping[str, Any]) -> Policy:
        """The policy with some typed values replaced, as by a request: their text is the canonical one."""
        return self._with(values, {name: SETTINGS[name].show(value) for name, value in values.items()})

    def _with(self, values: Mapping[str, Any], written: Mapping[str, str]) -> Policy:
        changed = replace(self, **values, texts=MappingProxyType({**self.texts, **written}))
        _check(changed)
        return changed


def _check(policy: Policy) -> None:
    """What must hold between settings."""
    if policy.min_version > policy.max_version:
        raise BadValue(
            f"min_version {policy.min_version.label} is above max_version {policy.max_version.label}: "
            "no version would be left"
        )


_DEFAULT = Policy(
    **{row.name: row.parse(row.default) for row in _ROWS},
    texts=MappingProxyType({row.name: row.default for row in _ROWS}),
)
