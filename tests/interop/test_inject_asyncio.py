"""ssa.inject_into_ssl under asyncio and uvloop: `ssl=` and start_tls, unchanged, on both data paths."""

import os

import pytest

from tests.interop.test_inject_programs import needs, ports, run, stranger

__all__ = ["ports", "stranger"]

# uvloop without ssa panics user-mode Linux 7.2 ("Segfault with no mm").
HAS_UVLOOP = not (os.uname().machine.startswith("um") or os.path.exists("/proc/exitcode")) or os.uname().release < "7"
LOOPS = {
    "asyncio": "asyncio.run(main(), debug=True)",
    "uvloop": "import uvloop; uvloop.run(main())",
}
BEGIN = """
import asyncio, gc, os, socket, ssl, sys, warnings
warnings.simplefilter("error", ResourceWarning)
def client_context():
    return ssl.create_default_context()
def server_context(cert, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context
"""


@pytest.fixture(params=LOOPS)
def loop(request):
    """How a program ends that runs `main` on this loop."""
    if request.param == "uvloop":
        needs("uvloop")
        if not HAS_UVLOOP:
            pytest.skip("uvloop panics user-mode Linux 7.2")
    return LOOPS[request.param]


@pytest.fixture
def counted(either):
    """How many handshakes the daemon has counted since the test began."""
    before = int(either.get("stats/handshakes"))
    return lambda: int(either.get("stats/handshakes")) - before


STREAMS = """
async def main():
    for context in (True, client_context()):
        reader, writer = await asyncio.open_connection("localhost", int(sys.argv[1]), ssl=context)
        writer.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
        print((await reader.read()).split()[-1].decode())
        info = writer.get_extra_info
        tls = info("ssl_object")
        print(type(tls).__name__, tls.version() == info("cipher")[1], info("peercert")["subjectAltName"][0][1],
              info("compression"),
              isinstance(info("sslcontext"), ssl.SSLContext), str(info("peername")[1]) == sys.argv[1],
              info("socket").family == socket.AF_INET, info("nothing", 7), writer.can_write_eof())
        writer.close()
        await writer.wait_closed()
"""


def test_streams(either, counted, ports, loop):
    facts = "SSLSocket True localhost None True True True 7 False"
    assert run(BEGIN + STREAMS + loop, ports[0]).splitlines() == ["nginx", facts] * 2
    assert counted() == 2


def test_a_stranger_is_refused(either, counted, ports, loop):
    script = """
async def main():
    try:
        await asyncio.open_connection("localhost", int(sys.argv[1]), ssl=True)
    except ssl.SSLCertVerificationError as refused:
        print(refused.reason)
"""
    assert run(BEGIN + script + loop, ports[1]) == "UNKNOWN_CA"
    assert counted() == 0
