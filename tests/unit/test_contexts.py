"""The groups in OpenSSL's notation: which key shares a client sends, and what a server asks for."""

import pytest

from ssa.handshake.contexts import group_list
from ssa.policy.schema import Policy

# groups of the policy, as a client's, as a server's
LISTS = [
    ("x25519 secp256r1", "*x25519:secp256r1", "x25519:secp256r1"),
    ("X25519MLKEM768 x25519 secp256r1", "*X25519MLKEM768:*x25519:secp256r1", "X25519MLKEM768/x25519:secp256r1"),
    ("x25519 X25519MLKEM768 secp256r1", "*x25519:X25519MLKEM768:secp256r1", "x25519:X25519MLKEM768:secp256r1"),
    (
        "SecP384r1MLKEM1024 X25519MLKEM768 secp384r1",
        "*SecP384r1MLKEM1024:X25519MLKEM768:*secp384r1",
        "SecP384r1MLKEM1024:X25519MLKEM768/secp384r1",
    ),
    ("X25519MLKEM768", "*X25519MLKEM768", "X25519MLKEM768"),
]


@pytest.mark.parametrize(("groups", "client", "server"), LISTS)
def test_groups_for_openssl(groups, client, server):
    assert group_list(tuple(groups.split()), "client") == client
    assert group_list(tuple(groups.split()), "server") == server


def test_by_default_the_hybrid_is_first():
    groups = Policy.default().groups
    assert group_list(groups, "client").startswith("*X25519MLKEM768:*x25519:")
    assert group_list(groups, "server").startswith("X25519MLKEM768/x25519:")
