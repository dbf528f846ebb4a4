"""DTLS: TLS over datagrams. No kernel protects its records, so the daemon keeps the UDP socket (docs/dtls.md)."""
