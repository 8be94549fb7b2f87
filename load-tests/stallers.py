"""Clients that ask and take nothing: `python3 load-tests/stallers.py PORT CA HOST KIND CONNECTIONS ADDRESSES`.

Each of so many addresses (127.0.0.2 and those that follow) opens its part of the connections, asks for as much as a
connection may ask for, and keeps its windows shut, or over HTTP/1.1 does not read. What the edge has closed is opened
again. A line says when all of them have been, and one at the end of its input how often.
"""

import os
import selectors
import socket
import ssl
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
END_STREAM, END_HEADERS = 1, 4
STREAMS = 100
# What a client may send of one body, and of all of a connection, before anything is granted (RFC 9113 §6.9.2).
UNASKED = 65_535
# Bytes of bodies in one frame, by kind.
PIECES = {"uploads": 16_384, "specks": 1}
# Of connections that were closed, in a second.
AGAIN = 50


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
# Whether it is HTTP/2, the window that the client has for each answer, and what it sends.
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


class Staller:
    """One connection: it writes all that is taken. What comes stays in the kernel, but for HTTP/2 with its windows shut,
    where little comes and settings are to be acknowledged."""

    def __init__(self, kind, port, context, host, source):
        self.kind = kind
        window, sends = KINDS[kind]
        self.reads = window == SHUT
        raw = socket.socket()
        # So that not much fits into the kernel on either side.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.bind((source, 0))
        raw.settimeout(20)
        raw.connect(("127.0.0.1", port))
        context = context[window is None]
        name = f"sentry.{host}" if kind == "sign-on" else host
        self.socket = context.wrap_socket(raw, server_hostname=name)
        self.socket.setblocking(False)
        begin = b""
        if window is not None:
            settings = struct.pack(">HI", 4, window)
            begin = PREFACE + frame(SETTINGS, 0, 0, settings) + frame(SETTINGS, 1, 0)
            if window == OPEN:
                begin += frame(8, 0, 0, struct.pack(">I", OPEN - UNASKED))
        self.waiting = memoryview(begin + b"".join(sends(host.encode())))
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
        """Answers whether the connection is still open."""
        try:
            if not self.waiting and self.windows:
                self.waiting = memoryview(self.body())
            if self.waiting:
                self.waiting = self.waiting[self.socket.send(self.waiting[: 64 << 10]) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError:
            return False
        if not self.reads:
            return True
        try:
            while True:
                received = self.socket.recv(65536)
                if not received:
                    return False
                if self.windows:
                    self.hear(received)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False


class Crowd:
    def __init__(self, port, ca, host, kinds, connections, addresses):
        self.contexts = {}
        for is_http1 in (False, True):
            context = ssl.create_default_context(cafile=ca)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["http/1.1" if is_http1 else "h2"])
            self.contexts[is_http1] = context
        self.port, self.host = port, host
        self.closed, self.failed, self.selector = 0, 0, selectors.DefaultSelector()
        self.due = [(kinds[at % len(kinds)], f"127.0.0.{2 + at % addresses}") for at in range(connections)]
        self.most, self.open, self.next = connections, 0, 0.0

    def turn(self):
        now = time.monotonic()
        batch = 16
        while self.due and batch and (self.closed == 0 or now >= self.next):
            batch -= 1
            kind, source = self.due.pop()
            if self.closed:
                self.next = now + 1 / AGAIN
            try:
                one = Staller(kind, self.port, self.contexts, self.host, source)
            except OSError:
                self.failed += 1
                continue
            one.source = source
            self.selector.register(one.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, one)
            self.open += 1
        for key, _ in self.selector.select(0.02):
            one = key.data
            if not one.go_on():
                self.closed += 1
                self.open -= 1
                self.selector.unregister(one.socket)
                one.socket.close()
                self.due.append((one.kind, one.source))
            elif not one.waiting and not one.windows:
                # Written whole: only what comes is of interest, and of those who do not read not even that.
                if one.reads:
                    self.selector.modify(one.socket, selectors.EVENT_READ, one)
                else:
                    self.selector.unregister(one.socket)
                    KEPT.append(one)


KEPT = []


def main():
    port, ca, host, kinds, connections, addresses = sys.argv[1:7]
    crowd = Crowd(int(port), ca, host, kinds.split(","), int(connections), int(addresses))
    os.set_blocking(0, False)
    is_ready = False
    while sys.stdin.buffer.raw.read(1) is None:
        crowd.turn()
        if not is_ready and not crowd.due:
            is_ready = True
            print("ready", flush=True)
    print(f"figures open={crowd.open} closed={crowd.closed} failed={crowd.failed}")


if __name__ == "__main__":
    main()
