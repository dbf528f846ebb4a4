"""What the tests of versions and ciphers have in common."""

import ssa
from ssa.suites import SUITES


def only(sock, name):
    """Let a socket have one suite, and so one version."""
    version = SUITES[name].version
    others = ",".join(other for other in SUITES if SUITES[other].version is version and other != name)
    sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_DISABLE_CIPHER, b"")
    sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_MIN, version.label.encode())
    sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_MAX, version.label.encode())
    sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_DISABLE_CIPHER, others.encode())


def listen(name, *pairs):
    """A server with that suite, and those certificates with their keys."""
    listener = ssa.socket()
    only(listener, name)
    for certificate, key in pairs:
        listener.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_CERTIFICATE_CHAIN, str(certificate).encode())
        listener.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_PRIVATE_KEY, str(key).encode())
    listener.settimeout(20)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def connect(port, name):
    """A client with that suite."""
    sock = ssa.socket()
    sock.settimeout(20)
    only(sock, name)
    sock.connect(("localhost", port))
    assert chosen(sock) == name
    return sock


def accept(listener, name):
    """The next client of a listener, in that suite."""
    sock, _ = listener.accept()
    sock.settimeout(20)
    found = chosen(sock)
    if found != name:
        sock.close()
    assert found == name
    return sock


def chosen(sock):
    return sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_CHOSEN_CIPHER).decode()


def read_all(sock):
    received = bytearray()
    while part := sock.recv(65536):
        received += part
    return bytes(received)


def read_exactly(sock, size):
    received = bytearray()
    while len(received) < size:
        part = sock.recv(min(65536, size - len(received)))
        assert part, f"the stream ended after {len(received)} bytes"
        received += part
    return bytes(received)
