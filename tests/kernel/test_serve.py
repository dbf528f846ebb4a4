"""`ssa serve` where the kernel protects the records of its connections: the tests that read and write in earnest."""

from tests import peers
from tests.loopback.test_serve import (
    backend,
    client,
    serve,
    test_a_client_that_is_cut_is_no_end_in_order,
    test_a_server_that_is_down,
    test_a_server_that_reads_no_more_still_answers,
    test_a_server_that_resets_cuts_the_client,
    test_a_wrong_client_certificate_never_reaches_the_server,
    test_half_closes_are_passed_on_both_ways,
    test_it_is_killed_itself,
    test_two_hundred_at_once,
    test_what_the_server_sends_ends_in_order,
    unix_server,
)

__all__ = [
    "backend",
    "serve",
    "test_a_client_that_is_cut_is_no_end_in_order",
    "test_a_server_that_is_down",
    "test_a_server_that_reads_no_more_still_answers",
    "test_a_server_that_resets_cuts_the_client",
    "test_a_wrong_client_certificate_never_reaches_the_server",
    "test_half_closes_are_passed_on_both_ways",
    "test_it_is_killed_itself",
    "test_two_hundred_at_once",
    "test_what_the_server_sends_ends_in_order",
]


def test_a_connection_outlives_ssad(serve, capabilities, tmp_path, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "ktls"\n'
    daemon = peers.Daemon(tmp_path, policy=policy)

    def echo(plain):
        while data := plain.recv(1 << 16):
            plain.sendall(data)

    with daemon, unix_server(tmp_path / "backend", echo) as to:
        service = serve("--to", to, daemon=daemon)
        with client(pki, service.port) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            daemon.process.kill()
            daemon.process.wait()
            tls.sendall(b"y")
            assert tls.recv(1) == b"y"
