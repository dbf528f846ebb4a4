"""Which data path, and what is offered on it: by the policy and what the kernel can do."""

from dataclasses import replace

import pytest
from OpenSSL import SSL

from ssa import errors
from ssa.handshake.contexts import ContextCache, withheld
from ssa.ktls.probe import Capabilities
from ssa.policy import files
from ssa.relay import reason_for, reason_for_suite
from ssa.suites import AES_GCM_128, SUITES, TLSVersion

NOTHING = Capabilities(frozenset(), rekey=False, reason="no such module")
ONE = Capabilities(frozenset({(TLSVersion.TLSv1_3, AES_GCM_128.kernel)}), rekey=False, reason="")
SUITE, OTHER = SUITES["TLS_AES_128_GCM_SHA256"], SUITES["TLS_AES_256_GCM_SHA384"]


@pytest.fixture
def policy(tmp_path):
    return files.load(tmp_path / "none.toml")


def offered(policy, kernel):
    context = ContextCache(lambda *_: None).client(policy, kernel)
    names = SSL.Connection(context, None).get_cipher_list()
    return [name for name in names if name.startswith("TLS_")]  # of TLS 1.3; of others there is a list in any case


@pytest.mark.parametrize(
    ("data_path", "kernel", "says"),
    [
        ("relay", ONE, "policy"),
        ("relay", NOTHING, "policy"),
        ("ktls-or-relay", NOTHING, "this kernel has no TLS: no such module"),
        ("ktls-or-relay", ONE, ""),
        ("ktls", ONE, ""),
    ],
)
def test_what_is_known_before_the_handshake(data_path, kernel, says):
    reason = reason_for(data_path, kernel)
    assert says in reason
    assert bool(reason) == bool(says)


def test_a_suite_that_the_kernel_lacks_is_named():
    assert reason_for_suite(SUITE, ONE) == ""
    assert reason_for_suite(OTHER, ONE) == "this kernel does not offer TLSv1.3 with aes-gcm-256"


def test_ktls_offers_only_what_the_kernel_can_do(policy):
    assert offered(replace(policy, data_path="ktls"), ONE) == [SUITE.openssl]
    with pytest.raises(errors.PolicyError, match="kernel"):
        offered(replace(policy, data_path="ktls"), NOTHING)


def test_the_kernels_suites_come_first_where_either_will_do(policy):
    either = offered(replace(policy, data_path="ktls-or-relay"), ONE)
    relayed = offered(replace(policy, data_path="relay"), ONE)
    assert either[0] == SUITE.openssl
    assert relayed[0] == OTHER.openssl
    assert sorted(either) == sorted(relayed)
    assert offered(replace(policy, data_path="ktls-or-relay"), NOTHING) == relayed


def test_what_is_withheld_is_named(policy):
    policy = replace(policy, data_path="ktls", ciphersuites=(SUITE, OTHER), ciphers=())
    assert withheld(policy, ONE) == "TLSv1.3 with aes-gcm-256"
    assert withheld(replace(policy, data_path="ktls-or-relay"), ONE) == ""
