"""The vectors of tests/vectors, which libraries in other languages are tested against too, against this one."""

import json
import sys
from pathlib import Path

import pytest

from ssa import errors
from ssa.errors import error
from ssa.ktls.post_handshake import Broken, is_close_notify_untrusted, messages_untrusted, pass_over_untrusted
from ssa.library.connection import reply_of
from ssa.protocol import addresses, wire
from ssa.protocol.attributes import ATTRIBUTES, BYTES, NAMES
from ssa.protocol.messages import KINDS
from ssa.tls import ALERT, CLIENT_HELLO, HANDSHAKE, KEY_UPDATE, NEW_SESSION_TICKET

VECTORS = Path(__file__).parents[1] / "vectors"
FIELDS = {attribute.name: attribute for attribute in ATTRIBUTES.values()}
MESSAGES = {kind.name: kind.message for kind in KINDS.values()}

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the vectors are little-endian")


def rows(name):
    lines = (VECTORS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [pytest.param(row, id=row["meaning"][:60]) for row in map(json.loads, lines)]


def of_json(attribute, value):
    """The value of an attribute as a message has it."""
    if attribute.form is BYTES:
        return bytes.fromhex(value)
    return tuple(value) if attribute.form is NAMES else value


def built(row):
    values = {FIELDS[name].field: of_json(FIELDS[name], value) for name, value in row["attributes"].items()}
    return MESSAGES[row["kind"]](**values)


@pytest.mark.parametrize("row", rows("messages"))
def test_messages_are_written_byte_for_byte(row):
    assert wire.pack(built(row)).hex() == row["hex"]


@pytest.mark.parametrize("row", rows("messages") + rows("also-read"))
def test_messages_are_read(row):
    assert wire.parse_untrusted(bytes.fromhex(row["hex"]), MESSAGES[row["kind"]]) == built(row)


@pytest.mark.parametrize("row", [row for row in rows("messages") if row.values[0]["kind"] != "reply"])
def test_the_descriptors_are_those_that_the_attributes_announce(row):
    counts = {name: row["attributes"].get(name, 0) for name in FILES}
    assert [name for name in row["descriptors"] if name in FILES.values()] == [
        FILES[name] for name, count in counts.items() for _ in range(count)
    ]


FILES = {
    "TLS_TRUSTED_PEER_CERTIFICATES": "trusted",
    "TLS_CERTIFICATE_CHAIN": "certificate",
    "TLS_PRIVATE_KEY": "key",
}


def test_each_kind_and_each_attribute_is_there():
    seen = [row.values[0] for row in rows("messages")]
    assert {row["kind"] for row in seen} == set(MESSAGES)
    assert {name for row in seen for name in row["attributes"]} == set(FIELDS)


@pytest.mark.parametrize("row", rows("refused"))
def test_what_is_no_message_is_refused(row):
    packet = bytes.fromhex(row["hex"])
    if row["read_as"] == "reply":
        with pytest.raises(errors.SSAError) as caught:
            reply_of(packet)
        assert caught.value.reason == row["error"]
        return
    with pytest.raises(wire.WireError) as refused:
        wire.parse_untrusted(packet, *wire.REQUESTS)
    assert isinstance(refused.value, wire.OtherVersion) == (row["error"] == "VERSION_MISMATCH")


@pytest.mark.parametrize("row", [row for row in rows("messages") if "reason" in row.values[0]["attributes"]])
def test_a_replys_errno_is_that_of_its_reason(row):
    attributes = row["attributes"]
    with pytest.raises(errors.SSAError) as caught:
        reply_of(bytes.fromhex(row["hex"]))
    assert (caught.value.reason, caught.value.errno) == (attributes["reason"], attributes["errno"])
    assert error(attributes["reason"]).errno == attributes["errno"]


@pytest.mark.parametrize("row", rows("addresses"))
def test_addresses(row):
    prefix = bytes.fromhex(row["hex"])
    event = {"data": addresses.DATA, "gone": addresses.GONE}[row["event"]]
    more = (0, row["scope"]) if row["family"] == "inet6" else ()
    assert addresses.packed((row["address"], row["port"], *more), event) == prefix
    kind, address = addresses.unpacked(prefix)
    assert (kind, address[0].partition("%")[0], address[1:]) == (event, row["address"], (row["port"], *more))


@pytest.mark.parametrize("row", rows("records"))
def test_records(row):
    try:
        outcome, alert = judged(row["type"], bytes.fromhex(row["hex"]), row["version"], row["role"]), None
    except Broken as broken:
        outcome, alert = "fail", broken.alert
    assert (outcome, alert) == (row["outcome"], row["alert"])


def judged(kind, content, version, role):
    """What `ssa.library.control_records` does about a record."""
    modern = version == "TLSv1.3"
    if is_close_notify_untrusted(kind, content):
        return "end"
    if kind == HANDSHAKE:
        messages, rest = messages_untrusted(b"", content, modern=modern, server=role == "server")
        if rest or messages[-1][0] == KEY_UPDATE:
            return "ask"
        return {NEW_SESSION_TICKET: "ticket", CLIENT_HELLO: "no_renegotiation"}.get(messages[0][0], "pass over")
    if kind != ALERT:
        raise Broken(0, "no stream has it", "unexpected_message")
    pass_over_untrusted(content, modern=modern)
    return "pass over"
