"""An application that does what nginx alone does not: `python3 load-tests/application.py PORT [LATE]`.

It answers 128 bytes, as the other one does, and by path: `/late` after LATE seconds (1), give or take a half, `/counts` with what it
has counted; to a request with a body, when the whole of it is there. Who asks for a WebSocket gets each message back.
"""

import asyncio
import base64
import hashlib
import random
import re
import sys
from collections import Counter

ANSWER = b"0123456789abcdef" * 7 + b"0123456789abcde\n"
LATE = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
# All connections read into this one, one after the other.
BUFFER = memoryview(bytearray(256 << 10))
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)
KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)\r\n", re.I)
# A message of a client: its end and kind, its length, four bytes of mask. Ours are shorter than 126 bytes.
HEAD, MASK = 2, 4
COUNTS = Counter(received=0, waiting=0, late=0, echoed=0)


def accept(key):
    """What answers a Sec-WebSocket-Key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def masked(payload, mask):
    """With its mask, or without it again."""
    whole = (mask * (len(payload) // MASK + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(payload), "big")


class Connection(asyncio.BufferedProtocol):
    def __init__(self):
        self.kept, self.left, self.talks = b"", 0, False

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, _):
        return BUFFER

    def buffer_updated(self, length):
        if self.left:
            self.body(length)
            return
        self.kept += BUFFER[:length]
        if self.talks:
            self.messages()
        elif b"\r\n\r\n" in self.kept:
            head, self.kept = self.kept.split(b"\r\n\r\n", 1)
            self.request(head + b"\r\n")

    def request(self, head):
        key, length = KEY.search(head), LENGTH.search(head)
        if key:
            self.talks = True
            fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + accept(key.group(1)) + b"\r\n\r\n")
        elif head.startswith(b"GET /late "):
            COUNTS["waiting"] += 1
            asyncio.get_running_loop().call_later(random.uniform(0.5 * LATE, 1.5 * LATE), self.late)
        elif head.startswith(b"GET /counts "):
            self.answer(b"figures " + b" ".join(b"%s=%d" % (name.encode(), count) for name, count in COUNTS.items()))
        elif length and int(length.group(1)):
            self.left, began = int(length.group(1)), len(self.kept)
            self.kept = b""
            self.body(began)
        else:
            self.answer()

    def body(self, length):
        COUNTS["received"] += length
        self.left -= length
        if not self.left:
            self.answer()

    def late(self):
        COUNTS["waiting"] -= 1
        COUNTS["late"] += 1
        self.answer()

    def answer(self, body=ANSWER):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def messages(self):
        while len(self.kept) >= HEAD:
            kind, length = self.kept[0], self.kept[1] & 0x7F
            begin, end = HEAD + MASK, HEAD + MASK + length
            if len(self.kept) < end:
                return
            message = masked(self.kept[begin:end], self.kept[HEAD:begin])
            self.kept = self.kept[end:]
            self.transport.write(bytes([kind, length]) + message)
            COUNTS["echoed"] += 1


async def serve(port):
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(int(sys.argv[1])))
    except KeyboardInterrupt:
        pass
