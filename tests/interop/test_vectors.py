"""The vectors of records that are no data (tests/vectors/records.jsonl), sent by a peer to sockets of the kernel's."""

import errno
import json
from pathlib import Path

import pytest

from ssa.errors import ALERT_NUMBERS
from ssa.suites import TLSVersion
from ssa.tls import ALERT, HANDSHAKE
from tests.interop import raw

LINES = (Path(__file__).parents[1] / "vectors" / "records.jsonl").read_text(encoding="utf-8").splitlines()
ROWS = [pytest.param(row, id=f"{row['version']}-{row['role']}-{row['meaning']}") for row in map(json.loads, LINES)]
VERSIONS = {version.label: version for version in TLSVersion}
OURS = {"client": raw.connected, "server": raw.accepted}
KEY_UPDATES = "1800000100", "1800000101"


def fails(ours, peer, number, alert):
    """Reading raises this, again and again, and the peer is sent the alert; nothing where that is None."""
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            ours.recv(100)
        assert caught.value.errno == number
    if alert is not None:
        assert alerts(peer) == [bytes([2, ALERT_NUMBERS[alert]])]


def alerts(peer):
    """The alerts that come until the end of the stream."""
    found = []
    try:
        while True:
            kind, content = peer.read()
            if kind == ALERT:
                found.append(content)
    except EOFError:
        return found


@pytest.mark.parametrize("row", ROWS)
def test_what_becomes_of_a_record(ssad, pki, capabilities, row):
    content, outcome = bytes.fromhex(row["hex"]), row["outcome"]
    with OURS[row["role"]](pki, VERSIONS[row["version"]]) as (ours, peer):
        peer.send(peer.seal(content, row["type"]))
        if row["hex"] in KEY_UPDATES and peer.modern:
            peer.tx.advance()
        peer.send(peer.seal(b"behind"))
        if outcome == "fail":
            fails(ours, peer, errno.EPROTO, row["alert"])
        elif outcome == "end":
            assert [ours.recv(100), ours.recv(100)] == [b"", b""]
        elif outcome != "ask":
            assert ours.recv(100) == b"behind"
        elif row["hex"] not in KEY_UPDATES:  # the rest of a message has to come next, and no data
            fails(ours, peer, errno.EPROTO, "unexpected_message")
        elif capabilities.rekey:
            assert ours.recv(100) == b"behind"
        else:
            fails(ours, peer, errno.EPROTONOSUPPORT, None)
        if outcome == "no_renegotiation":
            assert peer.read() == (ALERT, b"\1\x64")


def test_there_are_rows_for_each_role_version_and_outcome():
    rows = [param.values[0] for param in ROWS]
    assert {(row["version"], row["role"]) for row in rows} == {(version, role) for version in VERSIONS for role in OURS}
    assert {row["outcome"] for row in rows} == {"end", "pass over", "ticket", "no_renegotiation", "ask", "fail"}
    assert {row["type"] for row in rows} >= {ALERT, HANDSHAKE}
