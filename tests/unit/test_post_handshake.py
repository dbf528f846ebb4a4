"""What a record means that is no data, behind the handshake: the table, as it is written."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.errors import ALERT_NUMBERS
from ssa.ktls import post_handshake as posthandshake
from ssa.ktls.post_handshake import Broken, is_close_notify_untrusted, messages_untrusted, pass_over_untrusted

ALWAYS_PASSED = {True: {90}, False: set(range(256)) - {0, 100}}  # by TLS 1.3: the warnings that are passed over


def alert_for(do):
    """The alert that it gives, None for the peer's own; or "passed"."""
    try:
        do()
    except Broken as exc:
        assert exc.errno == errno.EPROTO
        assert exc.alert is None or exc.alert in ALERT_NUMBERS
        return exc.alert
    return "passed"


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("level", [0, 1, 2, 3, 255])
def test_every_alert(modern, level):
    for number in range(1, 256):
        got = alert_for(lambda number=number: pass_over_untrusted(bytes([level, number]), modern=modern))
        if number in ALWAYS_PASSED[modern] and (level == 1 or modern):
            assert got == "passed"
        elif modern or level == 2:
            assert got is None
        else:
            assert got == ("handshake_failure" if level == 1 else "illegal_parameter")


def test_close_notify_is_known_at_any_level():
    assert all(is_close_notify_untrusted(21, bytes([level, 0])) for level in range(256))
    assert not is_close_notify_untrusted(21, b"\1\0\0")
    assert not is_close_notify_untrusted(22, b"\1\0")


@pytest.mark.parametrize(
    ("content", "alert"), [(b"", "unexpected_message"), (b"\2", "decode_error"), (b"\1\0\1", "decode_error")]
)
def test_alerts_of_another_length(content, alert):
    for modern in (True, False):
        assert alert_for(lambda modern=modern: pass_over_untrusted(content, modern=modern)) == alert


# (TLS 1.3, we are the server): the messages that are taken
TAKEN = {(True, False): {4, 24}, (True, True): {24}, (False, False): {0}, (False, True): {1}}


@pytest.mark.parametrize(("modern", "server"), TAKEN)
def test_every_handshake_message(modern, server):
    for kind in range(256):
        message = bytes([kind, 0, 0, kind == 24]) + b"\0" * (kind == 24)
        got = alert_for(lambda message=message: messages_untrusted(b"", message, modern=modern, server=server))
        assert got == ("passed" if kind in TAKEN[modern, server] else "unexpected_message")
        if kind in TAKEN[modern, server]:
            assert messages_untrusted(b"", message, modern=modern, server=None) == ([message], b"")


@pytest.mark.parametrize("length", [131339, 2**24 - 1])
def test_a_message_has_a_bound(length):
    """It is known with the length, not when so much has come."""
    header = b"\4" + length.to_bytes(3, "big")
    assert alert_for(lambda: messages_untrusted(b"", header, modern=True, server=False)) == "illegal_parameter"
    assert messages_untrusted(b"", b"\4\2\1\x0a", modern=True, server=False) == ([], b"\4\2\1\x0a")


def messages():
    ticket = st.binary(max_size=300).map(lambda body: b"\4" + len(body).to_bytes(3, "big") + body)
    return st.lists(ticket, min_size=1, max_size=5)


@given(messages(), st.data())
def test_pieces_are_joined_wherever_they_are_cut(sent, data):
    stream, found, begun = b"".join(sent), [], b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        complete, begun = messages_untrusted(begun, stream[:size], modern=True, server=False)
        found += complete
        stream = stream[size:]
    assert (found, begun) == (sent, b"")


@given(st.binary(max_size=20), st.binary(max_size=20), st.booleans(), st.sampled_from([True, False, None]))
def test_junk_gives_one_exception_only(begun, content, modern, server):
    try:
        complete, rest = messages_untrusted(begun, content, modern=modern, server=server)
    except Broken:
        return
    assert b"".join(complete) + rest == begun + content


def test_what_the_kernel_cannot_read():
    names = {number: posthandshake.unreadable(number).alert for number in (errno.EBADMSG, errno.EMSGSIZE, errno.EINVAL)}
    assert names == {errno.EBADMSG: "bad_record_mac", errno.EMSGSIZE: "record_overflow", errno.EINVAL: "decode_error"}
    assert posthandshake.unreadable(errno.EAGAIN) is None
    assert posthandshake.unreadable(None) is None
