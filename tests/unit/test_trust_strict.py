"""RFC 5280 strictly, where an application asks for it: at least what OpenSSL's X509_V_FLAG_X509_STRICT checks."""

from dataclasses import replace

import pytest
from cryptography import x509

from ssa.errors import CertificateError
from tests.unit.trust_factory import EVERYTHING, HOST, authority, judge, leaf, make, root, sans

STRICTLY = replace(EVERYTHING, strict=True)


def chain(*, ca=None, server=None):
    """A leaf, an intermediate and a root: all as a careful CA makes them but for these options."""
    top = root()
    middle = authority("Middle", top, **(ca or {}))
    return [leaf(middle, HOST, **(server or {})), middle], [top]


def casual_root():
    """A CA as `openssl req -x509` makes one with few options: basicConstraints not critical, no keyUsage."""
    top = make("Casual", extensions=[(x509.BasicConstraints(ca=True, path_length=None), False)])
    return [leaf(top, HOST)], [top]


def with_sans_and_no_name(*, critical):
    top = root()
    own = leaf(top, subject="", more=[(sans(HOST), critical)])
    return [own], [top]


CASUAL = {
    "a leaf without authorityKeyIdentifier": lambda: chain(server={"ids": False}),
    "a CA without subjectKeyIdentifier": lambda: chain(ca={"ids": False}),
    "a CA without keyUsage": lambda: chain(ca={"may": None}),
    "a leaf that may sign certificates": lambda: chain(server={"may": ("digital_signature", "key_cert_sign")}),
    "basicConstraints that are not critical": casual_root,
    "no subject, and a SAN that is not critical": lambda: with_sans_and_no_name(critical=False),
}


@pytest.mark.parametrize("case", CASUAL)
def test_what_hardly_anyone_checks(case):
    certificates, anchors = CASUAL[case]()
    assert judge(certificates, anchors)
    with pytest.raises(CertificateError) as refused:
        judge(certificates, anchors, strength=STRICTLY)
    assert "as the application asked" in str(refused.value)


@pytest.mark.parametrize("certificates", [chain, lambda: with_sans_and_no_name(critical=True)])
def test_what_keeps_to_it_is_accepted(certificates):
    shown, anchors = certificates()
    assert judge(shown, anchors, strength=STRICTLY)


def test_one_judgement_does_not_stand_for_the_other():
    """Verdicts are remembered."""
    certificates, anchors = casual_root()
    for _ in range(2):
        assert judge(certificates, anchors)
        with pytest.raises(CertificateError):
            judge(certificates, anchors, strength=STRICTLY)
