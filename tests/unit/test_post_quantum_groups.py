"""Handshakes by each post-quantum group alone, between two of our engines."""

import pytest

from ssa.credentials import pair_untrusted
from ssa.policy.levels import LEVELS
from ssa.policy.parsers import POST_QUANTUM
from ssa.policy.schema import Policy
from ssa.suites import TLSVersion
from tests.unit.pairs import ConnectionPair, Kit
from tests.unit.test_session_tickets import EVERYTHING


def shaken(policy, pki):
    own = pair_untrusted([pki.cert.read_bytes()], [pki.key.read_bytes()], complete=True)
    kit = Kit(policy, EVERYTHING, TLSVersion.TLSv1_3, server_credentials=own, client_credentials=own)
    client, server = kit.client(), kit.server()
    assert ConnectionPair(client, server).run().done
    return client.engine.group, server.engine.group


@pytest.mark.parametrize("group", sorted(POST_QUANTUM))
def test_a_group_alone(pki, group):
    assert shaken(Policy.default().replace("groups", group), pki) == (group, group)


@pytest.mark.parametrize(("level", "group"), [("pq", "X25519MLKEM768"), ("cnsa2", "MLKEM1024")])
def test_the_groups_of_a_level(pki, level, group):
    policy = Policy.default().replace("groups", LEVELS[level].texts["groups"])
    assert shaken(policy, pki) == (group, group)
