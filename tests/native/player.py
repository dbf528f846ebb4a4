"""Plays the cases of conformance.json: `player.py library` by the Python library, `player.py socket` by the socket API.

The latter is Python's own `socket` module, in a process that has libssa preloaded: what it calls are libc's functions.
A case is a list of steps in JSON on the standard input; what each gives is printed as JSON: a value, or the name of an
errno.
"""

import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys

import ssa

IPPROTO = ssa.IPPROTO_TLS
LIBRARY = sys.argv[1] == "library"
NAMES = errno.errorcode | {errno.EOPNOTSUPP: "EOPNOTSUPP"}  # which is ENOTSUP too


class Bare:
    """A descriptor of ssa_connect_tls, by the functions of ssa.h."""

    native = None if LIBRARY else ctypes.CDLL(os.environ["LD_PRELOAD"].split(":")[0], use_errno=True)

    def __init__(self, host, port):
        self.fd = ssa.connect_tls(host, port) if LIBRARY else self._checked("connect_tls", _c(host), _c(port), None)

    def _checked(self, name, *arguments):
        done = getattr(self.native, f"ssa_{name}")(*arguments)
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return done

    def recv(self, size):
        if LIBRARY:
            return ssa.recv(self.fd, size)
        buffer = ctypes.create_string_buffer(size)
        got = self._checked("recv", self.fd, buffer, size)
        return buffer.raw[:got]

    def send(self, data):
        return ssa.send(self.fd, data) if LIBRARY else self._checked("send", self.fd, data, len(data))

    def close(self):
        return ssa.close(self.fd) if LIBRARY else self._checked("close", self.fd)

    def fileno(self):
        return self.fd


def tell(**words):
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _c(value):
    return str(value).encode()


def _numbers(flags):
    """MSG_* flags as the one argument that they are; none where there are none."""
    return [sum(getattr(socket, flag) for flag in flags)] if flags else []


class Player:
    """The objects of a case by their names, and what can be done with them."""

    def __init__(self):
        self.named = {}

    def play(self, call, *arguments):
        try:
            return getattr(self, call)(*arguments)
        except OSError as exc:
            return {"errno": NAMES.get(exc.errno, str(exc.errno))}

    def socket(self, name, family="AF_INET", kind="SOCK_STREAM"):
        make = ssa.socket if LIBRARY else socket.socket
        self.named[name] = make(getattr(ssa, family, None) or getattr(socket, family), getattr(socket, kind), IPPROTO)

    def plain(self, name, host, port):
        """A connection in plain text, to be upgraded."""
        plain = socket.create_connection((host, port), timeout=None)
        self.named[name] = ssa.socket(fileno=plain.detach()) if LIBRARY else plain

    def bare(self, name, host, port):
        self.named[name] = Bare(host, port)

    def connect(self, name, host, port):
        self.named[name].connect((host, port))

    def set(self, name, option, value):
        value = value.encode() if isinstance(value, str) else value
        self.named[name].setsockopt(IPPROTO, getattr(ssa, option), value)

    def setopt(self, name, option, value):
        level = socket.IPPROTO_TCP if option.startswith("TCP_") else socket.SOL_SOCKET
        value = struct.pack("ii", *value) if isinstance(value, list) else value
        number = 42 if option == "SO_PEEK_OFF" else getattr(socket, option)
        self.named[name].setsockopt(level, number, value)

    def timeval(self, name, option, microseconds):
        value = struct.pack("ll", 0, microseconds)
        self.named[name].setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)

    def getopt(self, name, option):
        level = socket.IPPROTO_TCP if option.startswith("TCP_") else socket.SOL_SOCKET
        return self.named[name].getsockopt(level, getattr(socket, option))

    def get(self, name, option, room=1024):
        value = self.named[name].getsockopt(IPPROTO, getattr(ssa, option), room)
        return value.decode()

    def number(self, name, option):
        sock, number = self.named[name], getattr(ssa, option)
        value = sock.getsockopt(IPPROTO, number) if LIBRARY else sock.getsockopt(IPPROTO, number, 4)
        return value if isinstance(value, int) else int.from_bytes(value, sys.byteorder)

    def error(self, name):
        code = self.named[name].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode.get(int(code), 0) if code else 0

    def blocking(self, name, waits):
        self.named[name].setblocking(bool(waits))

    def poll(self, name, events, seconds):
        poll = select.poll()
        poll.register(self.named[name].fileno(), {"in": select.POLLIN, "out": select.POLLOUT}[events])
        return bool(poll.poll(seconds * 1000))

    def epoll(self, name, events, seconds):
        """Register once; later calls wait."""
        if f"epoll {name}" not in self.named:
            self.named[f"epoll {name}"] = select.epoll()
            wanted = {"in": select.EPOLLIN, "out": select.EPOLLOUT}[events]
            self.named[f"epoll {name}"].register(self.named[name].fileno(), wanted)
        return bool(self.named[f"epoll {name}"].poll(seconds))

    def send(self, name, text, flags=0):
        data = text.encode()
        return self.named[name].send(data, flags) if flags else self.named[name].send(data)

    def sendall(self, name, count):
        """So many bytes of a pattern."""
        self.named[name].sendall(bytes(range(256)) * (count // 256))

    def write(self, name, text):
        return os.write(self.named[name].fileno(), text.encode())

    def writev(self, name, *texts):
        return os.writev(self.named[name].fileno(), [text.encode() for text in texts])

    def sendmsg(self, name, *texts):
        return self.named[name].sendmsg([text.encode() for text in texts])

    def sendfile(self, name, path, offset=0):
        with open(path, "rb") as file:
            return self.named[name].sendfile(file, offset)

    def recv(self, name, size, *flags):
        return self.named[name].recv(size, *_numbers(flags)).decode("latin1")

    def recv_count(self, name, count):
        """Read so many bytes of the pattern, or to the end: how many came, whether they were right."""
        got = bytearray()
        while len(got) < count and (data := self.named[name].recv(65536)):
            got += data
        return [len(got), bytes(got) == (bytes(range(256)) * (count // 256 + 1))[: len(got)]]

    def gather(self, name, count):
        """Read so many bytes, or to the end, each time with room to spare."""
        got = b""
        while len(got) < count and (data := self.named[name].recv(100)):
            got += data
        return got.decode("latin1")

    def recvmsg(self, name, size, *flags):
        data, ancillary, _, _ = self.named[name].recvmsg(size, 100, *_numbers(flags))
        return [data.decode("latin1"), len(ancillary)]

    def recvfrom(self, name, size):
        data, address = self.named[name].recvfrom(size)
        self.named["address"] = address
        return [data.decode("latin1"), address and list(address)[:1]]

    def reply(self, name, text):
        """To whom the last datagram came from."""
        return self.named[name].sendto(text.encode(), self.named["address"])

    def connect_host(self, name, host, port):
        """connect(2) with an address of AF_HOSTNAME: struct sockaddr_host of ssa.h."""
        address = struct.pack("=H", ssa.AF_HOSTNAME) + struct.pack("!H255s", port, host.encode())
        if Bare.native.connect(self.named[name].fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def sendto(self, name, text, host, port):
        return self.named[name].sendto(text.encode(), (host, port))

    def shutdown(self, name, how):
        self.named[name].shutdown(getattr(socket, f"SHUT_{how}"))

    def dup(self, name, twin):
        if LIBRARY:
            self.named[twin] = self.named[name].dup()
        else:
            self.named[twin] = socket.socket(fileno=os.dup(self.named[name].fileno()))

    def close(self, name):
        self.named.pop(name).close()

    def bind(self, name, host, port):
        self.named[name].bind((host, port))

    def listen(self, name, backlog=8):
        self.named[name].listen(backlog)

    def port(self, name):
        """Tell the test where the socket is bound, and wait until its client has begun."""
        tell(port=self.named[name].getsockname()[1])
        sys.stdin.readline()

    def accept(self, name, accepted):
        self.named[accepted], address = self.named[name].accept()
        self.named[accepted].setblocking(True)  # whatever the listener is
        return address[0]

    def peername(self, name):
        return self.named[name].getpeername()[0]

    def linger(self, name, on, seconds):
        self.named[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, seconds))


def main():
    """Play a case a line, until there is none. What a case has left open stays so until the next one, or the end."""
    while line := sys.stdin.readline():
        player = Player()
        results = [player.play(*step) for step in json.loads(line)]
        tell(results=results)
    os._exit(0)


main()
