"""Levels: named sets of values, each after a published guideline. Rule 1: no I/O here.

A level has the settings of `NAMES`, so that one level replaces another whole. It leaves the other settings alone.
Where a guideline allows what ssa does not have (or the other way round), the level has what both have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa.policy.parsers import DEFAULT_GROUPS, GROUPS, POST_QUANTUM, SIGNATURE_ALGORITHMS, BadValue, quoted
from ssa.policy.schema import SETTINGS
from ssa.suites import SUITES, TLSVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ssa.suites import Suite

NAMES = (
    "min_version",
    "max_version",
    "ciphersuites",
    "ciphers",
    "groups",
    "signature_algorithms",
    "min_rsa_bits",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Level:
    """A named set of values.

    Attributes:
        source: where the values are from, in words.
        texts: the texts of its settings.
    """

    name: str
    source: str
    texts: Mapping[str, str]


def is_name(name: str) -> bool:
    """True for a name that a level may have."""
    return _NAME.fullmatch(name) is not None


def check_name_untrusted(name: str) -> None:
    """Refuse a name that no level has. Raises `BadValue`."""
    if not is_name(name):
        raise BadValue(f"{quoted(name)} is no level's name: those have small letters, digits, - and _")


def _suites(version: TLSVersion, fits: Callable[[Suite], bool]) -> str:
    return "\n".join(suite.name for suite in SUITES.values() if suite.version is version and fits(suite))


def _lines(words: Iterable[str]) -> str:
    return "\n".join(words)


def _level(  # noqa: PLR0913 - the settings of a level
    name: str,
    source: str,
    *,
    lowest: str = "TLSv1.2",
    fits: Callable[[Suite], bool] = lambda _: True,
    groups: Iterable[str] = DEFAULT_GROUPS,
    signatures: Iterable[str] = SIGNATURE_ALGORITHMS,
    rsa: int = 2048,
) -> Level:
    texts = {
        "min_version": lowest,
        "max_version": "TLSv1.3",
        "ciphersuites": _suites(TLSVersion.TLSv1_3, fits),
        "ciphers": _suites(TLSVersion.TLSv1_2, fits),
        "groups": _lines(groups),
        "signature_algorithms": _lines(signatures),
        "min_rsa_bits": str(rsa),
    }
    return Level(name, source, {setting: texts[setting] for setting in NAMES})


def _is_no_ccm(suite: Suite) -> bool:
    return "_CCM" not in suite.name


def _is_aes(suite: Suite) -> bool:
    return "_AES_" in suite.name


_NIST_SIGNATURES = [name for name in SIGNATURE_ALGORITHMS if not name.startswith("ed")]
_LONG_SIGNATURES = [name for name in _NIST_SIGNATURES if name.endswith(("384", "512")) and "521" not in name]

_OF_MOZILLA = ("X25519MLKEM768", "x25519", "secp256r1", "secp384r1")

LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        _level(
            "legacy",
            "all that ssa has; stricter than the old configuration of Mozilla's Server Side TLS",
            groups=(*DEFAULT_GROUPS, *(name for name in GROUPS if name not in DEFAULT_GROUPS)),
        ),
        _level(
            "intermediate",
            "Mozilla's Server Side TLS, intermediate, and a post-quantum hybrid before its groups",
            fits=_is_no_ccm,
            groups=_OF_MOZILLA,
        ),
        _level(
            "modern",
            "Mozilla's Server Side TLS, modern, and a post-quantum hybrid before its groups",
            lowest="TLSv1.3",
            fits=_is_no_ccm,
            groups=_OF_MOZILLA,
        ),
        _level(
            "pq",
            "key exchange by hybrids with ML-KEM only (FIPS 203), which needs TLS 1.3; else as modern",
            lowest="TLSv1.3",
            fits=_is_no_ccm,
            groups=[name for name in GROUPS if name in POST_QUANTUM and not name.startswith("ML")],
        ),
        _level(
            "nist",
            "NIST SP 800-52 Rev. 2: AES with GCM or CCM, NIST's curves and groups of RFC 7919, RSA and ECDSA",
            fits=_is_aes,
            groups=("secp256r1", "secp384r1", "secp521r1", "ffdhe2048", "ffdhe3072", "ffdhe4096"),
            signatures=_NIST_SIGNATURES,
        ),
        _level(
            "bsi",
            "BSI TR-02102-2: AES with GCM or CCM, NIST's curves and long groups of RFC 7919, RSA from 3000 bits",
            fits=_is_aes,
            groups=("secp256r1", "secp384r1", "secp521r1", "ffdhe3072", "ffdhe4096"),
            signatures=_NIST_SIGNATURES,
            rsa=3000,
        ),
        _level(
            "cnsa2",
            "CNSA 2.0 as far as ssa can: AES-256, SHA-384 or longer, ML-KEM-1024, alone or with P-384; without ML-DSA, "
            "which the check of certificates does not know, so signatures are those of CNSA 1.0",
            lowest="TLSv1.3",
            fits=lambda suite: "AES_256_GCM" in suite.name,
            groups=("MLKEM1024", "SecP384r1MLKEM1024"),
            signatures=_LONG_SIGNATURES,
            rsa=3072,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that a level changes: its texts before and after."""

    name: str
    before: str
    after: str

    @property
    def words(self) -> tuple[str, ...]:
        """The change in words: of a list the words that go and come, else both values."""
        if not SETTINGS[self.name].many:
            return (f"{self.before} becomes {self.after}",)
        old, new = self.before.split(), self.after.split()
        parts = [
            ("without ", [word for word in old if word not in new]),
            ("with ", [word for word in new if word not in old]),
        ]
        told = tuple(f"{lead}{' '.join(words)}" for lead, words in parts if words)
        return told or (f"in the order {' '.join(new)}",)


def changes(present: Mapping[str, str], level: Level) -> list[Change]:
    """The settings that a level changes of the present texts. Equal values written differently are no change."""
    rows = [(SETTINGS[name], text) for name, text in level.texts.items()]
    return [
        Change(row.name, row.show(row.parse(present[row.name])), row.show(row.parse(text)))
        for row, text in rows
        if row.parse(present[row.name]) != row.parse(text)
    ]
