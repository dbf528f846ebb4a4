"""TCP Fast Open (RFC 7413): connect(2) sends nothing, and the first flight of the handshake opens the connection."""

import contextlib
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

import ssa
from ssa.protocol import wire
from tests import peers

TCP_FASTOPEN_CONNECT = 30  # include/uapi/linux/tcp.h
SETTING = Path("/proc/sys/net/ipv4/tcp_fastopen")
CLIENT, EVERY_LISTENER, NO_COOKIE_WANTED = 1, 0x402, 0x200  # Documentation/networking/ip-sysctl.rst


@pytest.fixture(autouse=True)
def fast(request):
    """Every listener takes part; what the machine had is put back."""
    before = SETTING.read_text()
    try:
        SETTING.write_text(str(CLIENT | EVERY_LISTENER))
    except OSError as exc:
        pytest.skip(f"{SETTING} cannot be written: {exc.strerror}")
    yield
    SETTING.write_text(before)


@pytest.fixture(params=["without a cookie", "with a cookie"])
def cookie(request):
    """Whether this machine's client knows the servers at 127.0.0.1 from before."""
    subprocess.run(["ip", "tcp_metrics", "flush", "all"], check=True)
    if request.param == "with a cookie":
        with socket.create_server(("127.0.0.1", 0)) as listener, plain() as sock:
            sock.connect(listener.getsockname())
        assert "fo_cookie" in subprocess.run(["ip", "tcp_metrics"], capture_output=True, text=True, check=True).stdout
    return request.param == "with a cookie"


def plain():
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    return sock


def counted(name):
    """One of the kernel's counters (TcpExt of /proc/net/netstat)."""
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt")]
    return int(dict(zip(*lines, strict=True))[name])


def reversed_by(sock):
    sock.sendall(b"abc\n")
    assert sock.recv(4) == b"cba\n"


@pytest.mark.parametrize("timeout", [None, 10, 0])
def test_the_first_flight_opens_the_connection(either, pki, cookie, timeout):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _), ssa.socket() as sock:
        before = counted("TCPFastOpenActive")
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REMOTE_HOSTNAME, b"localhost")
        sock.settimeout(timeout)
        if timeout == 0:
            assert sock.connect_ex(("127.0.0.1", port)) == ssa.library.connection.errno.EINPROGRESS
            assert peers.settled(lambda: sock.connect_ex(("127.0.0.1", port)) in (0, 106))
            sock.settimeout(10)
        else:
            sock.connect(("127.0.0.1", port))
        reversed_by(sock)
        assert sock.getpeername() == ("127.0.0.1", port)
        assert counted("TCPFastOpenActive") - before == int(cookie)


def test_by_upgrade(either, pki, cookie):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _), plain() as tcp:
        tcp.connect(("127.0.0.1", port))
        with ssa.upgrade(tcp, server_hostname="localhost") as sock:
            reversed_by(sock)


def test_our_own_server(either, pki, cookie):
    """Whose connections are accepted before TCP's handshake is done."""
    with (
        ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener,
        ssa.socket() as sock,
    ):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REMOTE_HOSTNAME, b"localhost")
        sock.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            sock.sendall(b"hello")
            assert accepted.recv(5) == b"hello"


def test_nobody_listens_any_more(either, pki, cookie):
    with ssa.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        with pytest.raises(ConnectionRefusedError):
            sock.connect(("127.0.0.1", peers.free_port()))


def asked(ssad, request, sock):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.settimeout(20)
        daemon.connect(str(ssad.run_dir / "ssad.sock"))
        socket.send_fds(daemon, [wire.pack(request)], [sock.fileno()])
        return wire.parse_untrusted(daemon.recv(wire.MAX_MESSAGE), wire.Reply)


@contextlib.contextmanager
def deaf():
    """A listener whose queue is full: it answers nobody."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as held:
        held.enter_context(socket.create_connection(listener.getsockname()))
        yield listener.getsockname()


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_host_that_does_not_answer(either, pki, cookie, role):
    """Nothing spins, and the deadline ends it."""
    request = wire.Connect("localhost", timeout_ms=1500)
    if role == "server":
        certificate, key = (path.open("rb") for path in (pki.cert, pki.key))
        request = wire.Accept(timeout_ms=1500)
    with deaf() as address, plain() as sock:
        sock.setblocking(False)
        sock.connect_ex(address)
        before, began = either.cpu(), time.monotonic()
        if role == "client":
            reply = asked(either, request, sock)
        else:
            with certificate, key, ssa.library.connection.DaemonConnection(time.monotonic() + 20) as daemon:
                request.certificates = request.keys = 1
                with pytest.raises(ssa.SSAError) as caught:
                    daemon.ask_for_tls(request, sock, [certificate.fileno(), key.fileno()])
                reply = wire.Reply(reason=caught.value.reason)
        assert reply.reason in ("CONNECT_TIMEOUT", "HANDSHAKE_TIMEOUT")
        assert 1 < time.monotonic() - began < 4
        assert either.cpu() - before < 0.4


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(source, target, port, data):
    """A SYN with data and an empty cookie option."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!HHIIBBHHH", 5000, port, 1000, 0, 7 << 4, 2, 65535, 0, 0) + b"\2\4\5\xb4\1\1\1\1"
    whole = header + data + bytes(len(data) % 2)
    pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(header + data))
    return header[:16] + struct.pack("!H", checksum(pseudo + whole)) + header[18:] + data


@pytest.fixture
def nowhere():
    """An address of ours, and another to which packets go that nobody answers."""
    ip = ["ip", "-batch", "-"]
    add = "addr add 192.0.2.1/32 dev lo\nlink add quiet type dummy\nlink set quiet up\nroute add 192.0.2.7 dev quiet\n"
    done = subprocess.run(ip, input=add, text=True, check=False, capture_output=True)
    if not done.returncode:
        yield "192.0.2.1", "192.0.2.7"
    subprocess.run(
        [*ip[:1], "-force", *ip[1:]], input="addr del 192.0.2.1/32 dev lo\nlink del quiet\n", text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this kernel has no dummy device: {done.stderr}")


def test_a_client_that_never_acknowledges(either, pki, nowhere):
    """Its connection is accepted at its first packet, and readable and writable from then on."""
    SETTING.write_text(str(CLIENT | EVERY_LISTENER | NO_COOKIE_WANTED))
    address, client = (nowhere[0], peers.free_port()), nowhere[1]
    with (
        ssa.create_server(address, certificate=pki.cert, private_key=pki.key),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender,
    ):
        sender.setsockopt(socket.SOL_IP, socket.IP_HDRINCL, 1)
        segment = syn(client, *address, b"\x16\3\1\0\5")
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, socket.IPPROTO_TCP, 0)
        before = counted("TCPFastOpenPassive"), either.cpu()
        sender.sendto(header + socket.inet_aton(client) + socket.inet_aton(address[0]) + segment, (address[0], 0))
        time.sleep(2)
        assert counted("TCPFastOpenPassive") == before[0] + 1
        assert either.cpu() - before[1] < 0.4
