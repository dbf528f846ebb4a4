"""A peer that sends whatever records it is told to: OpenSSL makes its handshake, and has no say afterwards."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

import ssa
from ssa.handshake.secrets import Secrets, application_secrets
from ssa.ktls.key_schedule import key_block, next_secret, traffic_key
from ssa.ktls.rekey import key_update
from ssa.suites import BY_OPENSSL_NAME, TLSVersion
from ssa.tls import APPLICATION_DATA, HANDSHAKE

TAG = 16


class Half:
    """One direction, in AES-GCM, record by record."""

    def __init__(self, suite, key, secret, number):
        self.suite, self.key, self.secret, self.number = suite, key, secret, number
        self.modern = suite.version is TLSVersion.TLSv1_3

    def advance(self):
        self.secret = next_secret(self.suite, self.secret)
        self.key, self.number = traffic_key(self.suite, self.secret), 0

    def _count(self):
        number, self.number = self.number.to_bytes(8, "big"), self.number + 1
        return number

    def _nonce(self, number):
        return (int.from_bytes(self.key.iv, "big") ^ int.from_bytes(number, "big")).to_bytes(12, "big")

    def seal(self, content, kind=APPLICATION_DATA, padding=0):
        number = self._count()
        cipher = AESGCM(self.key.key)
        if self.modern:
            inner = content + bytes([kind]) + bytes(padding)
            header = b"\x17\3\3" + (len(inner) + TAG).to_bytes(2, "big")
            return header + cipher.encrypt(self._nonce(number), inner, header)
        sealed = cipher.encrypt(self.key.iv[:4] + number, content, self._bound(number, kind, len(content)))
        return bytes([kind]) + b"\3\3" + (8 + len(sealed)).to_bytes(2, "big") + number + sealed

    def open(self, record):
        """(type, content); whatever does not decrypt fails the test."""
        number, body = self._count(), record[5:]
        cipher = AESGCM(self.key.key)
        if self.modern:
            inner = cipher.decrypt(self._nonce(number), body, record[:5]).rstrip(b"\0")
            return inner[-1], inner[:-1]
        bound = self._bound(number, record[0], len(body) - 8 - TAG)
        return record[0], cipher.decrypt(self.key.iv[:4] + body[:8], body[8:], bound)

    @staticmethod
    def _bound(number, kind, length):
        return number + bytes([kind]) + b"\3\3" + length.to_bytes(2, "big")


class Raw:
    """The peer, once its handshake is done."""

    def __init__(self, sock, context, *, server, early=b""):
        self.sock, self._server = sock, server
        self.updates = 0  # KeyUpdates that came
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        secrets = Secrets()
        context.set_keylog_callback(lambda _, line: secrets.add(line))
        tls = SSL.Connection(context, None)
        if server:
            tls.set_accept_state()
        else:
            tls.set_tlsext_host_name(b"localhost")
            tls.set_connect_state()
        flight = self._shake(tls)
        self.suite = BY_OPENSSL_NAME[tls.get_cipher_name()]
        self.tx, self.rx = self._halves(tls, secrets)
        if server and self.modern:
            flight = b""  # tickets: nobody misses them, and their numbers are free
        self.sock.sendall(flight + (self.tx.seal(early) if early else b""))

    @property
    def modern(self):
        return self.suite.version is TLSVersion.TLSv1_3

    def _shake(self, tls):
        while True:
            try:
                tls.do_handshake()
                return self._out(tls)
            except SSL.WantReadError:
                self.sock.sendall(self._out(tls))
            tls.bio_write(self.record())

    @staticmethod
    def _out(tls):
        flight = b""
        with contextlib.suppress(SSL.WantReadError):
            while True:
                flight += tls.bio_read(65536)
        return flight

    def _halves(self, tls, secrets):
        if self.modern:
            ours = application_secrets(secrets, "server" if self._server else "client")
            return [Half(self.suite, traffic_key(self.suite, secret), secret, 0) for secret in ours]
        keys = key_block(self.suite, tls.master_key(), tls.client_random(), tls.server_random())
        return [Half(self.suite, key, None, 1) for key in (keys[::-1] if self._server else keys)]

    def record(self):
        header = self._exactly(5)
        return header + self._exactly(int.from_bytes(header[3:], "big"))

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read(self):
        """(type, content) of the next record; a KeyUpdate is followed. EOFError at the end of TCP's stream."""
        kind, content = self.rx.open(self.record())
        if self.modern and kind == HANDSHAKE and content[:1] == b"\x18":
            self.rx.advance()
            self.updates += 1
        return kind, content

    def read_data(self):
        """The next record of data, whatever comes before it."""
        while (record := self.read())[0] != APPLICATION_DATA:
            pass
        return record[1]

    def seal(self, content, kind=APPLICATION_DATA, padding=0):
        return self.tx.seal(content, kind, padding)

    def key_update(self, *, requested=False):
        record = self.tx.seal(key_update(requested=requested), HANDSHAKE)
        self.tx.advance()
        return record

    def send(self, *records):
        self.sock.sendall(b"".join(records))


class Bare:
    """A descriptor of `connect_tls`, with the words of a socket."""

    def __init__(self, fd):
        self.fd = fd

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def fileno(self):
        return self.fd

    def recv(self, size):
        return ssa.recv(self.fd, size)

    def send(self, data):
        return ssa.send(self.fd, data)

    def sendall(self, data):
        view = memoryview(data)
        while view:
            view = view[ssa.send(self.fd, view) :]

    def close(self):
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            ssa.close(fd)


VERSIONS = {TLSVersion.TLSv1_2: SSL.TLS1_2_VERSION, TLSVersion.TLSv1_3: SSL.TLS1_3_VERSION}


def context(pki, version, *, server):
    made = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    made.set_min_proto_version(VERSIONS[version])
    made.set_max_proto_version(VERSIONS[version])
    if server:
        made.use_certificate_chain_file(str(pki.cert))
        made.use_privatekey_file(str(pki.key))
    return made


def _accept(listener, pki, version):
    sock, _ = listener.accept()
    return Raw(sock, context(pki, version, server=True), server=True)


@contextlib.contextmanager
def _client(pki, version, connect):
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        future = pool.submit(_accept, listener, pki, version)
        with connect(listener.getsockname()[1]) as ours:
            raw = future.result(20)
            with raw.sock:
                yield ours, raw


@contextlib.contextmanager
def accepted(pki, version, early=b""):
    """A connection that an ssa listener has accepted, and its client."""
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(20)
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as sock:
            raw = Raw(sock, context(pki, version, server=False), server=False, early=early)
            ours, _ = listener.accept()
            with ours:
                ours.settimeout(20)
                yield ours, raw


def connected(pki, version):
    """A TLSSocket that has connected, and its server."""
    return _client(pki, version, lambda port: ssa.create_connection(("localhost", port), timeout=20))


def bare(pki, version):
    """A stream over a descriptor of `connect_tls`."""
    return _client(pki, version, lambda port: Bare(ssa.connect_tls("localhost", port)))


KINDS = {"connected": connected, "accepted": accepted, "bare": bare}
