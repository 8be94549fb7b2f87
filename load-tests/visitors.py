"""Browsers that sign on again and again, quicker than `signon.Browser`: connections are kept, and one thread has them all."""

import re
import selectors
import ssl
import time
from urllib.parse import urlencode, urlsplit

import peers
import signon
from stage import HOST, SENTRY_HOST, Failed

# Bytes of every page.
PAGE = 128
# For those who are on their way when the time is over.
PATIENCE = 20
LENGTH = re.compile(r"^content-length: *(\d+)\r$", re.I | re.M)
LOCATION = re.compile(r"^location: *(.*)\r$", re.I | re.M)
COOKIE = re.compile(r"^set-cookie: *([^=]+)=([^;\r]*)(.*)\r$", re.I | re.M)


class Visitor:
    """One browser, with a kept connection to the service's host and one to the sign-on host."""

    def __init__(self, stage, port):
        self.service, self.page, context = f"https://{HOST}:{port}", 0, signon.tls_context(stage)
        self.sockets, self.cookies = {}, {HOST: {}, SENTRY_HOST: {}}
        for host in self.cookies:
            connection = signon.Connection(host, port, context)
            connection.connect()
            self.sockets[host] = connection.sock
            connection.sock.setblocking(False)

    def begin(self, forgotten):
        """Sets out for a page, without the cookies of some hosts.

        Another one each time: a session that asks for tickets to the same page over and over is taken for a loop.
        """
        self.page += 1
        for host in forgotten:
            self.cookies[host] = {}
        self.begun, self.asked, self.forms = time.monotonic(), 0, 0
        self.way = signon.way(f"{self.service}/{self.page}", peers.USER, peers.PASSWORD)
        self.ask(*next(self.way))

    def ask(self, url, form):
        parts = urlsplit(url)
        self.host, self.got = parts.hostname, b""
        target = f"{parts.path or '/'}?{parts.query}".rstrip("?")
        fields = f"Host: {parts.netloc}\r\nUser-Agent: {signon.USER_AGENT}\r\n"
        fields += "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
        if self.cookies[self.host]:
            pairs = "; ".join(f"{name}={value}" for name, value in self.cookies[self.host].items())
            fields += f"Cookie: {pairs}\r\n"
        body = urlencode(form) if form else ""
        if form:
            fields += f"Origin: https://{parts.netloc}\r\nSec-Fetch-Site: same-origin\r\nContent-Length: {len(body)}\r\n"
            fields += "Content-Type: application/x-www-form-urlencoded\r\n"
        self.sockets[self.host].send(f"{'POST' if form else 'GET'} {target} HTTP/1.1\r\n{fields}\r\n{body}".encode())
        self.asked, self.forms = self.asked + 1, self.forms + bool(form)

    def hear(self, piece):
        """Whether the page is there; if not, the next step is taken when the answer is whole."""
        self.got += piece
        head, end, body = self.got.partition(b"\r\n\r\n")
        head = head.decode("latin-1") + "\r\n"
        length = LENGTH.search(head)
        if not end or length and len(body) < int(length.group(1)):
            return False
        if not length:
            raise Failed(f"an answer without a length: {head[:100]}")
        for name, value, more in COOKIE.findall(head):
            self.cookies[self.host][name] = value
            if "Max-Age=0" in more:
                del self.cookies[self.host][name]
        location = LOCATION.search(head)
        try:
            self.ask(*self.way.send((int(head[9:12]), location and location.group(1), body.decode())))
            return False
        except StopIteration:
            if len(body) != PAGE or self.host != HOST or signon.TOKEN_COOKIE not in self.cookies[HOST]:
                raise Failed(f"{len(body)} bytes from {self.host} are not the page") from None
            return True


class Visitors:
    def __init__(self, stage, port, count):
        self.selector = selectors.DefaultSelector()
        self.all = [Visitor(stage, port) for _ in range(count)]
        for one in self.all:
            for socket in one.sockets.values():
                self.selector.register(socket, selectors.EVENT_READ, one)

    def visit(self, seconds, forgotten):
        """Each begins again when it is there. How long, in milliseconds, how many requests and forms each way took."""
        begun, ways, under_way = time.monotonic(), [], len(self.all)
        for one in self.all:
            one.begin(forgotten)
        while under_way:
            for key, _ in self.selector.select(1):
                if not self.arrived(key):
                    continue
                one, now = key.data, time.monotonic()
                ways.append(((now - one.begun) * 1000, one.asked, one.forms))
                if now < begun + seconds:
                    one.begin(forgotten)
                else:
                    under_way -= 1
            if time.monotonic() > begun + seconds + PATIENCE:
                raise Failed(f"{under_way} are under way yet")
        return ways

    def arrived(self, key):
        while True:
            try:
                piece = key.fileobj.recv(65536)
            except ssl.SSLWantReadError:
                return False
            if not piece:
                raise Failed("a connection was closed")
            if key.data.hear(piece):
                return True

    def close(self):
        self.selector.close()
        for one in self.all:
            for socket in one.sockets.values():
                socket.close()
