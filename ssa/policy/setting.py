"""One row of the table of settings: how a text becomes a value, which way is stricter, and what enforces it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ssa.policy.parsers import SEPARATORS, clean_untrusted, split_untrusted, tokens_untrusted

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from ssa.policy.compliance import Made
    from ssa.policy.values import Values

T = TypeVar("T")


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
        enforced: what enforces it, in words for the manual.
        separators: what separates the words of a list.
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
    enforced: str = ""
    separators: re.Pattern[str] = SEPARATORS

    @property
    def form(self) -> str:
        """The type of its value, in words."""
        if self.many:
            return "list"
        return "word" if self.words else "number" if self.default.isdecimal() else "text"

    def is_whole(self, text: str) -> bool:
        """True if more text can add nothing to the value: the value is no list, and its line has ended."""
        return not self.many and "\n" in text.lstrip()

    def check_so_far_untrusted(self, text: str) -> None:
        """Refuse the beginning of a text if no more text can make it a value. Raises `BadValue`.

        The last word may be cut short, unless a separator is behind it.
        """
        clean_untrusted(text)
        whole, last = split_untrusted(text, self.separators) if self.many else ("", text.strip())
        if self.words and not any(word.startswith(last) for word in self.words):
            self.parse(text)  # its error says what is wrong
        if whole:
            self.parse(whole)

    def text_untrusted(self, text: str) -> str:
        """The text as it will be read back: as it was written, but a list has one word a line."""
        return "\n".join(tokens_untrusted(text, self.separators)) if self.many else clean_untrusted(text)
