"""The handshake: OpenSSL without I/O (engine), on an application's own descriptor (driver), to the keys (secrets)."""
