"""Options as values: from what setsockopt takes to what a request has; and the page that describes them."""

import errno
import os
import re
from pathlib import Path

import pytest

import ssa
from ssa.errors import SSAError
from ssa.library.option_values import File, Settings, upgrade_role
from ssa.protocol import wire
from ssa.protocol.options import FILES, NUMBERS, OPTIONS

PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
DOCUMENT = (Path(ssa.__file__).parents[1] / "docs" / "options.md").read_text()


def told(name, *values, before=None):
    settings = before or Settings()
    for value in values:
        settings = settings.told(OPTIONS[NUMBERS[name]], value)
    return settings.get(OPTIONS[NUMBERS[name]].field)


@pytest.mark.parametrize(
    ("name", "values", "kept"),
    [
        ("TLS_REMOTE_HOSTNAME", [b"EXAMPLE.test."], "example.test"),
        ("TLS_REMOTE_HOSTNAME", ["m\N{LATIN SMALL LETTER U WITH DIAERESIS}nchen.example"], "xn--mnchen-3ya.example"),
        ("TLS_REMOTE_HOSTNAME", [b"::1"], "::1"),
        ("TLS_ALPN", [b"h2"], ("h2",)),
        ("TLS_ALPN", [b"h2, http/1.1\0", bytearray(b"imap")], ("h2", "http/1.1", "imap")),
        ("TLS_ALPN", [b"h2", b""], None),
        ("TLS_ALPN", [b"h2", b"", memoryview(b"imap")], ("imap",)),
        ("TLS_SESSION_TTL", [0], 0),
        ("TLS_SESSION_TTL", [2**32 - 1], 2**32 - 1),
        ("TLS_SESSION_TTL", [b"\1\1\1\1"], 0x01010101),
        ("TLS_REQUEST_PEER_AUTH", [True], 1),
        ("TLS_VERSION_MIN", ["TLSv1.2"], 0x0303),
        ("TLS_VERSION_MIN", [memoryview(b"TLSv1.3\0")], 0x0304),
        ("TLS_VERSION_MAX", [0x0304], 0x0304),
    ],
)
def test_a_value_is_kept(name, values, kept):
    assert told(name, *values) == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TLS_REMOTE_HOSTNAME", b"a\0b"),
        ("TLS_REMOTE_HOSTNAME", b"\xff\xfe"),
        ("TLS_REMOTE_HOSTNAME", 5),
        ("TLS_ALPN", b"a,,b"),
        ("TLS_ALPN", b"a" * 256),
        ("TLS_ALPN", None),
        ("TLS_SESSION_TTL", -1),
        ("TLS_SESSION_TTL", 2**32),
        ("TLS_SESSION_TTL", "5"),
        ("TLS_REQUEST_PEER_AUTH", 2),
        ("TLS_VERSION_MIN", b"TLSv1.1"),
        ("TLS_VERSION_MIN", 0x0302),
        ("TLS_CERTIFICATE_CHAIN", b"no\nPEM"),
        ("TLS_CERTIFICATE_CHAIN", 5),
    ],
)
def test_a_value_that_is_none(name, value):
    with pytest.raises(SSAError) as caught:
        told(name, value)
    assert (caught.value.reason, caught.value.errno) == ("BAD_VALUE", errno.EINVAL)


@pytest.mark.parametrize("value", [0, 3, -1, b"1", None, 1.0])
def test_a_role_that_is_none(value):
    with pytest.raises(SSAError):
        upgrade_role(OPTIONS[NUMBERS["TLS_UPGRADE"]], value)


def test_settings_do_not_change():
    before = Settings.of(alpn=("a",), server_name="one")
    after = before.having(alpn=None, server_name="two", session_ttl=None)
    assert (before.get("alpn"), before.get("server_name")) == (("a",), "one")
    assert (after.get("alpn"), after.get("server_name")) == (None, "two")
    assert told("TLS_ALPN", b"b", before=before) == ("a", "b")
    assert before.get("alpn") == ("a",)


def test_lists_have_an_end():
    assert len(told("TLS_ALPN", *[b"x"] * 64)) == 64
    with pytest.raises(SSAError, match="more than 64"):
        told("TLS_ALPN", *[b"x"] * 65)
    assert len(told("TLS_CERTIFICATE_CHAIN", *[PEM] * 16)) == 16
    with pytest.raises(SSAError, match="more than 16"):
        told("TLS_CERTIFICATE_CHAIN", *[PEM] * 17)


def test_the_longest_lists_make_a_request_still():
    settings = Settings()
    for name in ("TLS_ALPN", "TLS_DISABLE_CIPHER"):
        for number in range(64):
            settings = settings.told(OPTIONS[NUMBERS[name]], f"{number:0255}")
    packet = wire.pack(wire.Check(**settings.request()))
    assert wire.parse_untrusted(packet, wire.Check).values()["alpn"] == settings.get("alpn")


def test_files_go_as_descriptors_in_the_order_of_the_request(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"the key")
    settings = Settings.of(keys=path, certificates=[PEM, PEM], trusted=PEM)
    assert settings.request() == {"trusted": 1, "certificates": 2, "keys": 1}
    read = [os.pread(fd, 100, 0) for fd in settings.descriptors()]
    assert read == [PEM, PEM, PEM, b"the key"]
    assert not any(os.get_inheritable(fd) for fd in settings.descriptors())


def test_a_file_is_closed_with_the_last_that_knows_it():
    first = Settings.of(certificates=PEM)
    second = first.having(alpn=("a",))
    fd = first.descriptors()[0]
    del first
    assert os.pread(fd, 100, 0) == PEM
    del second
    with pytest.raises(OSError) as caught:
        os.fstat(fd)
    assert caught.value.errno == errno.EBADF


def test_a_path_that_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        File.of(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none")


def test_a_fifo_is_opened_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert File.of(str(tmp_path / "fifo")).fd >= 0  # that it is no certificate, the daemon says


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_numbers_are_exported():
    for option in OPTIONS.values():
        assert getattr(ssa, option.name) == option.number
        assert option.name in ssa.__all__


def test_an_option_has_a_place_in_requests_and_replies():
    for option in OPTIONS.values():
        assert option.field in (wire.Request.__slots__ if option.settable else wire.Reply.__slots__)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_every_option_is_described(option):
    settable = "before the handshake" if option.settable else "never"
    link = f"[{option.name}](#{option.name.lower()})"
    assert f"| {option.number} | {link} | {option.form} | {settable} | {option.readable} |\n" in DOCUMENT
    assert re.search(rf"^### {option.name}\n\S", DOCUMENT, re.MULTILINE)


def test_nothing_else_is_described():
    assert re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE) == [option.name for option in OPTIONS.values()]
    assert {option.form for option in OPTIONS.values()} >= {FILES}
