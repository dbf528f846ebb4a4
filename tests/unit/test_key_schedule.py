"""The key schedule against published vectors: RFC 8448 for TLS 1.3, the TLS working group's PRF vectors for TLS 1.2."""

import pytest

from ssa.handshake import records
from ssa.handshake.secrets import Secrets, tls12_keys
from ssa.ktls.crypto_info import CryptoInfo, parse_header
from ssa.ktls.key_schedule import TrafficKey, expand_label, key_block, next_secret, prf, traffic_key
from ssa.suites import AEADS, SUITES, TLSVersion

AES128 = SUITES["TLS_AES_128_GCM_SHA256"]

# RFC 8448 section 3, "Simple 1-RTT Handshake": (traffic secret, key, IV)
RFC8448 = {
    "server handshake": (
        "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38",
        "3fce516009c21727d0f2e4e86ee403bc",
        "5d313eb2671276ee13000b30",
    ),
    "client handshake": (
        "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21",
        "dbfaa693d1762c5b666af5d950258d01",
        "5bd3c71b836e0b76bb73265f",
    ),
    "server application": (
        "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
        "9f02283b6c9c07efc26bb9f2ac92e356",
        "cf782b88dd83549aadf1e984",
    ),
    "client application": (
        "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
        "17422dda596ed5d9acd890e3c63f5051",
        "5b78923dee08579033e523d9",
    ),
}

# The client's application data of the same section: the bytes 0 to 49, as record number 0.
RFC8448_RECORD = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a"
    "6292a2977014bd1e3deae63aeebb21694915e4"
)

PRF_VECTORS = {
    "sha256": (
        "9bbe436ba940f017b17652849a71db35",
        "a0ba9f936cda311827a6f796ffd5198c",
        (
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077d"
            "ef17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66"
        ),
    ),
    "sha384": (
        "b80b733d6ceefcdc71566ea48e5567df",
        "cd665cf6a8447dd6ff8b27555edb7465",
        (
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0e534cb400fed"
            "2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd4d90fa0d31e2dec4"
            "79e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f"
        ),
    ),
}


@pytest.mark.parametrize("name", RFC8448)
def test_traffic_keys_of_rfc8448(name):
    secret, key, iv = map(bytes.fromhex, RFC8448[name])
    assert traffic_key(AES128, secret) == TrafficKey(key, iv)


def test_record_of_rfc8448_both_ways():
    key = traffic_key(AES128, bytes.fromhex(RFC8448["client application"][0]))
    assert records.seal(AES128.aead, key, 0, 23, bytes(range(50))) == RFC8448_RECORD
    assert records.open_untrusted(AES128.aead, key, 0, RFC8448_RECORD) == (23, bytes(range(50)))
    assert records.open_untrusted(AES128.aead, key, 1, RFC8448_RECORD) is None


def test_key_update_is_the_label_of_rfc8446():
    secret = bytes.fromhex(RFC8448["client application"][0])
    assert next_secret(AES128, secret) == expand_label("sha256", secret, "traffic upd", b"", 32)
    assert next_secret(AES128, secret) != secret


@pytest.mark.parametrize("name", PRF_VECTORS)
def test_prf_of_tls12(name):
    secret, seed, output = map(bytes.fromhex, PRF_VECTORS[name])
    assert prf(name, secret, b"test label", seed, len(output)) == output


@pytest.mark.parametrize("suite", [s for s in SUITES.values() if s.version == TLSVersion.TLSv1_2], ids=lambda s: s.name)
def test_key_block_is_cut_in_the_order_of_rfc5246(suite):
    master, client_random, server_random = b"m" * 48, b"c" * 32, b"s" * 32
    client, server = key_block(suite, master, client_random, server_random)
    iv = 4 if suite.aead.explicit else 12
    whole = prf(suite.hash, master, b"key expansion", server_random + client_random, 2 * (suite.aead.key + iv))
    assert client.key + server.key + client.iv + server.iv == whole


@pytest.mark.parametrize("aead", AEADS.values(), ids=lambda a: a.name)
@pytest.mark.parametrize("version", TLSVersion)
def test_crypto_info_has_the_kernels_layout(version, aead):
    implicit = version is TLSVersion.TLSv1_2 and aead.explicit
    key = TrafficKey(b"k" * aead.key, b"saltiviviviv"[: 4 if implicit else 12])
    packed = CryptoInfo(version, aead, key, sequence=7, explicit_nonce=9).pack()
    assert len(packed) == aead.info
    assert parse_header(packed) == (version, aead)
    at = 4
    iv, at = packed[at : at + aead.iv], at + aead.iv
    assert packed[at : at + aead.key] == key.key
    at += aead.key
    assert packed[at : at + aead.salt] == key.iv[: aead.salt]
    assert iv == ((9).to_bytes(8, "big") if implicit else key.iv[aead.salt :])
    assert packed[-8:] == (7).to_bytes(8, "big")


def test_tls12_nonces_go_on_behind_the_one_that_finished_spent():
    suite = SUITES["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    finished = b"\x16\x03\x03\x00\x28" + b"\xff" * 7 + b"\xfe" + bytes(32)
    keys = tls12_keys(suite, b"m" * 48, b"c" * 32, b"s" * 32, "client", sent=[finished], received=1)
    assert keys.tx.explicit_nonce == 2**64 - 1
    assert (keys.tx.sequence, keys.rx.sequence) == (1, 1)
    assert keys.received(3).rx.sequence == 4


def test_secrets_are_not_in_a_repr():
    secrets = Secrets()
    secrets.add(b"CLIENT_TRAFFIC_SECRET_0 00 5ec2e7")
    assert secrets["CLIENT_TRAFFIC_SECRET_0"] == b"\x5e\xc2\xe7"
    assert "5ec2e7" not in repr(secrets)
    assert "xc2" not in repr(TrafficKey(b"\x5e\xc2\xe7", b"\x5e\xc2\xe7"))


def test_expand_label_refuses_more_than_a_hash():
    assert len(expand_label("sha384", bytes(48), "key", b"", 48)) == 48
    with pytest.raises(ValueError, match="33 bytes of sha256"):
        expand_label("sha256", bytes(32), "key", b"", 33)
