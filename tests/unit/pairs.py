"""Both ends of a connection without a socket: ours, OpenSSL's, or one of each, coupled record by record."""

import contextlib
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.bindings._rust import _openssl
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from ssa import errors, trust
from ssa.handshake import records
from ssa.handshake.client import ClientEngine
from ssa.handshake.contexts import ContextCache
from ssa.handshake.server import ServerEngine
from ssa.handshake.states import AWAITING, JUDGING, State
from ssa.suites import TLSVersion
from ssa.tls import RECORD_HEADER, TAG

VERDICT = trust.unasked()


def keep_secret(connection, line):
    """The keylog callback of contexts that engines use."""
    connection.get_app_data().secrets.add(line)


class EngineEnd:
    """One of our engines. `refuses` is the alert with which it refuses its peer at the verdict."""

    def __init__(self, engine, refuses=None):
        self.engine = engine
        self.refuses = refuses
        self.judged = None  # the chain at the verdict
        self.error = None
        self.left = []  # records that it did not want: the kernel's
        self.said = []  # the records that it gave out, before and behind the verdict
        self.said_unjudged = []

    def start(self):
        return self._say(self.engine.start())

    @property
    def done(self):
        return self.engine.state is State.ESTABLISHED

    def take(self, record):
        if self.engine.state not in AWAITING:
            self.left.append(record)
            return b""
        try:
            answer = self.engine.feed_untrusted(record)
        except errors.SSAError as exc:
            self.error = exc
            return self._say(self.engine.farewell())
        if self.engine.state in JUDGING:
            assert answer == b""  # nothing leaves while the flight is held
            self.judged = self.engine.chain
            answer = self.engine.admit(VERDICT) if self.refuses is None else self.engine.refuse(self.refuses)
        return self._say(answer)

    def _say(self, flight):
        said = records.split_untrusted(flight)[0]
        self.said += said
        if self.judged is None:
            self.said_unjudged += said
        return flight


class OpenSSLEnd:
    """Plain OpenSSL, which knows nothing of ours."""

    def __init__(self, connection):
        self.connection = connection
        self.error = None
        self.done = False

    def start(self):
        return self.take(b"") if self.connection.get_state_string() == b"before SSL initialization" else b""

    def take(self, record):
        if record:
            self.connection.bio_write(record)
        try:
            if not self.done:
                self.connection.do_handshake()
                self.done = True
        except SSL.WantReadError:
            pass
        except SSL.Error as exc:
            self.error = self.error or exc
        return self._out()

    def send(self, data):
        self.connection.send(data)
        return self._out()

    def receive(self, data):
        self.connection.bio_write(data)
        return self.connection.recv(1 << 16)

    def alert(self):
        """What its error says, or that of the next read: the alert that was sent to it, in OpenSSL's words."""
        if self.error is None:
            with contextlib.suppress(SSL.WantReadError):
                try:
                    self.connection.recv(1)
                except SSL.Error as exc:
                    self.error = exc
        return None if self.error is None else str(self.error)

    def _out(self):
        with contextlib.suppress(SSL.WantReadError):
            return self.connection.bio_read(1 << 18)
        return b""


class ConnectionPair:
    """A client and a server. `change` gets each record, with its sender's name and number; what it gives is delivered.

    It gives one record, several one behind the other, or nothing.
    """

    def __init__(self, client, server, change=lambda sender, number, record: record):
        self.ends = {"client": client, "server": server}
        self.client, self.server = client, server
        self.change = change
        self.count = {"client": 0, "server": 0}

    def run(self):
        """Until neither end has anything more to say."""
        flights = {"client": self.client.start(), "server": b""}
        while any(flights.values()):
            sender = next(name for name, flight in flights.items() if flight)
            receiver = "server" if sender == "client" else "client"
            flight, flights[sender] = flights[sender], b""
            for record in self._records(sender, flight):
                flights[receiver] += self.ends[receiver].take(record)
        return self

    def _records(self, sender, flight):
        for record in records.split_untrusted(flight)[0]:
            number, self.count[sender] = self.count[sender], self.count[sender] + 1
            yield from records.split_untrusted(self.change(sender, number, record))[0]

    @property
    def done(self):
        return self.client.done and self.server.done


class Kit:
    """Contexts of both kinds for one version, and the ends that are made with them."""

    def __init__(self, policy, kernel, version, *, server_credentials, client_credentials):
        cache = ContextCache(keep_secret)
        self.version = version
        policy = policy.replace("min_version", version.label).replace("max_version", version.label)
        self._client = cache.client(policy, kernel)
        self._client_with_certificate = cache.client(policy, kernel, client_credentials)
        self._server = cache.server(policy, kernel, server_credentials, min(3600, policy.resumable))
        self._picky = cache.server(policy.replace("groups", "secp384r1"), kernel, server_credentials, 3600)
        self._credentials = server_credentials, client_credentials
        self._plain_contexts = {}

    def client(self, *, session=None, certificate=False, refuses=None):
        context = self._client_with_certificate if certificate else self._client
        return EngineEnd(ClientEngine(context, "localhost", (), session), refuses)

    def server(self, *, ask=False, picky=False, refuses=None):
        context = self._picky if picky else self._server
        return EngineEnd(ServerEngine(context, lambda _: context, (), ask), refuses)

    def plain_client(self, *, session=None, certificate=False):
        connection = SSL.Connection(self._plain("client", certificate), None)
        connection.set_connect_state()
        if session is not None:
            connection.set_session(session)
        return OpenSSLEnd(connection)

    def plain_server(self, *, ask=False, picky=False):
        connection = SSL.Connection(self._plain("server", ask, picky), None)
        connection.set_accept_state()
        return OpenSSLEnd(connection)

    def _plain(self, role, *terms):
        if (role, terms) not in self._plain_contexts:
            self._plain_contexts[role, terms] = self._make_plain(role, *terms)
        return self._plain_contexts[role, terms]

    def _make_plain(self, role, asks_or_has, *picky):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD if role == "client" else SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(self.version)
        context.set_max_proto_version(self.version)
        context.set_session_id(b"test")
        server, client = self._credentials
        if role == "server":
            use(context, server[0])
            if asks_or_has:
                context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        elif asks_or_has:
            use(context, client[0])
        if any(picky):
            assert _openssl.lib.SSL_CTX_set1_curves_list(context._context, b"secp384r1") == 1
        return context


def use(context, credential):
    context.use_certificate(x509.load_pem_x509_certificate(credential.certificate_pem))
    context.use_privatekey(load_pem_private_key(credential.key_pem, None))


def opened(info, record, number=0):
    """Type and content of the record that comes `number` behind the next of a direction."""
    if info.version is TLSVersion.TLSv1_3:
        return records.open_untrusted(info.aead, info.key, info.sequence + number, record)
    aead, key = info.aead, info.key
    size = len(record) - RECORD_HEADER - TAG - (aead.iv if aead.explicit else 0)
    explicit = record[RECORD_HEADER : RECORD_HEADER + aead.iv] if aead.explicit else b""
    sequence = info.sequence + number
    nonce = key.iv + explicit if aead.explicit else records._nonce(key, sequence)
    bound = sequence.to_bytes(8, "big") + record[:3] + size.to_bytes(2, "big")
    sealed = record[RECORD_HEADER + len(explicit) :]
    return record[0], records._CIPHERS[aead](key.key).decrypt(nonce, sealed, bound)


def sealed(info, kind, content, number=0):
    """The record that comes `number` behind the next of a direction."""
    if info.version is TLSVersion.TLSv1_3:
        return records.seal(info.aead, info.key, info.sequence + number, kind, content)
    info = replace(info, sequence=info.sequence + number, explicit_nonce=info.explicit_nonce + number)
    return records.seal_tls12(info, kind, content)
