"""A client that asks and takes nothing: `python3 load-tests/stallers.py PORT CA HOST KINDS CONNECTIONS ADDRESS`.

From its one address it opens the connections, of the kinds in turn, asks for as much as a connection may ask for, and keeps
its windows shut, or over HTTP/1.1 does not read. What the edge has closed is opened again. A line says when each of them
has been open once, another one at the end of its input how many are open, were opened and closed.
"""

import os
import selectors
import socket
import ssl
import struct
import sys
import time
from functools import cache

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS = 1, 4
STREAMS = 100
# What a client may send of one body, and of all of a connection, before anything is granted (RFC 9113 §6.9.2).
UNASKED = 65_535
# Bytes of bodies in one frame, by kind.
PIECES = {"uploads": 16_384, "specks": 1}
# Connections that shake hands at once, and how long one of them may.
AT_ONCE, HANDSHAKE_S = 32, 60
# Of connections that were closed, in a second.
AGAIN = 50
# Whoever started this may be gone.
LASTS_S = 600


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A field that is written out and not remembered (RFC 7541 §6.2.2)."""
    return b"\0" + string(name) + string(value)


def string(text):
    return integer(len(text), 7) + text


def integer(value, bits):
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    value, out = value - most, bytearray([most])
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes(out + bytes([value]))


def head(host, path, method=b"GET", fields=()):
    block = literal(b":method", method) + b"\x87" + literal(b":path", path) + literal(b":authority", host)
    return block + b"".join(literal(name, value) for name, value in fields)


def asked(host, path, method=b"GET", fields=(), body=b""):
    """The same on every stream of a connection."""
    for at in range(STREAMS):
        stream, flags = 2 * at + 1, END_HEADERS | (0 if body else END_STREAM)
        yield frame(HEADERS, flags, stream, head(host, path, method, fields))
        if body:
            yield frame(DATA, END_STREAM, stream, body)


def bombs(host):
    """A field that goes into the table once, and then a byte for each time that it is meant."""
    for at in range(STREAMS):
        block = head(host, b"/") + b"\x40" + string(b"a") + string(b"") + b"\xbe" * 1900
        yield frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, block)


def crumbs(host):
    """As many cookies as a head may have bytes for."""
    block = head(host, b"/open") + b"\x40" + string(b"cookie") + string(b"a") + b"\xbe" * 790
    for at in range(STREAMS):
        yield frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, block)


def unread(host):
    """Requests with a body, for an application that does not take it. The bodies are sent as windows open."""
    for at in range(STREAMS):
        fields = [(b"content-length", b"10000000")]
        yield frame(HEADERS, END_HEADERS, 2 * at + 1, head(host, b"/open/unread", b"POST", fields))


def readers(host):
    """HTTP/1.1: one answer that is not read."""
    yield b"GET /open HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def posting_readers(host):
    yield b"POST /open HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 1\r\n\r\nx"


def uploaders(host):
    yield b"POST /open/unread HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 10000000\r\n\r\n" + b"x" * (1 << 20)


SHUT, OPEN = 0, (1 << 31) - 1
# The window that the client has for each answer (none over HTTP/1.1), and what it sends.
KINDS = {
    "refused-heads": (SHUT, bombs),
    "crumbs": (SHUT, crumbs),
    "error-pages": (SHUT, lambda host: asked(host, b"/", b"GET", [(b"expect", b"x"), (b"accept", b"text/html")])),
    "answers": (SHUT, lambda host: asked(host, b"/open")),
    "odd-answers": (SHUT, lambda host: asked(host, b"/open", b"GET", [(b"content-length", b"0")])),
    "posted": (SHUT, lambda host: asked(host, b"/open", b"POST", (), b"x")),
    "sign-on": (SHUT, lambda host: asked(b"sentry." + host, b"/login?redirectURL=https%3A%2F%2F" + host + b"%2F")),
    "compressed": (SHUT, lambda host: asked(host, b"/open/packed", b"GET", [(b"accept-encoding", b"br")])),
    "sockets": (OPEN, lambda host: asked(host, b"/open")),
    "posted-sockets": (OPEN, lambda host: asked(host, b"/open", b"POST", (), b"x")),
    "heads-sockets": (OPEN, lambda host: asked(host, b"/", b"HEAD")),
    "uploads": (SHUT, unread),
    # In pieces as short as they may be.
    "specks": (SHUT, unread),
    "readers": (None, readers),
    "posting-readers": (None, posting_readers),
    "uploaders": (None, uploaders),
}


@cache
def beginning(kind, host):
    """What a connection of this kind sends: made once, and shared by all of them."""
    window, sends = KINDS[kind]
    begin = b""
    if window is not None:
        begin = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)) + frame(SETTINGS, 1, 0)
        if window == OPEN:
            begin += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", OPEN - UNASKED))
    return begin + b"".join(sends(host.encode()))


class Connection:
    """It connects, shakes hands, and writes all that is taken. What comes stays in the kernel, but for HTTP/2 with its
    windows shut, where little comes and settings are to be acknowledged."""

    def __init__(self, kind, is_first, port, contexts, host, source):
        self.kind, self.is_first, window = kind, is_first, KINDS[kind][0]
        self.reads, self.is_open, self.late = window == SHUT, False, time.monotonic() + HANDSHAKE_S
        raw = socket.socket()
        # So that not much fits into the kernel on either side.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.bind((source, 0))
        raw.setblocking(False)
        raw.connect_ex(("127.0.0.1", port))
        name = f"sentry.{host}" if kind == "sign-on" else host
        self.socket = raw
        self.secured = lambda: contexts[window is None].wrap_socket(
            raw, server_hostname=name, do_handshake_on_connect=False
        )
        self.waiting = memoryview(beginning(kind, host))
        # Of bodies: what may be sent on each stream, and on the connection.
        self.windows = dict.fromkeys([0, *range(1, 2 * STREAMS, 2)], UNASKED) if kind in PIECES else {}
        self.received = bytearray()

    def hear(self, received):
        """Windows that open."""
        self.received += received
        while len(self.received) >= 9:
            size = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + size:
                return
            kind, stream = self.received[3], int.from_bytes(self.received[5:9], "big")
            if kind == WINDOW_UPDATE and stream in self.windows:
                self.windows[stream] += int.from_bytes(self.received[9:13], "big")
            if kind == RST_STREAM:
                self.windows.pop(stream, None)
            del self.received[: 9 + size]

    def body(self):
        """The next of bodies: a piece of each, as far as the windows go."""
        size, frames = PIECES[self.kind], []
        for stream in list(self.windows):
            if stream and len(frames) < 200 and min(self.windows[stream], self.windows[0]) >= size:
                frames.append(frame(DATA, 0, stream, b"x" * size))
                self.windows[stream] -= size
                self.windows[0] -= size
        return b"".join(frames)

    def go_on(self):
        """Returns whether the connection is still of use."""
        try:
            if not self.is_open:
                self.socket.do_handshake()
                self.is_open = True
            self.write()
            is_there = not self.reads or self.read()
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        if self.windows and not self.waiting:
            self.waiting = memoryview(self.body())
        return is_there

    def write(self):
        try:
            if self.waiting:
                self.waiting = self.waiting[self.socket.send(self.waiting[: 64 << 10]) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    def read(self):
        try:
            while received := self.socket.recv(65536):
                if self.windows:
                    self.hear(received)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return True
        return False

    def events(self):
        """What it waits for: nothing any more where it does not read and has sent all."""
        if not self.is_open or self.waiting:
            return selectors.EVENT_READ | selectors.EVENT_WRITE
        return selectors.EVENT_READ if self.reads else 0


class Client:
    def __init__(self, port, ca, host, kinds, connections, address):
        self.contexts = {}
        for is_http1 in (False, True):
            context = ssl.create_default_context(cafile=ca)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["http/1.1" if is_http1 else "h2"])
            self.contexts[is_http1] = context
        self.port, self.host, self.address = port, host, address
        self.selector = selectors.DefaultSelector()
        # Those that are new, then those that the edge has closed or that it did not take, which may be new still.
        self.due, self.again = [kinds[at % len(kinds)] for at in range(connections)], []
        self.shaking, self.kept, self.watched = set(), set(), {}
        self.begun, self.opened, self.closed, self.failed, self.next = 0, 0, 0, 0, 0.0

    def begin(self):
        while self.due and len(self.shaking) < AT_ONCE:
            self.connect(self.due.pop(), True)
        now = time.monotonic()
        if self.again and now >= self.next and len(self.shaking) < AT_ONCE:
            self.next = now + 1 / AGAIN
            self.connect(*self.again.pop(0))

    def connect(self, kind, is_first):
        one = Connection(kind, is_first, self.port, self.contexts, self.host, self.address)
        self.shaking.add(one)
        # Its TCP handshake is over when it can be written to.
        self.watch(one, selectors.EVENT_WRITE)

    def watch(self, one, events):
        """Registers a socket for what it waits for, if that has changed."""
        before = self.watched.get(one, 0)
        if events == before:
            return
        if not before:
            self.selector.register(one.socket, events, one)
        elif not events:
            self.selector.unregister(one.socket)
        else:
            self.selector.modify(one.socket, events, one)
        self.watched[one] = events

    def turn(self):
        self.begin()
        for key, _ in self.selector.select(0.02):
            self.advance(key.data)
        now = time.monotonic()
        for one in [one for one in self.shaking if one.late < now]:
            self.give_up(one)

    def advance(self, one):
        if not isinstance(one.socket, ssl.SSLSocket):
            self.watch(one, 0)
            try:
                one.socket = one.secured()
            except OSError:
                self.give_up(one)
                return
        if not one.go_on():
            self.give_up(one)
            return
        if one.is_open and one in self.shaking:
            self.shaking.remove(one)
            self.kept.add(one)
            self.opened += 1
            self.begun += one.is_first
        self.watch(one, one.events())

    def give_up(self, one):
        """One that the edge has closed, or that it did not take."""
        if one in self.kept:
            self.kept.remove(one)
            self.closed += 1
            self.again.append((one.kind, False))
        else:
            self.shaking.discard(one)
            self.failed += 1
            self.again.append((one.kind, one.is_first))
        self.watch(one, 0)
        self.watched.pop(one, None)
        one.socket.close()


def main():
    port, ca, host, kinds, connections, address = sys.argv[1:7]
    client = Client(int(port), ca, host, kinds.split(","), int(connections), address)
    os.set_blocking(0, False)
    is_ready, end = False, time.monotonic() + LASTS_S
    while sys.stdin.buffer.raw.read(1) is None and time.monotonic() < end:
        client.turn()
        if not is_ready and client.begun == int(connections):
            is_ready = True
            print("ready", flush=True)
    print(f"figures open={len(client.kept)} opened={client.opened} closed={client.closed} failed={client.failed}")


if __name__ == "__main__":
    main()
