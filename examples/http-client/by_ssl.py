"""http_client HOST PORT PATH: prints what a web server has there."""

import socket
import ssl
import sys


def main() -> int:
    """Run the program. Returns its exit status."""
    if len(sys.argv) != 4:
        print("usage: http_client HOST PORT PATH", file=sys.stderr)
        return 2
    host, port, path = sys.argv[1:]
    context = ssl.create_default_context()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    try:
        with (
            socket.create_connection((host, int(port))) as tcp,
            context.wrap_socket(tcp, server_hostname=host, suppress_ragged_eofs=False) as connection,
        ):
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            while data := connection.recv(16384):
                sys.stdout.buffer.write(data)
    except OSError as failure:
        print(f"{host}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
