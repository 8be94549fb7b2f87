"""Attacks over HTTP/2, frame by frame: `python3 load-tests/attackers.py PORT CA HOST`, until its input ends.

Each attack has as many connections as it may have; one that the edge has closed is opened again, at most so many in a
second. At the end a line tells of them, as wrk's scripts do.
"""

import os
import selectors
import socket
import ssl
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
# Of each attack at once, and new ones of all in a second.
AT_ONCE, IN_A_SECOND = 2, 20
# Bytes that are sent before others have their turn.
PIECE = 16 << 10


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def head(method, host):
    """The fields of a request in HPACK: by their places in the static table, and the host written out."""
    return bytes([method, 0x87, 0x84, 0x01, len(host)]) + host


GET, POST = 0x82, 0x83
# A field that is written out, of 14 bytes, many times.
FIELDS = b"\0\4fuzz\x071234567" * 800


def resets(host):
    """Streams that are opened and reset at once."""
    stream = 1
    while True:
        for _ in range(200):
            yield frame(HEADERS, END_HEADERS | END_STREAM, stream, head(GET, host))
            yield frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            stream += 2


def endless(begin, again):
    """A beginning, and then the same frame over and over."""

    def attack(host):
        yield from begin(host)
        while True:
            yield again

    return attack


def nothing(_):
    return []


def unfinished(host):
    return [frame(HEADERS, 0, 1, head(GET, host))]


ATTACKS = {
    "resets": resets,
    "heads": endless(unfinished, frame(CONTINUATION, 0, 1, FIELDS)),
    "pieces": endless(unfinished, frame(CONTINUATION, 0, 1)),
    "pings": endless(nothing, frame(PING, 0, 0, b"attacked")),
    "settings": endless(nothing, frame(SETTINGS, 0, 0)),
    "data": endless(lambda host: [frame(HEADERS, END_HEADERS, 1, head(POST, host))], frame(DATA, 0, 1)),
}


class Attack:
    """One connection: it writes all that is taken, and reads all that comes, so that nothing holds the edge up."""

    def __init__(self, name, port, context, host):
        self.name = name
        raw = socket.create_connection(("127.0.0.1", port), 10)
        self.socket = context.wrap_socket(raw, server_hostname=host)
        self.socket.setblocking(False)
        self.frames = ATTACKS[name](host.encode())
        self.waiting = memoryview(PREFACE + frame(SETTINGS, 0, 0))
        self.begun = time.monotonic()

    def go_on(self):
        """Answers whether the connection is still open."""
        try:
            self.write()
            return self.read()
        except OSError:
            return False

    def write(self):
        if not self.waiting:
            piece = bytearray()
            while len(piece) < PIECE:
                piece += next(self.frames)
            self.waiting = memoryview(bytes(piece))
        try:
            self.waiting = self.waiting[self.socket.send(self.waiting) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    def read(self):
        while True:
            try:
                if not self.socket.recv(65536):
                    return False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True


class Attackers:
    def __init__(self, port, ca, host):
        self.context = ssl.create_default_context(cafile=ca)
        self.context.set_alpn_protocols(["h2"])
        self.port, self.host = port, host
        self.open, self.took, self.selector = [], {name: [] for name in ATTACKS}, selectors.DefaultSelector()
        self.next_opening = time.monotonic()

    def reopen(self):
        now = time.monotonic()
        if now < self.next_opening:
            return
        for name in sorted(ATTACKS, key=lambda name: len(self.took[name])):
            if sum(one.name == name for one in self.open) < AT_ONCE:
                one = Attack(name, self.port, self.context, self.host)
                self.selector.register(one.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, one)
                self.open.append(one)
                self.next_opening = max(self.next_opening + 1 / IN_A_SECOND, now)
                return

    def turn(self):
        self.reopen()
        for key, _ in self.selector.select(1 / IN_A_SECOND):
            one = key.data
            if not one.go_on():
                self.took[one.name].append(time.monotonic() - one.begun)
                self.selector.unregister(one.socket)
                one.socket.close()
                self.open.remove(one)

    def figures(self):
        """Those that are open yet have lasted until now."""
        now = time.monotonic()
        lasted = [(took, name) for name, all_of_it in self.took.items() for took in all_of_it]
        lasted += [(now - one.begun, one.name) for one in self.open]
        for name, took in self.took.items():
            print(f"{name}: {len(took)} ended, within {max(took, default=0) * 1000:.0f} ms", file=sys.stderr)
        ended = sum(map(len, self.took.values()))
        fewest = min(map(len, self.took.values()))
        return f"figures attacks={ended} fewest={fewest} longest_ms={max(lasted)[0] * 1000:.1f}"


def main():
    port, ca, host = sys.argv[1:4]
    attackers = Attackers(int(port), ca, host)
    os.set_blocking(0, False)
    # Nothing is said to us; the end of the input is an empty read.
    while sys.stdin.buffer.raw.read(1) is None:
        attackers.turn()
    print(attackers.figures())


if __name__ == "__main__":
    main()
