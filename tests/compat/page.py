"""Renders docs/compatibility.md from libraries.toml and the results of its runs: `python -m tests.compat.page`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.compat.run import LIBRARIES, RESULTS
from tests.compat.servers import SERVERS
from tests.tables import DOCS, markdown

PAGE = DOCS / "compatibility.md"
PATHS = {"relay": "relay", "ktls": "kernel TLS"}
OUTCOMES = {
    "works": "works",
    "past": "**goes past ssa**",
    "refused": "refused",
    "plain text": "works; **plain text** after a refusal",
}
CLIENTS = {"https": "curl", "websocket": "curl", "smtp": "openssl s_client", "smtps": "openssl s_client"}

TEXT = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")


def results() -> dict[str, list[dict[str, Any]]]:
    """The lines of each run, in the order of libraries.toml."""
    return {path: [json.loads(line) for line in (RESULTS / f"{path}.jsonl").read_text().splitlines()] for path in PATHS}


def called(library: dict[str, Any]) -> str:
    how = library.get("how", "")
    return f"{library['name']} ({how})" if how else library["name"]


def count(result: dict[str, Any]) -> str:
    return f"{result['before']} → {result['after']}" if result["outcome"] != "refused" else ""


def lines(library: dict[str, Any]) -> str:
    return str(library.get("lines", 1)) if library["expect"] in ("works", "plain text") else ""


def quoted(said: str) -> str:
    """What a program has said, as code in a cell of a table."""
    return f"`{re.sub('[|`]', '', said)}`" if said else ""


def table(kind: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    """The libraries that meet a "server", or a "client"."""
    peers = {protocol: name for protocol, (_, name) in SERVERS.items()} if kind == "server" else CLIENTS
    rows = [
        (
            called(library),
            relay["version"],
            OUTCOMES[relay["outcome"]],
            lines(library),
            peers[library[kind]],
            count(relay),
            count(ktls),
            quoted(relay["refused"]),
        )
        for library, relay, ktls in zip(LIBRARIES, runs["relay"], runs["ktls"], strict=True)
        if kind in library
    ]
    heads = ["library", "version", "outcome", "lines", kind, "handshakes, relay", "kernel TLS", "refused with"]
    return markdown(heads, rows)


def notes(*, past: bool) -> str:
    noted = [library for library in LIBRARIES if "note" in library and (library["expect"] == "past") == past]
    return "".join(f"- {called(library)}: {library['note']}.\n" for library in noted)


def rendered() -> str:
    """The whole page."""
    runs = results()
    return TEXT.format(
        clients=table("server", runs), servers=table("client", runs), past=notes(past=True), notes=notes(past=False)
    )


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
