"""The tables of docs/programs.md that are made from what the runs have come to (`make test-programs`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.ways.programs import PROGRAMS, WAYS, Program

RESULTS = Path(__file__).parent / "results"
PATHS = {"relay": "relay", "ktls": "kernel TLS"}
OUTCOMES = {"works": "works", "refused": "refused", "past": "**goes past ssa**", "loosened": "**loosened**"}
_NONE = "no"

Results = dict[tuple[str, bool, str], dict[str, Any]]


def results(path: str) -> Results:
    """What the run on a data path has come to, by program, whether it serves, and way."""
    lines = (RESULTS / f"{path}.jsonl").read_text(encoding="utf-8").splitlines()
    return {(one["name"], one["serves"], one["way"]): one for one in map(json.loads, lines)}


def _by_path(values: dict[str, str]) -> str:
    """One text where both data paths have the same."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "; ".join(f"{PATHS[path]}: {value}" for path, value in values.items())


def _quoted(words: str) -> str:
    return f"`{words.replace('|', ' ').replace('`', '')}`" if words else ""


def _cell(program: Program, title: str, runs: dict[str, Results]) -> str:
    (way,) = [way for way in program.ways if WAYS[way].title == title] or [None]
    if way is None:
        return ""
    return _by_path({path: _outcome(run[program.name, program.serves, way]) for path, run in runs.items()})


def _outcome(result: dict[str, Any]) -> str:
    is_silent = result["outcome"] == "refused" and not result["words"]
    return "does not work" if is_silent else OUTCOMES[result["outcome"]]


def matrix() -> list[list[str]]:
    """The rows: each program by each way, on both data paths."""
    runs = {path: results(path) for path in PATHS}
    heads = ["program", "as", "TLS in it", *dict.fromkeys(way.title for way in WAYS.values())]
    rows = [
        [
            program.name,
            "server" if program.serves else "client",
            {"none": _NONE, "ssa": "by ssa"}.get(program.tls, program.tls),
            *(_cell(program, title, runs) for title in heads[3:]),
        ]
        for program in PROGRAMS
    ]
    return [heads, *rows]


def refusals() -> list[list[str]]:
    """The rows: what each program says where it is refused, on both data paths."""
    runs = {path: results(path) for path in PATHS}
    rows = []
    for program in PROGRAMS:
        for way in program.ways:
            said = {path: run[program.name, program.serves, way] for path, run in runs.items()}
            words = _by_path({path: _quoted(one["words"]) for path, one in said.items()})
            outcomes = {one["outcome"] for one in said.values()}
            if words:
                what = "a server with a wrong name" if outcomes == {"works"} else "all"
                rows.append([program.name, WAYS[way].title.partition(":")[0], what, words])
    return [["program", "way", "refused is", "its words"], *rows]
