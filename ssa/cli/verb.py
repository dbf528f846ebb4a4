"""What a verb of the command line is: one row of a table, from which the parser and the help are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def no_arguments(_parser: argparse.ArgumentParser) -> None:
    """For a verb that takes none."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb.

    Attributes:
        summary: one line, for the list of verbs.
        description: a paragraph, for its own --help.
        examples: lines of shell, for its own --help.
        notes: more for its own --help, laid out already.
        run: the exit status; raises OSError, ValueError or `Failure`, which `main` tells in one line.
        arguments: adds the verb's own to its parser.
        json: whether it takes --json.
        verbs: verbs below it; without one of them it is `run` itself.
    """

    name: str
    summary: str
    description: str
    examples: str
    run: Callable[[argparse.Namespace], int]
    arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    json: bool = True
    notes: str = ""
    verbs: tuple[Verb, ...] = ()
