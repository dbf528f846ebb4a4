"""The vectors of tests/vectors, against what clients/node writes and reads. No ssad is needed."""

import json
import random
import subprocess
import sys

import pytest

from ssa.errors import REASONS, SSAError
from ssa.library.connection import reply_of
from tests.native.languages import HOST, ROOT, node
from tests.native.test_c_vectors import rows

pytestmark = [
    pytest.mark.skipif(sys.byteorder != "little", reason="the vectors are little-endian"),
    pytest.mark.skipif(not HOST, reason="tested on this machine's own kernel"),
]


def answers(questions):
    done = subprocess.run(
        [node(), ROOT / "tests" / "native" / "vectors.js"],
        input="\n".join(json.dumps(question) for question in questions) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_requests_are_written_byte_for_byte():
    requests = [row for row in rows("messages") if row["kind"] != "reply"]
    asked = [{"do": "write", "kind": row["kind"], "attributes": row["attributes"]} for row in requests]
    assert answers(asked) == [row["hex"] for row in requests]


def test_replies_are_read():
    replies = [row for name in ("messages", "also-read") for row in rows(name) if row["kind"] == "reply"]
    assert answers([{"do": "read", "hex": row["hex"]} for row in replies]) == [row["attributes"] for row in replies]


def test_what_is_no_reply_is_refused():
    refused = [row for row in rows("refused") if row["read_as"] == "reply"]
    told = answers([{"do": "read", "hex": row["hex"]} for row in refused])
    assert told == [{"error": row["error"]} for row in refused]


def meaning(packet):
    """How Python's library takes a reply: as one, or what it calls it."""
    try:
        reply_of(packet)
    except SSAError as exc:
        return exc.reason
    return "a reply"


def test_damaged_replies_mean_the_same_to_both_libraries():
    chance = random.Random(11)
    whole = [bytes.fromhex(row["hex"]) for row in rows("messages") if row["kind"] == "reply"]
    damaged = []
    for _ in range(2000):
        packet = bytearray(chance.choice(whole))
        packet[chance.randrange(len(packet))] = chance.randrange(256)
        damaged.append(bytes(packet[: chance.choice([len(packet), len(packet), chance.randrange(len(packet) + 1)])]))
    told = answers([{"do": "read", "hex": packet.hex()} for packet in damaged])
    for packet, answer in zip(damaged, told, strict=True):
        reason = answer.get("error", answer.get("reason", "a reply"))
        known = reason if reason in {*REASONS, "a reply"} else "DAEMON_FAULT"  # Python's word for one it does not know
        assert known == meaning(packet), (packet.hex(), answer)
