"""The library: the part of ssa that runs in applications. It has the socket API, and asks the daemon."""
