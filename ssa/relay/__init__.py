"""The relay: the daemon does the record crypto, and the application holds one end of a socket pair.

    application ── one end of a pair ── ssad: OpenSSL's connection ── the TCP socket ── peer

The application's descriptor behaves as one does whose keys are in the kernel. An end of a pair cannot tell how a
stream has ended: so the library asks the daemon (Describe), and tells it when the stream ends in order (Close).
"""

from ssa.relay.choice import reason_for, reason_for_limit, reason_for_suite
from ssa.relay.connection import Relay
from ssa.relay.threads import Relays

__all__ = ["Relay", "Relays", "reason_for", "reason_for_limit", "reason_for_suite"]
