"""The settings of the policy, and the immutable `Policy` that has a value for each of them.

Rule 1: no I/O here. Outside, a setting is text: a file of the file system, a key of the TOML file. Inside, it is a
typed value. Its row of `SETTINGS` (`ssa.policy.table`) says what becomes of the text. The text is kept beside the
value: administrators read back what they wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ssa.policy.narrowing import Loosening
from ssa.policy.parsers import (
    GROUPS,
    MAX_TEXT,
    POST_QUANTUM,
    SIGNATURE_ALGORITHMS,
    BadValue,
    closest,
    quoted,
)
from ssa.policy.setting import Setting
from ssa.policy.table import ROWS
from ssa.policy.values import Values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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

SETTINGS: dict[str, Setting[Any]] = {row.name: row for row in ROWS}


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
        found = ((row.name, row.unmet(made, self)) for row in ROWS if row.unmet)
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
    **{row.name: row.parse(row.default) for row in ROWS},
    texts=MappingProxyType({row.name: row.default for row in ROWS}),
)
