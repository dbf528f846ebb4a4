"""Certificates of every kind, good and bad, made in microseconds: P-256 keys, a day old, a month to go.

A `Made` is a certificate with its key; as an issuer it makes others. What is not said is what a careful CA does.
"""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssa import trust
from ssa.trust import case
from ssa.trust.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)
HOST = "www.example.com"
SERVER, CLIENT, CODE = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.CODE_SIGNING,
)
ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

EVERYTHING = trust.Strength(
    2048,
    (
        "ecdsa_secp256r1_sha256",
        "ecdsa_secp384r1_sha384",
        "ecdsa_secp521r1_sha512",
        "ed25519",
        "ed448",
        "rsa_pss_rsae_sha256",
        "rsa_pkcs1_sha256",
        "rsa_pkcs1_sha384",
        "rsa_pkcs1_sha512",
    ),
)

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def key(kind: str = "p256") -> Any:
    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k256": ec.SECP256K1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in names for name in _USAGES})


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def sans(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([general(text) for text in names])


def general(text: str) -> x509.GeneralName:
    if text.startswith("CN="):
        return x509.DirectoryName(x509.Name.from_rfc4514_string(text))
    try:
        return x509.IPAddress(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def constraints(permitted: Iterable[str] = (), excluded: Iterable[str] = ()) -> x509.NameConstraints:
    return x509.NameConstraints([*map(general, permitted)] or None, [*map(general, excluded)] or None)


def unknown(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00"), critical


@dataclass(frozen=True)
class Made:
    cert: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.cert.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make(
    subject: str,
    issuer: Made | None = None,
    *,
    key_: Any = None,
    start: timedelta = timedelta(days=-1),
    end: timedelta = timedelta(days=30),
    hash_: Any = None,
    pss: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Made:
    """A certificate with exactly these extensions; without an issuer, self-signed."""
    own = key_ or key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.cert.subject if issuer else name(subject))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + start)
        .not_valid_after(NOW + end)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = issuer.key if issuer else own
    scheme = padding.PSS(padding.MGF1(hash_ or hashes.SHA256()), padding.PSS.DIGEST_LENGTH) if pss else None
    return Made(builder.sign(signer, hash_ or hashes.SHA256(), rsa_padding=scheme), own)


def root(subject: str = "Test Root", **options: Any) -> Made:
    return authority(subject, None, **options)


def authority(
    subject: str,
    issuer: Made | None,
    *,
    ca: bool | None = True,
    length: int | None = None,
    may: tuple[str, ...] | None = ("key_cert_sign", "crl_sign"),
    eku: Sequence[x509.ObjectIdentifier] = (),
    limits: x509.NameConstraints | None = None,
    ids: bool = True,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key_: Any = None,
    **options: Any,
) -> Made:
    own = key_ or key()
    extensions: list[tuple[x509.ExtensionType, bool]] = list(more)
    if ca is not None:
        extensions.append((x509.BasicConstraints(ca, length), True))
    if may is not None:
        extensions.append((usage(*may), True))
    if eku:
        extensions.append((x509.ExtendedKeyUsage(eku), False))
    if limits is not None:
        extensions.append((limits, True))
    if ids:
        extensions.append((x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False))
    if ids and issuer is not None:
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False))
    return make(subject, issuer, key_=own, extensions=extensions, **options)


def leaf(
    issuer: Made | None,
    *names: str,
    subject: str = "leaf",
    eku: Sequence[x509.ObjectIdentifier] = (SERVER,),
    may: tuple[str, ...] | None = ("digital_signature",),
    ca: bool | None = False,
    ids: bool = True,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    **options: Any,
) -> Made:
    extensions: list[tuple[x509.ExtensionType, bool]] = list(more)
    if names:
        extensions.append((sans(*names), False))
    if ca is not None:
        extensions.append((x509.BasicConstraints(ca, None), True))
    if may is not None:
        extensions.append((usage(*may), True))
    if eku:
        extensions.append((x509.ExtendedKeyUsage(eku), False))
    if ids and issuer is not None:
        extensions.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False))
    return make(subject, issuer, extensions=extensions, **options)


def store(*anchors: Made) -> trust.TrustStore:
    return trust.TrustStore([Certificate(anchor.der) for anchor in anchors], "test")


def judge(
    chain: Sequence[Made | bytes],
    anchors: Sequence[Made],
    host: str | None = HOST,
    *,
    role: Any = "server",
    strength: trust.Strength = EVERYTHING,
    when: datetime | None = None,
) -> trust.Verified:
    ders = tuple(part if isinstance(part, bytes) else part.der for part in chain)
    return trust.judge(trust.Evidence(ders, host, role, when), store(*anchors), strength)


def judged_case(chain: Sequence[Made], anchors: Sequence[Made], host: str = HOST) -> case.Case:
    evidence = trust.Evidence(tuple(part.der for part in chain), host, "server")
    return case.Case(evidence, store(*anchors), EVERYTHING)


# --- DER by hand, for what no builder makes ------------------------------------------------------------------------


def tlv(tag: int, body: bytes) -> bytes:
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + len(body).to_bytes(size, "big") + body


ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
WITH_NULL = bytes.fromhex("300c06082a8648ce3d0403020500")


def signed(tbs: bytes, issuer: Made, template: Made) -> bytes:
    """A certificate of these bytes, signed by an issuer with a P-256 key and SHA-256."""
    assert ALGORITHM in template.der
    algorithm = WITH_NULL if WITH_NULL in tbs else ALGORITHM
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, tbs + algorithm + tlv(0x03, b"\x00" + signature))


def patched(template: Made, issuer: Made, old: bytes, new: bytes) -> bytes:
    """The certificate with some bytes of its contents replaced by as many others, and a right signature."""
    tbs = template.cert.tbs_certificate_bytes
    assert len(old) == len(new)
    assert old in tbs
    return signed(tbs.replace(old, new), issuer, template)


def changed(template: Made, issuer: Made | None, *changes: tuple[bytes, bytes]) -> bytes:
    """The certificate with some elements of its contents replaced, of whatever length, and a right signature.

    Each change is of elements as a whole: the lengths of what they are in follow.
    """
    tbs = template.cert.tbs_certificate_bytes
    for old, new in changes:
        assert tbs.count(old) >= 1, old.hex()
        tbs = _replaced(tbs, old, new)
    return signed(tbs, issuer or template, template)


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    if data == old:
        return new
    if old not in data:
        return data
    header = 2 if data[1] < 0x80 else 2 + data[1] - 0x80
    body, tag = data[header:], data[0]
    if body.count(old) and (tag == 0x04 or tag & 0x20 or tag == 0x03):
        parts, at = [], 0
        try:
            while at < len(body):
                size = body[at + 1]
                head = 2
                if size >= 0x80:
                    head = 2 + size - 0x80
                    size = int.from_bytes(body[at + 2 : at + head], "big")
                parts.append(_replaced(body[at : at + head + size], old, new))
                at += head + size
            if at == len(body):
                return tlv(tag, b"".join(parts))
        except IndexError:
            pass
    return tlv(tag, body.replace(old, new))


# --- Debian's openssl ----------------------------------------------------------------------------------------------


def openssl(*arguments: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(certificate: Path, key_: Any = None) -> Made:
    return Made(x509.load_pem_x509_certificate(certificate.read_bytes()), key_)


def resigned(subject: Made, issuer: Made, folder: Path, *options: str) -> Made:
    """A copy of a certificate, signed by openssl, which signs with what no careful library signs with, or as v1."""
    (folder / "issuer.pem").write_bytes(issuer.pem + issuer.key_pem)
    (folder / "subject.key").write_bytes(subject.key_pem)
    common = subject.cert.subject.rfc4514_string().removeprefix("CN=")
    openssl("req", "-new", "-key", folder / "subject.key", "-subj", f"/CN={common}", "-out", folder / "request")
    out = folder / "resigned.pem"
    openssl("x509", "-req", "-in", folder / "request", "-CA", folder / "issuer.pem", "-out", out, *options)
    return loaded(out, subject.key)


def openssl_accepts(chain: Sequence[Made | bytes], anchors: Sequence[Made], host: str, folder: Path) -> bool:
    """What `openssl verify` says of the same evidence: path, purpose, and name."""
    pems = [
        part.pem if isinstance(part, Made) else x509.load_der_x509_certificate(part).public_bytes(Encoding.PEM)
        for part in chain
    ]
    (folder / "leaf.pem").write_bytes(pems[0])
    (folder / "others.pem").write_bytes(b"".join(pems[1:]))
    (folder / "anchors.pem").write_bytes(b"".join(anchor.pem for anchor in anchors))
    kind = "-verify_ip" if host.replace(".", "").isdigit() or ":" in host else "-verify_hostname"
    others = ["-untrusted", folder / "others.pem"] if pems[1:] else []
    command = ["verify", "-partial_chain", "-purpose", "sslserver", kind, host, "-no-CApath", "-no-CAstore"]
    done = subprocess.run(
        ["openssl", *command, "-CAfile", folder / "anchors.pem", *others, folder / "leaf.pem"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
