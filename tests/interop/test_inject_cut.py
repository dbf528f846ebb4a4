"""A stream that is cut (a FIN without close_notify) under inject: as in `ssl`, or an error if the policy says so."""

import os
import ssl
import subprocess
import sys

import pytest

import ssa
from tests import peers
from tests.interop.test_inject_asyncio import either
from tests.interop.test_inject_programs import INJECTED
from tests.needs import IN_USER_MODE

__all__ = ["either"]

SCRIPT = """
import asyncio, socket, ssl, sys
port, ignore, suppress, how = int(sys.argv[1]), sys.argv[2] == "True", sys.argv[3] == "True", sys.argv[4]
context = ssl.create_default_context(cafile=sys.argv[5])
context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
if ignore:
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF

def blocking():
    plain = socket.create_connection(("localhost", port), 10)
    with context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=suppress) as sock:
        yield sock.recv(100)
        yield sock.recv(100)
        yield sock.recv(100)

async def streams():
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    await asyncio.sleep(0.3)  # the end has come before anybody reads
    yield await reader.read(5)
    yield await reader.read()
    writer.close()
    await writer.wait_closed()

async def of_anyio():
    import anyio
    from anyio.streams.tls import TLSStream
    plain = await anyio.connect_tcp("localhost", port)
    stream = await TLSStream.wrap(plain, hostname="localhost", ssl_context=context, standard_compatible=suppress)
    try:
        yield await stream.receive()
        yield await stream.receive()
    finally:
        await stream.aclose()

async def of_trio():
    import trio
    stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=context, https_compatible=suppress)
    try:
        yield await stream.receive_some()
        yield await stream.receive_some()
    finally:
        await stream.aclose()

async def shown(steps):
    try:
        async for step in steps:
            print(step)
    except BaseException as exc:
        print(next(c.__name__ for c in type(exc).__mro__ if c.__module__ in ("ssl", "anyio", "trio", "builtins")
              or c.__module__.startswith("anyio.")))

if how == "blocking":
    try:
        for step in blocking():
            print(step)
    except OSError as exc:
        print(next(c.__name__ for c in type(exc).__mro__ if c.__module__ in ("ssl", "builtins")))
elif how == "trio":
    import trio
    trio.run(shown, of_trio())
else:
    asyncio.run(shown({"streams": streams, "anyio": of_anyio}[how]()))
"""


@pytest.fixture
def cutting(pki):
    """A server that says something, and then ends TCP without a word of TLS's: close() of `ssl` sends none."""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        with theirs.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"half of it")

    with peers.script(serve) as port:
        yield port


def run(prefix, *arguments):
    command = [sys.executable, "-P", "-W", "ignore", "-c", prefix + SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=os.environ).stdout


def meaning(how, *, ignore, suppress):
    """What is read, by the documentation of each interface. `suppress` says to anyio that it has to be strict."""
    half = ["b'half of it'"]
    if how == "streams":
        return ["b'half '", "b'of it'"]
    if how == "blocking":
        return half + (["b''", "b''"] if ignore or suppress else ["SSLEOFError"])
    if how == "trio":
        return half + (["b''"] if ignore or suppress else ["BrokenResourceError"])
    return half + (["EndOfStream"] if ignore or not suppress else ["BrokenResourceError"])


HOW = ["blocking", "streams", "anyio", "trio"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("ignore", [True, False])
@pytest.mark.parametrize("suppress", [True, False])
def test_it_means_what_it_means_in_ssl(  # noqa: PLR0917 - fixtures and parameters
    either, pki, cutting, how, ignore, suppress
):
    asked = cutting, ignore, suppress, how, pki.ca
    expected = meaning(how, ignore=ignore, suppress=suppress)
    assert run(INJECTED, *asked).splitlines() == expected
    if IN_USER_MODE:
        return
    with_ssl = run("", *asked).splitlines()
    if with_ssl[-1] != "SSLError":  # early 3.11 does not know OpenSSL 3's word for it (UNEXPECTED_EOF_WHILE_READING)
        assert with_ssl == expected


@pytest.mark.parametrize("how", HOW)
def test_the_administrator_can_make_it_an_error(either, pki, cutting, how):
    either.set("truncation", "error")
    *read, failure = run(INJECTED, cutting, True, how in ("blocking", "trio"), how, pki.ca).splitlines()
    if how == "streams":
        assert (read, failure) == ([], "SSLEOFError")  # a StreamReader has an error before what it has not given yet
    else:
        strict = "SSLEOFError" if how == "blocking" else "BrokenResourceError"
        assert (read, failure) == (["b'half of it'"], strict)


@pytest.mark.parametrize("how", ["blocking", "streams"])
def test_it_is_counted_and_logged_once(either, pki, cutting, how):
    before = int(either.get("stats/truncated"))
    run(INJECTED, cutting, True, True, how, pki.ca)
    assert int(either.get("stats/truncated")) == before + 1
    line = [line for line in either.log.splitlines() if " truncated " in line][-1]
    assert "hostname=localhost" in line
    assert "exe=" in line


def test_sockets_of_ssas_own_stay_strict(either, cutting):
    before = int(either.get("stats/truncated"))
    with ssa.create_connection(("localhost", cutting), 10) as sock:
        assert sock.recv(100) == b"half of it"
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError, match="close_notify"):
                sock.recv(100)
    fd = ssa.connect_tls("localhost", cutting, timeout=10)
    assert ssa.recv(fd, 100) == b"half of it"
    with pytest.raises(ConnectionAbortedError, match="close_notify"):
        ssa.recv(fd, 100)
    ssa.close(fd)
    assert int(either.get("stats/truncated")) == before + 2


def test_ends_in_order_are_not_counted(either, pki):
    before = int(either.get("stats/truncated"))

    def serve(connection):
        with theirs.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"all of it")
            tls.unwrap()

    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pki.cert, pki.key)
    with peers.script(serve) as port, ssa.create_connection(("localhost", port), 10) as sock:
        assert (sock.recv(100), sock.recv(100)) == (b"all of it", b"")
    assert int(either.get("stats/truncated")) == before
