"""A client that connects, asks once and leaves, one connection after the other, and says how often it did.

`python3 handshakes.py PORT CERTIFICATE SECONDS full|resumed COOKIE`: with `resumed`, each connection offers the session
of the one before it.
"""

import socket
import ssl
import sys
import time

from signon import USER_AGENT
from stage import HOST


def main(port, certificate, seconds, mode, cookie):
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["http/1.1"])
    lines = [f"GET / HTTP/1.1", f"Host: {HOST}:{port}", f"User-Agent: {USER_AGENT}", f"Cookie: {cookie}"]
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
    session, done, resumed, failed = None, 0, 0, 0
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", int(port)), 10) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(raw, server_hostname=HOST, session=session) as connection:
                connection.sendall(request)
                answer = b""
                while part := connection.recv(16384):
                    answer += part
                # In TLS 1.3 the session comes after the handshake, with what is read.
                session = connection.session if mode == "resumed" else None
                done += 1
                resumed += connection.session_reused
                failed += not answer.startswith(b"HTTP/1.1 200")
    print(f"figures done={done} resumed={resumed} failed={failed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
