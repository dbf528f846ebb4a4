"""What a client offers, read from its ClientHello."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.handshake.hello import largest_untrusted, parse_untrusted
from ssa.policy.schema import Policy


def hello(*extensions, suites=b"\x13\x02\xc0\x2b", version=b"\3\3", session=b""):
    body = b"".join(kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content for kind, content in extensions)
    offered = len(suites).to_bytes(2, "big") + suites + b"\1\0"
    content = version + bytes(32) + bytes([len(session)]) + session + offered + len(body).to_bytes(2, "big") + body
    return b"\1" + len(content).to_bytes(3, "big") + content


VERSIONS = (43, b"\4\3\4\3\3")
GROUPS = (10, b"\0\4\x11\xec\0\x1d")
SIGNATURES = (13, b"\0\4\4\3\x99\x99")


def test_the_offers_by_name():
    read = parse_untrusted(hello(VERSIONS, GROUPS, SIGNATURES, session=bytes(32)))
    assert read.versions == ("TLSv1.3", "TLSv1.2")
    assert read.suites == ("TLS_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    assert read.groups == ("X25519MLKEM768", "x25519")
    assert read.signatures == ("ecdsa_secp256r1_sha256", "0x9999")
    assert read.lacks(Policy.default()) is None


def test_an_old_client_names_its_highest_version():
    assert parse_untrusted(hello(version=b"\3\2")).versions == ("SSLv3", "TLSv1.0", "TLSv1.1")
    reason, words = parse_untrusted(hello(version=b"\3\1")).lacks(Policy.default())
    assert reason == "UNSUPPORTED_VERSION"
    assert words == "versions: it offers SSLv3, TLSv1.0; the policy allows TLSv1.2, TLSv1.3"


@pytest.mark.parametrize(
    ("changed", "reason", "words"),
    [
        (
            {"groups": "P-256"},
            "NO_COMMON_GROUP",
            "it offers X25519MLKEM768, x25519; the policy allows secp256r1",
        ),
        ({"signature_algorithms": "ed25519"}, "NO_COMMON_SIGNATURE", "the policy allows ed25519"),
        ({"ciphersuites": "TLS_AES_128_GCM_SHA256"}, "NO_COMMON_CIPHER", "the policy allows TLS_AES_128_GCM_SHA256"),
    ],
)
def test_what_is_lacking(changed, reason, words):
    found = parse_untrusted(hello(VERSIONS, GROUPS, SIGNATURES)).lacks(Policy.default().replace_many(changed))
    assert found[0] == reason
    assert words in found[1]


@pytest.mark.parametrize(
    ("content", "largest"), [(b"\1", 512), (b"\4", 4096), (b"\0", 0), (b"\5", 0), (b"\1\1", 0), (b"", 0)]
)
def test_how_long_a_record_may_be(content, largest):
    assert largest_untrusted(hello(VERSIONS, (1, content), GROUPS)) == largest
    assert largest_untrusted(hello(VERSIONS)) == 0


@given(
    st.one_of(
        st.binary(max_size=200), st.builds(lambda cut: hello(VERSIONS, GROUPS, (1, b"\1"))[:cut], st.integers(0, 80))
    )
)
def test_junk_gives_one_exception_only(data):
    for read in (parse_untrusted, largest_untrusted):
        try:
            read(data)
        except ValueError:
            continue
