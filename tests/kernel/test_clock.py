"""The machine's clock moves while ssad runs. It is moved for real, so only where the machine is one made for tests."""

import contextlib
import time
from datetime import timedelta
from pathlib import Path

import pytest

import ssa
from tests import peers
from tests.peers import Daemon
from tests.unit.trust_factory import leaf, root

DAY = 24 * 3600


@pytest.fixture
def clock(capabilities):
    """Moves the clock by days from now. Put right at the end."""
    if "User Mode Linux" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("moves the clock: only on user-mode Linux (KERNEL=6.1 tools/kernel-run)")
    began = time.time() - time.monotonic()

    def move(days):
        time.clock_settime(time.CLOCK_REALTIME, began + time.monotonic() + days * DAY)

    yield move
    move(0)


@pytest.mark.parametrize("directions", [(0, 300, -300, 0, 300), (-300, 0, 300), (300, 0, -300)])
def test_each_handshake_is_judged_by_the_clock_of_its_moment(clock, tmp_path, monkeypatch, directions):
    """By OpenSSL, too, which is asked about a certificate that is newer than the daemon."""
    anchor = root(start=timedelta(days=-999), end=timedelta(days=999))
    (tmp_path / "anchor.pem").write_bytes(anchor.pem)
    daemon = Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{tmp_path / "anchor.pem"}"\n')
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    clock(directions[0])
    with daemon, contextlib.ExitStack() as servers:
        ports = {}
        for day in (-300, 0, 300):
            made = leaf(
                anchor, "localhost", start=timedelta(days=day - 9), end=timedelta(days=day + 9), subject=str(day)
            )
            pair = tmp_path / f"{day}.pem", tmp_path / f"{day}.key"
            pair[0].write_bytes(made.pem)
            pair[1].write_bytes(made.key_pem)
            ports[day], _ = servers.enter_context(peers.openssl(peers.PKI(tmp_path / "pki"), "-rev", cert=pair))
        for now in directions:
            clock(now)
            assert {day: outcome(port) for day, port in ports.items()} == {
                day: "CERTIFICATE_EXPIRED" if day < now else "CERTIFICATE_NOT_YET_VALID" if day > now else "taken"
                for day in ports
            }


def outcome(port):
    try:
        ssa.create_connection(("localhost", port), timeout=10).close()
    except ssa.CertificateError as exc:
        return exc.reason
    return "taken"
