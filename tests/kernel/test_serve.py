"""`ssa serve` where the kernel protects the records of its connections: the tests that read and write in earnest."""

import pytest

from tests.loopback.test_serve import (
    client,
    echo,
    serve,
    test_a_client_that_is_cut_is_no_end_in_order,
    test_a_server_that_resets_cuts_the_client,
    test_half_closes_are_passed_on_both_ways,
    unix_backend,
)
from tests.peers import Daemon

__all__ = [
    "serve",
    "test_a_client_that_is_cut_is_no_end_in_order",
    "test_a_server_that_resets_cuts_the_client",
    "test_half_closes_are_passed_on_both_ways",
    "unix_backend",
]


@pytest.fixture
def backend(unix_backend):
    return unix_backend


def test_a_connection_outlives_ssad(serve, capabilities, backend, tmp_path, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "ktls"\n'
    with Daemon(tmp_path, policy=policy) as daemon:
        service = serve("--to", backend(echo), daemon=daemon)
        with client(pki, service.port) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            daemon.process.kill()
            daemon.process.wait()
            tls.sendall(b"y")
            assert tls.recv(1) == b"y"
