"""A crowd of WebSockets that talk: each says something now and then, and is told the same again."""

import base64
import os
import selectors
import socket
import ssl
import time

import measure
from application import accept, masked
from stage import HOST, Failed

# Bytes of a message; before them there are two of head, and four of mask where a client sends it.
PAYLOAD = 64
WHOLE_TEXT, MASKED = 0x81, 0x80
# For the last echoes, when the time is over.
PATIENCE = 10


class Talker:
    """One connection; at most one message of it is on its way."""

    def __init__(self, stage, port, token, context):
        raw = socket.create_connection(("127.0.0.1", port), 10)
        self.socket = context.wrap_socket(raw, server_hostname=HOST)
        self.expected, self.got, self.said = b"", b"", 0.0
        self.key = base64.b64encode(os.urandom(16))
        head = self.shake_hands(port, measure.headers(token) if token else {})
        self.status, self.open = int(head.split(b" ", 2)[1]), accept(self.key) in head
        self.socket.setblocking(False)

    def shake_hands(self, port, fields):
        more = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        more += f"Origin: https://{HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        head = f"GET /socket HTTP/1.1\r\nHost: {HOST}:{port}\r\n{more}Sec-WebSocket-Key: ".encode()
        self.socket.sendall(head + self.key + b"\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.socket.recv(16384)
            if not piece:
                raise Failed("a WebSocket was closed in its handshake")
            head += piece
        return head

    def say(self, now):
        if self.expected:
            raise Failed(f"an echo took more than {now - self.said:.1f} s")
        payload, mask = base64.b64encode(os.urandom(PAYLOAD * 3 // 4)), os.urandom(4)
        self.expected, self.got, self.said = bytes([WHOLE_TEXT, PAYLOAD]) + payload, b"", now
        self.socket.send(bytes([WHOLE_TEXT, MASKED | PAYLOAD]) + mask + masked(payload, mask))

    def hear(self):
        """Whether the echo is there."""
        while not self.expected or self.got != self.expected:
            try:
                piece = self.socket.recv(16384)
            except ssl.SSLWantReadError:
                return False
            self.got += piece
            if not piece or not self.expected.startswith(self.got):
                raise Failed("an echo is not what was said" if piece else "a WebSocket was closed")
        self.expected = b""
        return True


class Talkers:
    def __init__(self, stage, port, token, count):
        context = ssl.create_default_context(cafile=stage.folder / "cert.pem")
        self.selector, self.all = selectors.DefaultSelector(), []
        try:
            for _ in range(count):
                one = Talker(stage, port, token, context)
                self.all.append(one)
                if (one.status, one.open) != (101, True):
                    raise Failed(f"WebSocket {len(self.all)} got {one.status}")
                self.selector.register(one.socket, selectors.EVENT_READ, one)
        except (Failed, OSError):
            self.close()
            raise

    def talk(self, seconds, each_second):
        """One after the other says something, evenly. How long each echo took, in milliseconds."""
        begun, said, took = time.monotonic(), 0, []
        while len(took) < seconds * each_second:
            now = time.monotonic()
            while said < seconds * each_second and begun + said / each_second <= now:
                self.all[said % len(self.all)].say(time.monotonic())
                said += 1
            if now > begun + seconds + PATIENCE:
                raise Failed(f"{said - len(took)} of {said} echoes did not come")
            for key, _ in self.selector.select(max(0.0, begun + said / each_second - time.monotonic())):
                if key.data.hear():
                    took.append((time.monotonic() - key.data.said) * 1000)
        return sorted(took)

    def close(self):
        self.selector.close()
        for one in self.all:
            one.socket.close()
