"""The words that settings may have, and the parsers of their text. Rule 1: no I/O here.

The text comes from outside: so the parsers are named ``*_untrusted`` and raise `BadValue` only. Its message is for the
administrator who wrote the text.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, TypeVar

from ssa.suites import BY_OPENSSL_NAME, SUITES, VERSIONS, Suite, TLSVersion
from ssa.tls import is_protocol_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

T = TypeVar("T")

MAX_TEXT = 4096  # bytes of one value: a page, as in sysfs


class BadValue(ValueError):
    """A setting's text was refused. The message says what is wrong with it and what was expected."""


# --- words -------------------------------------------------------------------------------------------------------

SYSTEM_STORE = "system"
MAX_DEPTH = 100  # OpenSSL's (X509_VERIFY_PARAM_set_depth(3))
DATA_PATHS: tuple[str, ...] = ("ktls-or-relay", "ktls", "relay")
SESSION_TICKETS: tuple[str, ...] = ("on", "off")
TRUNCATIONS: tuple[str, ...] = ("as-program", "error")  # what a stream that was cut is to programs under inject
CLIENT_AUTHS: tuple[str, ...] = ("as-program", "optional", "required")
COERCIONS: tuple[str, ...] = ("strict", "fallback")

# The canonical name of each group (RFC 8446's, which OpenSSL takes), and its other names.
GROUPS: dict[str, tuple[str, ...]] = {
    "X25519MLKEM768": (),
    "x25519": ("X25519",),
    "secp256r1": ("P-256", "prime256v1"),
    "secp384r1": ("P-384",),
    "secp521r1": ("P-521",),
    "x448": ("X448",),
    "SecP256r1MLKEM768": (),
    "SecP384r1MLKEM1024": (),
    "MLKEM1024": (),
    "MLKEM768": (),
    "ffdhe2048": (),
    "ffdhe3072": (),
    "ffdhe4096": (),
    "ffdhe6144": (),
    "ffdhe8192": (),
}
GROUP_NAMES: tuple[str, ...] = tuple(alias for name, aliases in GROUPS.items() for alias in (name, *aliases))
# Post-quantum algorithms, most as hybrids with a classical one; TLS 1.3 only.
POST_QUANTUM = frozenset(name for name in GROUPS if "MLKEM" in name)
# The hybrid is first: traffic that is recorded today must stay secret when there is a quantum computer. secp521r1 is
# in the list for TLS 1.2, where a server's certificate may only be on a curve of this list (RFC 8422 section 5.1).
DEFAULT_GROUPS = ("X25519MLKEM768", "x25519", "secp256r1", "secp384r1", "secp521r1")

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


def quoted(text: str) -> str:
    """A text for a message: quoted, printable, on one line of at most 80 characters."""
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:76]}...{shown[0]}"


def closest(word: str, words: Iterable[str]) -> str:
    """A hint for a misspelled word: the most similar known word, or all known words."""
    known = list(words)
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.75)
    return f"did you mean {by_folded[near[0]]}?" if near else f"expected one of: {', '.join(known)}"


# --- parsers of text from outside --------------------------------------------------------------------------------

SEPARATORS = re.compile(r"[\n ,:]+")
OF_HOSTS = re.compile(r"[\n ,]+")  # an address of IPv6 has colons
OF_LINES = re.compile(r"\n+")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_CONTROL = re.compile(r"[^\n\x20-\x7e]")


def clean_untrusted(text: str) -> str:
    """The text without the space around it. It must be printable ASCII and newlines, at most `MAX_TEXT` characters."""
    if len(text) > MAX_TEXT:
        raise BadValue(f"{len(text)} characters are too long, the limit is {MAX_TEXT}")
    stripped = text.strip(" \t\r\n")
    odd = _CONTROL.search(stripped)
    if odd:
        raise BadValue(f"character {odd.group()!a} is not allowed, expected printable ASCII")
    return stripped


def tokens_untrusted(text: str, separators: re.Pattern[str] = SEPARATORS) -> tuple[str, ...]:
    """The words of a list. Newlines, spaces, commas or colons separate most lists; no word may be there twice."""
    tokens = tuple(filter(None, map(str.strip, separators.split(clean_untrusted(text)))))
    refuse_duplicates(tokens, tokens)
    return tokens


def split_untrusted(text: str, separators: re.Pattern[str] = SEPARATORS) -> tuple[str, str]:
    """The parts of an unfinished list: the words with a separator behind them, and the last word, maybe unfinished."""
    last = separators.split(text)[-1]
    whole = text.removesuffix(last) if last else text
    return whole if any(separators.split(whole)) else "", last


def refuse_duplicates(values: tuple[Any, ...], tokens: tuple[str, ...]) -> None:
    """Refuse a list in which two words mean the same thing."""
    first: dict[Any, str] = {}
    for value, token in zip(values, tokens, strict=True):
        if value in first:
            same = "" if first[value] == token else f": it is the same as {quoted(first[value])}"
            raise BadValue(f"{quoted(token)} is in the list twice{same}")
        first[value] = token


def _word_untrusted(text: str) -> str:
    """The one word of a value that is not a list."""
    word = clean_untrusted(text)
    if "\n" in word:
        raise BadValue(f"{quoted(word)} is more than one line, expected one value")
    return word


def parse_version_untrusted(text: str) -> TLSVersion:
    """A protocol version."""
    word = _word_untrusted(text)
    if word in VERSIONS:
        return VERSIONS[word]
    reason = ": ssa knows no other versions" if re.fullmatch(r"(?i)(SSL|TLS|DTLS)v?[0-9.]+", word) else ""
    raise BadValue(f"{quoted(word)} is not supported{reason}, expected {' or '.join(VERSIONS)}")


def _list_untrusted(text: str, resolve: Callable[[str], T]) -> tuple[T, ...]:
    """A list of at least one word, with each word resolved. No two words may mean the same value."""
    tokens = tokens_untrusted(text)
    if not tokens:
        raise BadValue("the list is empty, expected at least one name")
    values = tuple(resolve(token) for token in tokens)
    refuse_duplicates(values, tokens)
    return values


def _suite(version: TLSVersion, belongs: str) -> Callable[[str], Suite]:
    """Make a function that finds a suite by IANA's or OpenSSL's name, for the setting of one protocol version."""
    names = [suite.name for suite in SUITES.values() if suite.version == version]

    def resolve(token: str) -> Suite:
        suite = SUITES.get(token) or BY_OPENSSL_NAME.get(token)
        if suite is None:
            hint = closest(token, [*names, *(SUITES[name].openssl for name in names)])
            raise BadValue(f"{quoted(token)} is not a {version.label} suite that the kernel can do, {hint}")
        if suite.version != version:
            raise BadValue(f"{quoted(token)} is a {suite.version.label} suite, it belongs in {belongs}")
        return suite

    return resolve


def _name(what: str, names: Mapping[str, str]) -> Callable[[str], str]:
    """Make a function that finds the canonical name for any name of a thing."""

    def resolve(token: str) -> str:
        if token not in names:
            raise BadValue(f"{quoted(token)} is not a {what} that ssa knows, {closest(token, names)}")
        return names[token]

    return resolve


_GROUP_ALIASES = {alias: name for name, aliases in GROUPS.items() for alias in (name, *aliases)}
_resolve_ciphersuite = _suite(TLSVersion.TLSv1_3, "ciphers")
_resolve_cipher = _suite(TLSVersion.TLSv1_2, "ciphersuites")
_resolve_group = _name("group", _GROUP_ALIASES)
_resolve_signature = _name("signature algorithm", {name: name for name in SIGNATURE_ALGORITHMS})


def parse_ciphersuites_untrusted(text: str) -> tuple[Suite, ...]:
    """TLS 1.3 suites, by IANA's names."""
    return _list_untrusted(text, _resolve_ciphersuite)


def parse_ciphers_untrusted(text: str) -> tuple[Suite, ...]:
    """TLS 1.2 suites, by IANA's names or OpenSSL's."""
    return _list_untrusted(text, _resolve_cipher)


def parse_groups_untrusted(text: str) -> tuple[str, ...]:
    """Key exchange groups, by any of their names."""
    return _list_untrusted(text, _resolve_group)


def parse_signatures_untrusted(text: str) -> tuple[str, ...]:
    """Signature algorithms, by RFC 8446's names."""
    return _list_untrusted(text, _resolve_signature)


def parse_alpn_untrusted(text: str) -> tuple[str, ...]:
    """Application protocols; the list may be empty."""
    tokens = tokens_untrusted(text)
    for token in tokens:
        if not is_protocol_name(token):
            raise BadValue(f"{quoted(token)} has {len(token)} bytes, a protocol's name has 1 to 255 (RFC 7301)")
    return tokens


def parse_bits_untrusted(text: str) -> int:
    """A key size in bits."""
    word = _word_untrusted(text)
    if not re.fullmatch(r"[0-9]{1,9}", word) or not 1024 <= int(word) <= 16384:
        raise BadValue(f"{quoted(word)} is not a key size, expected a whole number of bits, 1024 to 16384")
    return int(word)


def parse_depth_untrusted(text: str) -> int:
    """A number of intermediate certificates, at most OpenSSL's own limit."""
    word = _word_untrusted(text)
    if not re.fullmatch(r"[0-9]{1,3}", word) or int(word) > MAX_DEPTH:
        raise BadValue(f"{quoted(word)} is not a depth, expected a whole number of certificates, 0 to {MAX_DEPTH}")
    return int(word)


def parse_seconds_untrusted(text: str) -> float:
    """A time, in seconds."""
    word = _word_untrusted(text)
    if not _DECIMAL.fullmatch(word) or not 0 < float(word) <= 3600:
        raise BadValue(f"{quoted(word)} is not a time, expected seconds as a decimal number above 0, up to 3600")
    return float(word)


def parse_ttl_untrusted(text: str) -> int:
    """The lifetime of a session, in seconds. TLS 1.3 allows a ticket a week at most (RFC 8446 section 4.6.1)."""
    word = _word_untrusted(text)
    if not re.fullmatch(r"[0-9]{1,6}", word) or int(word) > 604800:
        raise BadValue(f"{quoted(word)} is not a lifetime, expected a whole number of seconds, 0 to 604800")
    return int(word)


def parse_store_untrusted(text: str) -> str:
    """The place of a trust store: `SYSTEM_STORE`, or an absolute path."""
    word = _word_untrusted(text)
    if word != SYSTEM_STORE and not word.startswith("/"):
        raise BadValue(f"{quoted(word)} is not a trust store, expected {SYSTEM_STORE} or an absolute path")
    return word


def parse_coercion_untrusted(text: str) -> str:
    """One of `COERCIONS`."""
    return _one_of_untrusted(text, COERCIONS, "is not a way of coercion")


def parse_client_auth_untrusted(text: str) -> str:
    """One of `CLIENT_AUTHS`."""
    return _one_of_untrusted(text, CLIENT_AUTHS, "says nothing of clients' certificates")


def parse_data_path_untrusted(text: str) -> str:
    """One of `DATA_PATHS`."""
    return _one_of_untrusted(text, DATA_PATHS, "is not a data path")


def parse_tickets_untrusted(text: str) -> str:
    """One of `SESSION_TICKETS`."""
    return _one_of_untrusted(text, SESSION_TICKETS, "says nothing of tickets")


def parse_truncation_untrusted(text: str) -> str:
    """One of `TRUNCATIONS`."""
    return _one_of_untrusted(text, TRUNCATIONS, "is not known")


def _one_of_untrusted(text: str, words: Collection[str], otherwise: str) -> str:
    word = _word_untrusted(text)
    if word not in words:
        raise BadValue(f"{quoted(word)} {otherwise}, {closest(word, words)}")
    return word
