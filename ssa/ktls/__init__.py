"""Kernel TLS: from secrets to keys, from keys into the socket, and what the kernel tells of the socket."""
