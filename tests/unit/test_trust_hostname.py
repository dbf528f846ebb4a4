"""Names: what is one, and which entry of a certificate stands for it (RFC 9525), with OpenSSL as a second opinion."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.bindings._rust import _openssl
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from ssa.errors import CertificateError
from ssa.trust import hostname, normalise
from tests.unit.trust_factory import judge, leaf, make

NORMAL = {
    "example.com": "example.com",
    "EXAMPLE.Com": "example.com",
    "example.com.": "example.com",
    "localhost": "localhost",
    "my_host.internal": "my_host.internal",
    "r3---sn-abc.example.com": "r3---sn-abc.example.com",
    "1.example.com": "1.example.com",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "bücher。example": "xn--bcher-kva.example",  # the ideographic full stop
    "faß.example": "xn--fa-hia.example",  # not fass.example: IDNA 2008
    "_x.bücher.example": "_x.xn--bcher-kva.example",  # no more is asked of ASCII labels than without the other
    "-x.r3---sn.bücher.example": "-x.r3---sn.xn--bcher-kva.example",
    "例え.テスト": "xn--r8jz45g.xn--zckzah",
    "\uff45xample.com": "example.com",  # full width
    "192.0.2.1": IPv4Address("192.0.2.1"),
    "::1": IPv6Address("::1"),
    "2001:DB8:0::1": IPv6Address("2001:db8::1"),
    "fe80::1%eth0": IPv6Address("fe80::1"),
    "::ffff:192.0.2.1": IPv6Address("::ffff:192.0.2.1"),
    ("a" * 63 + ".") * 3 + "a" * 61: ("a" * 63 + ".") * 3 + "a" * 61,
}

NO_NAMES = (
    *("", ".", "..", "a..b", ".example.com", "example.com..", "*", "*.example.com", "a b", "a/b", "a:443", "[::1]"),
    *("exa\0mple.com", "example.com\n", " example.com", "example.com ", "a" * 64 + ".com", ("a" * 63 + ".") * 4),
    *("127.1", "2130706433", "0x7f.1", "0x7f000001", "1.2.3.4.5", "010.0.0.1", "256.1.1.1", "example.0x", "1.2.3.4."),
    *("\uff11\uff12\uff17.0.0.1", "a\u200bb.com\u2028", "\ud800", "xn--\u00fc.com", "☃" * 2000, "u@example.com", "%65"),
)


@pytest.mark.parametrize("host", NORMAL)
def test_normalise(host):
    found = normalise(host)
    assert found == NORMAL[host]
    assert normalise(str(found)) == found


@pytest.mark.parametrize("host", NO_NAMES)
def test_no_name(host):
    with pytest.raises(ValueError):
        normalise(host)


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("😀.example", "IDNA 2008 forbids it: Codepoint U\\+1F600"),
        ("_ü.example", "IDNA 2008 forbids it: Codepoint U\\+005F"),
        ("-ü.example", "IDNA 2008 forbids it: .* hyphen"),
    ],
)
def test_what_idna_forbids_is_said(host, words):
    with pytest.raises(ValueError, match=words) as caught:
        normalise(host)
    assert "as A-labels (xn--...)" in str(caught.value)
    assert str(caught.value).isascii()


MATCHES = [
    ("example.com", "example.com"),
    ("EXAMPLE.com", "example.com"),
    ("*.example.com", "www.example.com"),
    ("*.EXAMPLE.com", "www.example.com"),
    ("*.example.com", "xn--bcher-kva.example.com"),
    ("*.a.b.c.d", "x.a.b.c.d"),
    ("localhost", "localhost"),
    ("a_b.example.com", "a_b.example.com"),
]
DIFFERS = [
    ("example.com", "www.example.com"),
    ("www.example.com", "example.com"),
    ("example.com", "example.org"),
    ("*.example.com", "example.com"),
    ("*.example.com", "a.b.example.com"),
    ("*.example.com", ".example.com"),
    ("*", "localhost"),
    ("*", "example.com"),
    ("*.", "example."),
    ("*.com", "example.com"),
    ("*.*", "example.com"),
    ("*.*.com", "www.example.com"),
    ("**.example.com", "www.example.com"),
    ("w*.example.com", "www.example.com"),
    ("*w.example.com", "www.example.com"),
    ("w*w.example.com", "www.example.com"),
    ("xn--*.example.com", "xn--bcher-kva.example.com"),
    ("xn--b*-kva.example.com", "xn--bcher-kva.example.com"),
    ("www.*.com", "www.example.com"),
    ("www.example.*", "www.example.com"),
    ("*.example.com.", "www.example.com"),
    ("www.example.com.", "www.example.com"),
    (".example.com", "www.example.com"),
    ("", "www.example.com"),
    ("www.example.com\0.example.org", "www.example.com"),
    ("www.example.com\0", "www.example.com"),
    (" www.example.com", "www.example.com"),
    ("*.example.com\0", "www.example.com"),
    ("*. example.com", "www.example.com"),
    ("*..example.com", "www..example.com"),
    ("b\u00fccher.example", "xn--bcher-kva.example"),
    ("\u212aelvin.example", "kelvin.example"),  # lower() makes an ASCII k of the Kelvin sign
    ("*.\u212aelvin.example", "www.kelvin.example"),
    ("192.0.2.*", "192.0.2.1"),
]


@pytest.mark.parametrize(("pattern", "host"), MATCHES)
def test_matches(pattern, host):
    assert hostname.matches(pattern, host)


@pytest.mark.parametrize(("pattern", "host"), DIFFERS)
def test_differs(pattern, host):
    assert not hostname.matches(pattern, host)


# --- in certificates -----------------------------------------------------------------------------------------------


def judged(host, *names, **options):
    own = leaf(None, *names, **options)
    try:
        return judge([own], [own], host).identity
    except CertificateError as refusal:
        return refusal.reason


@pytest.mark.parametrize(
    ("names", "host", "identity"),
    [
        (["192.0.2.1"], "192.0.2.1", "192.0.2.1"),
        (["2001:db8::1"], "2001:DB8::0:1", "2001:db8::1"),
        (["xn--bcher-kva.example"], "bücher.example", "xn--bcher-kva.example"),
        (["www.example.com"], "WWW.example.com.", "www.example.com"),
        (["192.0.2.1"], "192.0.2.2", "HOSTNAME_MISMATCH"),
        (["192.0.2.1"], "::ffff:192.0.2.1", "HOSTNAME_MISMATCH"),
        (["example.com"], "192.0.2.1", "HOSTNAME_MISMATCH"),
        (["*.0.2.1"], "192.0.2.1", "HOSTNAME_MISMATCH"),
        (["::1"], "0.0.0.1", "HOSTNAME_MISMATCH"),
        (["CN=example.com"], "example.com", "HOSTNAME_MISMATCH"),
    ],
)
def test_identity(names, host, identity):
    assert judged(host, *names) == identity


def test_an_address_written_as_a_name_is_no_address():
    own = make("x", extensions=[(x509.SubjectAlternativeName([x509.DNSName("192.0.2.1")]), False)])
    with pytest.raises(CertificateError, match=r"expected IP 192\.0\.2\.1"):
        judge([own], [own], "192.0.2.1")


@pytest.mark.parametrize("host", ["www.example.com", "192.0.2.1"])
def test_the_common_name_is_never_used(host):
    assert judged(host, subject=host) == "HOSTNAME_MISMATCH"
    assert judged(host, "other.example", subject=host) == "HOSTNAME_MISMATCH"


@pytest.mark.parametrize("make_name", [x509.UniformResourceIdentifier, x509.RFC822Name])
def test_other_forms_of_names_do_not_count(make_name):
    san = x509.SubjectAlternativeName([make_name("www.example.com")])
    own = make("x", extensions=[(san, False)])
    with pytest.raises(CertificateError, match="neither a DNS name nor an address"):
        judge([own], [own], "www.example.com")


# --- second opinion ------------------------------------------------------------------------------------------------

_lib, _ffi = _openssl.lib, _openssl.ffi
_FLAGS = _lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | _lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT


def openssl_matches(pattern, host):
    own = make("x", extensions=[(x509.SubjectAlternativeName([x509.DNSName(pattern)]), False)])
    native = crypto.X509.from_cryptography(own.cert)
    store = crypto.X509Store()
    store.add_cert(native)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    param = _ffi.gc(_lib.X509_VERIFY_PARAM_new(), _lib.X509_VERIFY_PARAM_free)
    _lib.X509_VERIFY_PARAM_set_hostflags(param, _FLAGS)
    assert _lib.X509_VERIFY_PARAM_set1_host(param, host.encode(), len(host)) == 1
    _lib.X509_STORE_set1_param(store._store, param)
    try:
        crypto.X509StoreContext(store, native).verify_certificate()
    except crypto.X509StoreContextError as refusal:
        return refusal.errors[0] != _lib.X509_V_ERR_HOSTNAME_MISMATCH
    return True


# What OpenSSL takes for a host name: no underscore, more than one character.
labels = st.sampled_from(["a", "www", "example", "com", "xn--bcher-kva", "x-y", "1", "a1"])
hosts = (
    st.lists(labels, min_size=1, max_size=5)
    .map(".".join)
    .filter(lambda name: len(name) > 1 and not name.endswith(".1"))
)
patterns = st.lists(labels | st.sampled_from(["*", "w*", "*w", "xn--*", ""]), min_size=1, max_size=5).map(".".join)


@settings(max_examples=300, deadline=None)
@given(host=hosts, pattern=patterns, wild=st.booleans())
def test_whatever_we_match_openssl_matches(host, pattern, wild):
    pattern = f"*.{host.partition('.')[2]}" if wild else pattern
    if hostname.matches(pattern, host):
        assert openssl_matches(pattern, host)


@pytest.mark.parametrize(("pattern", "host"), MATCHES[:6])
def test_openssl_agrees(pattern, host):
    assert openssl_matches(pattern, host)


# --- anything at all -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text())
def test_normalise_raises_nothing_else(text):
    try:
        found = normalise(text)
    except ValueError:
        return
    assert normalise(str(found)) == found
    assert str(found).isascii()


@settings(deadline=None)
@given(st.ip_addresses())
def test_normalise_keeps_addresses(address):
    assert normalise(str(address)) == ip_address(str(address))


@settings(deadline=None)
@given(st.text(), hosts)
def test_matching_raises_nothing(pattern, host):
    assert hostname.matches(pattern, host) in {True, False}


@settings(deadline=None)
@given(hosts)
def test_a_name_matches_itself_and_the_wildcard_over_its_parent(host):
    assert hostname.matches(host, host)
    parent = host.partition(".")[2]
    assert hostname.matches(f"*.{parent}", host) == ("." in parent)
