"""Unmodified curl, newly started, and a megabyte: by ssa, by its own OpenSSL, and without TLS (`make native` first)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.crowds import CURL, crowd, preload
from bench.measure import Row, interleaved
from bench.world import HOST, beside, x25519

if TYPE_CHECKING:
    from bench.world import World

_TIMES = 31
_MOST_OF_BUNDLE = 0.4  # of curl with OpenSSL and the system's trust anchors
_MOST_ABOVE_HTTP = 6  # milliseconds


def curls(world: World) -> list[Row]:
    """Rows for curl by ssa beside OpenSSL with the system's anchors and with one, and beside HTTP; and the hybrid's."""
    url, plain = (
        f"{scheme}://{HOST}:{port}/megabyte" for scheme, port in (("https", world.tls13), ("http", world.http))
    )
    with x25519(world):
        ours, bundle, one, http = interleaved(
            _TIMES,
            partial(crowd, 1, [*CURL, url], preload(world)),
            partial(crowd, 1, [*CURL, url, "--cacert", world.anchors]),
            partial(crowd, 1, [*CURL, url, "--cacert", world.ca]),
            partial(crowd, 1, [*CURL, plain]),
            warm_up=2,
        )
    added = ours.median - http.median
    return [
        Row.compared(
            "curl, 1 MB, new process: beside OpenSSL with the system's trust anchors",
            "ms",
            ours,
            bundle,
            _MOST_OF_BUNDLE,
            f"<= {_MOST_OF_BUNDLE}",
        ),
        Row(
            name="beside OpenSSL with one trust anchor",
            unit="ms",
            ours=ours,
            theirs=one,
            ratio=ours.median / one.median,
        ),
        Row(
            name="beside HTTP without TLS",
            unit="ms",
            ours=ours,
            theirs=http,
            ratio=ours.median / http.median,
            aim=f"<= {_MOST_ABOVE_HTTP} ms more",
            met=added <= _MOST_ABOVE_HTTP,
            note=f"{added:.1f} ms more",
        ),
        _hybrid(world),
    ]


def _hybrid(world: World) -> Row:
    """Measure what the hybrid key exchange costs, with a server of ours: the nginx here has none."""
    with beside("server", "web", world.cert, world.key) as port:
        command, environment = [*CURL, f"https://{HOST}:{port}/"], preload(world)
        default = world.daemon.get("policy/groups")

        def under(groups: str) -> float:
            world.daemon.set("groups", groups)
            return crowd(1, command, environment)

        hybrid, alone = interleaved(_TIMES, lambda: under(default), lambda: under("x25519"), warm_up=2)
        world.daemon.set("groups", default)
    return Row(
        name="X25519MLKEM768 at both ends, beside x25519: both by one ssad",
        unit="ms",
        ours=hybrid,
        ratio=hybrid.median / alone.median,
        note=f"x25519: {alone.median:.1f} ms",
    )
