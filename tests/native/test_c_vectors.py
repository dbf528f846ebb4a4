"""The vectors of tests/vectors, against what libssa writes and reads: no ssad is needed."""

import json
import random
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from ssa.errors import ALERT_NUMBERS
from ssa.ktls.post_handshake import Broken, is_close_notify_untrusted, messages_untrusted, pass_over_untrusted
from ssa.protocol.attributes import ATTRIBUTES, BYTES, NAMES, U32, U64
from ssa.protocol.messages import KINDS
from ssa.tls import ALERT, CLIENT_HELLO, HANDSHAKE, HELLO_REQUEST, KEY_UPDATE, NEW_SESSION_TICKET
from tests.needs import once

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES.values()}
NUMBERS = {kind.name: kind.number for kind in KINDS.values()}
VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def rows(name):
    lines = (ROOT / "tests" / "vectors" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_hex(name, value):
    """The value of an attribute as it is on the wire."""
    form = BY_NAME[name].form
    if form in (U32, U64):
        return struct.pack("=I" if form is U32 else "=Q", value).hex()
    if form is NAMES:
        return b"".join(bytes([len(part)]) + part.encode() for part in value).hex()
    return value if form is BYTES else value.encode().hex()


def attributes(row):
    return [f"{BY_NAME[name].number}:{as_hex(name, value)}" for name, value in row["attributes"].items()]


@pytest.fixture(scope="module", params=["", pytest.param("asan", marks=once)])
def answers(request):
    """What libssa says to each question, a line each."""
    program = ROOT / "build" / "native" / request.param / "tests" / "vectors"

    def ask(questions):
        done = subprocess.run([program], input="\n".join(questions) + "\n", capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return ask


def test_requests_are_written_byte_for_byte(answers):
    requests = [row for row in rows("messages") if row["kind"] != "reply"]
    asked = [" ".join(["write", str(NUMBERS[row["kind"]]), *attributes(row)]) for row in requests]
    assert answers(asked) == [row["hex"] for row in requests]
    assert len(asked) > 10


def test_replies_are_read(answers):
    replies = [row for row in rows("messages") + rows("also-read") if row["kind"] == "reply"]
    known = {str(attribute.number) for attribute in ATTRIBUTES.values()}
    for row, answer in zip(replies, answers([f"read {row['hex']}" for row in replies]), strict=True):
        word, *read = answer.split()
        assert word == "reply"
        assert {part for part in read if part.split(":")[0] in known} == set(attributes(row)), row["meaning"]


def test_what_is_no_reply_is_refused(answers):
    refused = [row for row in rows("refused") if row["read_as"] == "reply"]
    words = {"VERSION_MISMATCH": "other version", "DAEMON_FAULT": "nothing"}
    for row, answer in zip(refused, answers([f"read {row['hex'] or '-'}" for row in refused]), strict=True):
        assert answer == words[row["error"]], row["meaning"]
    assert len(refused) > 3


def test_what_records_mean(answers):
    asked = [
        f"record {VERSIONS[row['version']]} {int(row['role'] == 'server')} {row['type']} {row['hex'] or '-'}"
        for row in rows("records")
    ]
    for row, answer in zip(rows("records"), answers(asked), strict=True):
        alert = -1 if row["alert"] is None else ALERT_NUMBERS[row["alert"]]
        assert answer == (f"fail {alert}" if row["outcome"] == "fail" else row["outcome"]), row["meaning"]


def test_addresses_of_datagrams(answers):
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    for row, answer in zip(
        rows("addresses"), answers([f"address {row['hex']}" for row in rows("addresses")]), strict=True
    ):
        event = int(row["event"] == "gone")
        told = [str(event), str(int(families[row["family"]])), row["address"], str(row["port"]), str(row["scope"])]
        assert answer.split() == [*told, "00" + row["hex"][2:]], row["meaning"]


def meaning(version, server, kind, content):
    """What the Python library makes of a record."""
    modern = version == 0x0304
    try:
        if is_close_notify_untrusted(kind, content):
            return "end"
        if kind == ALERT:
            pass_over_untrusted(content, modern=modern)
            return "pass over"
        if kind != HANDSHAKE:
            return f"fail {ALERT_NUMBERS['unexpected_message']}"
        messages, rest = messages_untrusted(b"", content, modern=modern, server=server)
    except Broken as exc:
        return f"fail {-1 if exc.alert is None else ALERT_NUMBERS[exc.alert]}"
    last = messages[-1][0] if messages else None
    words = {
        KEY_UPDATE: "ask",
        NEW_SESSION_TICKET: "ticket",
        HELLO_REQUEST: "pass over",
        CLIENT_HELLO: "no_renegotiation",
    }
    return "ask" if rest else words[last]


def test_records_by_chance_mean_the_same_to_both_libraries(answers):
    chance = random.Random(7)
    records = []
    for _ in range(4000):
        kind = chance.choice([ALERT, HANDSHAKE, HANDSHAKE, HANDSHAKE, chance.randrange(256)])
        if kind == ALERT:
            content = bytes(
                chance.choice([0, 1, 2, 40, 90, 100, 255]) for _ in range(chance.choice([0, 1, 2, 2, 2, 3]))
            )
        else:
            content = b"".join(message(chance) for _ in range(chance.randrange(4)))[: chance.choice([1, 3, 5, 9, 1000])]
        if kind != 23:
            records.append((chance.choice([0x0303, 0x0304]), chance.choice([True, False]), kind, content))
    asked = [
        f"record {version} {int(server)} {kind} {content.hex() or '-'}" for version, server, kind, content in records
    ]
    for record, answer in zip(records, answers(asked), strict=True):
        assert answer == meaning(*record), record


def message(chance):
    kind = chance.choice(
        [HELLO_REQUEST, CLIENT_HELLO, NEW_SESSION_TICKET, KEY_UPDATE, KEY_UPDATE, chance.randrange(256)]
    )
    body = bytes(chance.randrange(3) for _ in range(1 if kind == KEY_UPDATE else chance.randrange(4)))
    length = chance.choice([len(body), len(body), len(body), chance.randrange(2**18)])
    return bytes([kind]) + length.to_bytes(3, "big") + body
