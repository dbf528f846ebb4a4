"""The certificates that people really make: openssl's own, trustme's, mkcert's kind."""

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ssa import trust
from ssa.errors import CertificateError
from tests.unit.trust_factory import EVERYTHING, HOST, Made, key, leaf, make, openssl, root, usage


def judged(chain, anchors, host=HOST):
    ders = tuple(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in chain)
    return trust.judge(trust.Evidence(ders, host, "server"), trust.TrustStore.load(anchors), EVERYTHING)


class Workshop:
    """Debian's openssl, in a directory."""

    def __init__(self, folder):
        self.folder = folder

    def self_signed(self, name, *options, days="30"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                "-days", days, "-subj", f"/CN={name}", *options, cwd=self.folder)  # fmt: skip
        return self.folder / f"{name}.pem"

    def issued(self, name, issuer, extensions=None, *options):
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}", cwd=self.folder)  # fmt: skip
        extra = []
        if extensions:
            (self.folder / f"{name}.ext").write_text(extensions)
            extra = ["-extfile", f"{name}.ext"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key",
                "-CAcreateserial", "-days", "30", "-out", f"{name}.pem", *extra, *options, cwd=self.folder)  # fmt: skip
        return self.folder / f"{name}.pem"


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


RECIPES = {
    "bare": f"subjectAltName=DNS:{HOST}",
    "popular": f"keyUsage=keyEncipherment,dataEncipherment\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:{HOST}",
    "usual": f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nsubjectAltName=DNS:{HOST}",
    "full": f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,"
    f"clientAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer\nsubjectAltName=DNS:{HOST}",
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_ca_of_openssl_req(workshop, recipe):
    anchor = workshop.self_signed("ca")
    end = workshop.issued("server", "ca", RECIPES[recipe])
    assert judged([end.read_bytes()], anchor)


def test_a_ca_of_openssl_req_and_an_intermediate(workshop):
    anchor = workshop.self_signed("ca")
    middle = workshop.issued("middle", "ca", "basicConstraints=CA:TRUE")
    end = workshop.issued("server", "middle", RECIPES["usual"])
    assert len(judged([end.read_bytes(), middle.read_bytes()], anchor).path) == 3


def test_a_self_signed_certificate_of_openssl_req(workshop):
    own = workshop.self_signed("server", "-addext", f"subjectAltName=DNS:{HOST}")
    assert judged([own.read_bytes()], own).path[0] == judged([own.read_bytes()], own).path[-1]
    other = workshop.self_signed("other", "-addext", f"subjectAltName=DNS:{HOST}")
    with pytest.raises(CertificateError) as caught:
        judged([other.read_bytes()], own)
    assert caught.value.reason == "SELF_SIGNED_CERTIFICATE"


def test_a_leaf_without_names(workshop):
    anchor = workshop.self_signed("ca")
    end = workshop.issued(HOST, "ca")
    with pytest.raises(CertificateError, match="its CN is not used"):
        judged([end.read_bytes()], anchor)


def test_a_rehashed_directory(workshop, tmp_path):
    anchor = workshop.self_signed("ca")
    end = workshop.issued("server", "ca", RECIPES["usual"])
    folder = tmp_path / "certs"
    folder.mkdir()
    anchor.rename(folder / "ca.pem")
    openssl("rehash", folder)
    assert judged([end.read_bytes()], folder)


def test_trustme(tmp_path):
    ca = trustme.CA()
    names = (HOST, "*.example.org", "127.0.0.1", "::1", "xn--bcher-kva.example")
    end = ca.issue_cert(*names)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    chain = [blob.bytes() for blob in end.cert_chain_pems]
    for host in (HOST, "a.example.org", "127.0.0.1", "::1", "bücher.example"):
        assert judged(chain, tmp_path / "ca.pem", host)
    with pytest.raises(CertificateError):
        judged(chain, tmp_path / "ca.pem", "127.0.0.2")


def test_trustme_with_an_intermediate(tmp_path):
    ca = trustme.CA()
    end = ca.create_child_ca().issue_cert(HOST)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert judged([blob.bytes() for blob in end.cert_chain_pems], tmp_path / "ca.pem")


def test_trustme_expired(tmp_path):
    from datetime import UTC, datetime

    ca = trustme.CA()
    end = ca.issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC))
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with pytest.raises(CertificateError) as caught:
        judged([blob.bytes() for blob in end.cert_chain_pems], tmp_path / "ca.pem")
    assert caught.value.reason == "CERTIFICATE_EXPIRED"


def test_mkcert(tmp_path):
    """A CA with an organisation, pathlen 0; RSA leaves for digitalSignature and keyEncipherment."""
    anchor = root("mkcert development CA", key_=key("rsa3072"), length=0, may=("key_cert_sign",))
    end = leaf(anchor, "localhost", "127.0.0.1", "::1", key_=key("rsa2048"), ca=None,
               may=("digital_signature", "key_encipherment"))  # fmt: skip
    (tmp_path / "rootCA.pem").write_bytes(anchor.pem)
    for host in ("localhost", "127.0.0.1", "::1"):
        assert judged([end.pem], tmp_path / "rootCA.pem", host)


def test_a_root_without_anything_but_basic_constraints(tmp_path):
    anchor = make("Plain", extensions=[(x509.BasicConstraints(ca=True, path_length=None), False)])
    end = make("leaf", Made(anchor.cert, anchor.key), extensions=[
        (x509.SubjectAlternativeName([x509.DNSName(HOST)]), False), (usage("digital_signature"), False)])  # fmt: skip
    (tmp_path / "ca.pem").write_bytes(anchor.pem)
    assert judged([end.pem], tmp_path / "ca.pem")
