"""The header of the PROXY protocol, read back by what the specification says."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.cli.proxy_header import V1, V2, Client, header

V4 = Client(("192.0.2.7", 40000), ("198.51.100.1", 443), "TLSv1.3", "TLS_AES_256_GCM_SHA384")
V6 = V4._replace(source=("2001:db8::7", 40000), destination=("2001:db8::1", 443))


def fields(data):
    found = {}
    while data:
        kind, length = struct.unpack_from("!BH", data)
        assert len(data) >= 3 + length
        found[kind], data = data[3 : 3 + length], data[3 + length :]
    return found


def parsed(data):
    assert data.startswith(b"\r\n\r\n\0\r\nQUIT\n")
    version, family, length = struct.unpack_from("!BBH", data, 12)
    assert version == 0x21
    assert length == len(data) - 16
    size = {0x11: 4, 0x21: 16}[family]
    source, destination = data[16 : 16 + size], data[16 + size : 16 + 2 * size]
    ports = struct.unpack_from("!HH", data, 16 + 2 * size)
    ends = [(str(ipaddress.ip_address(host)), port) for host, port in zip((source, destination), ports, strict=True)]
    return *ends, fields(data[20 + 2 * size :])


def tls(data):
    value = parsed(data)[2][0x20]
    flags, verify = struct.unpack_from("!BI", value)
    return flags, verify, fields(value[5:])


def test_version_1_is_a_line():
    assert header(V4, V1) == b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
    assert header(V6, V1) == b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n"


@pytest.mark.parametrize("client", [V4, V6])
def test_version_2_has_the_addresses(client):
    assert parsed(header(client, V2))[:2] == (client.source, client.destination)


def test_an_ipv4_client_of_a_listener_for_both_families():
    client = V4._replace(source=("::ffff:192.0.2.7", 40000), destination=("::ffff:198.51.100.1", 443))
    assert header(client, V1) == header(V4, V1)
    assert header(client, V2) == header(V4, V2)


def test_a_link_local_address_has_a_scope():
    client = V6._replace(source=("fe80::1%eth0", 1))
    assert header(client, V1) == b"PROXY TCP6 fe80::1 2001:db8::1 1 443\r\n"


def test_what_tls_knows():
    assert tls(header(V4, V2)) == (1, 1, {0x21: b"TLSv1.3", 0x23: b"TLS_AES_256_GCM_SHA384"})
    client = V4._replace(certified=True, common_name="Jürgen", alpn="h2", server_name="example.org")
    assert tls(header(client, V2))[:2] == (1 | 2 | 4, 0)
    assert tls(header(client, V2))[2][0x22] == "Jürgen".encode()
    assert tls(header(client._replace(resumed=True), V2))[0] == 1 | 4
    assert parsed(header(client, V2))[2].items() >= {0x01: b"h2", 0x02: b"example.org"}.items()


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 1025, "\ud800"])
def test_a_name_that_could_mislead_is_left_out(name):
    assert 0x22 not in tls(header(V4._replace(certified=True, common_name=name), V2))[2]


ENDS = st.one_of(*(st.tuples(*[st.ip_addresses(v=version).map(str)] * 2) for version in (4, 6)))


@given(ENDS, st.integers(0, 65535), st.tuples(st.text(), st.text(), st.text()), st.booleans())
def test_any_client_can_be_read_back(hosts, port, texts, certified):
    alpn, server_name, common_name = texts
    client = Client((hosts[0], port), (hosts[1], 443), "TLSv1.2", "c", alpn, server_name, certified, common_name)
    assert len(header(client, V2)) < 4096
    parsed(header(client, V2))
    tls(header(client, V2))
