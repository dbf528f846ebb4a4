"""The table of what becomes of each name of the `ssl` module: none is missing, and the documentation shows it."""

import socket
import ssl
from pathlib import Path

import pytest

from ssa import inject
from ssa.inject import failures, meaning
from ssa.inject.meaning import KEPT, NO_MEANING, OVERRULED, REFUSED, TABLE

DOCS = Path(__file__).parents[2] / "docs" / "libraries.md"

# Names that not each of Python 3.11 to 3.14 has.
SOMETIMES = {
    "ssl": {"HAS_PHA", "HAS_PSK", "RAND_pseudo_bytes", "match_hostname", "wrap_socket"},
    "options": {"OP_ENABLE_KTLS", "OP_LEGACY_SERVER_CONNECT"},
    "SSLContext": {"set_psk_client_callback", "set_psk_server_callback"},
    "SSLSocket": {"get_unverified_chain", "get_verified_chain"},
}
# What the module has imported, and what `ssl` needs for itself.
FOREIGN = {"base64", "errno", "namedtuple", "os", "socket", "sys", "warnings"}


def names_of(owner):
    """The names of this Python, and those of the others."""
    if owner == "ssl":
        found = {name for name in vars(ssl) if not name.startswith(("_", "OP_", "VERIFY_", "ALERT_DESCRIPTION_"))}
        found = (found - FOREIGN) | {name for name in vars(ssl) if name.startswith("_create")}
    elif owner in ("options", "verify_flags"):
        prefix = {"options": "OP_", "verify_flags": "VERIFY_"}[owner]
        found = {name for name in vars(ssl) if name.startswith(prefix)}
    else:
        theirs, below = {
            "SSLContext": (standard("SSLContext"), object),
            "SSLSocket": (standard("SSLSocket"), socket.socket),
        }[owner]
        found = {name for name in dir(theirs) if name not in dir(below) and not name.startswith("__")}
    return found | SOMETIMES.get(owner, set())


def standard(name):
    found = getattr(ssl, name)
    assert found.__module__ == "ssl"
    return found


@pytest.mark.parametrize("owner", ["ssl", "options", "verify_flags", "SSLContext", "SSLSocket"])
def test_each_name_has_a_meaning(owner):
    known = [name for row in TABLE if row.owner == owner for name in row.names]
    assert len(known) == len(set(known)), "named twice"
    assert set(known) == names_of(owner)


def test_fates():
    assert {row.fate for row in TABLE} == {KEPT, REFUSED, OVERRULED, NO_MEANING}


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.owner in ("SSLContext", "SSLSocket")], ids=lambda row: row.names[0]
)
def test_what_the_table_says_is_so(row):
    ours = {"SSLContext": inject.SSLContext, "SSLSocket": inject.SSLSocket}[row.owner]
    for name in row.names:
        if row.fate in (KEPT, OVERRULED):
            assert hasattr(ours, name), name
        elif row.fate == REFUSED:
            with pytest.raises(ssl.SSLError) as refused:
                refuse(ours, name)
            assert refused.value.reason == "NO_COUNTERPART"


def refuse(ours, name):
    """Use what is refused: a method is called, a setting is set."""
    instance = ours.__new__(ours, ssl.PROTOCOL_TLS_SERVER) if ours is inject.SSLContext else ours.__new__(ours)
    if callable(getattr(instance, name)):
        getattr(instance, name)("anything")
    setattr(instance, name, 12345)


FLAGS = [(row, name) for row in TABLE if row.owner in ("options", "verify_flags") for name in row.names]


@pytest.mark.parametrize(("row", "name"), FLAGS, ids=lambda value: value if isinstance(value, str) else "")
def test_flags(row, name):
    context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    number = int(getattr(ssl, name, meaning.NOT_ON_EACH_VERSION.get(name, 0)))
    if row.fate == REFUSED:
        with pytest.raises(ssl.SSLError, match=name.replace("_CHAIN", "_LEAF")):  # a chain's are a leaf's too
            setattr(context, row.owner, number)
    else:
        setattr(context, row.owner, number)
        assert getattr(context, row.owner) == number


@pytest.mark.parametrize(
    ("owner", "number"), [("options", 0x40000), ("verify_flags", 0x200000), ("verify_flags", 0x10)]
)
def test_flags_that_have_no_name(owner, number):
    """Those of OpenSSL alone: ALLOW_UNSAFE_LEGACY_RENEGOTIATION, NO_CHECK_TIME, IGNORE_CRITICAL."""
    context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLError, match=f"{number:#x}"):
        setattr(context, owner, number)
    assert not getattr(context, owner) & number


@pytest.fixture
def fresh_log(monkeypatch, caplog):
    """The module is in the state of a process that has logged nothing yet."""
    monkeypatch.setattr(failures, "_logged", set())
    return caplog


def test_what_is_overruled_is_logged_once(fresh_log):
    for _ in range(2):
        context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.options |= 0x4  # OP_LEGACY_SERVER_CONNECT
        context.parameters(server_side=False, server_hostname="localhost")
    assert sorted(record.message for record in fresh_log.records) == [
        "options: OP_LEGACY_SERVER_CONNECT has no effect: ssad refuses servers without RFC 5746",
        "verify_mode = CERT_NONE has no effect: servers are verified, as the policy says",
    ]


def test_a_key_log_that_nobody_asked_for(fresh_log, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", "/nowhere/$HOME/keys")
    for name in ("/nowhere/$HOME/keys", "/nowhere/$HOME/keys", Path("/nowhere/$HOME/keys")):
        context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.keylog_filename = name
        assert context.keylog_filename is None
    assert [record.levelname for record in fresh_log.records] == ["WARNING"]
    assert "SSLKEYLOGFILE" in fresh_log.text
    with pytest.raises(ssl.SSLError, match="keylog_filename"):
        context.keylog_filename = "/somewhere/else"
    monkeypatch.delenv("SSLKEYLOGFILE")
    with pytest.raises(ssl.SSLError, match="keylog_filename"):
        context.keylog_filename = "/nowhere/$HOME/keys"


def lines():
    """The table as the documentation has it."""
    for row in TABLE:
        if row.owner != "ssl" or row.fate != KEPT:
            names = ", ".join(f"`{name}`" for name in row.names)
            yield f"| `{row.owner}` | {names} | {row.fate} | {row.why} |"


def test_the_documentation_shows_it():
    text = DOCS.read_text()
    for line in lines():
        assert line in text
