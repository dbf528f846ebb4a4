"""What touches the bytes of applications and peers: handshakes, keys, the life after them."""
