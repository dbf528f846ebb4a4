"""`session_tickets`: what a server gives and what a client asks for, in handshakes without a connection."""

import contextlib

import pytest
from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from ssa.credentials import pair_untrusted
from ssa.ktls.probe import Capabilities
from ssa.policy.resolve import Narrowing, narrow
from ssa.policy.schema import Policy
from ssa.suites import SUITES, TLSVersion
from ssa.tls import HANDSHAKE, NEW_SESSION_TICKET, RECORD_HEADER
from tests.unit.pairs import ConnectionPair, Kit

EVERYTHING = Capabilities(
    frozenset((version, suite.aead.kernel) for version in TLSVersion for suite in SUITES.values()),
    rekey=True,
    reason="",
)
OFF = Policy.default().replace("session_tickets", "off")
POLICIES = {
    "on": Policy.default(),
    "off": OFF,
    "off for the request": narrow(Policy.default(), Narrowing(session_tickets="off")),
}


@pytest.fixture(scope="module")
def own(pki):
    return pair_untrusted([pki.cert.read_bytes()], [pki.key.read_bytes()], complete=True)


@pytest.fixture(params=TLSVersion, ids=lambda version: version.label)
def version(request):
    return request.param


def kit_of(name, version, own):
    return Kit(POLICIES[name], EVERYTHING, version, server_credentials=own, client_credentials=own)


def shaken(client, server):
    """The records that the server has sent in the handshake of two ends."""
    sent = []
    pair = ConnectionPair(client, server, lambda sender, _, record: sent.append((sender, record)) or record).run()
    assert pair.done
    return [record for sender, record in sent if sender == "server"]


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_server_gives_is_good_for_nothing(own, name, version):
    """The binding to OpenSSL cannot keep a server of TLS 1.3 from tickets: these name sessions that nobody keeps."""
    kit = kit_of(name, version, own)
    client = kit.plain_client()
    given = shaken(client, kit.server())
    with contextlib.suppress(SSL.WantReadError):
        client.connection.recv(1)  # the tickets of TLS 1.3
    again = kit.plain_client(session=client.connection.get_session())
    shaken(again, kit.server())
    assert bool(_openssl.lib.SSL_session_reused(again.connection._ssl)) == (name == "on")
    if version is TLSVersion.TLSv1_2:
        assert has_ticket(given) == (name == "on")


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_client_asks_for(own, name):
    """In TLS 1.3 servers give tickets unasked, and the cache keeps none (`Values.resumable`)."""
    kit = kit_of(name, TLSVersion.TLSv1_2, own)
    assert has_ticket(shaken(kit.client(), kit.plain_server())) == (name == "on")
    assert POLICIES[name].resumable == (7200 if name == "on" else 0)


def has_ticket(flight):
    return any(record[0] == HANDSHAKE and record[RECORD_HEADER] == NEW_SESSION_TICKET for record in flight)
