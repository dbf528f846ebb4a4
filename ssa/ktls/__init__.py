"""Kernel TLS: from secrets to keys, into the socket, and what the kernel says of it afterwards."""
