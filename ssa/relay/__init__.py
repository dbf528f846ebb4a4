"""The other data path: the daemon does the record crypto, and the application holds one end of a socket pair.

    application ── one end of a pair ── ssad: OpenSSL's connection ── the TCP socket ── peer

The descriptor means the same as on the kernel path. What the pair's end cannot say by itself, its library asks: how
the stream ended (`ssa.protocol.wire.Describe`), and says: that it ends in order (`ssa.protocol.wire.Close`).
"""

from ssa.relay.choice import reason_for, reason_for_limit, reason_for_suite
from ssa.relay.connection import Relay
from ssa.relay.threads import Relays

__all__ = ["Relay", "Relays", "reason_for", "reason_for_limit", "reason_for_suite"]
