"""DTLS: what TLS is over datagrams. No kernel does its records, so the daemon keeps the UDP socket (docs/dtls.md)."""
